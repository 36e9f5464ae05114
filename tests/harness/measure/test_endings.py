"""The name of the exception that ended a body."""

import pytest

from harness.errors import DeviceUnavailable
from harness.measure.endings import name_exception
from harness.records import Ending, Outcome


class ResourceExhaustedError(Exception):
    """Stands for TensorFlow's class of this name, which is recognised by it."""


class UnknownError(Exception):
    """Stands for TensorFlow's class for errors that are not its own."""


def refused(allocator):
    return ResourceExhaustedError(
        "{{function_node __wrapped__DeepCopy}} OOM when allocating tensor with shape[2000,64,64,4] and type float on "
        f"/job:localhost/replica:0/task:0/device:CPU:0 by allocator {allocator} [Op:DeepCopy] name: "
    )


def in_a_dataset(error, before=""):
    """The message of an error that a Python function of tf.data raised, as TensorFlow 2.21 writes it."""
    return (
        "{{function_node __wrapped__IteratorGetNext_output_types_1_device_/job:localhost/replica:0/task:0/device:CPU:0}} "
        f"{before}{error}\nTraceback (most recent call last):\n\n  File ...\n\n{error}\n\n"
        "\n\t [[{{node PyFunc}}]] [Op:IteratorGetNext]"
    )


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (refused("bfc_cpu_allocator_for_gpu"), Outcome.DEVICE_OOM),
        (refused("GPU_0_bfc"), Outcome.DEVICE_OOM),
        (refused("cpu"), Outcome.HOST_OOM),
        (refused("mklcpu"), Outcome.HOST_OOM),
        (MemoryError("Unable to allocate 3.00 GiB for an array"), Outcome.HOST_OOM),
        (RuntimeError("Failed copying input tensor ... Dst tensor is not initialized."), Outcome.DEVICE_OOM),
        (DeviceUnavailable("TensorFlow sees no GPU"), Outcome.SKIPPED),
        (ResourceExhaustedError(in_a_dataset("MemoryError: no room")), Outcome.HOST_OOM),
        (KeyError("X"), Outcome.ERROR),
        (SystemExit(0), Outcome.ERROR),
    ],
)
def test_every_exception_has_a_named_outcome(error, outcome):
    """The allocator's name decides between device and host; leaving early is not success."""
    assert name_exception(error).outcome is outcome


def test_the_reason_of_a_refusal_says_what_was_asked_of_whom():
    """Shape, type, device and allocator, in one line."""
    reason = name_exception(refused("bfc_cpu_allocator_for_gpu")).reason

    assert reason == (
        "the allocator bfc_cpu_allocator_for_gpu refused a tensor of shape [2000,64,64,4] and type float on device:CPU:0"
    )


def test_a_long_message_is_cut_to_its_first_line():
    """Reasons are table cells."""
    reason = name_exception(ValueError("first\nsecond")).reason

    assert reason == "ValueError: first"


@pytest.mark.parametrize(
    "before", ["", "Error in user-defined function passed to MapDataset:1 with iterator: Iterator::Root::Map: "]
)
def test_an_error_of_python_inside_a_dataset_is_named_as_it_was_raised(before):
    """Neither TensorFlow's class for it nor its graph's nodes."""
    error = UnknownError(in_a_dataset("OSError: [Errno 5] beam off: 'f.npz'", before))

    assert name_exception(error) == Ending(Outcome.ERROR, "OSError", "OSError: [Errno 5] beam off: 'f.npz'")


def test_nodes_of_the_graph_are_left_out_of_every_reason():
    """They mean nothing to the reader."""
    reason = name_exception(ValueError("{{function_node __wrapped__Add}} required broadcastable shapes [Op:Add]")).reason

    assert reason == "ValueError: required broadcastable shapes [Op:Add]"
