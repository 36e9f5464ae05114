"""What every instrument is: opened once in the child, then read at both edges of each phase."""

import dataclasses
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self

from harness.errors import MeterUnavailable, UsageError
from harness.records import LARGEST_GAP_SHARE, LEAST_SAMPLES, Quality, Reading
from harness.rundir.rows import Begin, Declared, PhaseRecord, Row
from harness.system.proc import started_ticks
from harness.words import phase_name

# The child's end of the line to the sampler.


# chosen: a span takes a kilobyte, and a list of the processes on a card a few
MESSAGE_BYTES = 1 << 16
SOCKET_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
"""Packets, so that a message is never cut. Elsewhere a stream does: nobody speaks before the other
has."""
# chosen: a driver's slowest answer that was told of took 2 s; a child must not wait for ever
_ANSWER_S = 10.0


class SamplerLine:
    """Asks, and waits for the answer. Once the sampler has failed, it stays failed for this
    child.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lost = ""

    @classmethod
    def connect(cls, address: str) -> Self:
        """Connect to the sampler and say who this process is. Raises MeterUnavailable with the
        reason when it cannot.
        """
        line = socket.socket(socket.AF_UNIX, SOCKET_KIND)
        line.settimeout(_ANSWER_S)
        try:
            line.connect(address)
        except OSError as error:
            line.close()
            raise MeterUnavailable(f"the sampler does not answer: {error}") from error
        connected = cls(line)
        connected.ask({"hello": os.getpid(), "started": started_ticks()})
        return connected

    @property
    def lost(self) -> str:
        """Why the sampler is not there any more; empty while it is."""
        return self._lost

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The sampler's answer. Raises MeterUnavailable when it refuses, or is gone."""
        if self._lost:
            raise MeterUnavailable(self._lost)
        try:
            self._line.sendall(json.dumps(request).encode())
            packet = self._line.recv(MESSAGE_BYTES)
        except OSError as error:
            self._lose(f"the sampler was lost: {error}")
        if not packet:
            self._lose("the sampler was lost: it has ended")
        answer: dict[str, Any] = json.loads(packet)
        if "refused" in answer:
            raise MeterUnavailable(str(answer["refused"]))
        return answer

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    def _lose(self, reason: str) -> NoReturn:
        self._lost = reason
        self._line.close()
        raise MeterUnavailable(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterContext:
    """What every instrument is built from."""

    device_name: str
    """TensorFlow's name of the device, as ``"CPU:0"``."""
    device: Mapping[str, Any]
    """The leased device, as the parent describes it: kind, name, uuid, limit_bytes."""
    sampler: SamplerLine | None = None
    """The line to the process that looks at this one and at the card."""
    without_sampler: str = "none was started"
    """Why there is no sampler, where there is none."""
    sampler_note: str = ""
    """What became of the sampler before this one."""


class Meter(Protocol):
    """One instrument. It may give several readings, when one look at it tells several things."""

    names: tuple[str, ...]
    """The readings it gives, also when it is unavailable."""

    def open(self) -> None:
        """Check that it can read here. Raises MeterUnavailable with the reason when it cannot."""

    def begin(self) -> None:
        """Note the start of a phase and forget earlier peaks."""

    def end(self) -> tuple[Reading, ...]:
        """The readings of the phase that ``begin`` started."""


class Paced(Protocol):
    """How a phase was polled."""

    @property
    def samples(self) -> int:
        """Looks in all."""

    @property
    def rate_hz(self) -> float:
        """Looks a second."""

    @property
    def largest_gap_s(self) -> float:
        """The longest time without one."""

    @property
    def duration_s(self) -> float:
        """Of the phase."""


def polled(
    meter: str,
    pace: Paced,
    amounts_bytes: tuple[int, int, int],
    *,
    source: str,
    reason: str = "",
    contended: str = "",
) -> Reading:
    """A reading of a meter that was polled over the phase; ``amounts_bytes`` are start, highest and
    end.
    """
    start_bytes, peak_bytes, end_bytes = amounts_bytes
    reading = Reading(
        meter=meter,
        quality=Quality.SAMPLED,
        start_bytes=start_bytes,
        peak_bytes=peak_bytes,
        end_bytes=end_bytes,
        samples=pace.samples,
        rate_hz=pace.rate_hz,
        largest_gap_s=pace.largest_gap_s,
        source=source,
        reason=reason,
        contended=contended,
    )
    return judged_by_its_pace(reading, pace.duration_s)


def read_at_edges(
    meter: str,
    start_bytes: int,
    end_bytes: int,
    *,
    source: str,
    reason: str,
    largest_gap_s: float | None = None,
) -> Reading:
    """A reading of a meter that was looked at when the phase began and when it ended, and not in
    between.
    """
    return Reading(
        meter=meter,
        quality=Quality.UNRESOLVED,
        start_bytes=start_bytes,
        peak_bytes=max(start_bytes, end_bytes),
        end_bytes=end_bytes,
        samples=2,
        largest_gap_s=largest_gap_s,
        source=source,
        reason=reason,
    )


def judged_by_its_pace(reading: Reading, duration_s: float) -> Reading:
    """A sampled reading as it is, or unresolved where it was sampled too thinly to say what the
    peak was.
    """
    samples, gap_s = reading.samples or 0, reading.largest_gap_s or 0.0
    if samples >= LEAST_SAMPLES and gap_s <= LARGEST_GAP_SHARE * duration_s:
        return reading
    how = f"{samples} samples, largest gap {gap_s * 1e3:.1f} ms of {duration_s * 1e3:.1f} ms"
    reason = "; ".join(filter(None, [f"sampled too coarsely to judge ({how})", reading.reason]))
    return dataclasses.replace(reading, quality=Quality.UNRESOLVED, reason=reason)


class AbsentMeter:
    """Stands in for a meter that cannot read here, so that every phase says so, with the reason."""

    def __init__(self, names: tuple[str, ...], reason: str) -> None:
        self.names = names
        self._readings = tuple(Reading.unavailable(name, reason) for name in names)

    def open(self) -> None:
        """Nothing to check: its absence is already known."""

    def begin(self) -> None:
        """Nothing to note."""

    def end(self) -> tuple[Reading, ...]:
        """One unavailable reading for each name."""
        return self._readings


# ``with memory.phase("construct"):`` - what a scenario's body is given to mark its phases with.


Emit = Callable[[Row], None]
"""Writes down what the run has just done."""


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
        begin = Begin(point=self._point, repeat=self._repeat, phase=name, index=len(self._seen) - 1)
        self._emit(begin)
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
            self._emit(
                PhaseRecord(
                    point=begin.point,
                    repeat=begin.repeat,
                    phase=name,
                    index=begin.index,
                    finished=finished,
                    duration_s=duration_s,
                    readings=readings,
                )
            )
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
        self._emit(Declared(point=self._point, repeat=self._repeat, values=amounts_bytes))
