"""The sampler with real children: known memory is bracketed, deaths disturb nobody, no process is
taken for another.
"""

import json
import mmap
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import MeterUnavailable
from harness.measure import (
    BeginCard,
    EndCard,
    EndHost,
    Hello,
    HostOpened,
    MeterContext,
    OpenHost,
    SamplerLine,
)
from harness.measure.host_meter import HostMeter
from harness.records import Quality
from harness.run.launchers import Sampling

MIB = 1024 * 1024
EMULATED = {"kind": "emulated", "uuid": None}
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
# A window in which a busy machine did not let the sampler run is as long as it was kept waiting;
# three of the usual are.
ON_TIME_S = 0.008


@pytest.fixture
def sampling():
    started = Sampling()
    yield started
    started.close()


@pytest.fixture
def sampler(sampling):
    address, note = sampling.address()
    assert (address != "", note) == (True, "")
    return address


@pytest.fixture
def child(project_root):
    """``child(address, function, *arguments)``: a child in ``watched``, its lines readable one by
    one.
    """
    started = []

    def start(address, function, *arguments):
        command = [
            sys.executable,
            "-m",
            "tests.harness.measure.watched",
            address,
            function,
            *map(str, arguments),
        ]
        process = subprocess.Popen(
            command, cwd=project_root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lines(process):
    return [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()]


def reading(line, meter):
    return next(found for found in line["readings"] if found["meter"] == meter)


@LINUX
@pytest.mark.parametrize("flags", [mmap.MAP_PRIVATE, mmap.MAP_SHARED], ids=["private", "shared"])
@pytest.mark.parametrize("amount_bytes", [8 * MIB, 64 * MIB])
def test_a_short_spike_beside_a_mapped_file_is_bracketed(sampler, child, amount_bytes, flags):
    """Touched and unmapped at once, half-way through reading 128 MiB through a mapping: the truth
    is between the bounds.
    """
    phases = lines(child(sampler, "beside_a_mapped_file", amount_bytes, 128 * MIB, flags, 8))
    brackets = [(reading(phase, "host_anon"), phase["top_bytes"]) for phase in phases]

    assert len(brackets) == 8
    for anon, top_bytes in brackets:
        assert anon["quality"] == Quality.BOUNDED
        # A machine that leaves the sampler no time for 8 MiB leaves the lower bound at the start:
        # less is known, nothing is wrong.
        assert anon["start_bytes"] <= anon["peak_bytes"] <= anon["peak_bound_bytes"]
        # The interpreter's own few pages may come on top of what the child saw of itself.
        assert anon["peak_bytes"] - MIB // 4 <= top_bytes <= anon["peak_bound_bytes"]
        assert (
            reading(phases[0], "host_mapped")["peak_bytes"]
            - reading(phases[0], "host_mapped")["start_bytes"]
            == 128 * MIB
        )


@LINUX
def test_the_bracket_of_a_long_enough_look_is_narrower_than_a_mebibyte(sampler, child):
    """64 MiB take longer to touch than windows last, so the bracket is as narrow as what a file
    moves in one of them.
    """
    on_time = []
    for _ in range(5):
        phases = lines(
            child(sampler, "beside_a_mapped_file", 64 * MIB, 128 * MIB, mmap.MAP_PRIVATE, 12)
        )
        on_time = [
            anon
            for anon in (reading(phase, "host_anon") for phase in phases)
            if anon["largest_gap_s"] < ON_TIME_S
        ]
        if on_time:
            break
    else:
        pytest.skip("this machine is so busy that the sampler was late in each of 60 phases")

    assert min(anon["peak_bound_bytes"] - anon["peak_bytes"] for anon in on_time) <= MIB


@LINUX
def test_the_pages_of_a_file_are_apart(sampler, child):
    """The resident set has spike and file in it; what is mapped is the file."""
    [phase] = lines(child(sampler, "beside_a_mapped_file", 8 * MIB, 128 * MIB, mmap.MAP_PRIVATE, 1))
    rss, mapped = reading(phase, "host_rss"), reading(phase, "host_mapped")

    assert (rss["quality"], rss["end_bytes"] - rss["start_bytes"] >= 128 * MIB) == (
        Quality.EXACT,
        True,
    )
    assert mapped["end_bytes"] - mapped["start_bytes"] == 128 * MIB


@LINUX
def test_children_come_one_after_the_other_and_one_that_dies_in_mid_phase_disturbs_nobody(
    sampling, sampler, child
):
    """The third is served by the process that served the first."""
    before = sampling.process_id
    [first] = lines(child(sampler, "one_phase"))
    killed = child(sampler, "die_in_a_phase")
    assert killed.wait(60) == -signal.SIGKILL
    [third] = lines(child(sampler, "one_phase"))

    assert first["pid"] != third["pid"]
    assert {reading(line, "host_anon")["quality"] for line in (first, third)} == {Quality.BOUNDED}
    assert (sampling.address(), sampling.process_id) == ((sampler, ""), before)


@LINUX
def test_a_sampler_that_is_killed_in_mid_phase_is_told_of_and_replaced(sampling, sampler, child):
    """The phase keeps its edges, unresolved; the next one is read without it; the next child gets a
    new one.
    """
    process = child(sampler, "wait_in_a_phase")
    process.stdout.readline()
    killed = sampling.process_id
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    process.stdin.write("\n")
    lost, after = lines(process)
    address, note = sampling.address()
    [next_child] = lines(child(address, "one_phase"))

    assert reading(lost, "host_anon")["quality"] == Quality.UNRESOLVED
    assert "the sampler was lost" in reading(lost, "host_anon")["reason"]
    assert reading(lost, "host_anon")["start_bytes"] > 0
    assert reading(after, "host_anon")["quality"] == Quality.BOUNDED
    assert "without the sampler: the sampler was lost" in reading(after, "host_anon")["source"]
    assert "ended with code -9" in note
    assert sampling.process_id != killed
    assert reading(next_child, "host_anon")["source"].startswith("VmHWM in windows")


@LINUX
def test_a_process_that_passes_for_another_is_refused(sampler):
    """By its id, which the kernel knows; by its start, when its id was used again."""
    line = SamplerLine.connect(sampler)
    with pytest.raises(
        MeterUnavailable, match=r"process 1 was announced, but process \d+ is connected"
    ):
        line.ask(Hello(process=1, started_ticks=0))
    with pytest.raises(MeterUnavailable, match="its id was used again"):
        line.ask(Hello(process=os.getpid(), started_ticks=1))
    line.close()


@LINUX
@pytest.mark.parametrize(
    "message",
    [
        {"request": "StopHost"},
        {"request": "OpenCard", "card": 3},
        {"request": "OpenHost", "uuid": "GPU-aaaa"},
        {"open": "host"},
        {},
        [],
        3,
    ],
    ids=json.dumps,
)
def test_what_is_no_request_is_refused_and_the_sampler_lives_on(sampler, message):
    """In one sentence, with the beginning of what came."""
    line = SamplerLine.connect(sampler)
    answer = line._exchange(json.dumps(message).encode())

    assert answer.keys() == {"refused"}
    assert "is no request" in answer["refused"]
    assert line.ask(OpenHost()) == HostOpened(tells_anon=True)
    line.close()


@LINUX
@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (EndHost(), "ended before it began"),
        (BeginCard(), "no card was opened"),
        (EndCard(), "no card was opened"),
    ],
)
def test_a_request_that_comes_too_early_is_refused_and_the_sampler_lives_on(
    sampler, request_, reason
):
    """What was not begun cannot be ended, and what was not opened cannot be begun."""
    line = SamplerLine.connect(sampler)
    with pytest.raises(MeterUnavailable, match=reason):
        line.ask(request_)

    assert line.ask(OpenHost()) == HostOpened(tells_anon=True)
    line.close()


def test_the_sampler_ends_with_its_parent(project_root):
    """Killed, the parent closes nothing itself, and takes no folder away."""
    program = (
        "import os, signal; from harness.run.launchers import Sampling; found = Sampling(); "
        "print(found.address()[0]);print(found.process_id, flush=True); input(); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=project_root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    address = Path(parent.stdout.readline().strip())
    assert address.exists()
    sampler = os.pidfd_open(int(parent.stdout.readline()))
    parent.communicate("\n", timeout=60)
    ended, _, _ = select.select([sampler], [], [], 60)
    os.close(sampler)

    assert parent.returncode == -signal.SIGKILL
    assert ended == [sampler]
    assert not address.parent.exists()


def test_where_there_is_no_proc_psutil_tells_the_resident_set_and_says_what_it_cannot():
    """As on macOS; forced here."""
    pytest.importorskip("psutil")
    sampling = Sampling(options=("--counters", "psutil"))
    address, _ = sampling.address()
    line = SamplerLine.connect(address)
    meter = HostMeter(MeterContext(device_name="CPU:0", device=EMULATED, sampler=line))
    meter.open()
    meter.begin()
    held = bytearray(64 * MIB)
    anon, rss, mapped = meter.end()
    del held
    line.close()
    sampling.close()

    assert (anon.quality, mapped.quality) == (Quality.UNAVAILABLE, Quality.UNAVAILABLE)
    assert "reports the resident set alone" in anon.reason
    # as the machine let the sampler look
    assert rss.quality in (Quality.SAMPLED, Quality.UNRESOLVED)
    assert rss.growth_bytes >= 63 * MIB
    assert rss.source == "psutil"
