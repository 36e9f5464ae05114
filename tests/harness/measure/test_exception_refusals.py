"""Refused memory in the words of TensorFlow: whose it was, and for what."""

import pytest

from harness.measure.exceptions import Room, name_exception, refused_memory
from harness.records import Outcome
from harness.words import MIB

# Each of them as TensorFlow 2.19.1, 2.20.0 and 2.21.0 wrote it on the pretended card of 64 MiB,
# asked for 80; all alike but for numbers. The sentence of the constant is 2.21.0's; those made of
# others by replacing were not seen.
TASK = "/job:localhost/replica:0/task:0"
OPERATION = (
    f"{{{{function_node __wrapped__Empty_device_{TASK}/device:GPU:0}}}} "
    "OOM when allocating tensor with shape[80,1048576] and type uint8 "
    f"on {TASK}/device:GPU:0 by allocator GPU_0_bfc [Op:Empty]"
)
SECOND_DEVICE = OPERATION.replace("GPU:0", "GPU:1").replace("GPU_0", "GPU_1")
MALLOC_ASYNC = OPERATION.replace("GPU_0_bfc", "gpu_async_0")
FUNCTION = f"""Graph execution error:

Detected at node random_normal/RandomStandardNormal defined at (most recent call last):
  File "own.py", line 39, in f

OOM when allocating tensor with shape[80,262144] and type float on {TASK}/device:GPU:0 by \
allocator GPU_0_bfc
\t [[{{{{node random_normal/RandomStandardNormal}}}}]]
Hint: If you want to see a list of allocated tensors when OOM happens, add \
report_tensor_allocations_upon_oom to RunOptions
 [Op:__inference_f_15]"""
FUNCTION_PINNED = (
    f"OOM when allocating tensor with shape[80,262144] and type float on {TASK}/device:CPU:0 by "
    "allocator gpu_host_bfc"
)
PINNED = f"""Graph execution error:

Detected at node random_normal/RandomStandardNormal defined at (most recent call last):
  File "own.py", line 92, in f

2 root error(s) found.
  (0) RESOURCE_EXHAUSTED:  {FUNCTION_PINNED}
\t [[{{{{node random_normal/RandomStandardNormal}}}}]]
0 successful operations.
0 derived errors ignored. [Op:__inference_f_14]"""
CONSTANT = """Graph execution error:

Detected at node mul/y defined at (most recent call last):
  File "own.py", line 166, in f

OOM when allocating tensor of shape [] and type float
\t [[{{node mul/y}}]] [Op:__inference_f_20]"""
NUMPY = (
    f"Failed copying input tensor from {TASK}/device:CPU:0 to {TASK}/device:GPU:0 in order "
    "to run _EagerConst: Dst tensor is not initialized."
)
IDENTITY = NUMPY.replace("_EagerConst", "Identity") + " [Op:Identity] name: "
TO_HOST = IDENTITY.replace("CPU:0", "?").replace("GPU:0", "CPU:0").replace("?", "GPU:0")
FUNCTION_COPY = f"""Graph execution error:

Detected at node a/_2 defined at (most recent call last):
<stack traces unavailable>
SameWorkerRecvDone unable to allocate output tensor. Key: \
{TASK}/device:CPU:0;fd02eb52ab864171;{TASK}/device:GPU:0;edge_2_a;0:0
\t [[{{{{node a/_2}}}}]] [Op:__inference_f_13]"""
SCRATCH = (
    f"{{{{function_node __wrapped____EagerConst_device_{TASK}/device:GPU:0}}}} Failed to "
    "allocate scratch buffer for device 0"
)

OF_THE_HOST = ": memory of the host, pinned for copies to the card"


def error(kind, message):
    """An exception of the class of TensorFlow's that has this name."""
    return type(kind, (Exception,), {})(message)


@pytest.mark.parametrize(
    ("kind", "message", "reason"),
    [
        (
            "ResourceExhaustedError",
            OPERATION,
            (
                "the allocator GPU_0_bfc refused a tensor of shape [80,1048576] and type uint8 "
                "on device:GPU:0"
            ),
        ),
        (
            "ResourceExhaustedError",
            SECOND_DEVICE,
            (
                "the allocator GPU_1_bfc refused a tensor of shape [80,1048576] and type uint8 "
                "on device:GPU:1"
            ),
        ),
        (
            "ResourceExhaustedError",
            MALLOC_ASYNC,
            (
                "the allocator gpu_async_0 refused a tensor of shape [80,1048576] and type "
                "uint8 on device:GPU:0"
            ),
        ),
        (
            "ResourceExhaustedError",
            FUNCTION,
            (
                "the allocator GPU_0_bfc refused a tensor of shape [80,262144] and type float "
                "on device:GPU:0"
            ),
        ),
        (
            "ResourceExhaustedError",
            CONSTANT,
            "the device refused a constant of shape [] and type float",
        ),
        ("InternalError", NUMPY, "GPU:0 had no room for a copy of an array"),
        ("InternalError", IDENTITY, "GPU:0 had no room for a copy of what Identity needs"),
        ("ResourceExhaustedError", FUNCTION_COPY, "GPU:0 had no room for a copy inside a function"),
        ("InternalError", "Dst tensor is not initialized.", "the card had no room for a copy"),
        (
            "FailedPreconditionError",
            SCRATCH,
            "GPU:0 had no room for the buffer that its first operation needs",
        ),
        (
            "ResourceExhaustedError",
            "Out of memory while trying to allocate 1048576 bytes.",
            "Out of memory while trying to allocate 1048576 bytes.",
        ),
    ],
)
def test_memory_of_the_card_that_was_refused_is_device_oom(kind, message, reason):
    """In each of TensorFlow's wordings; cuda_malloc_async by the name that it gives itself."""
    ending = name_exception(error(kind, message))

    assert (ending.outcome, ending.cause, ending.reason) == (
        Outcome.DEVICE_OOM,
        "allocator",
        reason,
    )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            PINNED,
            (
                "the allocator gpu_host_bfc refused a tensor of shape [80,262144] and type "
                f"float on device:CPU:0{OF_THE_HOST}"
            ),
        ),
        (
            OPERATION.replace("GPU_0_bfc", "gpu_host_bfc"),
            (
                "the allocator gpu_host_bfc refused a tensor of shape [80,1048576] and type "
                f"uint8 on device:GPU:0{OF_THE_HOST}"
            ),
        ),
        (TO_HOST, "CPU:0 had no room for a copy of what Identity needs"),
        (FUNCTION_COPY.replace("GPU:0", "CPU:0"), "CPU:0 had no room for a copy inside a function"),
    ],
)
def test_memory_of_the_host_that_was_refused_is_host_oom(message, reason):
    """Pinned memory too, whatever device stands beside it, and a copy back from the card."""
    ending = name_exception(error("ResourceExhaustedError", message))

    assert (ending.outcome, ending.cause, ending.reason) == (Outcome.HOST_OOM, "refused", reason)


@pytest.mark.parametrize(
    ("message", "asked_bytes"),
    [
        (OPERATION, 80 * MIB),
        (FUNCTION, 80 * MIB),
        (CONSTANT, 4),
        (NUMPY, None),
        (FUNCTION_COPY, None),
        (SCRATCH, None),
    ],
)
def test_how_much_was_asked_for_is_known_where_the_message_has_shape_and_type(message, asked_bytes):
    """A scalar is one value; of a copy nothing is known."""
    assert refused_memory(message).asked_bytes == asked_bytes


def test_an_error_of_anything_else_is_no_refusal():
    """Nothing is guessed."""
    assert refused_memory("Dimensions must be equal, but are 1000 and 100") is None


@pytest.mark.parametrize(
    ("in_use_bytes", "peak_bytes", "words"),
    [
        (64 * MIB, 64 * MIB, "64.0 MiB of 64.0 MiB were in use"),
        (0, 64 * MIB, "between 0 B and 64.0 MiB of 64.0 MiB were in use"),
    ],
)
def test_a_refused_copy_says_what_was_in_use(in_use_bytes, peak_bytes, words):
    """How much it asked for is unknown."""
    room = Room(
        limit_bytes=64 * MIB,
        in_use_bytes=in_use_bytes,
        peak_bytes=peak_bytes,
        data_bytes=None,
        data_limit_bytes=-1,
    )
    ending = name_exception(error("InternalError", NUMPY), room)

    assert (ending.cause, ending.reason) == (
        "allocator",
        f"GPU:0 had no room for a copy of an array; {words}",
    )
