"""What a rule is given, and the words in which its checks name a place."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.judge.advice import LESS_ON_PURPOSE, Commands
from harness.judge.baseline import Baseline
from harness.judge.comparison import Against
from harness.judge.completeness import Census
from harness.judge.growth import Fit, Series, planned_series
from harness.judge.policy import MARKER, Policy
from harness.judge.table import Place, Run
from harness.judge.traces import Trace
from harness.judge.verdict import Seen
from harness.names import one_line, shortened
from harness.records import Point, Scalar
from harness.units import format_bytes

_MOST_BYTES = 100
"""Of a text of the user's in a sentence. Chosen: a line of a terminal; the whole text is in
rows.jsonl."""
METER_WORDS: Mapping[str, str] = {
    "device_in_use": "device in use",
    "host_anon": "host anonymous memory",
    "host_mapped": "host memory of mapped files",
    "host_rss": "host resident memory",
    "nvml_device_used": "device used (driver)",
    "nvml_process": "process on the device (driver)",
}
"""Meters in plain words; one that is not listed is called by its name."""
TRACED_METER = "device_in_use"
"""The meter whose bytes the traces of a run explain."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Everything that rules judge by. Nothing in it depends on the order of the rows."""

    run: Run
    policy: Policy
    fits: Mapping[tuple[str, str, str, str, str], Fit]
    """By ``fit_key``."""
    readings: Mapping[Place, Mapping[int, int]]
    """By point, phase, meter and field: bytes of every repeat that finished the phase, by its
    number."""
    declared: Mapping[str, Mapping[str, int]]
    """By point: what its body said its arrays add up to; a point whose body said nothing may be
    absent."""
    census: Census
    baseline: Baseline | None
    against: Against | None
    """What was measured beside the run to be compared with; then the baseline is made of it."""
    baselines_folder: Path
    traces: Callable[[], Mapping[str, Trace]]
    """The traces of the run by point, read when they are first asked for."""
    partial: bool
    """Only what the run planned is asked for."""
    commands: Commands
    """What advice may tell people to type, with the arguments that the run is judged with."""

    def declared_by(self, point: Point) -> Mapping[str, int]:
        """What the body of a point declared; the least where repeats differ, so that a limit is
        never wider.
        """
        return self.declared.get(point.name, {})

    def or_less(self, because: str = "") -> str:
        """The end of ``"measure more"``: that less may have been meant.

        Nothing where the rule (``because``) is a marker's and its session left no point out: there
        nothing was meant.
        """
        left_out = self.run.manifest.settings.get("left_out")
        return "" if because.startswith(MARKER) and left_out == 0 else f", or {LESS_ON_PURPOSE}"

    def fit(self, series: Series, phase: str, meter: str, field: str) -> Fit | None:
        """The fit of a series, or None when fewer than two sizes have been read."""
        return self.fits.get(fit_key(series, phase, meter, field))

    def was_remeasured(self, *points: str) -> bool:
        """Whether any of these points was measured again, and all further repeats of all of them
        have ended.

        Until then no quorum can decide, and whatever the rule itself says stands.
        """
        owed = [
            (point, repeat)
            for point in points
            for repeat in self.run.repeats_of(point)[self.run.first_repeats_of(point) :]
        ]
        return bool(owed) and all(run in self.census.ends for run in owed)


def fit_key(series: Series, phase: str, meter: str, field: str) -> tuple[str, str, str, str, str]:
    """What tells a fit from all others: no two series over one parameter share a point."""
    return series.over, series.points[0].name, phase, meter, field


def limit_place(policy: Policy, name: str, because: str) -> str:
    """Where a limit stands: ``"slope rule 2 of scenarios/gate.toml"``, ``"the marker of
    tests/test_x.py::test_y"``.
    """
    return f"the {because}" if because.startswith(MARKER) else f"{name} of {policy.source}"


def marker_of(because: str) -> str:
    """``"the marker of tests/test_x.py::test_y"`` without what the rule says besides; empty for
    rules of a file.
    """
    return f"the {because.partition(': ')[0]}" if because.startswith(MARKER) else ""


def point_place(point: Point, *more: str) -> str:
    """``"loading / lazy / image_count=500 / stack_size=2048"`` and what follows."""
    return " / ".join([text_in_words(point.scenario), *_settings_in_words(point.parameters), *more])


def series_place(series: Series, points: tuple[Point, ...], *more: str) -> str:
    """``"loading / lazy"`` and what follows; numbers are named only where they tell two series of
    the sweep apart.
    """
    texts = _texts(series)
    twins = [
        other
        for other in planned_series(points)
        if other.over == series.over and other.scenario == series.scenario
    ]
    ambiguous = sum(_texts(twin) == texts for twin in twins) > 1
    constants = series.constants if ambiguous else texts
    return " / ".join([text_in_words(series.scenario), *_settings_in_words(constants), *more])


def text_in_words(text: str) -> str:
    """A text of the user's as sentences have it: on one line, and cut where it is long."""
    return shortened(one_line(text), _MOST_BYTES)


def meter_words(meter: str) -> str:
    """The meter in plain words."""
    return METER_WORDS.get(meter, meter)


def runs_in_words(amounts: tuple[int, ...]) -> str:
    """How many, and how far they lie apart: ``"1 run"``, ``"2 runs, all alike"``, ``"4 runs, 8.0 to
    9.0 MiB, spread 1.0 MiB"``.
    """
    if len(amounts) == 1:
        return "1 run"
    least, most = min(amounts), max(amounts)
    if least == most:
        return f"{len(amounts)} runs, all alike"
    low, high = format_bytes(least), format_bytes(most)
    span = f"all about {low}" if low == high else f"{low} to {high}"
    return f"{len(amounts)} runs, {span}, spread {format_bytes(most - least)}"


def seen(point: Point, readings: Mapping[int, int]) -> tuple[Seen, ...]:
    """The readings of one point as a check lists them."""
    return tuple(
        Seen(point=point.name, repeat=repeat, amount_bytes=amount)
        for repeat, amount in readings.items()
    )


def _texts(series: Series) -> dict[str, Scalar]:
    return {name: value for name, value in series.constants.items() if isinstance(value, str)}


def _settings_in_words(settings: Mapping[str, Scalar]) -> Iterator[str]:
    for name, value in settings.items():
        yield text_in_words(value) if isinstance(value, str) else f"{name}={value}"
