"""What makes a judgement one: the run, policy, baseline or other side, and version that it follows
from, as one short id.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.records import ROWS_FILE, RUN_FILE
from harness.seal import SEAL, digest

_DISTRIBUTION = "ptycho-memory"
_ID_CHARACTERS = 16
"""Chosen: 64 bits, and short enough to be read aloud."""
NONE = "none"
"""Instead of a checksum, where there is no such thing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Checksums of all that a judgement follows from; two that share them say the same."""

    run: str
    """Of run.json and rows.jsonl, whatever the order of their keys and lines."""
    policy: str
    baseline: str
    against: str
    """Of the run on the other side."""
    partial: bool
    version: str
    """Of the program that judged."""
    checks: str
    """Of everything that was concluded: a program under development keeps its version while it
    changes."""

    @property
    def id(self) -> str:
        """The one that every file of the judgement bears."""
        return digest(_canonical(asdict(self)))[:_ID_CHARACTERS]

    def to_json(self) -> dict[str, Any]:
        """As findings.json has it."""
        return {"id": self.id, **asdict(self)}


def identity(
    run: Path, sources: Mapping[str, str], *, partial: bool, checks: Sequence[Mapping[str, Any]]
) -> Identity:
    """That of a judgement of the run in the folder ``run``; ``sources`` are the checksums of what
    it was held against.
    """
    return Identity(
        run=run_digest(run),
        policy=sources.get("policy", NONE),
        baseline=sources.get("baseline", NONE),
        against=sources.get("against", NONE),
        partial=partial,
        version=program_version(),
        checks=value_digest(list(checks)),
    )


def run_digest(folder: Path) -> str:
    """The checksum of what was measured; where run.json is damaged, of its bytes. Raises OSError
    where a file is gone.
    """
    manifest, rows = (folder / RUN_FILE).read_bytes(), (folder / ROWS_FILE).read_bytes()
    try:
        found = json.loads(manifest)
    except (ValueError, RecursionError):
        found = None
    said = (
        _canonical({name: value for name, value in found.items() if name != SEAL})
        if isinstance(found, dict)
        else manifest
    )
    return digest(b"\n".join([said, *sorted(rows.splitlines())]))


def value_digest(value: object) -> str:
    """The checksum of anything that JSON can hold."""
    return digest(_canonical(value))


def program_version() -> str:
    """The version of the installed program; that of a checkout which nobody has installed is
    unknown.
    """
    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return f"unavailable: {_DISTRIBUTION} is not installed"


def _canonical(value: object) -> bytes:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str
    ).encode()
