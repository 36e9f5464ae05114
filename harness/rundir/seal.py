"""The seal: checksums that a run gets at its end, so that a file that was cut, continued or edited
later is noticed; and the same for the tables that the gate derives.

They are no signature: whoever edits a file on purpose can write new checksums as well. Against that
stands the reviewer, who sees the run that an acceptance names, and the machine that measures again.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

from harness.errors import RunDirectoryError
from harness.records import ROWS_FILE, RUN_FILE, RecordError, from_json, to_json
from harness.system.files import FINDINGS_FILE, REPORT_FILE, remove_judgement

SEAL = "seal"
"""Key of run.json; absent until the run has ended."""

_CLOCKS_APART = timedelta(days=1)
"""Chosen: machines that are a day apart have a clock that somebody should look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """What run.json has under ``SEAL``."""

    plan_sha256: str
    """Of all of run.json but the seal itself, whatever the order of its keys."""
    rows_bytes: int
    """Size of rows.jsonl."""
    rows_sha256: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any], rows: bytes) -> Self:
        """The seal of a run whose run.json holds ``manifest`` and whose rows.jsonl holds
        ``rows``.
        """
        plan = {name: value for name, value in manifest.items() if name != SEAL}
        canonical = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return cls(
            plan_sha256=digest(canonical.encode()),
            rows_bytes=len(rows),
            rows_sha256=digest(rows),
        )


def seal_of(manifest: Mapping[str, Any], rows: bytes) -> dict[str, Any]:
    """``Seal.of``, as plain JSON values."""
    return to_json(Seal.of(manifest, rows))


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def broken_seal(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each of run.json and rows.jsonl that has changed since the run ended; none for
    a run without an end.

    ``manifest`` is what run.json holds, and rows.jsonl has to be there.
    """
    if manifest.get("ended") is None:
        return
    try:
        sealed = from_json(Seal, manifest.get(SEAL))
    except RecordError:
        yield (
            f"{RUN_FILE} has an end but no seal (the checksums that a run gets at its end): "
            "it was edited, or made by another version of this program; measure again"
        )
        return

    rows = (folder / ROWS_FILE).read_bytes()
    found = Seal.of(manifest, rows)
    if sealed.plan_sha256 != found.plan_sha256:
        yield (
            f"{RUN_FILE} was changed after the run had ended (its plan, device or settings); "
            "restore it, or measure again"
        )
    if sealed.rows_sha256 != found.rows_sha256:
        yield f"{ROWS_FILE} {_change(sealed, rows)}; restore it, or measure again"


def _change(sealed: Seal, rows: bytes) -> str:
    before_bytes = sealed.rows_bytes
    if len(rows) > before_bytes and digest(rows[:before_bytes]) == sealed.rows_sha256:
        return (
            f"has grown by {len(rows) - before_bytes:,} B since the run ended: something went on "
            "writing, or rows were added"
        )
    if len(rows) < before_bytes:
        return (
            f"has lost {before_bytes - len(rows):,} of the {before_bytes:,} B that it had when the "
            "run ended: it was cut short"
        )
    return "was changed after the run had ended"


def odd_times(started: str, ended: str | None, now: datetime) -> Iterator[str]:
    """A sentence where the times of run.json cannot be: an end before the start, or after
    ``now``.
    """
    if ended is None:
        return
    try:
        start, end = datetime.fromisoformat(started), datetime.fromisoformat(ended)
        backwards, ahead = end < start, end > now + _CLOCKS_APART
    except (ValueError, TypeError):
        yield (
            f"{RUN_FILE} has times that are none ({started!r} to {ended!r}): it was edited; "
            "restore it, or measure again"
        )
        return
    if backwards:
        yield (
            f"{RUN_FILE} says that the run ended ({ended}) before it started ({started}); "
            "restore it, or measure again"
        )
    if ahead:
        yield (
            f"{RUN_FILE} says that the run ended at {ended}, which is still to come: it was "
            "edited, or the clock of the machine that measured is wrong; set it, and "
            "measure again"
        )


# What the gate derives.


def edited_tables(
    folder: Path, derived: Mapping[str, Callable[[], str]], recorded: Mapping[str, str]
) -> tuple[str, ...]:
    """Names of the tables in ``folder`` that are not what the gate wrote there.

    ``derived`` makes their texts as they follow from the rows; ``recorded`` has the checksums of
    what the gate wrote last: a later version of this program may derive another text, and a gate
    that was killed has written only the tables.
    """
    there = {name: _digest_of(folder / name) for name in derived if (folder / name).exists()}
    return tuple(
        name
        for name, found in there.items()
        if found != recorded.get(name) and found != digest(derived[name]().encode())
    )


def table_digests(folder: Path) -> dict[str, str]:
    """The checksums of the tables that the gate wrote into ``folder`` last, by name; none where
    findings.json is absent or damaged.
    """
    try:
        found = json.loads((folder / FINDINGS_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    tables = found.get("tables") if isinstance(found, dict) else None
    return (
        {str(name): str(value) for name, value in tables.items()}
        if isinstance(tables, dict)
        else {}
    )


def forget_judgement(folder: Path) -> bool:
    """Remove the judgement, and those of its tables that nobody has edited, before more is
    measured; whether a page was there.

    They would be about a run that has changed. Raises RunDirectoryError where they cannot be
    removed.
    """
    had_page = (folder / REPORT_FILE).exists()
    try:
        for name, checksum in table_digests(folder).items():
            if "/" not in name and _digest_of(folder / name) == checksum:
                (folder / name).unlink()
        remove_judgement(folder)
    except OSError as error:
        raise RunDirectoryError(
            f"what was judged in {folder} cannot be removed: {error}"
        ) from error
    return had_page


def edited_in_words(name: str) -> str:
    """The sentence about a table that was edited."""
    return (
        f"{name} is not what the gate derived from {ROWS_FILE}: it was edited, or another "
        "version of this program wrote it. No verdict rests on it, and it is left as it "
        "is; delete it and run the gate again"
    )


def _digest_of(path: Path) -> str:
    """The checksum of a file; empty where it cannot be read, which no checksum is."""
    try:
        return digest(path.read_bytes())
    except OSError:
        return ""
