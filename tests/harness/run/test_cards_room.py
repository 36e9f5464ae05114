"""What a held card has room for, as the stub driver tells it to a fresh process."""

import pytest

from harness.pretended.control import FUNCTION_NOT_FOUND, GPU_IS_LOST
from harness.run.devices import CONTEXT_BYTES
from harness.words import GIB, MIB

LEFT_BYTES = CONTEXT_BYTES + 1536 * MIB
"""Of a card of compute capability 8.0, as the stub's are."""

ASK = """
import json, sys
from harness.errors import DeviceUnavailable
from harness.run.cards import choose_device
from harness.run.cards import with_room
device = choose_device("gpu")
growth, budget_bytes = json.loads(sys.argv[1])
device = device.with_growth() if growth else device.with_budget(budget_bytes)
try:
    found = with_room(device)
    print(json.dumps([found.pool, found.limit_bytes]))
except DeviceUnavailable as reason:
    print(json.dumps(str(reason)))
"""


@pytest.fixture
def room(fresh_process):
    """Pool and limit of the first card, or the reason why it has no room."""

    def room(*, growth=False, budget_bytes=None):
        return fresh_process(ASK, [growth, budget_bytes])

    return room


def test_a_reserved_pool_is_what_is_free_less_what_is_left(driver, room):
    """What the driver keeps for itself is not free."""
    driver.add_device("GPU-0", total_bytes=40 * GIB, reserved_bytes=500 * MIB, used_bytes=GIB)

    assert room() == ["reserved", 39 * GIB - 500 * MIB - LEFT_BYTES]


def test_most_is_left_where_the_compute_capability_is_unknown(driver, room):
    """As by a driver that is too old to be asked."""
    driver.add_device("GPU-0", total_bytes=40 * GIB)
    driver.fail("nvmlDeviceGetCudaComputeCapability", FUNCTION_NOT_FOUND)

    assert room() == ["reserved", 40 * GIB - CONTEXT_BYTES - 1800 * MIB]


def test_a_budget_and_a_pool_that_grows_keep_what_they_have(driver, room):
    """A budget is its own limit, and a pool that grows has none."""
    driver.add_device("GPU-0", total_bytes=40 * GIB)

    assert room(budget_bytes=GIB) == ["reserved", GIB]
    assert room(growth=True) == ["grown", None]


@pytest.mark.parametrize(
    ("budget_bytes", "needed_bytes", "asked"),
    [
        (None, 16 * MIB, "the smallest pool needs 16.0 MiB"),
        (4 * GIB, 4 * GIB, "the device budget needs 4.0 GiB"),
    ],
)
def test_a_card_is_full_one_byte_below_what_is_needed(
    driver, room, budget_bytes, needed_bytes, asked
):
    """The sentence has what is free, what is needed, and who is on the card with how much."""
    card = driver.add_device("GPU-0", name="A100", total_bytes=40 * GIB)
    # A limit that TensorFlow is given is taken as it is; by itself it leaves something free of what
    # is there.
    left_bytes = CONTEXT_BYTES if budget_bytes else CONTEXT_BYTES + 225 * MIB
    driver.add_process(card, 4711, 3 * GIB, name="python3")
    card.used_bytes = 40 * GIB - left_bytes - needed_bytes
    assert room(budget_bytes=budget_bytes) == ["reserved", needed_bytes]
    card.used_bytes += 1
    said = room(budget_bytes=budget_bytes)

    assert said.startswith("A100 (GPU-0) has ")
    assert (
        f"; {asked}. On the card: process 4711 (python3, 3.0 GiB). To do: end what fills it, or "
        in said
    )
    assert ("ask for a device budget of 4.0 GiB or less" in said) == (budget_bytes is not None)


def test_a_full_card_without_a_list_says_that_nobody_is_listed(driver, room):
    """As in a container."""
    driver.add_device("GPU-0", total_bytes=GIB, used_bytes=GIB)

    assert "the driver lists no process on it" in room()


def test_an_idle_card_that_is_too_small_is_blamed_on_nobody(driver, room):
    """Nothing is in use there, so that no process is looked for."""
    driver.add_device("GPU-0", total_bytes=GIB)

    assert "On the card: nobody. " in room(budget_bytes=900 * MIB)


def test_a_card_that_tells_nothing_has_no_room(driver, room):
    """Unknown is not free: a card that is lost between the plan and its lease."""
    driver.add_device("GPU-0", name="A100", total_bytes=40 * GIB)
    driver.fail("nvmlDeviceGetHandleByUUID", GPU_IS_LOST)

    assert room().startswith(
        "what is free on A100 (GPU-0) is unknown: the card has fallen off the bus"
    )
