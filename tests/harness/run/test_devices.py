"""Devices: budgets at the limit and one past it, which cards there are, and which of them the
caller made visible.
"""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from harness.errors import UsageError
from harness.pretended.control import LIB_RM_VERSION_MISMATCH, NOT_FOUND, ON, StubControl
from harness.records import Point, PoolKind
from harness.run.cards import CardFound, Place, choose_device, visible_places
from harness.run.devices import Device, check_budget, emulated_device
from harness.words import GIB, MIB


def card(uuid="GPU-aaaa"):
    return Device(
        kind="gpu", name="A100", uuid=uuid, memory_bytes=40 * GIB, limit_bytes=None, driver="560.1"
    )


def test_the_smallest_budget_is_taken_and_one_byte_less_is_not():
    """16 MiB."""
    assert check_budget(16 * MIB) == 16 * MIB
    with pytest.raises(UsageError, match=r"the smallest is 16\.0 MiB"):
        check_budget(16 * MIB - 1)


def test_a_budget_of_broken_mib_is_refused():
    """TensorFlow's limit is set in whole MiB; rounding would measure something else."""
    with pytest.raises(UsageError, match="whole MiB"):
        check_budget(100 * MIB + 1)


def test_the_emulated_device_is_limited_by_the_environment():
    """The BFC allocator on the CPU, with the budget in MiB, and no card visible."""
    device = emulated_device("no driver").with_budget(256 * MIB)

    assert device.environment() == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPU_ALLOCATOR_USE_BFC": "true",
        "TF_CPU_BFC_MEM_LIMIT_IN_MB": "256",
    }
    assert device.memory_bytes == 256 * MIB


def test_a_card_is_selected_by_uuid_and_keeps_its_size_under_a_budget():
    """The index of CUDA is not the index of NVML."""
    device = card().with_budget(1 * GIB)

    assert device.environment()["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa"
    assert (device.memory_bytes, device.limit_bytes) == (40 * GIB, 1 * GIB)


@pytest.mark.parametrize(
    ("device", "pool", "forced"),
    [
        (card(), PoolKind.RESERVED, "false"),
        (card().with_budget(GIB), PoolKind.RESERVED, "false"),
        (card().with_growth(), PoolKind.GROWN, "true"),
        (card().with_growth().with_budget(GIB), PoolKind.RESERVED, "false"),  # a point's own budget
    ],
)
def test_a_pool_is_reserved_unless_it_was_asked_to_grow(device, pool, forced):
    """Set in the child's environment, where it overrides whatever the caller has there; a budget is
    always reserved.
    """
    assert (device.pool, device.environment()["TF_FORCE_GPU_ALLOW_GROWTH"]) == (pool, forced)


def test_the_plan_knows_no_limit_of_a_pool_that_is_reserved():
    """What is free differs from card to card and from child to child; it is asked for when a card
    is held.
    """
    assert card().limit_bytes is None
    assert card().with_growth().limit_bytes is None


def test_growth_holds_for_every_card_of_the_set():
    """Whichever is leased."""
    device = dataclasses.replace(card(), equals=(card("GPU-bbbb"),)).with_growth()

    assert [equal.pool for equal in device.equals] == [PoolKind.GROWN]


@pytest.mark.parametrize("allocator", ["cuda_malloc_async", "cuda_malloc"])
def test_a_budget_and_an_allocator_that_keeps_none_do_not_go_together(allocator):
    """Whether the run has it, or a point that brings its own variable or its own budget."""
    refused = rf"TF_GPU_ALLOCATOR={allocator} is set, and that allocator enforces no limit"
    own_pool = card().with_allocator(allocator)
    point = Point(scenario="s", body="b:b", parameters={}, phases=())

    assert (own_pool.allocator, own_pool.pool, own_pool.limit_bytes) == (
        allocator,
        PoolKind.DRIVER,
        None,
    )
    assert own_pool.for_point(point) == own_pool
    for refuse in (
        lambda: own_pool.with_budget(GIB),
        lambda: card().with_budget(GIB).with_allocator(allocator),
        lambda: own_pool.for_point(dataclasses.replace(point, device_budget_bytes=GIB)),
        lambda: (
            card()
            .with_budget(GIB)
            .for_point(dataclasses.replace(point, environment={"TF_GPU_ALLOCATOR": allocator}))
        ),
    ):
        with pytest.raises(UsageError, match=refused):
            refuse()
    with pytest.raises(UsageError, match="has a pool of its own; unset the variable"):
        own_pool.with_growth()


def test_a_point_may_bring_bfc_back():
    """Then it has a pool that can be reserved, and capped."""
    point = Point(
        scenario="s",
        body="b:b",
        parameters={},
        phases=(),
        environment={"TF_GPU_ALLOCATOR": "bfc"},
        device_budget_bytes=GIB,
    )

    device = card().with_allocator("cuda_malloc_async").for_point(point)

    assert (device.allocator, device.pool, device.limit_bytes) == ("bfc", PoolKind.RESERVED, GIB)


def test_the_emulated_device_is_bfc_whatever_the_variable_says():
    """It is about cards alone."""
    device = emulated_device("no driver")

    assert device.with_allocator("cuda_malloc_async") == device


@pytest.mark.parametrize(
    ("device", "host_bytes"),
    [
        (card().with_budget(32 * GIB), GIB),
        (card().with_growth(), 40 * GIB // 32),
        (dataclasses.replace(card(), pool=PoolKind.DRIVER), 0),
        (emulated_device("no driver").with_budget(512 * MIB), 512 * MIB + 16 * MIB),
    ],
)
def test_a_child_gets_host_memory_for_the_table_of_its_pool(device, host_bytes):
    """A thirty-second: of the budget, or of the whole card where the pool grows; none where the
    allocator is not BFC.
    """
    assert device.host_bytes == host_bytes


def test_an_emulated_device_does_not_grow():
    """The sentence has the reason why it is no card."""
    with pytest.raises(
        UsageError,
        match=r"always reserved \(the card: unavailable: no driver\); leave the option out",
    ):
        emulated_device("no driver").with_growth()


def test_a_budget_holds_for_every_card_of_the_set():
    """Whichever is leased."""
    device = dataclasses.replace(card(), equals=(card("GPU-bbbb"),)).with_budget(GIB)

    assert [equal.limit_bytes for equal in device.equals] == [GIB]


def test_a_budget_above_the_card_is_refused_and_its_whole_size_is_not():
    """The message names the card and its size."""
    assert card().with_budget(40 * GIB).limit_bytes == 40 * GIB
    with pytest.raises(UsageError, match=r"A100 has 40\.0 GiB"):
        card().with_budget(40 * GIB + MIB)


def test_an_emulated_device_may_be_as_large_as_the_machine_and_no_larger(monkeypatch):
    """It lies in the machine's memory; the message names that size."""
    monkeypatch.setattr(
        "os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 8 * GIB // 4096}.__getitem__
    )

    assert emulated_device("no driver").with_budget(8 * GIB).limit_bytes == 8 * GIB
    with pytest.raises(
        UsageError, match=r"8\.0 GiB was asked for, but .* memory, which has 8\.0 GiB; ask for less"
    ):
        emulated_device("no driver").with_budget(8 * GIB + MIB)


def test_cpu_never_asks_the_driver():
    """And says that it was not asked."""
    assert choose_device("cpu").driver == "unavailable: not asked: the emulated device was chosen"


FIND = """
import json
from harness.run.cards import choose_device
device = choose_device("auto").with_budget(None)
print(json.dumps([device.kind, device.name, device.uuid, device.memory_bytes, device.driver,
                  [equal.uuid for equal in device.equals], list(device.left_out), device.pool, \
device.allocator]))
"""


@pytest.fixture
def chosen(driver_environment, project_root):
    """What a fresh process with the stub driver chooses: what ``FIND`` prints, in its order."""

    def chosen(**variables):
        environment = {
            name: value
            for name, value in driver_environment.items()
            if not name.startswith("CUDA_")
        } | variables
        done = subprocess.run(
            [sys.executable, "-c", FIND],
            env=environment,
            cwd=project_root,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return chosen


def test_the_first_card_is_chosen_with_its_equals_and_the_rest_is_named(driver, chosen):
    """Equal is: same name, same memory; in the order of the bus, not of the driver."""
    for number, (name, size_bytes) in enumerate(
        [("A100", 40 * GIB), ("A100", 40 * GIB), ("A100", 80 * GIB), ("T4", 40 * GIB)]
    ):
        driver.add_device(f"GPU-{number}", name=name, total_bytes=size_bytes)
    driver.add_device("GPU-4", name="A100", total_bytes=40 * GIB, lost=1)
    driver.state.devices[1].bus_id = b"00000000:00:00.0"
    kind, name, uuid, memory_bytes, version, equals, left_out, *_ = chosen()

    assert (kind, name, uuid, memory_bytes, version) == (
        "gpu",
        "A100",
        "GPU-1",
        40 * GIB,
        "575.57.08",
    )
    assert equals == ["GPU-0"]
    assert [sentence.split(" ")[0] for sentence in left_out[1:]] == ["GPU-2", "GPU-3"]
    assert left_out[0].startswith("card 4 of the driver: the card has fallen off the bus")
    assert left_out[2] == "GPU-3 (T4, 40.0 GiB) is not equal to the first, A100 with 40.0 GiB"


def test_the_instances_of_a_divided_card_are_devices(driver, chosen):
    """The card itself is not; an instance of another size is not an equal."""
    card = driver.add_device("GPU-0", name="A100", total_bytes=40 * GIB, unprivileged=1)
    for number, size_bytes in enumerate((5 * GIB, 5 * GIB, 10 * GIB)):
        driver.add_instance(card, f"MIG-{number}", name="A100 MIG", total_bytes=size_bytes)
    _, name, uuid, memory_bytes, _, equals, left_out, *_ = chosen()

    assert (name, uuid, memory_bytes, equals) == ("A100 MIG", "MIG-0", 5 * GIB, ["MIG-1"])
    assert [sentence.split(" ")[0] for sentence in left_out] == ["MIG-2"]


def test_a_card_that_shares_the_hosts_memory_has_as_much_as_the_host(driver, chosen):
    """Its driver supports no memory query. Its pool grows: one that takes all that is free would
    take the host's.
    """
    driver.add_device(total_bytes=GIB, unified=1)
    found = chosen()

    assert found[3] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert found[7] == PoolKind.GROWN


def test_a_name_that_is_no_utf8_is_shown_all_the_same(driver, chosen):
    """With the replacement character where a byte cannot be read."""
    driver.add_device("GPU-0", total_bytes=GIB).name = b"\xff card"

    assert chosen()[:3] == ["gpu", "\N{REPLACEMENT CHARACTER} card", "GPU-0"]


def test_a_driver_that_finds_nothing_at_its_start_has_found_no_card(driver, chosen):
    """No name was asked for yet, so none is spoken of."""
    driver.fail("nvmlInitWithFlags", NOT_FOUND)

    assert chosen()[4] == "unavailable: the NVIDIA driver found no card here (NVML: Not Found)"


def test_the_allocator_is_that_of_the_environment(driver, chosen):
    """Every card of the set has it; an empty variable is none."""
    driver.add_device("GPU-0", total_bytes=GIB)

    assert chosen(TF_GPU_ALLOCATOR="cuda_malloc_async")[7:] == [
        PoolKind.DRIVER,
        "cuda_malloc_async",
    ]
    assert chosen(TF_GPU_ALLOCATOR="")[7:] == [PoolKind.RESERVED, "bfc"]


def test_an_old_driver_has_cards_too(old_nvml_stub, tmp_path, chosen):
    """Asked by the older memory query."""
    control = StubControl.create(tmp_path / "old", old_nvml_stub.functions)
    control.add_device("GPU-0", total_bytes=40 * GIB)
    found = chosen(**control.environment(old_nvml_stub.library))
    control.close()

    assert found[2:4] == ["GPU-0", 40 * GIB]


def test_without_a_card_the_reason_is_the_emulated_devices(driver, chosen):
    """No cards, no instances, nothing visible, a library that does not fit."""
    assert (
        chosen()[4]
        == "unavailable: the NVIDIA driver 575.57.08 is here, but has no card to measure on: "
        "it lists no card"
    )
    card = driver.add_device("GPU-0", total_bytes=GIB)
    said = (
        "the driver has 1 cards, and CUDA_VISIBLE_DEVICES leaves none to measure on: "
        "CUDA_VISIBLE_DEVICES ends at '-1'"
    )
    assert said in chosen(CUDA_VISIBLE_DEVICES="-1")[4]
    card.mig = ON
    assert "GPU-0 is in MIG mode, but has no instance" in chosen()[4]
    driver.fail("nvmlInitWithFlags", LIB_RM_VERSION_MISMATCH)

    assert "the kernel still runs the old one; reboot" in chosen()[4]


def whole(uuid):
    return CardFound(uuid=uuid, bus_id="", divided=False, places=(place(uuid, uuid),))


def place(uuid, card_uuid):
    return Place(uuid=uuid, name="A100", memory_bytes=40 * GIB, card_uuid=card_uuid)


DIVIDED = CardFound(
    uuid="GPU-cccc",
    bus_id="",
    divided=True,
    places=(place("MIG-1", "GPU-cccc"), place("MIG-GPU-cccc/7/0", "GPU-cccc")),
)
TWO = [whole("GPU-aaaa"), whole("GPU-bbbb")]


@pytest.mark.parametrize(
    ("cards", "variables", "visible", "left_out"),
    [
        (TWO, {}, ["GPU-aaaa", "GPU-bbbb"], ""),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-bbbb"}, ["GPU-bbbb"], ""),
        (TWO, {"CUDA_VISIBLE_DEVICES": " GPU-b , GPU-a"}, ["GPU-bbbb", "GPU-aaaa"], ""),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-aaaa"}, ["GPU-aaaa"], ""),
        (TWO, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ["GPU-bbbb"], ""),
        (
            TWO,
            {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"},
            [],
            "index 1 in CUDA_VISIBLE_DEVICES counts in an order",
        ),
        (TWO, {"CUDA_VISIBLE_DEVICES": "1,0"}, ["GPU-aaaa", "GPU-bbbb"], ""),
        (TWO[:1], {"CUDA_VISIBLE_DEVICES": "0"}, ["GPU-aaaa"], ""),
        (TWO, {"CUDA_VISIBLE_DEVICES": "-1"}, [], "ends at '-1', which names no device here"),
        (TWO, {"CUDA_VISIBLE_DEVICES": ""}, [], "ends at ''"),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-bbbb,9,GPU-aaaa"}, ["GPU-bbbb"], "ends at '9'"),
        (
            TWO,
            {"CUDA_VISIBLE_DEVICES": "GPU-bbbb,2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            ["GPU-bbbb"],
            "ends at '2'",
        ),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-"}, [], "ends at 'GPU-'"),  # both begin so
        (TWO, {"CUDA_VISIBLE_DEVICES": "G"}, [], "ends at 'G'"),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-aaaa,GPU-x,GPU-bbbb"}, ["GPU-aaaa"], "ends at 'GPU-x'"),
        ([*TWO, DIVIDED], {}, ["GPU-aaaa", "GPU-bbbb", "MIG-1", "MIG-GPU-cccc/7/0"], ""),
        (
            [*TWO, DIVIDED],
            {"CUDA_VISIBLE_DEVICES": "MIG-GPU-cccc/7/0,MIG-1"},
            ["MIG-GPU-cccc/7/0", "MIG-1"],
            "",
        ),
        # CUDA abbreviates cards only
        ([*TWO, DIVIDED], {"CUDA_VISIBLE_DEVICES": "MIG-,GPU-aaaa"}, [], "ends at 'MIG-'"),
        (
            [*TWO, DIVIDED],
            {"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-a"},
            ["GPU-aaaa"],
            "'GPU-c' in CUDA_VISIBLE_DEVICES is a card in MIG mode",
        ),
    ],
)
def test_only_what_the_caller_made_visible_is_used(cards, variables, visible, left_out):
    """As CUDA reads it: beginnings of UUIDs, the first entry that names no device ends the list; an
    index only where it is sure.
    """
    places, reasons = visible_places(cards, variables)

    assert [found.uuid for found in places] == visible
    assert len(reasons) == (left_out != "")
    assert left_out in "".join(reasons)
