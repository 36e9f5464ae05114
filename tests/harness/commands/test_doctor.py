"""Known amounts, found by every meter that can read here; and what is said when one does not find
them.
"""

import dataclasses
import json

import pytest

from harness.__main__ import main
from harness.commands import doctor
from harness.commands.doctor import (
    TRACE,
    Examination,
    MeterCheck,
    examine,
    pool_in_words,
)
from harness.meters import GATED_METERS
from harness.run.devices import Device, emulated_device

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def examination(request):
    """The self-check, on the emulated device."""
    return examine(emulated_device("a test"), request.config.rootpath)


def test_every_meter_that_can_read_here_finds_what_was_allocated(examination):
    """And the trace to the byte."""
    read = [check for check in examination.checks if check.read_bytes is not None]

    assert [end.outcome for end in examination.ends] == ["ok", "ok"]
    assert {check.meter for check in read} == {
        "device_in_use", "host_anon", "host_rss", "host_mapped", "host_pss", "host_uss", TRACE,
    }  # fmt: skip
    assert [check for check in read if not check.found] == []
    assert {check.error_bytes for check in read if check.meter == TRACE} == {0}
    assert all(abs(check.error_bytes) <= 512 for check in read if check.meter == "device_in_use")
    assert examination.usable


def test_a_spike_beside_a_file_that_is_read_through_lies_in_its_bracket(examination):
    """Which is at most 1 MiB wide."""
    spike = next(check for check in examination.checks if check.phase == "spike")

    assert spike.read_bytes <= spike.asked_bytes + MIB
    assert spike.bound_bytes >= spike.asked_bytes - MIB
    assert spike.bound_bytes - spike.read_bytes <= MIB


def test_a_card_that_is_not_there_is_unavailable_with_the_reason(examination):
    """Never 0."""
    absent = [check for check in examination.checks if check.meter.startswith("nvml")]

    assert len(absent) == 3
    assert {check.read_bytes for check in absent} == {None}
    assert {check.finding for check in absent} == {
        "unavailable, because the device is emulated on the CPU; there is no card to ask"
    }


@pytest.mark.parametrize("meter", GATED_METERS)
def test_a_meter_that_does_not_find_it_is_not_used(examination, meter, monkeypatch, capsys):
    """And without a meter to gate on, the exit code says that nothing can be measured."""
    checks = [blind(check) if check.meter == meter else check for check in examination.checks]
    monkeypatch.setattr(
        doctor,
        "examine",
        lambda device, root: Examination(ends=examination.ends, checks=tuple(checks)),
    )

    assert main(["doctor", "--device", "cpu", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False
    assert {
        check["finding"].partition(":")[2] for check in found["checks"] if check["meter"] == meter
    } == {" its readings are not to be trusted here"}


def test_the_table_shows_what_was_asked_and_what_was_read(examination, monkeypatch, capsys):
    """With the error, for people."""
    monkeypatch.setattr(doctor, "examine", lambda device, root: examination)

    assert main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "32.0 MiB" in said
    assert "have found all that was allocated" in said


CARD = Device(
    kind="gpu",
    name="A100",
    uuid="GPU-0",
    memory_bytes=40 * 1024 * MIB,
    limit_bytes=None,
    driver="560.1",
)


def expected(device, meter, phase, limit_bytes=None):
    (found,) = [
        one
        for one in doctor.expectations(device, limit_bytes)
        if (one.meter, one.phase) == (meter, phase)
    ]
    return found


@pytest.mark.parametrize(
    ("device", "error_bytes", "is_found"),
    [
        (CARD, 1024, True),
        (CARD, 1025, False),
        (CARD, -1025, False),
        (CARD.with_growth(), MIB - 256 + 1024, True),
        (CARD.with_growth(), MIB - 256 + 1025, False),
        (CARD.with_growth(), -1024, True),
        (CARD.with_growth(), -1025, False),
    ],
)
def test_only_a_pool_that_grows_may_read_up_to_twice_the_amount(device, error_bytes, is_found):
    """1 MiB: 1 KiB to either side where it is reserved; where it grows, a chunk of less than 2 MiB
    is handed out whole.
    """
    assert expected(device, "device_in_use", "device_small").allows(error_bytes) is is_found


def test_of_a_reserved_pool_the_driver_sees_the_whole_and_no_tensor_in_it():
    """So that is asked for: its limit, which is there before the first phase. Of one that grows,
    what is taken for a tensor.
    """
    whole = expected(CARD, "nvml_process", "device_large", 3 * 1024 * MIB)
    grown = expected(CARD.with_growth(), "nvml_process", "device_large")

    assert (whole.asked_bytes, whole.level, whole.allows(-2 * MIB), whole.allows(-2 * MIB - 1)) == (
        3 * 1024 * MIB,
        True,
        True,
        False,
    )
    assert (grown.asked_bytes, grown.level, grown.allows(400 * MIB)) == (32 * MIB, False, True)


def test_the_table_says_how_the_pool_was_taken(examination):
    """With its size, where it has one."""
    assert pool_in_words(emulated_device("a test"), examination) == (
        "reserved, 3.0 GiB, out of which every tensor is cut to 256 B"
    )
    assert pool_in_words(CARD.with_growth(), examination).startswith(
        "grows on demand, so that a tensor may count as up to twice"
    )
    assert pool_in_words(CARD.with_allocator("cuda_malloc_async"), examination) == (
        "the CUDA driver's own (TF_GPU_ALLOCATOR=cuda_malloc_async), without a limit"
    )


def test_growth_and_a_budget_do_not_go_together(capsys):
    """A mistake of usage, before anything is looked for."""
    assert main(["doctor", "--growth", "--device-budget", "1GiB"]) == 2
    assert capsys.readouterr().err.startswith(
        "harness: --growth was given together with --device-budget 1.0 GiB, but a pool"
    )


def blind(check: MeterCheck) -> MeterCheck:
    return dataclasses.replace(check, read_bytes=0, found=False)
