"""What a rule is given, and the words in which its checks name a place."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.judge.baseline import Baseline
from harness.judge.completeness import Census
from harness.judge.policy import Policy
from harness.judge.scaling import Fit, Series, planned_series
from harness.judge.table import DECLARED, Place, Run
from harness.records import Point, Scalar

METER_WORDS: Mapping[str, str] = {
    "device_in_use": "device in use",
    "host_anon": "host anonymous memory",
    "host_rss": "host resident memory",
    "nvml_device_used": "device used (driver)",
    "nvml_process": "process on the device (driver)",
}
"""Meters in plain words; one that is not listed is called by its name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Everything that rules judge by. Nothing in it depends on the order of the rows."""

    run: Run
    policy: Policy
    fits: Mapping[tuple[str, str, str, str, str], Fit]
    """By ``fit_key``."""
    amounts: Mapping[Place, tuple[int, ...]]
    """By point, phase, meter and field: bytes of every repeat that finished the phase."""
    census: Census
    baseline: Baseline | None
    baselines_folder: Path
    partial: bool
    """Only what the run planned is asked for."""

    def declared(self, point: Point, phase: str, meter: str) -> dict[str, int]:
        """What the bodies said their arrays add up to; the least where repeats differ, so that a limit is never wider."""
        places = {name: self.amounts.get((point.name, phase, meter, name)) for name in DECLARED}
        return {name: min(amounts) for name, amounts in places.items() if amounts}

    def fit(self, series: Series, phase: str, meter: str, field: str) -> Fit | None:
        """The fit of a series, or None when fewer than two sizes have been read."""
        return self.fits.get(fit_key(series, phase, meter, field))


def fit_key(series: Series, phase: str, meter: str, field: str) -> tuple[str, str, str, str, str]:
    """What tells a fit from all others: no two series over one parameter share a point."""
    return series.over, series.points[0].name, phase, meter, field


def point_place(point: Point, *more: str) -> str:
    """``"loading / lazy / image_count=500 / stack_size=2048"`` and what follows."""
    return " / ".join([point.scenario, *_settings_in_words(point.parameters), *more])


def series_place(series: Series, points: tuple[Point, ...], *more: str) -> str:
    """``"loading / lazy"`` and what follows; numbers are named only where they tell two series of the sweep apart."""
    texts = _texts(series)
    twins = [other for other in planned_series(points) if other.over == series.over and other.scenario == series.scenario]
    ambiguous = sum(_texts(twin) == texts for twin in twins) > 1
    constants = series.constants if ambiguous else texts
    return " / ".join([series.scenario, *_settings_in_words(constants), *more])


def meter_words(meter: str) -> str:
    """The meter in plain words."""
    return METER_WORDS.get(meter, meter)


def repeats_in_words(amounts: tuple[int, ...]) -> str:
    """``"1 run"`` or ``"4 runs"``."""
    return f"{len(amounts)} {'run' if len(amounts) == 1 else 'runs'}"


def _texts(series: Series) -> dict[str, Scalar]:
    return {name: value for name, value in series.constants.items() if isinstance(value, str)}


def _settings_in_words(settings: Mapping[str, Scalar]) -> Iterator[str]:
    for name, value in settings.items():
        yield value if isinstance(value, str) else f"{name}={value}"
