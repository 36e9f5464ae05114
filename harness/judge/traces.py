"""The traces of a run: read and checked."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.errors import RunDirectoryError
from harness.judge.manifest import first_error
from harness.judge.table import Run
from harness.records import TRACE_SCHEMA_VERSION, TRACES_FOLDER
from harness.tensors import COPY_TO_CARD, tensors_in_words, without_operation
from harness.units import format_bytes

_MOST_BYTES = 512 * 1024 * 1024
"""Chosen: what a file may hold unpacked, a hundred times the largest trace of the catalogue; a
small one can unpack to anything."""

# More than any machine has, or any run lasts in nanoseconds, and far inside 64 bits, sums of
# differences included.
_MOST = 2**60
_Amount = Annotated[int, Field(ge=0, le=_MOST)]
_Step = Annotated[int, Field(ge=-_MOST, le=_MOST)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Alive(_Strict):
    """Allocations of one operation, shape and size, live at the same moment; empty texts where
    TensorFlow named nothing.
    """

    op: str
    shape: str
    dtype: str
    region: str
    each_bytes: _Amount
    count: Annotated[int, Field(ge=1)]
    like: str
    """``"1.00 x batch"``, or empty."""

    @property
    def total_bytes(self) -> int:
        """Of all of them."""
        return self.each_bytes * self.count

    @property
    def what(self) -> str:
        """``"float32 [64,64,64,4] by Empty"``."""
        tensor = f"{self.dtype} {self.shape}" if self.shape else self.dtype or "memory"
        if self.op == COPY_TO_CARD:
            return f"{COPY_TO_CARD} of {tensor}" if self.shape else COPY_TO_CARD
        return f"{tensor} by {self.op}" if self.op else f"{tensor} without an operation"

    @property
    def short(self) -> str:
        """``"Empty (64, 64, 64, 4) float32, 4.0 MiB, 1.00 x batch"``, for a list inside a
        sentence.
        """
        return tensors_in_words(
            op=self.op,
            shape=self.shape,
            dtype=self.dtype,
            count=self.count,
            total_bytes=self.total_bytes,
            like=self.like,
        )

    @property
    def counted(self) -> tuple[str, int, int]:
        """``short``, how many they are, and their bytes: what ``harness.tensors.largest_in_words``
        ranks.
        """
        return self.short, self.count, self.total_bytes

    @property
    def sentence(self) -> str:
        """What they are, in one line: how many, of which size, by whom, and what of the scenario's
        they are as large as.
        """
        if not self.op:
            words = without_operation(
                shape=self.shape,
                dtype=self.dtype,
                count=self.count,
                each_bytes=self.each_bytes,
                like=self.like,
            )
            return f"{format_bytes(self.total_bytes)}: {words}" if self.count > 1 else words
        like = f", {self.like}{' each' if self.count > 1 else ''}" if self.like else ""
        each = f", {format_bytes(self.each_bytes)} each" if self.count > 1 else ""
        return f"{format_bytes(self.total_bytes)}: {self.count:,} x {self.what}{each}{like}"


class Edges(_Strict):
    """Start, peak and end of a phase, in bytes."""

    start_bytes: _Amount
    peak_bytes: _Amount
    end_bytes: _Amount


class TracedPhase(_Strict):
    """One phase; times in nanoseconds since the recording began."""

    phase: str
    index: _Amount
    finished: bool
    start_ns: _Step
    peak_ns: _Step
    end_ns: _Step
    requested: Edges
    """What was asked for since the recording began, unquantised."""
    allocator: Edges
    """What the allocator had in use by its own count."""
    alive: tuple[Alive, ...]
    """What the requested bytes were at their peak, the largest total first."""


class Timeline(_Strict):
    """What was live after each event: three columns, each value the difference to the one
    before.
    """

    time_ns: tuple[_Step, ...]
    requested_bytes: tuple[_Step, ...]
    allocator_bytes: tuple[_Step, ...]

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len({len(self.time_ns), len(self.requested_bytes), len(self.allocator_bytes)}) > 1:
            raise ValueError("its three columns differ in length")
        return self

    def whole(self) -> tuple[list[int], list[int], list[int]]:
        """Times, requested bytes and allocator's bytes as they were."""
        return (
            list(accumulate(self.time_ns)),
            list(accumulate(self.requested_bytes)),
            list(accumulate(self.allocator_bytes)),
        )


class Counts(_Strict):
    """What was replayed, and what did not fit."""

    allocations: _Amount
    deallocations: _Amount
    from_before: _Amount
    reordered: _Amount
    jumps: _Amount
    overwritten: _Amount
    resized: _Amount
    other_allocators: Mapping[str, _Amount]


class OutOfMemory(_Strict):
    """The moment at which the device's memory was refused."""

    phase: str | None
    shape: str
    dtype: str
    asked_bytes: _Amount | None
    """None where the error does not tell."""
    like: str
    requested_bytes: _Amount
    allocator_bytes: _Amount
    alive: tuple[Alive, ...]


class Trace(_Strict):
    """One file of traces/."""

    schema_version: int
    point: str
    device: str
    allocator: str
    tensorflow: str
    limit_bytes: _Amount | None
    base_bytes: _Amount
    """In use by the allocator's count when the recording began."""
    declared: Mapping[str, _Amount]
    phases: tuple[TracedPhase, ...]
    timeline: Timeline
    counts: Counts
    out_of_memory: OutOfMemory | None


@dataclass(frozen=True, slots=True)
class Traces:
    """All traces of a run that can be read, by point, in the order of the plan; and why there is
    none of the others.
    """

    found: Mapping[str, Trace]
    absent: Mapping[str, str]
    """By point: the reason, as a clause."""

    @property
    def notes(self) -> Iterator[str]:
        """``"No trace of POINT, because ..."``, one for each reason."""
        by_reason: dict[str, list[str]] = {}
        for point, reason in self.absent.items():
            by_reason.setdefault(reason, []).append(point)
        for reason, points in by_reason.items():
            yield f"No trace of {', '.join(points)}, because {reason}"


def read_traces(run: Run) -> Traces:
    """Every trace of the run; a run that planned none has none, and none is missed."""
    found: dict[str, Trace] = {}
    absent: dict[str, str] = {}
    if not run.manifest.settings.get("traces"):
        return Traces(found, absent)
    for point in run.points:
        end = run.traces.get(point.name)
        if end is None and not point.traced:
            continue
        if end is None:
            absent[point.name] = "its traced run has no end: it was broken off, or left out"
        elif end.file is None:
            absent[point.name] = end.reason or "its child told nothing of it"
        else:
            try:
                found[point.name] = read_trace(run.path / TRACES_FOLDER / end.file, point.name)
            except RunDirectoryError as error:
                absent[point.name] = str(error)
    return Traces(found, absent)


def read_trace(path: Path, point: str) -> Trace:
    """The trace of ``point``. Raises RunDirectoryError where it is missing, damaged, of another
    version or point.
    """
    text = _unpack(path)
    version = _version(text, path)
    if version != TRACE_SCHEMA_VERSION:
        raise RunDirectoryError(
            f"{path} has schema_version {version!r}; this program reads version "
            f"{TRACE_SCHEMA_VERSION}: measure again"
        )
    try:
        trace = Trace.model_validate_json(text)
    except ValidationError as error:
        raise RunDirectoryError(
            f"{path} is damaged: {first_error(error)}; measure again"
        ) from error
    if trace.point != point:
        raise RunDirectoryError(
            f"{path} is the trace of {trace.point}, not of {point}; measure again"
        )
    return trace


def _unpack(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            text = file.read(_MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise RunDirectoryError(f"{path} is not there any more; measure again") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RunDirectoryError(
            f"{path} is damaged or cut short, not gzip: {error}; measure again"
        ) from error
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be read: {error}") from error
    if len(text) > _MOST_BYTES:
        raise RunDirectoryError(
            f"{path} unpacks to more than {format_bytes(_MOST_BYTES)}, which no trace has; "
            "measure again"
        )
    return text


def _version(text: bytes, path: Path) -> object:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RunDirectoryError(f"{path} is damaged, not JSON; measure again") from error
    if not isinstance(found, dict):
        raise RunDirectoryError(
            f"{path} is damaged: it holds a {type(found).__name__} instead of an object; "
            "measure again"
        )
    return found.get("schema_version")
