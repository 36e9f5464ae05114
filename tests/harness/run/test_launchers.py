"""Children: what they get, how they end, and that nothing of them is left."""

import os
import re
import select
import signal
from pathlib import Path

import pytest

from harness.records import Job
from harness.run.launchers import ChildOrder, open_launcher

MIB = 1024 * 1024
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", params=["spawn", "zygote"])
def launcher(request):
    """Both ways of starting a child keep the same promises."""
    opened = open_launcher(request.param, environment=os.environ, folder=ROOT)
    yield opened
    opened.close()


@pytest.fixture
def run(launcher, tmp_path, project_root):
    """Run one of tests/harness/run/children.py as a preparation: the same child, without
    TensorFlow.
    """

    def start(
        function, parameters=None, *, timeout_s=60.0, host_limit_bytes=2048 * MIB, environment=None
    ):
        job = Job(
            point="p",
            repeat=0,
            body=None,
            prepare=f"tests.harness.run.children:{function}",
            parameters=parameters or {},
            workspace=str(tmp_path),
            rows_path=str(tmp_path / "rows.jsonl"),
            device={},
            host_limit_bytes=host_limit_bytes,
        )
        order = ChildOrder(
            job=job,
            environment={**os.environ, **(environment or {})},
            folder=project_root,
            log=tmp_path / "log",
            timeout_s=timeout_s,
        )
        return launcher.run(order)

    return start


def test_a_child_that_works_exits_with_0(run, tmp_path):
    """And has done what it was told."""
    end = run("touch", {"name": "made"})

    assert (end.exit_code, end.timed_out) == (0, False)
    assert (tmp_path / "made").exists()


def test_a_child_leads_its_own_group_and_is_the_kernels_first_choice(run, tmp_path):
    """Its environment is the one that was given, and no variable of this process was touched for
    it.
    """
    run("show_environment", environment={"MARK": "seen"})

    assert (tmp_path / "environment").read_text() == "seen True 1000"
    assert "MARK" not in os.environ


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_is_the_negative_exit_code(run, number):
    """As the kernel tells it."""
    assert run("kill_itself", {"signal": int(number)}).exit_code == -number


def test_a_child_that_does_not_end_is_stopped_even_if_it_ignores_the_polite_signal(run):
    """SIGTERM, then SIGKILL."""
    end = run("wait_forever", timeout_s=2.0)

    assert (end.timed_out, end.exit_code) == (True, -signal.SIGKILL)


def test_what_a_child_started_does_not_outlive_it(run, tmp_path):
    """The whole group is ended after a clean end too."""
    run("leave_a_grandchild")

    assert _has_ended(int((tmp_path / "grandchild").read_text()))


@pytest.mark.parametrize("launcher", ["zygote"], indirect=True)
def test_what_left_the_childs_group_is_ended_by_the_zygote(run, tmp_path):
    """A session of its own, and what that started; all of it, before the next child is measured."""
    run("leave_a_session")
    left = [int(number) for number in (tmp_path / "left").read_text().split()]

    assert len(left) == 2
    assert [Path(f"/proc/{number}").exists() for number in left] == [False, False]
    assert run("touch", {"name": "made"}).exit_code == 0


def _has_ended(pid):
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # The kernel delivers SIGKILL in its own time; the descriptor is readable once the process
        # is dead.
        return bool(select.select([descriptor], [], [], 30.0)[0])
    finally:
        os.close(descriptor)


def test_the_last_words_of_a_failure_are_in_the_log(run, tmp_path):
    """One sentence, with the outcome's name."""
    end = run("fail")

    assert end.exit_code == 1
    assert (tmp_path / "log").read_text().splitlines()[-1] == "error: ValueError: the beam was off"


@pytest.mark.parametrize(
    ("way", "amount_bytes"),
    [("untouched", 8 * 1024 * MIB), ("in stacks of threads", 8000 * MIB), ("in a file", 600 * MIB)],
)
def test_address_space_is_no_memory_and_neither_is_a_file(run, tmp_path, way, amount_bytes):
    """Under a limit of 512 MiB: an array that nobody touches, a thousand threads, a mapped file
    that is read.
    """
    if way == "in a file" and _is_in_memory(tmp_path):
        pytest.skip("a file here is memory: the folder is a tmpfs")
    end = run("take", {"way": way, "bytes": amount_bytes}, host_limit_bytes=512 * MIB)

    assert (end.exit_code, end.overrun) == (0, None), (tmp_path / "log").read_text()


def _is_in_memory(folder):
    kinds = {
        line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()
    }
    return next(
        kinds[str(place)] for place in (folder, *folder.parents) if str(place) in kinds
    ) in {"tmpfs", "ramfs"}


def test_shared_memory_is_bounded(run):
    """The end says by how much it was too much."""
    end = run("share_too_much", {"bytes": 500 * MIB}, host_limit_bytes=400 * MIB)

    assert (end.exit_code, end.timed_out, end.overrun.cause) == (-signal.SIGKILL, False, "watchdog")
    assert re.fullmatch(
        r"it held .* of private and shared memory, .* [KM]iB over the limit of 400\.0 MiB",
        end.overrun.words,
    )


def test_memory_of_many_processes_is_bounded_as_one(run):
    """Sixteen of 64 MiB each, started at once."""
    end = run("take", {"way": "in many forks", "bytes": 1024 * MIB}, host_limit_bytes=512 * MIB)

    assert re.fullmatch(
        r"it and 1?\d process(es)? that it started held .* over the limit of 512\.0 MiB",
        end.overrun.words,
    )


def test_memory_of_a_process_that_left_the_group_is_bounded_and_the_process_ended(run, tmp_path):
    """With what it holds it cannot go on after its parent."""
    end = run(
        "take", {"way": "in a session of its own", "bytes": 800 * MIB}, host_limit_bytes=512 * MIB
    )

    assert end.overrun.words.startswith("it and 1 process that it started held ")
    assert _has_ended(int((tmp_path / "taker").read_text()))


def test_an_ordinary_end_is_neither_an_overrun_nor_the_kernels_doing(run):
    """Nothing is told that did not happen."""
    end = run("kill_itself", {"signal": int(signal.SIGKILL)})

    assert (end.overrun, end.oom_kills) == (None, ())
