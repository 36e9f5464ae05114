"""Real children, killed in every way that there is: each ending has its own name, cause and reason,
and no row is lost.
"""

import json
import os
import re
import signal
import uuid
from pathlib import Path

import pytest

from harness.records import Outcome, Point
from harness.run.devices import emulated_device
from harness.rundir.manifest import start_run
from harness.words import GIB, MIB

DEVICE_BYTES = 64 * MIB
HOST_BYTES = 2 * GIB


@pytest.fixture
def die(make_runner, zygote, project_root):
    """End a child in the named way; its end, and the phases that were finished before."""

    def die(
        way,
        *,
        host_limit_bytes=HOST_BYTES,
        device_bytes=DEVICE_BYTES,
        timeout_s=120.0,
        parameters=None,
        **settings,
    ):
        device = emulated_device("a test").with_budget(device_bytes)
        # The zygote's imports lie in the child's data segment too.
        runner = make_runner(
            launcher=zygote,
            device=device,
            host_limit_bytes=host_limit_bytes,
            timeout_s=timeout_s,
            **settings,
        )
        point = Point(
            scenario="deaths",
            body="tests.harness.run.children:end_as_told",
            parameters={"way": way},
            fixed=parameters or {},
            phases=("first", "second"),
        )
        start_run(
            runner.run_directory,
            points=[point],
            repeats=1,
            device=device,
            command="test",
            root=project_root,
            settings={},
        )
        end = runner.measure(point, 0)
        text = (runner.run_directory / "rows.jsonl").read_text()
        assert text.count('"kind": "phase", "point"') >= (end.phase == "second"), (
            "the first phase was finished"
        )
        return end

    return die


@pytest.mark.parametrize(
    ("way", "parameters", "outcome", "cause", "reason"),
    [
        (
            "segfault",
            {},
            Outcome.CRASHED,
            "SIGSEGV",
            "killed by SIGSEGV in phase second at __init__.py:",
        ),
        (
            "kill",
            {"signal": int(signal.SIGKILL)},
            Outcome.CRASHED,
            "SIGKILL",
            "killed by SIGKILL in phase second",
        ),
        (
            "kill",
            {"signal": int(signal.SIGABRT)},
            Outcome.CRASHED,
            "SIGABRT",
            "killed by SIGABRT in phase second at children.py:",
        ),
        (
            "kill",
            {"signal": int(signal.SIGTERM)},
            Outcome.CRASHED,
            "SIGTERM",
            "killed by SIGTERM in phase second",
        ),
        (
            "exit",
            {"code": 0},
            Outcome.EXITED,
            "0",
            "exited with code 0 in phase second without finishing",
        ),
        ("exit", {"code": 3}, Outcome.EXITED, "3", "exit code 3 in phase second"),
        ("fail", {}, Outcome.ERROR, "ValueError", "ValueError: the beam was off"),
        ("allocate", {"amount_bytes": 1 << 50}, Outcome.HOST_OOM, "refused", "MemoryError"),
        (
            "bad_alloc",
            {},
            Outcome.HOST_OOM,
            "bad_alloc",
            "SIGABRT in phase second; its last words: ",
        ),
    ],
)
def test_a_death_has_its_own_name_and_the_phase_it_happened_in(
    die, way, parameters, outcome, cause, reason
):
    """By the exit code, the signal, the child's last words."""
    end = die(way, parameters=parameters)

    assert (end.outcome, end.cause, end.phase) == (outcome, cause, "second")
    assert end.reason.startswith(reason)


def test_a_child_at_work_is_stopped_when_its_time_is_over(die):
    """It cannot be waiting for the allocator, and gets no more than a second."""
    end = die("never_end", timeout_s=3.0)

    assert (end.outcome, end.cause, end.phase) == (Outcome.TIMED_OUT, "time-out", "second")
    assert end.duration_s < 3.0 + 11.0


def test_a_device_that_is_not_there_is_skipped(die):
    """With its reason."""
    end = die("fail", prepare_device="tests.harness.run.children:find_no_device")

    assert (end.outcome, end.cause, end.reason) == (
        Outcome.SKIPPED,
        "device",
        "TensorFlow sees no GPU",
    )


def test_a_child_whose_rows_cannot_be_written_says_so_and_the_rest_of_the_file_stays_readable(
    die, tmp_path
):
    """Ten bytes of its last row fit; the parent, which has no such limit, writes the end into a
    line of its own.
    """
    rows = tmp_path / "run" / "rows.jsonl"
    end = die("limit_file_size", parameters={"rows": str(rows), "more": 10})
    *whole, torn, last = rows.read_text().splitlines()

    assert (end.outcome, end.cause, end.exit_code) == (Outcome.ERROR, "rows", os.EX_IOERR)
    assert end.reason.startswith(
        "what it measured in phase second could not be written; its last words: error: "
    )
    assert [json.loads(line)["kind"] for line in [*whole, last]] == [
        "code",
        "begin",
        "phase",
        "begin",
        "end",
    ]
    assert torn == '{"kind": "'


@pytest.mark.parametrize("way", ["fill_shared_memory", "fill_memory_of_other_processes"])
def test_memory_that_no_limit_of_the_kernel_counts_is_bounded_by_the_watchdog(die, way):
    """Shared memory is no data segment, and other processes have limits of their own; the reason
    says by how much.
    """
    limit_bytes = 1 * GIB
    end = die(
        way, host_limit_bytes=limit_bytes - DEVICE_BYTES, parameters={"amount_bytes": limit_bytes}
    )

    assert (end.outcome, end.cause, end.phase) == (Outcome.HOST_OOM, "watchdog", "second")
    assert re.match(
        r"the harness killed it in phase second: it .*held .* of private and shared memory, "
        r".* [KM]iB over the",
        end.reason,
    )
    assert end.reason.endswith(
        "limit of 1.0 GiB (--memory-host-budget 960.0 MiB, and 66.0 MiB for the emulated "
        "device, used or not)"
    )
    assert ("processes that it started" in end.reason) == (way == "fill_memory_of_other_processes")


def test_shared_memory_within_the_limit_is_left_alone(die):
    """One past the limit is killed, at the limit it is not: this one dies of its time-out."""
    end = die("fill_shared_memory", parameters={"amount_bytes": 128 * MIB}, timeout_s=3.0)

    assert end.outcome is Outcome.TIMED_OUT


def test_a_thousand_threads_of_tensorflow_end_as_they_do_without_the_harness(die):
    """8 GiB of stacks under a limit of 1 GiB, of which they touch hardly anything."""
    end = die("interleave", host_limit_bytes=1 * GIB - DEVICE_BYTES, parameters={"threads": 1000})

    assert (end.outcome, end.reason) == (Outcome.OK, "")


@pytest.mark.oom
class TestDevice:
    """Memory of the device; TensorFlow's allocator waits ten seconds before each of these."""

    def test_a_copy_beyond_the_device_is_told_by_the_allocators_last_warning(self, die):
        """TensorFlow copies to a null pointer; what was asked for, and what was in use, is in the
        reason.
        """
        end = die("copy_beyond_the_device", parameters={"amount_bytes": 200 * MIB})

        assert (end.outcome, end.cause, end.phase, end.exit_code) == (
            Outcome.DEVICE_OOM,
            "copy",
            "second",
            -signal.SIGSEGV,
        )
        assert re.match(
            r"the allocator bfc_cpu_allocator_for_gpu was asked for 200\.0 MiB of its 64\.0 "
            r"MiB, with \d+% of its pool held",
            end.reason,
        )
        assert "the copy that got no memory at constant_op.py:" in end.reason

    def test_a_crash_after_a_refusal_that_was_reported_is_a_crash(self, die):
        """The body was told, and went on to something else."""
        end = die("refused_then_segfault", parameters={"amount_bytes": 200 * MIB})

        assert (end.outcome, end.cause) == (Outcome.CRASHED, "SIGSEGV")

    def test_an_operation_beyond_the_device_says_what_was_asked_and_in_use(self, die):
        """Also after the time-out, because the allocator was still waiting: the child was idle."""
        end = die(
            "operation_beyond_the_device", parameters={"amount_bytes": 200 * MIB}, timeout_s=4.0
        )

        assert (end.outcome, end.cause, end.exit_code) == (Outcome.DEVICE_OOM, "allocator", 0)
        assert re.search(
            r"shape \[209715200\] and type uint8 on device:CPU:0 \(200\.0 MiB\); .* of "
            r"64\.0 MiB were in use",
            end.reason,
        )
        assert end.duration_s > 4.0

    def test_free_memory_in_pieces_is_called_fragmentation(self, die):
        """A quarter of the pool is asked for, more is free, but no such piece."""
        end = die(
            "fragmented_device", device_bytes=256 * MIB, parameters={"amount_bytes": 256 * MIB}
        )

        assert (end.outcome, end.cause) == (Outcome.DEVICE_OOM, "fragmentation")
        assert "no free piece of the device was large enough" in end.reason

    def test_a_host_that_refuses_the_devices_allocator_is_host_oom(self, die):
        """TensorFlow's error is the same; the device had room, and the data segment had none."""
        end = die(
            "host_refuses_the_allocator",
            device_bytes=1 * GIB,
            parameters={"amount_bytes": 400 * MIB},
            prepare_device="tests.harness.run.children:use_device_as_it_is",
        )

        assert (end.outcome, end.cause) == (Outcome.HOST_OOM, "limit")
        assert "the host refused it" in end.reason


@pytest.fixture
def small_cgroup():
    """A memory cgroup of 400 MiB, removed again; skipped where this process may make none."""
    name = f"memory-harness-test-{uuid.uuid4().hex[:8]}"
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    folder, limit = (
        (first / name, "memory.limit_in_bytes") if first.is_dir() else (second / name, "memory.max")
    )
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    try:
        (folder / limit).write_text(str(400 * MIB))
        yield folder
    except OSError as error:
        pytest.skip(f"no memory cgroup can be limited here: {error}")
    finally:
        folder.rmdir()


@pytest.mark.oom
def test_the_kernels_killer_is_told_from_anybody_else_by_its_counters(die, small_cgroup):
    """SIGKILL, which nobody of ours sent, while a counter of out-of-memory kills moved."""
    end = die("fill_a_cgroup", parameters={"cgroup": str(small_cgroup), "amount_bytes": 1 * GIB})

    assert (end.outcome, end.cause, end.exit_code) == (Outcome.HOST_OOM, "kernel", -signal.SIGKILL)
    assert end.reason.startswith(
        "SIGKILL in phase second; the kernel counted out-of-memory kills for this machine"
    )
