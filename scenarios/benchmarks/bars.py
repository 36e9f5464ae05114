"""What the lazy container promises, figure by figure, and how a run is held against it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from scenarios.benchmarks.spread import Spread

Figure = float | Spread
"""A number, or the median of a series with its spread."""


class Verdict(StrEnum):
    """How a figure stands to its bar; only the first is a pass."""

    HOLDS = "holds"
    MISSED = "missed"
    NOT_RESOLVED = "not resolved"
    """The bar lies within the spread of the figure: the run can say neither."""
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One promise: a figure of a run, and the limit it has to keep."""

    figure: str
    """Key of the figure in the run's results."""
    what: str
    kind: Literal["at least", "at most"]
    limit: float
    unit: str = ""

    def verdict(self, figure: Figure) -> Verdict:
        """Whether ``figure`` keeps the limit: of a series, all of its interval."""
        low, high = (figure.low, figure.high) if isinstance(figure, Spread) else (figure, figure)
        if self.kind == "at least":
            kept, broken = low >= self.limit, high < self.limit
        else:
            kept, broken = high <= self.limit, low > self.limit

        if kept:
            return Verdict.HOLDS
        return Verdict.MISSED if broken else Verdict.NOT_RESOLVED


@dataclass(frozen=True, slots=True)
class Row:
    """A bar beside what was measured."""

    bar: Bar
    figure: Figure | None
    """None where the run could not measure it: that is no pass, with the reason."""
    reason: str

    @property
    def verdict(self) -> Verdict:
        """Whether the promise was kept."""
        return Verdict.NOT_MEASURED if self.figure is None else self.bar.verdict(self.figure)

    @property
    def holds(self) -> bool:
        """Whether it certainly was."""
        return self.verdict is Verdict.HOLDS


OF_CONSTANTS = 0.004
"""16 KiB in batches of 4 MiB, for the constants of TensorFlow's own operations: shapes, numbers of
batches; 1.5 to 7 KiB were seen."""

BARS = (
    Bar(
        figure="feed_64",
        what="tf.data feed, batch 64, of the numpy gather",
        kind="at least",
        limit=0.60,
    ),
    Bar(
        figure="feed_16",
        what="tf.data feed, batch 16, of the numpy gather",
        kind="at least",
        limit=0.30,
    ),
    Bar(
        figure="generator_64",
        what="tf.data feed against from_generator, batch 64",
        kind="at least",
        limit=6,
        unit="x",
    ),
    Bar(
        figure="generator_16",
        what="tf.data feed against from_generator, batch 16",
        kind="at least",
        limit=4,
        unit="x",
    ),
    Bar(
        figure="slices_64",
        what="tf.data feed against from_tensor_slices in memory, batch 64",
        kind="at least",
        limit=0.75,
    ),
    Bar(
        figure="slices_memory",
        what="device memory of that feed, of what the slices hold",
        kind="at most",
        limit=0.01,
    ),
    Bar(
        figure="batches_64",
        what="batches without tf.data, batch 64, of the numpy gather",
        kind="at least",
        limit=0.80,
    ),
    Bar(
        figure="batches_16",
        what="batches without tf.data, batch 16, of the numpy gather",
        kind="at least",
        limit=0.80,
    ),
    Bar(
        figure="first_batch",
        what="time to the first batch at 20,000 images, of that at 2,000",
        kind="at most",
        limit=1.2,
    ),
    Bar(
        figure="cold_shuffle",
        what="cold shuffled epoch, of a cold one in scan order",
        kind="at least",
        limit=0.6,
    ),
    Bar(
        figure="peak_0",
        what="device peak of an epoch, prefetch 0, plain loop",
        kind="at most",
        limit=2 + OF_CONSTANTS,
        unit="batches",
    ),
    Bar(
        figure="peak_1",
        what="device peak of an epoch, prefetch 1, plain loop",
        kind="at most",
        limit=3 + OF_CONSTANTS,
        unit="batches",
    ),
    Bar(
        figure="least_peak",
        what="least device peak of an epoch",
        kind="at least",
        limit=1,
        unit="batches",
    ),
    Bar(
        figure="slope_device",
        what="device, steepest phase over image count",
        kind="at most",
        limit=1024,
        unit="B/image",
    ),
    Bar(
        figure="slope_host",
        what="host memory, steepest phase over image count",
        kind="at most",
        limit=1024,
        unit="B/image",
    ),
    Bar(
        figure="slope_stack_device",
        what="device, steepest phase over stack size",
        kind="at most",
        limit=64,
        unit="B/frame",
    ),
    Bar(
        figure="slope_stack_host",
        what="host memory, steepest phase over stack size",
        kind="at most",
        limit=64,
        unit="B/frame",
    ),
    Bar(
        figure="study_peak",
        what="dense study: device peak of an epoch, budget 16 MiB",
        kind="at most",
        limit=16,
        unit="MiB",
    ),
    Bar(
        figure="study_host",
        what="dense study: growth of host memory, pool included",
        kind="at most",
        limit=96,
        unit="MiB",
    ),
    Bar(
        figure="study_feed",
        what="dense study: tf.data feed, of the numpy gather",
        kind="at least",
        limit=0.5,
    ),
    Bar(
        figure="study_eager",
        what="dense study: eager at the same budget ends as device_oom",
        kind="at least",
        limit=1,
        unit="of 1",
    ),
    Bar(
        figure="second_opening",
        what="second Scan.open of a 5 GB file, with its energies",
        kind="at most",
        limit=50,
        unit="ms",
    ),
    Bar(
        figure="overhead",
        what="the scenario loading under the harness, longer than without",
        kind="at most",
        limit=0.02,
    ),
    Bar(
        figure="overhead_traced",
        what="the same with every allocation recorded",
        kind="at most",
        limit=0.10,
    ),
    Bar(
        figure="zygote_empty",
        what="an empty child of the zygote, median",
        kind="at most",
        limit=60,
        unit="ms",
    ),
    Bar(
        figure="zygote_first_operation",
        what="the same to its first finished operation",
        kind="at most",
        limit=150,
        unit="ms",
    ),
    Bar(
        figure="spawn_of_zygote",
        what="a fresh interpreter to its first operation, of that",
        kind="at least",
        limit=20,
        unit="x",
    ),
    Bar(
        figure="sampler_20ms_percent",
        what="spikes of 20 ms that the sampler saw",
        kind="at least",
        limit=99,
        unit="%",
    ),
    Bar(
        figure="sampler_5ms_percent",
        what="spikes of 5 ms that the sampler saw",
        kind="at least",
        limit=95,
        unit="%",
    ),
    Bar(
        figure="sampler_cpu_percent",
        what="the sampler's share of a core",
        kind="at most",
        limit=4,
        unit="%",
    ),
    Bar(
        figure="host_bracket_median_mib",
        what="bracket of the host's peak, median",
        kind="at most",
        limit=1,
        unit="MiB",
    ),
    Bar(
        figure="host_bracket_miss_mib",
        what="a known peak outside of its bracket",
        kind="at most",
        limit=1,
        unit="MiB",
    ),
    Bar(
        figure="misfit", what="measured siemens star, misfit off 0.118", kind="at most", limit=0.002
    ),
    Bar(
        figure="misfit_swapped",
        what="the same with x and y swapped, misfit off 0.326",
        kind="at most",
        limit=0.002,
    ),
)
"""Limits of speed are ratios within one run: absolute times are the machine's. A batch is X and its
coords."""


def limit_of(figure: str) -> float:
    """The limit that a figure has to keep."""
    return next(bar.limit for bar in BARS if bar.figure == figure)


def judge(figures: Mapping[str, Figure], reasons: Mapping[str, str]) -> list[Row]:
    """Every bar beside its figure; a figure that is missing has its reason from ``reasons``."""
    return [
        Row(bar, figures.get(bar.figure), reasons.get(bar.figure, "it was not measured"))
        for bar in BARS
    ]
