"""Phases: what is emitted when, and what is refused."""

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.measure import Memory
from harness.records import Quality, Reading


class CountingMeter:
    """Reads 100 B more at every look."""

    def __init__(self, name, log):
        self.names = (name,)
        self.log = log
        self.now_bytes = 0

    def open(self):
        pass

    def begin(self):
        self.log.append(f"{self.names[0]} begins")
        self.now_bytes += 100

    def end(self):
        self.log.append(f"{self.names[0]} ends")
        start_bytes, self.now_bytes = self.now_bytes, self.now_bytes + 100
        return (
            Reading(
                meter=self.names[0],
                quality=Quality.EXACT,
                start_bytes=start_bytes,
                peak_bytes=self.now_bytes + 7,
                end_bytes=self.now_bytes,
            ),
        )


@pytest.fixture
def log():
    return []


@pytest.fixture
def rows():
    return []


@pytest.fixture
def memory(rows, log):
    meters = [CountingMeter("device_in_use", log), CountingMeter("host_anon", log)]
    return Memory(
        point="p",
        repeat=3,
        workspace=Path(),
        meters=meters,
        emit=lambda row: rows.append(row.to_json()),
    )


def test_a_finished_phase_is_emitted_at_once_with_every_reading(memory, rows):
    """One begin row and one phase row, with start, peak and end of each meter."""
    with memory.phase("construct"):
        pass

    assert [row["kind"] for row in rows] == ["begin", "phase"]
    assert rows[1]["finished"] is True
    assert (rows[1]["point"], rows[1]["repeat"], rows[1]["phase"], rows[1]["index"]) == (
        "p",
        3,
        "construct",
        0,
    )
    assert [
        (r["meter"], r["start_bytes"], r["peak_bytes"], r["end_bytes"]) for r in rows[1]["readings"]
    ] == [
        ("device_in_use", 100, 207, 200),
        ("host_anon", 100, 207, 200),
    ]


def test_the_meter_that_begins_last_ends_first(memory, log):
    """The last meter encloses the body alone, so that it does not count the others' work."""
    with memory.phase("construct"):
        log.append("body")

    assert log == [
        "device_in_use begins",
        "host_anon begins",
        "body",
        "host_anon ends",
        "device_in_use ends",
    ]


def test_a_phase_that_raises_is_emitted_unfinished_and_the_error_goes_on(memory, rows):
    """What was read up to the error is kept, and marked."""
    with pytest.raises(ZeroDivisionError), memory.phase("construct"):
        1 / 0  # noqa: B018

    assert rows[1]["finished"] is False
    assert rows[1]["readings"][0]["peak_bytes"] == 207


def test_phases_are_numbered_in_the_order_of_entry(memory, rows):
    """The index lets tables keep the order of the body."""
    for name in ("open", "construct"):
        with memory.phase(name):
            pass

    assert [(row["phase"], row["index"]) for row in rows if row["kind"] == "phase"] == [
        ("open", 0),
        ("construct", 1),
    ]


def test_a_phase_inside_a_phase_is_refused(memory):
    """Peaks are reset at each start, so an inner phase would erase the outer one's."""
    with (
        pytest.raises(UsageError, match="'inner' was entered inside phase 'outer'"),
        memory.phase("outer"),
        memory.phase("inner"),
    ):
        pass


def test_the_same_phase_twice_is_refused(memory):
    """Two spans under one name could not be told apart in the tables."""
    with memory.phase("epoch"):
        pass
    with pytest.raises(UsageError, match="'epoch' was entered twice"), memory.phase("epoch"):
        pass


def test_declared_amounts_are_emitted_as_they_are(memory, rows):
    """The gate compares what was read with what the body says."""
    memory.declare(batch=4194304, arrays=0)

    assert rows == [
        {"kind": "declared", "point": "p", "repeat": 3, "values": {"batch": 4194304, "arrays": 0}}
    ]


@pytest.mark.parametrize("amount", [-1, 1.5, "4 MiB", True])
def test_a_declared_amount_that_is_no_whole_number_of_bytes_is_refused(memory, amount):
    """Bytes are int, 0 or more."""
    with pytest.raises(UsageError, match="declare a whole number of bytes"):
        memory.declare(batch=amount)
