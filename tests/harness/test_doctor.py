"""Known amounts, found by every meter that can read here; and what is said when one does not find them."""

import dataclasses
import json

import pytest

from harness import doctor
from harness.__main__ import main
from harness.doctor import GATED, TRACE, Examination, MeterCheck, examine
from harness.run.devices import emulated_device

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


@pytest.mark.parametrize("meter", GATED)
def test_a_meter_that_does_not_find_it_is_not_used(examination, meter, monkeypatch, capsys):
    """And without a meter to gate on, the exit code says that nothing can be measured."""
    checks = [blind(check) if check.meter == meter else check for check in examination.checks]
    monkeypatch.setattr(doctor, "examine", lambda device, root: Examination(ends=examination.ends, checks=tuple(checks)))

    assert main(["doctor", "--device", "cpu", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] is False
    assert {check["finding"].partition(":")[2] for check in found["checks"] if check["meter"] == meter} == {
        " its readings are not to be trusted here"
    }


def test_the_table_shows_what_was_asked_and_what_was_read(examination, monkeypatch, capsys):
    """With the error, for people."""
    monkeypatch.setattr(doctor, "examine", lambda device, root: examination)

    assert main(["doctor", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "32.0 MiB" in said
    assert "have found all that was allocated" in said


def blind(check: MeterCheck) -> MeterCheck:
    return dataclasses.replace(check, read_bytes=0, found=False)
