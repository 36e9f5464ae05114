"""What the watchdog adds up, and where it bites: at the limit and one past it, in a /proc of its
own.
"""

import pytest

from harness.system.memory import LONGEST_PAUSE_S, SHORTEST_PAUSE_S, Limit, Overrun, Watchdog
from harness.system.proc import lag_here_bytes
from harness.words import GIB, KIB, MIB

LIMIT = 256 * MIB


@pytest.fixture
def proc(tmp_path):
    """A /proc with a machine of 8 GiB, half of it available."""
    (tmp_path / "meminfo").write_text(
        f"MemTotal: {8 * GIB // KIB} kB\nMemAvailable: {4 * GIB // KIB} kB\n"
    )
    return tmp_path


@pytest.fixture
def process(proc):
    """Put a process there."""

    def put(pid, *, anon=0, shmem=0, swap=0, children=(), exactly=None):
        task = proc / str(pid) / "task" / str(pid)
        task.mkdir(parents=True, exist_ok=True)
        (task / "children").write_text(" ".join(map(str, children)))
        (proc / str(pid) / "status").write_text(
            "Name:\tbody\nVmPeak:\t 99999999 kB\nVmData:\t 99999999 kB\nVmRSS:\t 99999999 "
            f"kB\nRssAnon:\t {anon // KIB} kB\nRssFile:\t 99999999 kB\nRssShmem:\t "
            f"{shmem // KIB} kB\nVmSwap:\t {swap // KIB} kB\n"
        )
        exact = (anon + shmem + swap if exactly is None else exactly) // KIB
        (proc / str(pid) / "smaps_rollup").write_text(
            f"Rss: 99999999 kB\nPss: 99999999 kB\nPss_Anon: {exact} kB\nPss_File: 99999999 "
            f"kB\nPss_Shmem: 0 kB\nAnonymous: {exact} kB\nSwap: 0 kB\nSwapPss: 0 kB\n"
        )
        (proc / str(pid) / "stat").write_text(
            f"{pid} (a (name) S) R " + " ".join(["0"] * 10) + " 150 50 0 0\n"
        )

    return put


@pytest.fixture
def watchdog(proc):
    """One that watches process 1, by a clock that moves only when a test moves it."""
    still = {"clock": lambda: 0.0, "cpu_clock": lambda: 0.0}
    return Watchdog(
        1, Limit(LIMIT, "--memory-host-budget 256.0 MiB"), proc=proc, machine_bytes=8 * GIB, **still
    )


@pytest.fixture
def look(proc):
    """The words of one look at process 1; None where it may go on."""

    def words():
        overrun = Watchdog(1, Limit(LIMIT), proc=proc, machine_bytes=8 * GIB).look()
        return overrun and overrun.words

    return words


@pytest.mark.parametrize("part", ["anon", "shmem", "swap"])
def test_private_and_shared_and_swapped_memory_may_reach_the_limit(process, watchdog, part):
    """One page more is one too many; the clause has the reading, the limit and the option."""
    process(1, **{part: LIMIT})
    assert watchdog.look() is None
    process(1, **{part: LIMIT + 4 * KIB})

    assert watchdog.look() == Overrun(
        "watchdog",
        "it held 256.0 MiB of private and shared memory, 4.0 KiB over the limit of 256.0 "
        "MiB (--memory-host-budget 256.0 MiB)",
    )


def test_a_reading_within_the_counters_lag_is_looked_at_page_by_page(process, look):
    """Further beyond the limit than the kernel's counters can be off, nothing has to be added
    up.
    """
    process(1, anon=LIMIT + lag_here_bytes(3), exactly=LIMIT)
    assert look() is None
    process(1, anon=LIMIT + lag_here_bytes(3) + 4 * KIB, exactly=LIMIT)

    assert look() is not None


def test_private_and_shared_memory_are_added_up(process, look):
    """Two halves and a little more."""
    process(1, anon=200 * MIB, shmem=200 * MIB)

    assert (
        look()
        == "it held 400.0 MiB of private and shared memory, 144.0 MiB over the limit of 256.0 MiB"
    )


@pytest.mark.parametrize(
    ("room_mib", "pause_s"), [(200, 200 / 16384), (400, LONGEST_PAUSE_S), (1, SHORTEST_PAUSE_S)]
)
def test_the_closer_to_the_limit_the_sooner_comes_the_next_look(proc, process, room_mib, pause_s):
    """So soon that 16 GiB/s cannot take what is left, down to 2 ms."""
    process(1, anon=512 * MIB - room_mib * MIB)
    watchdog = Watchdog(1, Limit(512 * MIB), proc=proc, machine_bytes=8 * GIB)
    watchdog.look()

    assert watchdog.pause_s == pytest.approx(pause_s)


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

    assert look() is None


def test_what_forks_take_after_they_were_looked_at_exactly_counts_at_the_next_look(
    process, watchdog
):
    """36 MiB more than what they were known to share is within the limit, one page more is not; no
    time has passed.
    """
    process(1, anon=200 * MIB, exactly=110 * MIB, children=[2])
    process(2, anon=200 * MIB, exactly=110 * MIB)
    assert watchdog.look() is None
    process(2, anon=236 * MIB, exactly=146 * MIB)
    assert watchdog.look() is None
    process(2, anon=236 * MIB + 4 * KIB, exactly=146 * MIB + 4 * KIB)

    assert watchdog.look().words.startswith(
        "it and 1 process that it started held 256.0 MiB of private and shared memory, 4.0 KiB"
    )


def test_a_process_that_does_not_let_its_pages_be_read_counts_by_its_counters(process, proc, look):
    """One of another user, and a kernel without smaps_rollup."""
    process(1, anon=100 * MIB, children=[2])
    process(2, anon=200 * MIB)
    (proc / "2" / "smaps_rollup").write_text("")

    assert look().startswith("it and 1 process that it started held 300.0 MiB")


def test_a_process_that_was_started_since_the_last_look_counts_at_the_next(process, watchdog):
    """Listing is put off only by what it costs, and that is nothing on a clock that stands."""
    process(1, anon=200 * MIB)
    assert watchdog.look() is None
    process(1, anon=200 * MIB, children=[2])
    process(2, anon=100 * MIB)

    assert watchdog.look().words.startswith("it and 1 process that it started held 300.0 MiB")
    assert watchdog.family == (1, 2)


def test_the_machines_last_memory_is_not_for_the_child(process, proc, look):
    """The floor is a 32nd of the machine: 256 MiB of 8 GiB."""
    process(1, anon=LIMIT)
    (proc / "meminfo").write_text(f"MemAvailable: {256 * MIB // KIB} kB\n")
    assert look() is None
    (proc / "meminfo").write_text(f"MemAvailable: {256 * MIB // KIB - 1} kB\n")

    assert look() == (
        "this machine had 256.0 MiB of memory left, under the floor of 256.0 MiB that is "
        "kept for everybody else, while it held 256.0 MiB, within the limit of 256.0 MiB"
    )


def test_the_end_for_the_machine_has_a_cause_of_its_own(process, proc, watchdog):
    """It is not the child that was shown to hold too much."""
    process(1, anon=LIMIT)
    (proc / "meminfo").write_text("MemAvailable: 0 kB\n")

    assert watchdog.look().cause == "machine"


@pytest.fixture
def cgroup(proc, tmp_path):
    """A memory cgroup of 1 GiB around this process, in version 2 or 1: so much in use, so much of
    it page cache.
    """

    def put(version, *, used, cache):
        folder = tmp_path / "cgroup" / "job"
        folder.mkdir(parents=True, exist_ok=True)
        (proc / "self").mkdir(exist_ok=True)
        kind, options, member = (
            ("cgroup2", "rw", "0::/job")
            if version == 2
            else ("cgroup", "rw,memory", "4:memory:/job")
        )
        (proc / "self" / "cgroup").write_text(f"{member}\n")
        (proc / "self" / "mountinfo").write_text(
            f"1 0 0:1 / {tmp_path / 'cgroup'} rw - {kind} x {options}\n"
        )
        names = (
            ("memory.max", "memory.current")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        for name, amount in zip(names, (GIB, used), strict=True):
            (folder / name).write_text(f"{amount}\n")
        lines = f"inactive_file {cache // 2}\nactive_file {cache - cache // 2}\n"
        totals = "".join(f"total_{line}\n" for line in lines.splitlines()) if version == 1 else ""
        (folder / "memory.stat").write_text(f"anon 1\n{lines}{totals}")
        return folder

    return put


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_has_a_floor_too(process, cgroup, look, version):
    """A 32nd of 1 GiB, 32 MiB; page cache counts as left."""
    process(1, anon=200 * MIB)
    folder = cgroup(version, used=GIB - 12 * MIB, cache=20 * MIB)
    assert look() is None
    cgroup(version, used=GIB - 12 * MIB, cache=20 * MIB - 4 * KIB)

    assert look().startswith(
        f"the cgroup {folder} had 32.0 MiB of memory left, under the floor of 32.0 MiB"
    )


def test_a_small_child_is_not_killed_for_what_others_hold(process, proc, look):
    """It holds less than what is missing."""
    process(1, anon=255 * MIB)
    (proc / "meminfo").write_text("MemAvailable: 0 kB\n")

    assert look() is None


def test_a_process_that_is_gone_or_a_system_without_proc_is_no_reason(tmp_path):
    """Nothing is seen there."""
    watchdog = Watchdog(1, Limit(LIMIT), proc=tmp_path / "none", machine_bytes=8 * GIB)

    assert (watchdog.look(), watchdog.used_cpu_s()) == (None, 0.0)


def test_processor_time_is_read_behind_the_name(process, proc, monkeypatch):
    """A name may hold blanks and brackets."""
    process(1)
    monkeypatch.setattr("os.sysconf", {"SC_CLK_TCK": 100}.__getitem__)

    assert Watchdog(1, Limit(LIMIT), proc=proc, machine_bytes=8 * GIB).used_cpu_s() == 2.0
