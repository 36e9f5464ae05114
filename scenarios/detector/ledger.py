"""What one run of the detector has seen so far, line by line, so that one that was broken off goes
on where it stopped.
"""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from scenarios.detector.observed import Seen

LEDGER_FILE = "detector.jsonl"
CLEAN = "clean"
"""How sweeps with nothing planted are called, before their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One sweep, and what the gate said about it."""

    kind: str
    """Name of the plant, or ``CLEAN``."""
    chosen: str
    """Words that choose its points."""
    mode: str
    """One of MODES, or ``"runner"``."""
    number: int = 0
    """Of a clean sweep."""
    seen: Seen | None = None
    failure: str = ""
    """Why there is nothing to be seen, where the sweep could not be measured or judged."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What it is, whatever came out."""
        return self.kind, self.chosen, self.mode, self.number

    @property
    def name(self) -> str:
        """A name for its run directory, without the mode."""
        return (
            self.kind
            if self.kind != CLEAN
            else f"{CLEAN}-{self.chosen.replace(' and ', '-')}-{self.number:03d}"
        )


class Ledger:
    """The file, and what is in it. Threads add to it side by side."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        """Open or begin the ledger of ``folder``; raises UsageError where it was begun about
        something else.

        ``about`` is what must be the same for all sweeps of one ledger: the code, the versions.
        """
        self._path, self._lock = folder / LEDGER_FILE, threading.Lock()
        self.sweeps: dict[tuple[str, str, str, int], Sweep] = {}
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        rows = [row for row in map(_row, lines) if row]
        if not rows:
            folder.mkdir(parents=True, exist_ok=True)
            self._append({"about": about})
            return
        for name, value in about.items():
            then = rows[0].get("about", {}).get(name)
            if then != value:
                raise UsageError(
                    f"--out {folder} was begun with {name} {then}, and here it is {value}; "
                    "name another folder, or bring that back"
                )
        for row in rows[1:]:
            seen = None if row["seen"] is None else Seen.from_json(row["seen"])
            sweep = Sweep(**{**row, "seen": seen})
            # One that failed may have failed for the machine's sake: it is tried again.
            if seen is not None:
                self.sweeps[sweep.key] = sweep

    def add(self, sweep: Sweep) -> None:
        """Write one sweep down."""
        plain = {name: getattr(sweep, name) for name in Sweep.__slots__}
        with self._lock:
            self.sweeps[sweep.key] = sweep
            self._append({**plain, "seen": None if sweep.seen is None else sweep.seen.to_json()})

    def _append(self, row: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _row(line: str) -> dict[str, Any]:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return {}  # cut short when the detector was broken off; that sweep is measured again
    return row
