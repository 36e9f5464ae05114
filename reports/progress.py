"""How far measuring has come: one line, made of the rows that children append, and the terminal
that shows it meanwhile.

It only reads, in the process that the user started: whichever worker measures, its rows are in the
run directory.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean

from harness.errors import HarnessError
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import ROWS_FILE, TRACED_REPEAT, Point, Quality, is_size
from harness.rundir.manifest import Manifest, read_manifest
from harness.rundir.rows import (
    KINDS,
    Again,
    Announced,
    Begin,
    PhaseRecord,
    Remeasure,
    Row,
    RowError,
    RunEnd,
    RunKey,
    TraceEnd,
)
from harness.system import ONE_THREAD
from harness.words import format_bytes

LOOK_EVERY_S = 0.5
"""Chosen: a line that moves as phases do, for a look that takes well under a millisecond."""
PLAIN_EVERY_S = 30.0
"""Chosen: where lines stay, as in the log of a CI job, four to ten for a sweep of some minutes."""
_SETTLE_S = 0.05
"""Chosen: pytest writes three times where a test ends and the next begins; one change is seen."""
LEAST_ENDED = 3
"""Runs that have to have ended before the time that is left is told. Chosen: fewer say little."""
IMAGES = "image_count"
_WATCHED = {
    kind.kind for kind in (Begin, PhaseRecord, RunEnd, TraceEnd, Announced, Remeasure, Again)
}


class Watched:
    """One run directory that is measured into: what it plans, what has ended, what goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: Manifest | None = None
        """None as long as there is none."""
        self.points: dict[str, Point] = {}
        self.ended: dict[RunKey, float] = {}
        """How long each run has taken that has ended, in seconds."""
        self.latest: Begin | PhaseRecord | None = None
        """What the last row of a phase says."""
        self._repeats: dict[str, int] = {}
        self._further: Counter[str] = Counter()
        self._announcing: set[str] = set()
        self._phases: dict[RunKey, list[PhaseRecord]] = {}
        """The phases that each run has left, of those that go on or were heard of last."""
        self._descriptor: int | None = None
        self._offset = 0

    def look(self) -> None:
        """Read what has come since the last time. What cannot be read says nothing."""
        if self.manifest is None:
            self._read_plan()
        if self.manifest is not None:
            for row in self._new_rows():
                self._take(row)

    @property
    def now(self) -> str:
        """The point that was heard of last, its phase, and the highest that was read in this run
        so far, over what there was before its first phase.
        """
        latest = self.latest
        if latest is None:
            return ""
        point = self.points.get(latest.point)
        name = latest.point if point is None else point_in_words(point, self.points)
        read = _rise_in_words(self._phases.get(latest.run, []))
        return " ".join(filter(None, (name, latest.phase, read)))

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            # closing any descriptor of it gives the locks of the whole process back
            with ONE_THREAD:
                os.close(self._descriptor)
            self._descriptor = None

    @property
    def required(self) -> dict[str, int]:
        """How many runs each point still needs or has had, its traced one among them."""
        if self.manifest is None:
            return {}
        traces = bool(self.manifest.settings.get("traces"))
        return {
            name: self._repeats.get(name, self.manifest.repeats)
            + self._further[name]
            + (traces and point.traced)
            for name, point in self.points.items()
        }

    @property
    def is_open(self) -> bool:
        """Whether tests are left that will say only then what they measure."""
        return self.manifest is not None and not set(self.manifest.asked) <= self._announcing

    def _read_plan(self) -> None:
        try:
            self.manifest = read_manifest(self.path)
            self._descriptor = os.open(self.path / ROWS_FILE, os.O_RDONLY)
        except (HarnessError, OSError):
            self.manifest = None
            return
        self.points = {point.name: point for point in self.manifest.planned}

    def _new_rows(self) -> Iterator[Row]:
        """Whole lines only, and without the lock that children write under: nobody waits."""
        if self._descriptor is None:
            return
        missing = os.fstat(self._descriptor).st_size - self._offset
        found = os.pread(self._descriptor, missing, self._offset) if missing > 0 else b""
        whole = found[: found.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, TypeError, LookupError, RowError):
                values = json.loads(line)
                if values["kind"] in _WATCHED:
                    yield KINDS[values["kind"]].from_json(values)

    def _take(self, row: Row) -> None:
        match row:
            case Begin():
                self.latest = row
            case PhaseRecord():
                self.latest = row
                self._phases.setdefault(row.run, []).append(row)
            case RunEnd():
                self.ended[row.run] = row.duration_s
                self._forget_all_but(row.run)
            case TraceEnd():
                self.ended[row.point, TRACED_REPEAT] = row.duration_s
            case Again():
                self.ended.pop(row.run, None)
                self._phases.pop(row.run, None)
            case Remeasure():
                self._further[row.point] += row.repeats
            case Announced():
                self.points[row.point] = row.record
                self._announcing.add(row.test)
                if row.repeats is not None:
                    self._repeats[row.point] = row.repeats

    def _forget_all_but(self, last: RunKey) -> None:
        """The phases of runs that have ended, besides the one that was heard of last."""
        for run in self._phases.keys() & self.ended.keys() - {last}:
            del self._phases[run]


class Progress:
    """How far a session has come, in all run directories that it measures into."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        only_new: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``only_new``: what had ended before is not counted."""
        self._only_new = only_new
        self._watched = [Watched(path) for path in paths]
        self._clock = clock
        self._began_s: float | None = None
        self._before: set[tuple[Path, RunKey]] = set()
        """What had ended when it was looked at first, in a run that is resumed."""
        self._latest: Watched | None = None
        """Where the last row of a phase came from."""

    def look(self) -> None:
        """Read what has come since the last time."""
        for watched in self._watched:
            before = watched.latest
            watched.look()
            if watched.latest is not before:
                self._latest = watched
        if self._began_s is None and any(watched.manifest for watched in self._watched):
            self._began_s = self._clock()
            self._before = {key for key, _ in self._ends()}

    def close(self) -> None:
        """Let go of the files."""
        for watched in self._watched:
            watched.close()

    @property
    def done(self) -> int:
        """How many runs have ended."""
        return sum(len(watched.ended) for watched in self._watched) - self._uncounted

    @property
    def total(self) -> int:
        """How many runs are known to be wanted."""
        known = sum(sum(watched.required.values()) for watched in self._watched)
        return known - self._uncounted

    @property
    def left_s(self) -> float | None:
        """About how long the rest takes, in seconds; None where too little is known.

        By how long each point's runs have taken, else those of its scenario, else all, and by how
        many of them went on at a time.
        """
        new = {key: taken_s for key, taken_s in self._ends() if key not in self._before}
        if self._began_s is None or len(new) < LEAST_ENDED or self._is_open:
            return None
        worked_s, passed_s = sum(new.values()), self._clock() - self._began_s
        if worked_s <= 0 or passed_s <= 0:
            return None
        return sum(map(self._missing_s, self._watched)) * passed_s / worked_s

    @property
    def line(self) -> str:
        """``"12/66 loading-lazy 2,000 epoch_0 4.0 MiB, about 1:40 left"``; empty before anything
        was measured.
        """
        if not self.total or (self._latest is None and not self.done):
            return ""
        left_s = self.left_s if self.done < self.total else None
        left = "" if left_s is None else f", about {clock_time(left_s)} left"
        counted = f"{self.done}/{self.total}{'+' if self._is_open else ''}"
        now = "" if self._latest is None else self._latest.now
        return " ".join(filter(None, (counted, now))) + left

    @property
    def _uncounted(self) -> int:
        return len(self._before) if self._only_new else 0

    @property
    def _is_open(self) -> bool:
        return any(watched.is_open for watched in self._watched)

    def _ends(self) -> Iterator[tuple[tuple[Path, RunKey], float]]:
        for watched in self._watched:
            for run, taken_s in watched.ended.items():
                yield (watched.path, run), taken_s

    def _missing_s(self, watched: Watched) -> float:
        by_point, by_scenario = defaultdict(list), defaultdict(list)
        for (name, _), taken_s in watched.ended.items():
            by_point[name].append(taken_s)
            if name in watched.points:
                by_scenario[watched.points[name].scenario].append(taken_s)
        every = [taken_s for _, taken_s in self._ends()]

        return sum(
            (number - len(by_point[name]))
            * mean(by_point[name] or by_scenario[watched.points[name].scenario] or every)
            for name, number in watched.required.items()
            if number > len(by_point[name])
        )


def clock_time(seconds: float) -> str:
    """A time as a clock has it.

    >>> clock_time(100.4), clock_time(3_725)
    ('1:40', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def point_in_words(point: Point, beside: Mapping[str, Point]) -> str:
    """A point in few words: its scenario, its texts, its number of images, and whatever else tells
    it from most points of its scenario.
    """
    alike = [other for other in beside.values() if other.scenario == point.scenario]
    names = [point.scenario]
    sizes: list[str] = []
    for name, value in point.parameters.items():
        if isinstance(value, str):
            names.append(value)
        elif name == IMAGES and is_size(value):
            sizes.insert(0, f"{value:,}")
        elif value != _most_common([other.parameters.get(name) for other in alike]):
            sizes.append(f"{name}={value:,}" if is_size(value) else f"{name}={value}")
    return " ".join(["-".join(names), *sizes])


def _most_common(values: Sequence[object]) -> object:
    """The value that several points share; None where no two do."""
    (value, number), *_ = Counter(values).most_common(1) or [(None, 0)]
    return value if number > 1 else None


def _rise_in_words(records: Sequence[PhaseRecord]) -> str:
    """The highest peak on the device, else on the host, over the start of the first phase."""
    before: dict[str, int] = {}
    rises: dict[str, int] = {}
    for record in records:
        for reading in record.readings:
            meter, start, peak = reading.meter, reading.start_bytes, reading.peak_bytes
            if reading.quality is Quality.UNAVAILABLE or start is None or peak is None:
                continue
            rise = peak - before.setdefault(meter, start)
            rises[meter] = max(rise, rises.get(meter, rise))
    if DEVICE_IN_USE in rises:
        return format_bytes(rises[DEVICE_IN_USE])
    return f"host {format_bytes(rises[HOST_ANON])}" if HOST_ANON in rises else ""


# The terminal. rich's own live display wants to be the only one that writes there; below pytest's
# dots it is not. So the line is drawn by hand, and taken away before anybody else writes.


_UP, _ERASE = "\x1b[A", "\r\x1b[2K"  # ECMA-48: CUU, and EL with parameter 2
_UNFIT = ("", "dumb")
"""Terminals without these."""


def is_terminal(descriptor: int) -> bool:
    """Whether a line can be drawn there, and taken away again."""
    return os.isatty(descriptor) and os.environ.get("TERM", "") not in _UNFIT


class LiveLine:
    """A line below whatever was written to a terminal, drawn again as often as it changes, by a
    thread of its own.

    Whoever else writes there does so in ``aside``, where the line is not.
    """

    def __init__(
        self, descriptor: int, text: Callable[[], str], *, column: Callable[[], int] = lambda: 0
    ) -> None:
        """``text`` gives the line; empty means none. ``column`` says how many characters the
        last line that others have written holds, where they have not ended it.
        """
        self._descriptor, self._text, self._column = descriptor, text, column
        self._shown, self._from = "", 0
        self._lock = threading.RLock()
        self._over, self._changed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to draw, after the first interval: what is quickly over shows nothing."""
        self._over.clear()
        self._changed.clear()
        self._thread = threading.Thread(target=self._draw_on, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the line away, and draw no more."""
        self._over.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            self._erase()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """The line is away while others write, and there again soon afterwards, once for several
        that follow each other.
        """
        with self._lock:
            shown = self._shown
            self._erase()
            try:
                yield
            finally:
                if shown:
                    self._changed.set()

    def _draw_on(self) -> None:
        while not self._over.is_set():
            if self._changed.wait(LOOK_EVERY_S):
                self._changed.clear()
                self._over.wait(_SETTLE_S)
            text = self._text()
            with self._lock:
                if text != self._shown and not self._over.is_set():
                    self._draw(text)

    def _draw(self, text: str) -> None:
        if not text:
            self._erase()
            return
        width = self._width()
        cut = text if len(text) < width else f"{text[: width - 4]}..."
        if self._shown:
            self._write(f"{_ERASE}{cut}")
        else:
            self._from = self._column()
            self._write(f"\n{cut}" if self._from else cut)
        self._shown = text

    def _erase(self) -> None:
        if self._shown:
            back = f"{_UP}\x1b[{self._from + 1}G" if self._from else ""
            self._write(f"{_ERASE}{back}")
        self._shown = ""

    def _write(self, text: str) -> None:
        # a terminal that has gone is nobody's mistake
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode(errors="replace"))

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._descriptor).columns or 80
        except OSError:
            return 80


@contextlib.contextmanager
def live_line(descriptor: int, text: Callable[[], str]) -> Iterator[None]:
    """The line while the block runs, where ``descriptor`` is a terminal; else nothing."""
    if not is_terminal(descriptor):
        yield
        return
    live = LiveLine(descriptor, text)
    live.start()
    try:
        yield
    finally:
        live.stop()


class SessionDisplay:
    """How far a session of pytest has come, on its terminal: a line below pytest's own, drawn while
    tests run, or a line of its own now and then.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        drawn: bool,
        column: Callable[[], int],
        write_line: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``drawn``: standard output is a terminal that nobody else writes to. ``column`` flushes
        it, and says how long its last line is; ``write_line`` writes a line below it.
        """
        self.doing = ""
        """What is done besides measuring; empty while it is measured."""
        self._progress = Progress(paths, clock=clock)
        self._column, self._write_line, self._clock = column, write_line, clock
        self._written_s, self._written = clock(), ""
        # its own descriptor: while a test runs, pytest has put a file in place of the other
        self._descriptor = _duplicate_of_stdout() if drawn else None
        self._live: LiveLine | None = None
        if self._descriptor is not None and is_terminal(self._descriptor):
            self._live = LiveLine(self._descriptor, self._text, column=column)
            self._live.start()

    def close(self) -> None:
        """Take the line away, and let go of everything."""
        self.pause()
        self._progress.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def pause(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()

    def go_on(self) -> None:
        """Draw it again."""
        if self._live is not None:
            self._live.start()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """In the block others write. Where the line is not drawn, it may be written after it."""
        if self._live is not None:
            with self._live.aside():
                yield
                self._column()  # what they have written is there before the line is
            return
        yield
        if self._clock() - self._written_s >= PLAIN_EVERY_S:
            self._written_s = self._clock()
            text = self._text()
            if text and text != self._written:
                self._written = text
                self._write_line(text)

    def _text(self) -> str:
        self._progress.look()
        return self.doing or self._progress.line


def _duplicate_of_stdout() -> int | None:
    try:
        return os.dup(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return None
