"""What a finding about growth says beside its numbers: what grew, what it is at other edges of the
phase, what to look for.
"""

from harness.judge.attribution import (
    NOTHING_TOLD,
    AliveThen,
    alive_then,
    as_multiple,
    is_explained,
    slope_as_multiple,
)
from harness.judge.ceiling import Ceiling
from harness.judge.growth import Fit
from harness.judge.line import Line
from harness.judge.rules.evidence import TRACED_METER, Evidence
from harness.judge.rules.sentences import Edges, at_edges, search
from harness.judge.rules.series import Subject
from harness.judge.sizes import NAMED_STEPS, size_of, sizes_in_words, step_in_words
from harness.units import format_bytes


def attribution(evidence: Evidence, subject: Subject, line: Line) -> str:
    """What the growth is as large as, and what was alive; with a leading semicolon, or empty.

    Sizes coincide: where a trace says what grew, a multiple is named only if one kind of allocation
    alone makes it up.
    """
    multiple = slope_as_multiple(line, subject.series, evidence.declared)
    alive = _alive_of(evidence, subject)
    if alive.words:
        sizes = [size_of(point, subject.series.over) for point in alive.points]
        steps = sizes[-1] - sizes[0] if len(sizes) > 1 else sizes[0]
        multiple = multiple if is_explained(line.slope * steps, alive.grown_bytes) else ""
    return "".join(
        f"; {part}" for part in (f"as large as {multiple}" if multiple else "", alive.words) if part
    )


def level_attribution(evidence: Evidence, subject: Subject, level: Ceiling) -> str:
    """As ``attribution``, of an amount that levels off: what all of it is as large as."""
    alive = _alive_of(evidence, subject)
    declared = evidence.declared_by(subject.points[-1])
    multiple = as_multiple(
        level.level_bytes, {name: float(amount) for name, amount in declared.items()}
    )
    if alive.words and not is_explained(
        level.level_bytes - level.smallest_bytes, alive.grown_bytes
    ):
        multiple = ""
    return "".join(
        f"; {part}" for part in (f"as large as {multiple}" if multiple else "", alive.words) if part
    )


def _alive_of(evidence: Evidence, subject: Subject) -> AliveThen:
    if subject.meter != TRACED_METER:
        return NOTHING_TOLD
    return alive_then(evidence.traces(), subject.points, subject.phase, subject.field)


def edges_of(evidence: Evidence, subject: Subject, fit: Fit) -> Edges | None:
    """What the start, the peak and the end of the phase come to at the largest size, by the lines
    through the same runs.
    """
    growth, peak, retained = (
        evidence.fit(subject.series, subject.phase, subject.meter, name)
        for name in ("growth", "peak", "retained")
    )
    if growth is None or peak is None or retained is None:
        return None
    size = fit.sizes[-1]
    start = (peak.line.slope - growth.line.slope) * size
    return Edges(start=start, peak=peak.line.slope * size, end=start + retained.line.slope * size)


def fate_in_words(evidence: Evidence, subject: Subject, fit: Fit) -> str:
    """What it is at the other edges of the phase; after the amount, with a leading space, or empty
    where nothing tells.
    """
    words = at_edges(subject.field, edges_of(evidence, subject, fit))
    if not words or subject.largest_bytes < 0:
        return ""
    if subject.field != "growth":
        return words
    on_device = evidence.fit(subject.series, subject.phase, "device_in_use", "growth")
    emulated = subject.meter == "host_anon" and evidence.run.manifest.device.kind == "emulated"
    if emulated and on_device is not None and on_device.line.slope > fit.line.slope / 2:
        # Its allocator keeps pages that were touched once, so the fate of the tensors is told by
        # the device's own meter.
        return f"{words}, pages of the emulated device included"
    return words


def search_in_words(evidence: Evidence, subject: Subject, fit: Fit) -> str:
    """What to look for: in the phase, or in what was there before it."""
    first = subject.phase == subject.points[-1].phases[0]
    each = step_in_words(subject.series.over)
    if subject.largest_bytes < 0:
        return f"find what {subject.phase} does not give back for each {each}"
    return search(
        subject.field, edges_of(evidence, subject, fit), phase=subject.phase, first=first, each=each
    )


def level_in_words(over: str, level: Ceiling) -> str:
    """``"levels off at 4.0 MiB from 256 images on, a fixed amount that 64 images do not fill"``."""
    does = "does" if over not in NAMED_STEPS or level.smallest == 1 else "do"
    return (
        f"levels off at {format_bytes(level.level_bytes)} from "
        f"{sizes_in_words(over, level.from_size)} on, a fixed amount that "
        f"{sizes_in_words(over, level.smallest)} {does} not fill"
    )
