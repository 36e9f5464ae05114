"""Runs in the child. Here: what a body meets (``Memory`` and its phases), and what a meter is:
opened once in the child, then read at both edges of each phase.
"""

import dataclasses
import json
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

from harness.errors import MeterUnavailable, UsageError
from harness.records import LARGEST_GAP_SHARE, LEAST_SAMPLES, Quality, Reading
from harness.rundir.rows import Begin, Declared, PhaseRecord, Row
from harness.system.proc import HostState, started_ticks
from harness.words import phase_name

# What a body marks its phases with, ``with memory.phase("construct"):``, and what a meter is.


Emit = Callable[[Row], None]
"""Writes down what the run has just done."""


class Meter(Protocol):
    """One instrument. It gives several readings when one look at it shows several amounts."""

    names: tuple[str, ...]
    """The readings it gives, also when it is unavailable."""

    def open(self) -> None:
        """Check that it can read here. Raises MeterUnavailable with the reason when it cannot."""

    def begin(self) -> None:
        """Note the start of a phase and forget earlier peaks."""

    def end(self) -> tuple[Reading, ...]:
        """The readings of the phase that ``begin`` started."""


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
            readings = tuple(chain.from_iterable(reversed(read)))  # in the meters' order again
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


# What meters are made from, and how what they have read becomes a reading.


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterContext:
    """What every instrument is built from."""

    device_name: str
    """TensorFlow's name of the device, as ``"CPU:0"``."""
    device: Mapping[str, Any]
    """The leased device, as the parent describes it: kind, name, uuid, limit_bytes."""
    sampler: "SamplerLine | None" = None
    """The line to the process that looks at this one and at the card."""
    without_sampler: str = "none was started"
    """Why there is no sampler, where there is none."""
    sampler_note: str = ""
    """What became of the sampler before this one."""


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
    return unresolved_if_thin(reading, pace.duration_s)


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


def unresolved_if_thin(reading: Reading, duration_s: float) -> Reading:
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


# The line to the sampler. Each request is a record, and names the record that answers it. As JSON a
# request is {"request": "OpenCard", "uuid": ...}, and its answer
# {"answer": {...}} or {"refused": REASON}.


Answer = TypeVar("Answer")
# chosen: a span takes a kilobyte, and a list of the processes on a card a few
MESSAGE_BYTES = 1 << 16
SOCKET_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
"""Packets, so that a message is never cut. Elsewhere a stream does: nobody speaks before the other
has."""
_ANSWER_S = 10.0
"""Chosen: the slowest answer reported for a driver took 2 s; a child must not wait for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """The sampler knows who is connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOpened:
    """The sampler can read the child's counters."""

    tells_anon: bool
    """Whether they separate the child's own memory from mapped files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpan:
    """Host memory over one phase."""

    start_anon_bytes: int
    end_anon_bytes: int
    low_anon_bytes: int
    """The peak of anon was at least this."""
    high_anon_bytes: int
    """The peak of anon was at most this."""
    start_resident_bytes: int
    end_resident_bytes: int
    highest_resident_bytes: int
    start_mapped_bytes: int
    end_mapped_bytes: int
    highest_mapped_bytes: int
    lag_bytes: int
    windows: int
    samples: int
    rate_hz: float
    largest_gap_s: float
    blind_s: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CardOpened:
    """The sampler can read the card."""

    source: str
    """Which of NVML's queries gives the bytes in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardBegun:
    """A phase of the card has begun."""

    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSpan:
    """Bytes in use on the card over one phase."""

    start_bytes: int
    peak_bytes: int
    end_bytes: int
    samples: int
    rate_hz: float
    largest_gap_s: float
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What the driver reports at one edge of a phase; an amount that it does not is None, with the
    reason.
    """

    process_bytes: int | None = None
    not_listed: str = ""
    others: str = ""
    """Who else computes on the card, in words."""
    others_unknown: str = ""
    """Why that is unknown; empty when it is known."""
    accounted_bytes: int | None = None
    """The most that the process ever held until now."""
    not_accounted: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CardPhase:
    """One phase of one card."""

    span: CardSpan
    start: Edge
    end: Edge


class Request(ABC, Generic[Answer]):
    """A question to the sampler, answered by one kind of record."""

    @abstractmethod
    def read(self, answer: Mapping[str, Any]) -> Answer:
        """The record out of the JSON of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Request[Met]):
    """Who is connected: the first request on each line."""

    process: int
    started_ticks: int
    """When the process was started: its id may be used again."""

    def read(self, answer: Mapping[str, Any]) -> Met:
        """Nothing more."""
        return Met(**answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenHost(Request[HostOpened]):
    """Open the child's counters of host memory."""

    def read(self, answer: Mapping[str, Any]) -> HostOpened:
        """What they can tell."""
        return HostOpened(**answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginHost(Request[HostState]):
    """Begin a phase of host memory."""

    def read(self, answer: Mapping[str, Any]) -> HostState:
        """The first look."""
        return HostState(**answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndHost(Request[HostSpan]):
    """End the phase of host memory."""

    def read(self, answer: Mapping[str, Any]) -> HostSpan:
        """What was seen over it."""
        return HostSpan(**answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCard(Request[CardOpened]):
    """Open a card."""

    uuid: str

    def read(self, answer: Mapping[str, Any]) -> CardOpened:
        """What it can tell."""
        return CardOpened(**answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginCard(Request[CardBegun]):
    """Begin a phase of the card."""

    def read(self, answer: Mapping[str, Any]) -> CardBegun:
        """The first look."""
        return CardBegun(**answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndCard(Request[CardPhase]):
    """End the phase of the card."""

    def read(self, answer: Mapping[str, Any]) -> CardPhase:
        """What was seen over it."""
        return CardPhase(
            span=CardSpan(**answer["span"]),
            start=Edge(**answer["start"]),
            end=Edge(**answer["end"]),
        )


REQUESTS: Mapping[str, type[Request[Any]]] = {
    kind.__name__: kind
    for kind in (Hello, OpenHost, BeginHost, EndHost, OpenCard, BeginCard, EndCard)
}
"""Every request, by its name in JSON."""


class SamplerLine:
    """The child's end of the line to the sampler. Once the sampler has failed, it stays failed for
    this child.
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
        try:
            connected.ask(Hello(process=os.getpid(), started_ticks=started_ticks()))
        except MeterUnavailable:
            line.close()
            raise
        return connected

    def ask(self, request: Request[Answer]) -> Answer:
        """The sampler's answer. Raises MeterUnavailable when it refuses, or is gone."""
        if self._lost:
            raise MeterUnavailable(self._lost)
        message = {"request": type(request).__name__, **_fields_of(request)}
        answer = self._exchange(json.dumps(message).encode())
        if "refused" in answer:
            raise MeterUnavailable(str(answer["refused"]))
        return request.read(answer["answer"])

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    def _exchange(self, packet: bytes) -> Mapping[str, Any]:
        try:
            self._line.sendall(packet)
            answer = self._line.recv(MESSAGE_BYTES)
        except OSError as error:
            self._lose(f"the sampler was lost: {error}")
        if not answer:
            self._lose("the sampler was lost: it has ended")
        try:
            found: Mapping[str, Any] = json.loads(answer)
        except ValueError:
            self._lose("the sampler was lost: its answer cannot be read")
        return found

    def _lose(self, reason: str) -> NoReturn:
        self._lost = reason
        self._line.close()
        raise MeterUnavailable(reason)


def _fields_of(request: Request[Any]) -> Mapping[str, Any]:
    assert dataclasses.is_dataclass(request)  # noqa: S101 - every request is one
    return dataclasses.asdict(request)
