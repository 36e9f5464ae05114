"""Is the run directory as the run and the gate left it? Honest accidents are noticed; ``harness.seal`` says what is not."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from harness.records import ROWS_FILE, RUN_FILE
from harness.seal import SEAL, digest, seal_of

_CLOCKS_APART = timedelta(days=1)
"""Chosen: machines that are a day apart have a clock that somebody should look at."""


def broken_seal(folder: Path) -> Iterator[str]:
    """A sentence for each of run.json and rows.jsonl that has changed since the run ended; none for a run without an end.

    Both files have to be there; run.json has to be an object.
    """
    manifest: dict[str, Any] = json.loads((folder / RUN_FILE).read_bytes())
    rows = (folder / ROWS_FILE).read_bytes()
    if manifest.get("ended") is None:
        return
    said, found = manifest.get(SEAL), seal_of(manifest, rows)
    if not isinstance(said, dict) or {name: type(value) for name, value in said.items()} != {n: type(v) for n, v in found.items()}:
        yield (
            f"{RUN_FILE} has an end but no seal (the checksums that a run gets at its end): it was edited, or made by another "
            "version of this program; measure again"
        )
        return
    if said["plan_sha256"] != found["plan_sha256"]:
        yield f"{RUN_FILE} was changed after the run had ended (its plan, device or settings); restore it, or measure again"
    if said["rows_sha256"] != found["rows_sha256"]:
        yield f"{ROWS_FILE} {_change(said['rows_bytes'], said['rows_sha256'], rows)}; restore it, or measure again"


def edited_tables(folder: Path, derived: Mapping[str, Callable[[], str]], recorded: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the tables in ``folder`` that are not what the gate wrote there.

    ``derived`` makes their texts as they follow from the rows; ``recorded`` has the checksums of what the gate wrote last,
    which decide where there are any: a later version of this program may derive another text.
    """
    there = [name for name in derived if (folder / name).exists()]
    return tuple(name for name in there if _digest_of(folder / name) != (recorded.get(name) or digest(derived[name]().encode())))


def odd_times(started: str, ended: str | None, now: datetime) -> Iterator[str]:
    """A sentence where the times of run.json cannot be: an end before the start, or after ``now``."""
    if ended is None:
        return
    try:
        start, end = datetime.fromisoformat(started), datetime.fromisoformat(ended)
        backwards, ahead = end < start, end > now + _CLOCKS_APART
    except (ValueError, TypeError):
        yield f"{RUN_FILE} has times that are none ({started!r} to {ended!r}): it was edited; restore it, or measure again"
        return
    if backwards:
        yield f"{RUN_FILE} says that the run ended ({ended}) before it started ({started}); restore it, or measure again"
    if ahead:
        yield (
            f"{RUN_FILE} says that the run ended at {ended}, which is still to come: it was edited, or the clock of the machine "
            "that measured is wrong; set it, and measure again"
        )


def _digest_of(path: Path) -> str:
    """The checksum of a file, or nothing's where it cannot be read: then it is not what the gate wrote."""
    try:
        return digest(path.read_bytes())
    except OSError:
        return ""


def edited_in_words(name: str) -> str:
    """What to say of such a table."""
    return (
        f"{name} is not what the gate derived from {ROWS_FILE}: it was edited, or another version of this program wrote it. "
        "No verdict rests on it, and it is left as it is; delete it and run the gate again"
    )


def _change(said_bytes: int, said_sha256: str, rows: bytes) -> str:
    if len(rows) > said_bytes and digest(rows[:said_bytes]) == said_sha256:
        return f"has grown by {len(rows) - said_bytes:,} B since the run ended: something went on writing, or rows were added"
    if len(rows) < said_bytes:
        return f"has lost {said_bytes - len(rows):,} of the {said_bytes:,} B that it had when the run ended: it was cut short"
    return "was changed after the run had ended"
