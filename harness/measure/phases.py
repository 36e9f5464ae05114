"""``with memory.phase("construct"):`` - what a scenario's body is given to mark its phases with."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.measure.meter import Meter
from harness.names import phase_name
from harness.records import PhaseRecord, to_json

Emit = Callable[[Mapping[str, Any]], None]


class Memory:
    """Measures the phases of one run; each one is emitted the moment it ends, so that a later death
    loses nothing.
    """

    def __init__(
        self, *, point: str, repeat: int, workspace: Path, meters: Sequence[Meter], emit: Emit
    ) -> None:
        self.workspace = workspace
        """Folder where the scenario's ``prepare`` put the input files."""
        self._point = point
        self._repeat = repeat
        self._meters = meters
        self._emit = emit
        self._seen: list[str] = []
        self._open_phase: str | None = None

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Measure the block as the phase ``name``.

        Raises UsageError for a name that is no text or cannot be shown; inside another phase; and
        when the name was used.
        """
        return self._phase(phase_name(name))

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        if self._open_phase is not None:
            raise UsageError(
                f"phase {name!r} was entered inside phase {self._open_phase!r}; phases "
                "follow one another"
            )
        if name in self._seen:
            raise UsageError(
                f"phase {name!r} was entered twice; give the second one a name of its own"
            )
        self._open_phase = name
        self._seen.append(name)
        identity: dict[str, Any] = {
            "point": self._point,
            "repeat": self._repeat,
            "phase": name,
            "index": len(self._seen) - 1,
        }
        self._emit({"kind": "begin", **identity})
        for meter in self._meters:
            meter.begin()
        started_s = time.perf_counter()
        finished = False
        try:
            yield
            finished = True
        finally:
            duration_s = time.perf_counter() - started_s
            # The last to begin is the first to end: the host's meter encloses the body alone.
            read = [meter.end() for meter in reversed(self._meters)]
            readings = tuple(reading for readings in reversed(read) for reading in readings)
            record = PhaseRecord(
                **identity, finished=finished, duration_s=duration_s, readings=readings
            )
            self._emit({"kind": "phase", **to_json(record)})
            self._open_phase = None

    def declare(self, **amounts_bytes: int) -> None:
        """Say what the body's arrays add up to, for example ``batch=4 * MIB``; the gate compares
        what was read with it.
        """
        for name, amount_bytes in amounts_bytes.items():
            if (
                isinstance(amount_bytes, bool)
                or not isinstance(amount_bytes, int)
                or amount_bytes < 0
            ):
                raise UsageError(
                    f"declared {name} is {amount_bytes!r}; declare a whole number of bytes, "
                    "0 or more"
                )
        self._emit(
            {
                "kind": "declared",
                "point": self._point,
                "repeat": self._repeat,
                "values": amounts_bytes,
            }
        )
