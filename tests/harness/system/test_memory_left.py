"""The kernel's own counters of out-of-memory kills, in both versions of cgroups, from a /proc of
the test's own.
"""

import pytest

from harness.system.memory import count_oom_kills, memory_cgroup, where_it_killed

V1 = (
    "4:memory:/jobs/one\n1:cpu:/\n0::/\n",
    "35 31 0:32 / {mount} rw,relatime - cgroup cgroup rw,memory\n",
)
V2 = ("0::/jobs/one\n", "35 31 0:32 / {mount} rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n")
IN_A_CONTAINER = ("0::/jobs/one\n", "35 31 0:32 /jobs {mount} rw,relatime - cgroup2 cgroup2 rw\n")


@pytest.fixture
def proc(tmp_path):
    """A /proc whose process is in the given cgroups, with a counter of the machine."""

    def make(kind):
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "cgroup").write_text(kind[0])
        (tmp_path / "self" / "mountinfo").write_text(
            "24 23 0:22 / /proc rw - proc proc rw\n" + kind[1].format(mount=tmp_path / "cgroup")
        )
        (tmp_path / "vmstat").write_text("pgfault 17\noom_kill 5\n")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("kind", "folder", "file"),
    [
        (V1, "jobs/one", "memory.oom_control"),
        (V2, "jobs/one", "memory.events"),
        (IN_A_CONTAINER, "one", "memory.events"),
    ],
    ids=["version 1", "version 2", "a container"],
)
def test_kills_are_counted_for_the_machine_and_for_our_own_cgroup(
    proc, tmp_path, kind, folder, file
):
    """Wherever the kernel keeps them."""
    cgroup = tmp_path / "cgroup" / folder
    cgroup.mkdir(parents=True)
    (cgroup / file).write_text("oom 7\nunder_oom 0\noom_kill 2\noom_group_kill 0\n")

    assert memory_cgroup(proc(kind)) == cgroup
    assert count_oom_kills(tmp_path) == {"this machine": 5, f"the cgroup {cgroup}": 2}


def test_what_does_not_count_is_left_out(tmp_path):
    """No /proc, no kills; nothing is zero that was not read."""
    assert count_oom_kills(tmp_path) == {}


def test_only_counters_that_moved_are_told():
    """One that appeared meanwhile has no earlier value."""
    assert where_it_killed({"a": 1, "b": 1}, {"a": 2, "b": 1, "c": 9}) == ("a",)
