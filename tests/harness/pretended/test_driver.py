"""The pretended CUDA driver and NVML beside it: cards, limits, who holds what, and what is left of
a dead process.
"""

import ctypes
import shutil

import pytest

from harness.errors import UsageError
from harness.pretended import make_machine
from harness.pretended.control import GPU_IS_LOST, MOST_PROCESSES
from harness.words import GIB, MIB

# cuda.h, cudaError_enum
OUT_OF_MEMORY, NOT_INITIALIZED, DEVICE_UNAVAILABLE, NO_DEVICE = 2, 3, 46, 100
SYSTEM_DRIVER_MISMATCH = 803
STEP = 256  # an allocation is a multiple of it


def _uuid(machine, index=0):
    return machine.devices[index].uuid.decode()


def test_two_cards_have_the_names_sizes_and_uuids_of_the_control_file(machine, start):
    """The driver and NVML answer from one file."""
    two = machine(cards=2, total_bytes=(2 * GIB, 3 * GIB))
    child = start(two)

    code, found = child("init"), child("cards")

    expected = [
        ["Pretended A100", _uuid(two, index)[4:].replace("-", ""), size]
        for index, size in ((0, 2 * GIB), (1, 3 * GIB))
    ]
    assert (code, found) == (0, expected)
    assert child("nvml", _uuid(two))["capability"] == [8, 0]


@pytest.mark.parametrize(
    ("entries", "visible"),
    [
        ("1", [1]),
        ("1,0", [1, 0]),
        ("0, 1", [0, 1]),
        ("0,7,1", [0]),
        ("0,0,1", [0]),
        ("{0}", [0]),
        ("{1},{0}", [1, 0]),
        ("{0:.12}", [0]),
        ("GPU-", []),
        ("GPU-0000000", []),  # fits both
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(machine, start, entries, visible):
    """Indices, UUIDs and their beginnings; the first entry that names no card, two, or one again,
    ends the list.
    """
    two = machine(cards=2, total_bytes=(2 * GIB, 3 * GIB))
    child = start(two, CUDA_VISIBLE_DEVICES=entries.format(_uuid(two, 0), _uuid(two, 1)))

    code, found = child("init"), child("cards")

    assert [total for _, _, total in found] == [(2 * GIB, 3 * GIB)[index] for index in visible]
    assert code == (0 if visible else NO_DEVICE)


def test_a_card_gives_its_last_bytes_and_none_beyond(machine, opened):
    """At the size of the card, and one step past it."""
    child = opened(machine(total_bytes=GIB))

    code, first = child("take", GIB - STEP)

    assert code == 0
    assert child("usage") == [0, STEP, GIB]
    assert child("take", STEP + 1)[0] == OUT_OF_MEMORY
    assert child("take", STEP)[0] == 0
    assert child("give", first) == 0
    assert child("usage") == [0, GIB - STEP, GIB]


def test_what_others_hold_of_a_card_cannot_be_taken(machine, opened):
    """Reserved bytes, a neighbour and a context are less to be had, for the driver and for NVML
    alike.
    """
    one = machine(total_bytes=2 * GIB, reserved_bytes=100 * MIB, context_bytes=300 * MIB)
    one.devices[0].used_bytes = 500 * MIB
    child = opened(one)
    free_bytes = 2 * GIB - 900 * MIB

    # as on true cards, CUDA's total is without what is reserved
    assert child("usage") == [0, free_bytes, 2 * GIB - 100 * MIB]
    assert child("take", free_bytes + STEP)[0] == OUT_OF_MEMORY
    assert child("take", free_bytes)[0] == 0
    found = child("nvml", _uuid(one))
    # version 2 of the query is without what is reserved
    assert found["used"] == 2 * GIB - 100 * MIB
    assert found["processes"] == {str(child.pid): 300 * MIB + free_bytes}


def test_a_full_card_has_no_room_for_a_context(machine, start):
    """What a process meets first on a card that a neighbour fills."""
    one = machine(total_bytes=GIB, context_bytes=300 * MIB)
    one.devices[0].used_bytes = GIB - 300 * MIB + 1
    child = start(one)
    child("init")

    full = child("open", 0)
    one.devices[0].used_bytes -= 1

    assert (full, child("open", 0)) == (OUT_OF_MEMORY, 0)


def test_a_killed_process_leaves_nothing_but_its_accounting(machine, opened):
    """SIGKILL: out of the list, out of the sum, free for others; its peak stays, marked as
    ended.
    """
    one = machine(total_bytes=GIB)
    victim, other = opened(one), opened(one)
    victim("take", 600 * MIB)
    refused = other("take", 500 * MIB)[0]
    before = other("nvml", _uuid(one))

    victim.kill()

    assert refused == OUT_OF_MEMORY
    assert before["processes"] == {str(victim.pid): 600 * MIB, str(other.pid): 0}
    assert before["used"] == 600 * MIB
    after = other("nvml", _uuid(one))
    assert (after["processes"], after["used"]) == ({str(other.pid): 0}, 0)
    assert other("accounting", _uuid(one), victim.pid) == [600 * MIB, 0]
    assert other("take", GIB)[0] == 0


def test_accounting_keeps_the_most_that_a_process_had(machine, opened):
    """70 MiB taken and 40 given back: 30 in use, 70 accounted."""
    one = machine()
    child = opened(one)
    child("take", 30 * MIB)
    child("give", child("take", 40 * MIB)[1])

    assert child("nvml", _uuid(one))["processes"] == {str(child.pid): 30 * MIB}
    assert child("accounting", _uuid(one), child.pid) == [70 * MIB, 1]


def test_processes_that_start_together_all_count(machine, start):
    """Eight at once: each has a place of its own in the list, and no byte is lost."""
    one = machine(total_bytes=2 * GIB)
    children = [start(one) for _ in range(8)]
    for request in (["init"], ["open", 0], ["take", 16 * MIB]):
        for child in children:
            child.tell(request)
        for child in children:
            child.answer()

    found = children[0]("nvml", _uuid(one))

    assert found["processes"] == {str(child.pid): 16 * MIB for child in children}
    assert found["used"] == 8 * 16 * MIB


def test_more_processes_one_after_the_other_than_the_list_has_places(machine, start):
    """Places of the dead are used again; at the end the card is empty."""
    one = machine(total_bytes=GIB)
    child = start(one)

    codes = child("visits", MOST_PROCESSES + 5, GIB)

    assert codes == [0] * (MOST_PROCESSES + 5)
    assert one.devices[0].process_count == MOST_PROCESSES
    assert (child("nvml", _uuid(one))["processes"], child("nvml", _uuid(one))["used"]) == ({}, 0)


def test_a_later_process_of_the_same_number_is_another(machine, opened):
    """The start time decides: an entry whose time is not the process's own is a dead one's."""
    one = machine()
    child = opened(one)
    child("take", MIB)
    one.devices[0].processes[0].start_ticks -= 1

    assert child("nvml", _uuid(one))["processes"] == {}
    assert child("usage")[1] == one.devices[0].total_bytes


def test_a_lost_card_answers_nothing_and_the_other_one_works_on(machine, opened, start):
    """Both libraries, in a process that holds memory there."""
    two = machine(cards=2)
    child = opened(two)
    code, pointer = child("take", MIB)
    two.devices[0].lost = 1

    assert code == 0
    assert child("touch", pointer, MIB) == DEVICE_UNAVAILABLE
    assert child("take", MIB)[0] == DEVICE_UNAVAILABLE
    assert child("usage")[0] == DEVICE_UNAVAILABLE
    assert child("nvml", _uuid(two))["error"] == GPU_IS_LOST
    assert child("open", 0) == DEVICE_UNAVAILABLE
    assert child("open", 1) == 0
    assert child("take", MIB)[0] == 0


def test_a_process_forked_from_one_with_the_driver_is_refused(machine, opened):
    """As CUDA does, whose contexts do not outlive a fork."""
    child = opened(machine())

    assert child("init_in_fork") == NOT_INITIALIZED
    assert child("take", MIB)[0] == 0


def test_faults_of_the_driver_can_be_set(machine, start):
    """Its version, and the code of cuInit."""
    one = machine()
    one.control.state.cuda_version = 11040
    one.control.state.cuda_init_fault = SYSTEM_DRIVER_MISMATCH
    child = start(one)

    assert (child("init"), child("version")) == (SYSTEM_DRIVER_MISMATCH, [0, 11040])


def test_without_a_control_file_there_is_no_card(machine, start):
    """The libraries alone pretend nothing."""
    child = start(machine(), NVML_STUB_CONTROL="")

    assert child("init") == NO_DEVICE
    assert child("cards") == []


def test_a_card_of_80_gib_costs_what_is_touched_of_it(machine, opened, tmp_path):
    """The host's anonymous and shared memory stay as they were, pages of the file come and go, the
    disk stays free.
    """
    child = opened(machine(total_bytes=80 * GIB))
    before, free_bytes = child("host"), shutil.disk_usage(tmp_path).free
    _, first = child("take", 60 * GIB)
    _, second = child("take", 64 * MIB)
    taken = child("host")
    child("touch", second, 64 * MIB)
    touched = child("host")
    child("give", second)
    given = child("host")

    assert first
    # half of what was taken: others use this disk too
    assert free_bytes - shutil.disk_usage(tmp_path).free < 30 * GIB
    for name in ("RssAnon", "RssShmem"):
        assert abs(touched[name] - before[name]) < MIB, name
    assert taken["RssFile"] - before["RssFile"] < MIB
    assert abs(touched["RssFile"] - taken["RssFile"] - 64 * MIB) < MIB
    assert abs(given["RssFile"] - taken["RssFile"]) < MIB


def test_a_folder_in_tmpfs_is_said_to_be_the_hosts_memory(machine, opened, tmp_path):
    """It works, and counts as RssShmem; one line says so, with what to do."""
    child = opened(machine(), PRETENDED_CARD_ARENA="/dev/shm")  # noqa: S108 - tmpfs on every Linux
    before = child("host")
    child("touch", child("take", 8 * MIB)[1], 8 * MIB)

    assert child("host")["RssShmem"] - before["RssShmem"] == 8 * MIB
    assert "shm is tmpfs" in child.errors.read_text()
    assert "set PRETENDED_CARD_ARENA to a folder on a disk" in child.errors.read_text()


def test_an_instance_is_a_card_of_its_own(machine, opened):
    """MIG: named by its UUID, with its own size; its sibling has none of what it holds."""
    one = machine(total_bytes=8 * GIB)
    instance = one.control.add_instance(one.devices[0], total_bytes=2 * GIB)
    sibling = one.control.add_instance(one.devices[0], total_bytes=2 * GIB)
    child = opened(one, CUDA_VISIBLE_DEVICES=instance.uuid.decode())

    assert child("usage") == [0, 2 * GIB, 2 * GIB]
    assert child("take", 2 * GIB + STEP)[0] == OUT_OF_MEMORY
    assert child("take", 2 * GIB)[0] == 0
    assert child("nvml", instance.uuid.decode())["used"] == 2 * GIB
    assert child("nvml", sibling.uuid.decode())["used"] == 0


def test_both_sides_agree_on_the_size_of_the_control_file(machine):
    """The file is as long as the structure, which the C side insists on."""
    one = machine()

    assert one.control.path.stat().st_size == ctypes.sizeof(type(one.control.state))


def test_a_machine_that_is_made_again_leaves_the_processes_of_the_old_one_alone(
    machine, opened, tmp_path
):
    """They have the old control file mapped, and would die of SIGBUS if it were cut short."""
    one = machine(total_bytes=GIB)
    child = opened(one)
    make_machine(one.control.path.parent, one.card, total_bytes=2 * GIB)

    assert child("take", STEP)[0] == 0
    assert child("usage") == [0, GIB - STEP, GIB]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"name": "x" * 90}, "NVML takes 95 at most"),
        ({"context_bytes": -1}, "write 0 or more"),
        ({"context_bytes": GIB + 1}, "up to the size of a card"),
        ({"total_bytes": 1025 * GIB}, "the largest is 1.0 TiB"),
    ],
)
def test_a_machine_that_cannot_be_is_one_sentence(machine, settings, said):
    """Before anything is written."""
    with pytest.raises(UsageError, match=said):
        machine(**{"total_bytes": GIB, **settings})


def test_every_pretended_card_says_that_it_is_one(machine):
    """Runs on it are told apart from those on a real card by this word."""
    assert machine(name="NVIDIA H100").devices[0].name == b"Pretended NVIDIA H100"
