"""What the watchdog adds up, and where it bites: at the limit and one past it, in a /proc of its own."""

import pytest

from harness.run.watchdog import MARGIN_BYTES, Watchdog
from harness.units import GIB, KIB, MIB

LIMIT = 256 * MIB


@pytest.fixture
def proc(tmp_path):
    """A /proc with a machine of 8 GiB, half of it available."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {8 * GIB // KIB} kB\nMemAvailable: {4 * GIB // KIB} kB\n")
    return tmp_path


@pytest.fixture
def process(proc):
    """Put a process there."""

    def put(pid, *, anon=0, shmem=0, children=(), exactly=None):
        task = proc / str(pid) / "task" / str(pid)
        task.mkdir(parents=True, exist_ok=True)
        (task / "children").write_text(" ".join(map(str, children)))
        (proc / str(pid) / "status").write_text(
            f"Name:\tbody\nVmRSS:\t 99999999 kB\nRssAnon:\t {anon // KIB} kB\nRssFile:\t 99999999 kB\n"
            f"RssShmem:\t {shmem // KIB} kB\n"
        )
        exact = anon + shmem if exactly is None else exactly
        (proc / str(pid) / "smaps_rollup").write_text(f"Pss: 99999999 kB\nPss_Anon: {exact // KIB} kB\nPss_Shmem: 0 kB\n")
        (proc / str(pid) / "stat").write_text(f"{pid} (a (name) S) R " + " ".join(["0"] * 10) + " 150 50 0 0\n")

    return put


@pytest.fixture
def look(proc):
    """One look at process 1."""
    return lambda: Watchdog(1, LIMIT, proc=proc, machine_bytes=8 * GIB).look()


@pytest.mark.parametrize("part", ["anon", "shmem"])
def test_private_and_shared_memory_may_reach_the_limit_and_its_margin(process, look, part):
    """One page more is one too many."""
    process(1, **{part: LIMIT + MARGIN_BYTES})
    assert look() == ""
    process(1, **{part: LIMIT + MARGIN_BYTES + 4 * KIB})

    assert look() == "it held 288.0 MiB of private and shared memory, 32.0 MiB over the limit of 256.0 MiB"


def test_private_and_shared_memory_are_added_up(process, look):
    """Two halves and a little more."""
    process(1, anon=200 * MIB, shmem=200 * MIB)

    assert look() == "it held 400.0 MiB of private and shared memory, 144.0 MiB over the limit of 256.0 MiB"


def test_descendants_count(process, look):
    """Children, and theirs."""
    process(1, anon=100 * MIB, children=[2, 3])
    process(2, anon=100 * MIB, children=[4])
    process(3, anon=10 * MIB)
    process(4, anon=100 * MIB)

    assert look().startswith("it and 3 processes that it started held 310.0 MiB")


def test_pages_that_forked_children_share_count_once(process, look):
    """The sum is over the limit; each one's share of it, which is asked for then, is not."""
    process(1, anon=200 * MIB, exactly=110 * MIB, children=[2])
    process(2, anon=200 * MIB, exactly=110 * MIB)

    assert look() == ""


def test_the_machines_last_memory_is_not_for_the_child(process, proc, look):
    """The floor is a 32nd of the machine: 256 MiB of 8 GiB."""
    process(1, anon=LIMIT)
    (proc / "meminfo").write_text(f"MemAvailable: {256 * MIB // KIB} kB\n")
    assert look() == ""
    (proc / "meminfo").write_text(f"MemAvailable: {256 * MIB // KIB - 1} kB\n")

    assert look() == (
        "the machine had 256.0 MiB of memory left, under the floor of 256.0 MiB, while it held 256.0 MiB,"
        " within its own limit of 256.0 MiB"
    )


def test_a_small_child_is_not_killed_for_what_others_hold(process, proc, look):
    """It holds less than what is missing."""
    process(1, anon=255 * MIB)
    (proc / "meminfo").write_text("MemAvailable: 0 kB\n")

    assert look() == ""


def test_a_process_that_is_gone_or_a_system_without_proc_is_no_reason(tmp_path):
    """Nothing is seen there."""
    watchdog = Watchdog(1, LIMIT, proc=tmp_path / "none", machine_bytes=8 * GIB)

    assert (watchdog.look(), watchdog.used_cpu_s()) == ("", 0.0)


def test_processor_time_is_read_behind_the_name(process, proc, monkeypatch):
    """A name may hold blanks and brackets."""
    process(1)
    monkeypatch.setattr("os.sysconf", {"SC_CLK_TCK": 100}.__getitem__)

    assert Watchdog(1, LIMIT, proc=proc, machine_bytes=8 * GIB).used_cpu_s() == 2.0
