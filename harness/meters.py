"""The meters of a measured run: one table of their names, and of what each of them reads.

Everybody else says ``DEVICE_IN_USE`` and ``meter_words(name)``. The instruments themselves are in
``harness.measure``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from harness.words import text_table

DEVICE_IN_USE = "device_in_use"
HOST_ANON = "host_anon"
HOST_RSS = "host_rss"
HOST_MAPPED = "host_mapped"
HOST_PSS = "host_pss"
HOST_USS = "host_uss"
NVML_PROCESS = "nvml_process"
NVML_DEVICE_USED = "nvml_device_used"
NVML_ACCOUNTING_PEAK = "nvml_accounting_peak"


class Memory(StrEnum):
    """Whose memory a meter reads."""

    DEVICE = "device"
    HOST = "host"


class Peak(StrEnum):
    """How a meter knows the peak of a phase; what a single reading was is its ``Quality``."""

    EXACT = "exact"
    """The counter keeps its own peak."""
    BRACKETED = "bracketed"
    """It lies between two exact bounds."""
    SAMPLED = "sampled"
    """Polled: a peak between two samples is missed."""
    EDGES = "edges"
    """Read at the start and the end of the phase alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """One meter."""

    name: str
    words: str
    """What sentences and pages call it."""
    meaning: str
    """What its bytes are, in one clause."""
    counter: str
    """Where it reads them."""
    memory: Memory
    peak: Peak
    gated: bool = False
    """Whether limits, baselines and comparisons are about it by default: what a loader controls.
    The others are shown beside it; they also move with the kernel and with other processes."""
    traced_only: bool = False
    """Whether it costs too much for a measured run, and is read in the traced one alone."""


METERS: tuple[Meter, ...] = (
    Meter(
        name=DEVICE_IN_USE,
        words="device in use",
        meaning="bytes of live tensors, counted by TensorFlow's own allocator",
        counter="tf.config.experimental.get_memory_info",
        memory=Memory.DEVICE,
        peak=Peak.EXACT,
        gated=True,
    ),
    Meter(
        name=HOST_ANON,
        words="host anonymous memory",
        meaning=(
            "RssAnon and RssShmem of the child: numpy arrays and everything else it allocated "
            "itself, private or shared"
        ),
        counter="/proc/PID/status, RssAnon + RssShmem",
        memory=Memory.HOST,
        peak=Peak.BRACKETED,
        gated=True,
    ),
    Meter(
        name=HOST_RSS,
        words="host resident memory",
        meaning="resident memory of the child, pages of memory-mapped files included",
        counter="/proc/PID/status, VmRSS and VmHWM",
        memory=Memory.HOST,
        peak=Peak.EXACT,
    ),
    Meter(
        name=HOST_MAPPED,
        words="host memory of mapped files",
        meaning=(
            "pages of memory-mapped files in the child, which the kernel can drop; no limit "
            "counts them"
        ),
        counter="/proc/PID/status, RssFile",
        memory=Memory.HOST,
        peak=Peak.SAMPLED,
    ),
    Meter(
        name=HOST_PSS,
        words="host proportional memory",
        meaning="resident memory of the child, shared pages divided among those who share them",
        counter="/proc/PID/smaps_rollup, Pss",
        memory=Memory.HOST,
        peak=Peak.EDGES,
        traced_only=True,
    ),
    Meter(
        name=HOST_USS,
        words="host unshared memory",
        meaning="resident memory of the child without the pages that it shares",
        counter="/proc/PID/smaps_rollup, Private_*",
        memory=Memory.HOST,
        peak=Peak.EDGES,
        traced_only=True,
    ),
    Meter(
        name=NVML_PROCESS,
        words="process on the device (driver)",
        meaning="what the driver says the child holds on the card",
        counter="NVML, running processes of the card",
        memory=Memory.DEVICE,
        peak=Peak.EDGES,
    ),
    Meter(
        name=NVML_DEVICE_USED,
        words="device used (driver)",
        meaning="what the driver says is used on the card by everybody",
        counter="NVML, memory of the card",
        memory=Memory.DEVICE,
        peak=Peak.SAMPLED,
    ),
    Meter(
        name=NVML_ACCOUNTING_PEAK,
        words="peak of the process on the device (driver)",
        meaning=(
            "the most that the driver says the child has held on the card, where an administrator "
            "has switched accounting on"
        ),
        counter="NVML, accounting of the process",
        memory=Memory.DEVICE,
        peak=Peak.EXACT,
    ),
)

MEASURED_METERS = tuple(meter.name for meter in METERS if not meter.traced_only)
"""What a measured run reads, by name (the instruments are ``harness.run.runner.METERS``)."""
GATED_METERS = tuple(meter.name for meter in METERS if meter.gated)
WITNESS_METERS = (HOST_MAPPED,)
"""Recorded in baselines beside the gated ones and judged by no limit: they show whether what became
less was only moved there."""

_BY_NAME = {meter.name: meter for meter in METERS}


def meter_words(name: str) -> str:
    """The meter in plain words; an unknown one is called by its name.

    >>> meter_words("host_anon")
    'host anonymous memory'
    """
    meter = _BY_NAME.get(name)
    return name if meter is None else meter.words


def meters_table() -> Iterator[str]:
    """The lines of a table of all meters, for terminals."""
    columns = ("meter", "memory", "peak", "gated", "reads")
    rows = [
        (
            meter.name,
            str(meter.memory),
            str(meter.peak),
            "yes" if meter.gated else "no",
            f"{meter.meaning} ({meter.counter})",
        )
        for meter in METERS
    ]
    return text_table(columns, rows, words=len(columns))
