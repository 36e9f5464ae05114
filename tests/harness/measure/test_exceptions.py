"""The name of the exception that ended a body."""

import pytest

from harness.errors import DeviceUnavailable
from harness.measure.exceptions import Room, name_exception
from harness.records import Ending, Outcome
from harness.words import ALIVE, GIB, MIB


class ResourceExhaustedError(Exception):
    """Stands for TensorFlow's class of this name, which is recognised by it."""


class UnknownError(Exception):
    """Stands for TensorFlow's class for errors that are not its own."""


def refused(allocator):
    return ResourceExhaustedError(
        f"{{{{function_node __wrapped__DeepCopy}}}} OOM when allocating tensor with "
        "shape[2000,64,64,4] and type float on "
        f"/job:localhost/replica:0/task:0/device:CPU:0 by allocator {allocator} "
        "[Op:DeepCopy] name: "
    )


def in_a_dataset(error, before=""):
    """The message of an error that a Python function of tf.data raised, as TensorFlow 2.21 writes
    it.
    """
    return (
        "{{function_node __wrapped__IteratorGetNext_output_types_1_device_"
        "/job:localhost/replica:0/task:0/device:CPU:0}} "
        f"{before}{error}\nTraceback (most recent call last):\n\n  File ...\n\n"
        f"{error}\n\n\n\t [[{{{{node PyFunc}}}}]] [Op:IteratorGetNext]"
    )


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (refused("bfc_cpu_allocator_for_gpu"), Outcome.DEVICE_OOM),
        (refused("GPU_0_bfc"), Outcome.DEVICE_OOM),
        (refused("cpu"), Outcome.HOST_OOM),
        (refused("mklcpu"), Outcome.HOST_OOM),
        (MemoryError("Unable to allocate 3.00 GiB for an array"), Outcome.HOST_OOM),
        (
            RuntimeError("Failed copying input tensor ... Dst tensor is not initialized."),
            Outcome.DEVICE_OOM,
        ),
        (DeviceUnavailable("TensorFlow sees no GPU"), Outcome.SKIPPED),
        (ResourceExhaustedError(in_a_dataset("MemoryError: no room")), Outcome.HOST_OOM),
        (KeyError("X"), Outcome.ERROR),
        (SystemExit(0), Outcome.ERROR),
    ],
)
def test_every_exception_has_a_named_outcome(error, outcome):
    """The allocator's name decides between device and host; leaving early is not success."""
    assert name_exception(error).outcome is outcome


def test_an_exception_without_words_is_its_name():
    """No colon with nothing behind it."""
    assert name_exception(KeyboardInterrupt()).reason == "KeyboardInterrupt"


def test_the_reason_of_a_refusal_says_what_was_asked_of_whom():
    """Shape, type, device and allocator, in one line."""
    reason = name_exception(refused("bfc_cpu_allocator_for_gpu")).reason

    assert reason == (
        "the allocator bfc_cpu_allocator_for_gpu refused a tensor of shape [2000,64,64,4] "
        "and type float on device:CPU:0"
    )


ASKED_BYTES = 2000 * 64 * 64 * 4 * 4  # what refused() asks for


def room(*, in_use, peak=None, limit=GIB, data=0, data_limit=8 * GIB):
    return Room(
        limit_bytes=limit,
        in_use_bytes=in_use,
        peak_bytes=in_use if peak is None else peak,
        data_bytes=data,
        data_limit_bytes=data_limit,
    )


@pytest.mark.parametrize(
    ("left", "outcome", "cause"),
    [
        (room(in_use=GIB - ASKED_BYTES), Outcome.DEVICE_OOM, "fragmentation"),
        (room(in_use=GIB - ASKED_BYTES + 1), Outcome.DEVICE_OOM, "allocator"),
        (room(in_use=0, peak=GIB - ASKED_BYTES + 1), Outcome.DEVICE_OOM, "allocator"),
        (room(in_use=0, data=8 * GIB - ASKED_BYTES), Outcome.DEVICE_OOM, "fragmentation"),
        (room(in_use=0, data=8 * GIB - ASKED_BYTES + 1), Outcome.HOST_OOM, "limit"),
        (room(in_use=0, data=8 * GIB, data_limit=-1), Outcome.DEVICE_OOM, "fragmentation"),
        (room(in_use=GIB, data=8 * GIB), Outcome.DEVICE_OOM, "allocator"),
        (None, Outcome.DEVICE_OOM, "allocator"),
    ],
)
def test_what_was_in_use_and_asked_decides_whether_it_was_the_device(left, outcome, cause):
    """At its limit and one byte past it; only a device that had room can have been refused by the
    host.
    """
    ending = name_exception(refused("bfc_cpu_allocator_for_gpu"), left)

    assert (ending.outcome, ending.cause) == (outcome, cause)


def test_the_reason_says_how_much_was_in_use_of_how_much():
    """A range, where the error has let go of some before anybody could look."""
    reason = name_exception(
        refused("bfc_cpu_allocator_for_gpu"), room(in_use=10 * MIB, peak=GIB)
    ).reason

    assert reason.endswith(
        "type float on device:CPU:0 (125.0 MiB); between 10.0 MiB and 1.0 GiB of 1.0 GiB "
        "were in use"
    )


HANDED_OUT = (
    "were in use: the pool had been handed out (a large tensor may be given the rest of it, "
    "where that is less than its own size)"
)


@pytest.mark.parametrize(
    ("limit_bytes", "end"),
    [(100 * ASKED_BYTES, "were in use"), (100 * ASKED_BYTES + 1, HANDED_OUT)],
)
def test_where_little_was_asked_the_pool_had_been_handed_out(limit_bytes, end):
    """A hundredth of the device, and one byte less than that."""
    ending = name_exception(refused("GPU_0_bfc"), room(in_use=limit_bytes, limit=limit_bytes))

    assert ending.reason.endswith(end)
    assert (ending.outcome, ending.cause) == (Outcome.DEVICE_OOM, "allocator")


@pytest.mark.parametrize(
    ("allocator", "end"),
    [
        ("GPU_0_bfc", f"on device:GPU:0; {ALIVE}Cast (8) float32, 32 B"),
        ("mklcpu", "on device:CPU:0"),
    ],
)
def test_what_was_alive_on_the_device_is_told_with_the_reason(allocator, end):
    """From the note that the recording left; other notes, and a host that ran out, leave it out."""
    error = refused(allocator)
    error.args = (error.args[0].replace("CPU:0", "GPU:0" if allocator == "GPU_0_bfc" else "CPU:0"),)
    error.add_note(f"{ALIVE}Cast (8) float32, 32 B")
    error.add_note("for somebody else")

    assert name_exception(error).reason.endswith(end)


def test_a_long_message_is_cut_to_its_first_line():
    """Reasons are table cells."""
    reason = name_exception(ValueError("first\nsecond")).reason

    assert reason == "ValueError: first"


@pytest.mark.parametrize(
    "before",
    [
        "",
        (
            "Error in user-defined function passed to MapDataset:1 with iterator: "
            "Iterator::Root::Map: "
        ),
    ],
)
def test_an_error_of_python_inside_a_dataset_is_named_as_it_was_raised(before):
    """Neither TensorFlow's class for it nor its graph's nodes."""
    error = UnknownError(in_a_dataset("OSError: [Errno 5] beam off: 'f.npz'", before))

    assert name_exception(error) == Ending(
        Outcome.ERROR, "OSError", "OSError: [Errno 5] beam off: 'f.npz'"
    )


def test_nodes_of_the_graph_are_left_out_of_every_reason():
    """They mean nothing to the reader."""
    reason = name_exception(
        ValueError("{{function_node __wrapped__Add}} required broadcastable shapes [Op:Add]")
    ).reason

    assert reason == "ValueError: required broadcastable shapes [Op:Add]"
