"""A judgement read back from findings.json, so that a page can be made of what was judged and of
nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.judge.advice import Asked
from harness.judge.gate import SCHEMA_VERSION, Judgement
from harness.judge.growth import fit_run
from harness.judge.table import Run
from harness.judge.verdict import (
    Check,
    FindingKind,
    RuleName,
    Seen,
    Verdict,
    program_version,
    run_digest,
)
from harness.system.files import FINDINGS_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What findings.json of a run directory holds."""

    judgement: Judgement | None
    """None where it cannot be used."""
    asked: Asked
    """The arguments of that judgement, as far as they can be read; else the defaults."""
    why_not: str = ""


def kept_judgement(run: Run) -> Kept:
    """The judgement in a run directory, if it is complete, of this run, and what this program
    would have found.
    """
    document = _document(run.path / FINDINGS_FILE)
    if document is None:
        return Kept(judgement=None, asked=Asked(), why_not=f"{run.path} was not judged yet")
    asked = _asked(document)
    if (why := foreign(document, run.path)) or asked is None:
        return Kept(judgement=None, asked=asked or Asked(), why_not=why or "it is damaged")
    try:
        judgement = _judgement(document, run, asked)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Kept(judgement=None, asked=asked, why_not=f"{FINDINGS_FILE} is damaged ({error!r})")
    if judgement.identity(run).id != document["judgement"]["id"]:
        return Kept(
            judgement=None,
            asked=asked,
            why_not=f"{FINDINGS_FILE} was edited, or is of another version of this program",
        )
    return Kept(judgement=judgement, asked=asked)


def foreign(document: Mapping[str, Any], folder: Path) -> str:
    """Why findings are not those of the run as it lies in ``folder`` now; empty where they are."""
    if document.get("schema_version") != SCHEMA_VERSION:
        return (
            f"{FINDINGS_FILE} is of version {document.get('schema_version')!r}, and this "
            f"program reads {SCHEMA_VERSION}"
        )
    identity = document.get("judgement")
    said = identity.get("run") if isinstance(identity, dict) else None
    try:
        is_of_run = said == run_digest(folder)
    except OSError:
        is_of_run = False
    if is_of_run:
        return ""
    return (
        f"{FINDINGS_FILE} is not of this run as it is now: it was copied from another one, or "
        "more was measured since"
    )


def _document(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _asked(document: Mapping[str, Any]) -> Asked | None:
    try:
        return Asked.from_json(document["judgement"]["asked"])
    except (KeyError, TypeError):
        return None


def _judgement(document: Mapping[str, Any], run: Run, asked: Asked) -> Judgement:
    identity = document["judgement"]
    if identity["version"] != program_version():
        raise ValueError(f"version {identity['version']}")
    return Judgement(
        verdict=Verdict(tuple(map(_check, document["checks"]))),
        run_fits=fit_run(run),
        policy=str(document["policy"]),
        against=str(document.get("against", "")),
        asked=asked,
        sources={name: str(identity[name]) for name in ("policy", "baseline", "against")},
    )


def _check(found: Mapping[str, Any]) -> Check:
    values = {each.name: found[each.name] for each in fields(Check)}
    return Check(
        **{
            **values,
            "rule": RuleName(values["rule"]),
            "finding": None if values["finding"] is None else FindingKind(values["finding"]),
            "points": tuple(values["points"]),
            "readings": tuple(Seen(**one) for one in values["readings"]),
        }
    )
