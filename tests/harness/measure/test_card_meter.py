"""NVML's readings through the sampler, which runs on a driver that is built from NVML's header; no
card was met.
"""

import itertools
import os
import sys
import time

import pytest

from harness.errors import MeterUnavailable
from harness.measure import (
    CardPhase,
    CardSpan,
    Edge,
    HostOpened,
    MeterContext,
    OpenHost,
    SamplerLine,
)
from harness.measure.card_meter import NvmlMeter, card_readings
from harness.pretended.control import ALL_ONES, GPU_IS_LOST, NO_PERMISSION, ON, UNKNOWN
from harness.records import Quality
from harness.run.launchers import Sampling

MIB = 1024 * 1024
USED = "nvmlDeviceGetMemoryInfo_v2"
LIST = "nvmlDeviceGetComputeRunningProcesses_v3"


@pytest.fixture
def card(driver):
    """A card of 100 MiB in use, 40 of them by this process."""
    found = driver.add_device(
        "GPU-aaaa", total_bytes=40 * 1024 * MIB, reserved_bytes=500 * MIB, used_bytes=100 * MIB
    )
    driver.add_process(found, os.getpid(), 40 * MIB, name="python")
    return found


@pytest.fixture
def line(driver_environment):
    sampling = Sampling(environment=driver_environment)
    address, _ = sampling.address()
    connected = SamplerLine.connect(address)
    yield connected
    connected.close()
    sampling.close()


@pytest.fixture
def meter(card, line):
    opened = NvmlMeter(on("GPU-aaaa", line))
    opened.open()
    return opened


def on(uuid, line=None, without="none was started"):
    return MeterContext(
        device_name="GPU:0",
        device={"kind": "gpu", "uuid": uuid},
        sampler=line,
        without_sampler=without,
    )


def until_looked_at(driver, looks):
    """Until the sampler has asked so many times more, or a minute has passed."""
    wanted, deadline_s = driver.calls(USED) + looks, time.monotonic() + 60
    while driver.calls(USED) < wanted and time.monotonic() < deadline_s:
        time.sleep(0.001)  # the other process needs the processor


def test_the_card_is_polled_and_the_processes_are_read_at_the_edges(driver, meter, card):
    """A spike in mid-phase that is over at its end; the process list is asked for before and after,
    not in it.
    """
    meter.begin()
    lists_at_start = driver.calls(LIST)
    card.used_bytes = 900 * MIB
    until_looked_at(driver, 30)
    lists_in_the_phase = driver.calls(LIST) - lists_at_start
    card.used_bytes, card.processes[0].used_bytes = 160 * MIB, 90 * MIB
    device, process, _ = meter.end()

    assert (device.start_bytes, device.peak_bytes, device.end_bytes) == (
        100 * MIB,
        900 * MIB,
        160 * MIB,
    )
    assert (device.source, device.contended) == ("memory v2", "")
    assert device.samples >= 30
    assert device.rate_hz > 0
    assert (process.start_bytes, process.peak_bytes, process.end_bytes) == (
        40 * MIB,
        90 * MIB,
        90 * MIB,
    )
    assert (process.quality, process.samples) == (Quality.UNRESOLVED, 2)
    assert "at the edges of the phase alone" in process.reason
    assert (lists_at_start > 0, lists_in_the_phase, driver.calls(LIST)) == (
        True,
        0,
        2 * lists_at_start,
    )


def test_a_phase_that_is_too_short_for_the_sampler_is_unresolved(meter):
    """What was read at its edges stays."""
    meter.begin()
    device, _, _ = meter.end()

    assert (device.quality, device.peak_bytes) == (Quality.UNRESOLVED, 100 * MIB)
    assert "sampled too coarsely to judge" in device.reason


def test_every_spike_in_which_the_driver_was_asked_is_in_the_peak_and_no_other(driver, meter, card):
    """Forty spikes of 20 and 5 ms, each higher than the last: the peak is that of the last one
    seen, by the driver's own log.
    """
    spikes = [
        (index * 30_000_000, (20 if index % 2 else 5) * 1_000_000, (index + 1) * MIB)
        for index in range(40)
    ]
    driver.script_spikes(card, spikes)
    driver.forget_calls()
    meter.begin()
    origin_ns = driver.start_spikes(card)
    while time.monotonic_ns() < origin_ns + spikes[-1][0] + spikes[-1][1]:
        until_looked_at(driver, 1)
    device, _, _ = meter.end()
    asked_ns = [at_ns - origin_ns for at_ns in driver.call_times_ns(USED)]
    seen = [
        extra
        for start, length, extra in spikes
        if any(start <= at_ns < start + length for at_ns in asked_ns)
    ]
    gaps_ns = [after - before for before, after in itertools.pairwise(asked_ns)]
    missed_ns = [length for _, length, extra in spikes if extra not in seen]

    assert device.peak_bytes == 100 * MIB + seen[-1]
    assert device.samples == len(asked_ns)
    # The log has when the driver answered, the sampler when it had the answer.
    assert device.largest_gap_s * 1e9 == pytest.approx(max(gaps_ns), abs=2e6)
    assert all(length <= max(gaps_ns) for length in missed_ns)
    assert len(seen) >= 20  # or this test has shown nothing


@pytest.mark.parametrize("used_bytes", [ALL_ONES, None])
def test_a_process_the_driver_does_not_tell_of_is_unavailable_not_zero(meter, card, used_bytes):
    """Not listed (a container), or without an amount (WSL)."""
    if used_bytes is None:
        card.process_count = 0
    else:
        card.processes[0].used_bytes = used_bytes
    meter.begin()
    device, process, accounted = meter.end()

    assert device.peak_bytes == 100 * MIB
    assert (process.quality, process.peak_bytes) == (Quality.UNAVAILABLE, None)
    assert process.reason
    assert accounted.quality is Quality.UNAVAILABLE


def test_others_on_the_card_are_named_and_the_phase_is_contended(driver, meter, card):
    """Whoever came between begin and end is there at the end."""
    meter.begin()
    driver.add_process(card, 4711, 120 * MIB, name="python3")
    device, _, _ = meter.end()

    assert device.contended == "4711 (python3, 120.0 MiB)"


def test_in_a_container_it_is_said_that_others_cannot_be_told(meter, card):
    """The driver lists the host's process ids; this process is not among them."""
    card.processes[0].pid = 999_999
    meter.begin()
    device, _, _ = meter.end()

    assert device.contended == ""
    assert (
        "whether others use the card is unknown: this process is not among the 1" in device.reason
    )


def test_a_card_that_is_lost_in_mid_phase_is_unavailable_with_the_drivers_words(meter, card):
    """The body's own end is not changed by it."""
    meter.begin()
    card.lost = 1
    readings = meter.end()

    assert {reading.quality for reading in readings} == {Quality.UNAVAILABLE}
    assert all("the card has fallen off the bus" in reading.reason for reading in readings)


def test_a_card_that_is_lost_before_a_phase_is_unavailable_although_it_came_back(meter, card):
    """Its start is not known."""
    card.lost = 1
    meter.begin()
    card.lost = 0
    readings = meter.end()

    assert {reading.quality for reading in readings} == {Quality.UNAVAILABLE}
    assert all(reading.reason.endswith("at the start of the phase") for reading in readings)


def test_an_answer_that_fails_in_mid_phase_is_a_gap_and_no_loss(driver, meter, card):
    """The driver fails for a while, and the phase goes on."""
    meter.begin()
    driver.fail(USED, GPU_IS_LOST)
    until_looked_at(driver, 5)
    driver.heal(USED)
    until_looked_at(driver, 20)
    device, _, _ = meter.end()

    assert device.peak_bytes == 100 * MIB
    assert device.samples >= 20


@pytest.mark.parametrize(
    ("function", "code"), [("nvmlInitWithFlags", UNKNOWN), (USED, NO_PERMISSION)]
)
def test_a_driver_that_refuses_is_unavailable_with_the_reason(driver, card, line, function, code):
    """And the sampler, which asked, is there for the host's memory all the same."""
    driver.fail(function, code)
    with pytest.raises(MeterUnavailable, match="driver"):
        NvmlMeter(on("GPU-aaaa", line)).open()

    if sys.platform == "linux":
        assert line.ask(OpenHost()) == HostOpened(tells_anon=True)


def test_accounting_is_exact_where_its_peak_rose_in_the_phase_and_bounds_it_where_it_did_not(
    driver, card, line
):
    """The driver keeps one highest for the whole life of the process."""
    card.accounting = ON
    card.processes[0].accounted_bytes = 70 * MIB
    meter = NvmlMeter(on("GPU-aaaa", line))
    meter.open()
    meter.begin()
    card.processes[0].accounted_bytes = 700 * MIB
    _, _, rose = meter.end()
    meter.begin()
    _, _, stayed = meter.end()

    assert (rose.quality, rose.peak_bytes, rose.peak_bound_bytes) == (
        Quality.EXACT,
        700 * MIB,
        None,
    )
    assert (stayed.quality, stayed.peak_bytes, stayed.peak_bound_bytes) == (
        Quality.BOUNDED,
        40 * MIB,
        700 * MIB,
    )
    assert stayed.reason


def test_accounting_that_is_off_says_so(meter):
    """Only an administrator can switch it on, and nothing here does."""
    meter.begin()
    _, _, accounted = meter.end()

    assert accounted.quality is Quality.UNAVAILABLE
    assert "accounting is off" in accounted.reason


def test_an_emulated_device_has_no_card_to_ask():
    """And nobody is asked."""
    with pytest.raises(MeterUnavailable, match="no card to ask"):
        NvmlMeter(on(None)).open()


def test_without_a_sampler_the_card_is_not_asked():
    """The library of the driver is loaded in the sampler alone."""
    with pytest.raises(
        MeterUnavailable, match="NVML is asked by the sampler alone, and there is none: it was lost"
    ):
        NvmlMeter(on("GPU-aaaa", without="it was lost")).open()


def test_a_thin_phase_is_judged_by_its_own_length():
    """Five looks, the largest gap a quarter of the phase: at the limit; one look less, or a longer
    gap, is past it.
    """

    def quality(samples, gap_s):
        span = CardSpan(
            start_bytes=1,
            peak_bytes=3,
            end_bytes=2,
            samples=samples,
            rate_hz=5,
            largest_gap_s=gap_s,
            duration_s=1.0,
        )
        return card_readings(CardPhase(span=span, start=Edge(), end=Edge()), source="memory v1")[
            0
        ].quality

    assert [quality(5, 0.25), quality(4, 0.25), quality(5, 0.26)] == [
        Quality.SAMPLED,
        Quality.UNRESOLVED,
        Quality.UNRESOLVED,
    ]
