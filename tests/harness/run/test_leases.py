"""Leases: one measurement on a device at a time, whoever dies; and locks that strangers cannot
misuse.
"""

import collections
import fcntl
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import DeviceUnavailable
from harness.judge.table import load_run
from harness.records import Job
from harness.run import devices as leases
from harness.run.devices import Device, emulated_device, lease, lease_folder
from harness.run.launchers import ChildOrder, SpawnLauncher
from harness.rundir.rows import ends_of
from harness.words import GIB


def device(uuid, **fields):
    return Device(
        kind="gpu",
        name="A100",
        uuid=uuid,
        memory_bytes=40 * GIB,
        limit_bytes=None,
        driver="560.1",
        **fields,
    )


def instance(uuid, gpu_instance):
    return device(uuid, card_uuid="GPU-a", gpu_instance=gpu_instance)


def is_free(path, kind=fcntl.LOCK_EX):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_a_leased_card_is_locked_until_the_child_has_ended_too(tmp_path):
    """The descriptor is the lock: whoever inherits it holds the card."""
    with lease(device("GPU-a"), tmp_path) as held:
        inherited = os.dup(held.inherited[0])
    (lock,) = tmp_path.iterdir()

    assert not is_free(lock)
    os.close(inherited)
    assert is_free(lock)


@pytest.mark.parametrize("kind", ["spawn", "zygote"])
def test_a_child_that_outlives_the_lease_keeps_the_card(request, tmp_path, project_root, kind):
    """Either launcher hands the lock to its child, and keeps no copy of it."""
    launcher = SpawnLauncher() if kind == "spawn" else request.getfixturevalue("zygote")
    for pipe in ("there", "word"):
        os.mkfifo(tmp_path / pipe)
    job = Job(
        point="p",
        repeat=0,
        body=None,
        prepare="tests.harness.run.lease_children:wait_for_word",
        parameters={},
        workspace=str(tmp_path),
        rows_path="",
        device={},
        host_limit_bytes=GIB * 4,
    )
    locks = tmp_path / "locks"
    locks.mkdir()
    with ThreadPoolExecutor() as threads:
        with lease(device("GPU-a"), locks) as held:
            order = ChildOrder(
                job=job,
                environment=dict(os.environ),
                folder=project_root,
                log=tmp_path / "log",
                timeout_s=60.0,
                inherited=held.inherited,
            )
            child = threads.submit(launcher.run, order)
            (tmp_path / "there").read_bytes()
        free_while_it_lives = is_free(locks / "memory-harness-GPU-a.lock")
        (tmp_path / "word").write_bytes(b".")
        ended = child.result(timeout=60)

    assert ended.exit_code == 0, (tmp_path / "log").read_text()
    assert not free_while_it_lives
    assert is_free(locks / "memory-harness-GPU-a.lock")


def test_the_emulated_device_needs_no_lock(tmp_path):
    """It belongs to its process alone."""
    with lease(emulated_device("no driver"), tmp_path) as held:
        assert held.inherited == ()
    assert list(tmp_path.iterdir()) == []


def test_any_free_card_of_the_set_is_taken_and_handed_over_alone(tmp_path):
    """The first that is free, under its own UUID and with the set's budget."""
    pair = device("GPU-a", equals=(device("GPU-b"),)).with_budget(GIB)
    with lease(pair, tmp_path) as first, lease(pair, tmp_path) as second:
        assert [first.device.uuid, second.device.uuid] == ["GPU-a", "GPU-b"]
        assert second.device == device("GPU-b").with_budget(GIB)
        assert second.device.environment()["CUDA_VISIBLE_DEVICES"] == "GPU-b"


def test_a_third_waits_for_whichever_card_is_free_first(tmp_path):
    """Here the second one."""
    pair = device("GPU-a", equals=(device("GPU-b"),))

    def take():
        with lease(pair, tmp_path) as held:
            return held.device.uuid

    with ThreadPoolExecutor() as threads, lease(pair, tmp_path):
        second = lease(pair, tmp_path)
        second.__enter__()
        third = threads.submit(take)
        second.__exit__(None, None, None)

        assert third.result(timeout=60) == "GPU-b"


def test_who_waits_long_says_for_whom(tmp_path, monkeypatch, caplog):
    """The card, and the process that took it."""
    monkeypatch.setattr(leases, "_SAY_AFTER_S", 0.0)
    said = threading.Event()

    class StopWaitingError(Exception):
        pass

    def stop_when_said(_):
        if said.is_set():
            raise StopWaitingError
        said.set()

    monkeypatch.setattr("time.sleep", stop_when_said)
    with (
        lease(device("GPU-a"), tmp_path),
        pytest.raises(StopWaitingError),
        lease(device("GPU-a"), tmp_path),
    ):
        pass

    assert re.search(
        rf"waiting for a free card for 0 s: GPU-a was taken by process {os.getpid()}$",
        caplog.messages[0],
    )


@pytest.mark.parametrize(
    ("held", "wanted", "at_once"),
    [
        (instance("MIG-1", 7), instance("MIG-2", 8), True),
        (instance("MIG-1", 7), instance("MIG-1", 7), False),
        # two compute instances of one GPU instance share its memory
        (instance("MIG-1", 7), instance("MIG-3", 7), False),
        (instance("MIG-1", 7), device("GPU-a", card_uuid="GPU-a"), False),
        (device("GPU-a", card_uuid="GPU-a"), instance("MIG-1", 7), False),
        (instance("MIG-1", 7), device("GPU-b", card_uuid="GPU-b"), True),
    ],
)
def test_instances_exclude_their_card_and_those_that_share_their_memory(
    tmp_path, held, wanted, at_once
):
    """Instances with memory of their own are measured beside each other."""
    with lease(held, tmp_path):
        descriptors = leases._try(wanted, tmp_path)
        for descriptor in descriptors or ():
            os.close(descriptor)

    assert (descriptors is not None) == at_once
    with lease(wanted, tmp_path) as later:
        assert later.device == wanted


def test_a_lock_is_for_every_user_whatever_the_umask(tmp_path):
    """Readable by all, writable by nobody: nothing is ever written to it."""
    before = os.umask(0o077)
    try:
        with lease(device("GPU-a"), tmp_path):
            pass
    finally:
        os.umask(before)
    (lock,) = tmp_path.iterdir()

    assert (lock.stat().st_mode & 0o7777, lock.stat().st_size) == (0o444, 0)


@pytest.mark.parametrize("trap", ["link", "dangling link", "pipe", "folder"])
def test_what_a_stranger_put_in_the_place_of_a_lock_is_refused(tmp_path, trap):
    """Nothing is opened through it, made through it, or waited for."""
    path, target = tmp_path / "memory-harness-GPU-a.lock", tmp_path / "target"
    {
        "link": lambda: (target.touch(), path.symlink_to(target)),
        "dangling link": lambda: path.symlink_to(target),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }[trap]()

    with (
        pytest.raises(
            DeviceUnavailable,
            match=r"memory-harness-GPU-a\.lock.*(in its place|not a plain file).* remove it",
        ),
        lease(device("GPU-a"), tmp_path),
    ):
        pass
    assert target.exists() == (trap == "link")


def test_a_lock_whose_name_was_given_away_is_not_a_lock(tmp_path, monkeypatch):
    """A cleaner of temporary files came between opening and locking: the next file is taken
    instead.
    """
    path = tmp_path / "memory-harness-GPU-a.lock"
    genuine, cleaned = fcntl.flock, []

    def clean_once(descriptor, kind):
        if not cleaned:
            cleaned.append(path.unlink())
        genuine(descriptor, kind)

    monkeypatch.setattr("fcntl.flock", clean_once)
    with lease(device("GPU-a"), tmp_path):
        assert not is_free(path)


def test_the_folder_is_one_that_everybody_shares(tmp_path, monkeypatch):
    """With the sticky bit; whatever TMPDIR says, as long as there is one."""
    private, shared = tmp_path / "private", tmp_path / "shared"
    private.mkdir(mode=0o755)
    shared.mkdir()
    shared.chmod(0o1777)
    monkeypatch.setattr(leases, "_SHARED", (tmp_path / "absent", private, shared))
    assert lease_folder() == shared
    monkeypatch.setattr(leases, "_SHARED", (private,))
    monkeypatch.setattr("tempfile.tempdir", str(private))
    assert lease_folder() == private


SWEEP = """
from pathlib import Path
import pytest
from harness.records import Point
from harness.run.cards import choose_device
from harness.run.launchers import SpawnLauncher
from harness.run.runner import ChildSettings, Runner

POINTS = [
    Point(
        scenario="hold",
        body="tests.harness.run.lease_children:hold_device",
        parameters={"number": str(number)},
        fixed={"crashing": "3", "killing": "6"},
        phases=("hold",),
    )
    for number in range(12)
]

@pytest.fixture(scope="session")
def memory_runner(pytestconfig):
    return Runner(
        run_directory=pytestconfig.getoption("memory_out"),
        device=choose_device("gpu"),
        launcher=SpawnLauncher(),
        children=ChildSettings(
            root=Path(ROOT),
            workspace=Path(WORKSPACE),
            host_limit_bytes=2**30,
            timeout_s=60.0,
            meters=(),
            prepare_device="tests.harness.run.lease_children:leave_the_device_alone",
        ),
        lease_folder=Path(WORKSPACE) / "locks",
    )

@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
def test_point(point, repeat, measure):
    measure(point, repeat)
"""


def test_four_workers_share_two_cards_without_overlap_whoever_dies(
    driver, driver_environment, tmp_path, project_root
):
    """12 points; the child of one is killed, and at another the whole worker: every planned point
    is reported.
    """
    for number in range(2):
        driver.add_device(f"GPU-{number}", total_bytes=40 * GIB)
    workspace = tmp_path / "workspace"
    (workspace / "locks").mkdir(parents=True)
    (tmp_path / "test_sweep.py").write_text(
        f"ROOT, WORKSPACE = {str(project_root)!r}, {str(workspace)!r}\n{SWEEP}"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-n",
        "4",
        "-p",
        "no:cacheprovider",
        "-q",
        "--memory-repeats",
        "1",
        "--memory-no-trace",
        "--memory-device",
        # the runner has a card all the same; TensorFlow is not asked whether it sees the stub's
        "cpu",
    ]
    environment = {
        name: value
        for name, value in driver_environment.items()
        if not name.startswith(("CUDA_", "PYTEST_"))
    }
    done = subprocess.run(
        [*command, "--memory-out", "run", "test_sweep.py"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(project_root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    notes = [line.split(" ") for line in (workspace / "notes").read_text().splitlines()]
    seen = collections.Counter(kind for kind, _, _ in notes)
    ends = ends_of(tmp_path / "run")
    outcomes = {end.point: str(end.outcome) for end in ends}

    assert "1 failed, 11 passed" in done.stdout, done.stdout + done.stderr
    assert seen == {"held": 12, "free": 10}  # no overlap; two died while they held a card
    assert {uuid for _, uuid, _ in notes} == {"GPU-0", "GPU-1"}
    assert outcomes == {
        f"hold-{number}": "crashed" if number == 3 else "ok" for number in range(12) if number != 6
    }
    held = {f"hold-{number}": uuid for kind, uuid, number in notes if kind == "held"}
    assert {end.point: end.device for end in ends} == {
        point: uuid for point, uuid in held.items() if point != "hold-6"
    }
    assert len(load_run(tmp_path / "run").points) == 12
    assert all(is_free(lock) for lock in Path(workspace / "locks").iterdir())
