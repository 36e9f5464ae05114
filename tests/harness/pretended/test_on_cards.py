"""TensorFlow's own GPU device on a pretended card: pools, refusals, copies, training, traces, and
NVML's view of it all.
"""

import pytest

from harness.words import GIB, MIB


def test_tensorflow_lists_the_cards_with_their_names(machine, on_cards):
    """Two cards: name and compute capability of the control file, two logical devices."""
    found = on_cards(machine(cards=2), "devices")

    assert found["details"] == [{"device_name": "Pretended A100", "compute_capability": [8, 0]}] * 2
    assert found["logical"] == ["/device:GPU:0", "/device:GPU:1"]


def test_a_pool_with_a_limit_refuses_in_both_ways_and_nvml_sees_it_to_the_byte(machine, on_cards):
    """64 MiB: an operation and a copy are refused in TensorFlow's words; NVML has the pool, the
    context and the neighbour.
    """
    one = machine(context_bytes=300 * MIB)
    one.devices[0].used_bytes = 500 * MIB

    found = on_cards(one, "limited", limit_mib=64)

    operation, copied = found["refused"]
    assert found["first"] == "GPU:0"
    assert found["in_use"] >= 16 * MIB
    assert operation.startswith("ResourceExhaustedError: ")
    assert "OOM when allocating tensor with shape[67108864]" in operation
    assert "by allocator GPU_0_bfc" in operation
    assert copied.startswith("InternalError: ")
    assert "Dst tensor is not initialized" in copied
    assert found["process"] == found["accounted"] == 300 * MIB + 64 * MIB
    assert found["used"] == 500 * MIB + 300 * MIB + 64 * MIB


def test_a_pool_that_grows_is_seen_to_grow(machine, on_cards):
    """Each of three tensors of 8 MiB: NVML has at least what is in use, in whole steps of 2 MiB."""
    found = on_cards(machine(), "grown")

    assert found["in_use"] == sorted(found["in_use"])
    assert found["process"] == sorted(found["process"])
    assert found["process"][0] < found["process"][-1]
    assert found["in_use"][0] >= 8 * MIB
    for pool_bytes, in_use in zip(found["process"], found["in_use"], strict=True):
        assert pool_bytes >= in_use
        assert pool_bytes % (2 * MIB) == 0


def test_memory_of_the_card_is_not_the_hosts(machine, on_cards):
    """256 MiB on the card: pages of a file, no anonymous and no shared memory of the process."""
    found = on_cards(machine(), "host_meters")

    assert found["device"] == "GPU:0"
    assert abs(found["RssFile"] - 256 * MIB) < 4 * MIB  # pages of libraries count in it too
    assert found["RssAnon"] < 16 * MIB
    assert found["RssShmem"] == 0


def test_batches_are_brought_to_the_card_by_what_users_call(machine, on_cards):
    """prefetch_to_device and copy_to_device do, a plain dataset does not."""
    found = on_cards(machine(), "moved")

    assert found == {
        "plain": ["CPU:0", "CPU:0"],
        "prefetch_to_device": ["GPU:0", "GPU:0"],
        "copy_to_device": ["GPU:0", "GPU:0"],
    }


def test_a_network_learns_on_the_card_what_it_learns_on_the_cpu(machine, on_cards):
    """Same weights after two epochs, which are not those it began with."""
    found = on_cards(machine(), "fitted")

    assert found["GPU:0"]["moved"] > 1e-3
    assert found["GPU:0"]["end"] == pytest.approx(found["CPU:0"]["end"], abs=1e-5)


def test_two_cards_train_one_model(machine, on_cards):
    """MirroredStrategy, HierarchicalCopyAllReduce: one step from w = 1 at rate 1/8, 2 mean(x^2) =
    35, ends at 1 - 35/8.
    """
    found = on_cards(machine(cards=2), "mirrored")

    assert found["replicas"] == 2
    assert found["weight"] == pytest.approx(1 - 35 / 8)
    assert min(found["in_use"]) > 0


def test_the_profiler_names_the_cards_allocator(machine, on_cards):
    """1 MiB put on the card is an allocation of GPU_0_bfc."""
    found = on_cards(machine(), "traced")

    assert found["GPU_0_bfc"] == MIB


def test_a_card_of_80_gib_can_be_grown_on_without_its_memory(machine, on_cards):
    """The size is TensorFlow's to see, not this machine's to have."""
    found = on_cards(machine(total_bytes=80 * GIB), "grown")

    assert found["process"][0] < GIB


def test_a_driver_that_is_too_old_is_refused_by_tensorflow(machine, on_cards):
    """CUDA 11.4 under a build for CUDA 12: the runtime's own words."""
    one = machine()
    one.control.state.cuda_version = 11040

    assert (
        "CUDA driver version is insufficient for CUDA runtime version"
        in on_cards(one, "devices")["error"]
    )


def test_a_cuinit_that_fails_leaves_tensorflow_without_a_card(machine, on_cards):
    """As after an update of the driver without a reboot."""
    one = machine()
    one.control.state.cuda_init_fault = 803

    assert on_cards(one, "devices")["logical"] == []
