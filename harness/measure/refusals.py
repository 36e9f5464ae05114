"""What TensorFlow's errors say of memory that it was refused: whose, and for what. Pure text;
TensorFlow is not imported.

The sentences are those of TensorFlow 2.19.1, 2.20.0 and 2.21.0, which do not differ.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

# The allocators that stand for the device: a card's, the one that the CPU borrows from it, and
# cuda_malloc_async by the name that it gives itself (gpu_cudamallocasync_allocator.cc). Not
# gpu_host_bfc: that is memory of the host, pinned for the card.
_DEVICE_ALLOCATORS = ("GPU_", "bfc_cpu_allocator_for_gpu", "gpu_async_")
_PINNED_ALLOCATOR = "gpu_host_bfc"
_PINNED = ": memory of the host, pinned for copies to the card"
# An operation's output or workspace (op_kernel.cc).
_OPERATION = re.compile(
    r"OOM when allocating tensor with shape(?P<shape>\[[^\]]*\]) and type (?P<type>\w+)"
    r" on (?P<device>\S+) by allocator (?P<allocator>\S+)"
)
# A constant of a function that is taken to the card (gpu_device.cc).
_CONSTANT = re.compile(
    r"OOM when allocating tensor of shape (?P<shape>\[[^\]]*\]) and type (?P<type>\w+)"
)
# A copy from one device to another: for an operation, inside a function, and whatever else reports
# it.
_COPY = re.compile(
    r"Failed copying input tensor from \S+ to (?P<device>\S+) in order to run (?P<op>\w+): "
    r"Dst tensor is not initialized"
)
_RECEIVED = re.compile(
    r"SameWorkerRecvDone unable to allocate output tensor\. Key: "
    r"[^;\s]*;[^;\s]*;(?P<device>[^;\s]*);"
)
_ANY_COPY = re.compile(r"Dst tensor is not initialized")
# What a card needs before its first operation (gpu_device.cc).
_SCRATCH = re.compile(r"Failed to allocate scratch buffer for device (?P<number>\d+)")
# Names of TensorFlow's types in its messages (DataTypeString, types.cc) with the size of one value.
_VALUE_BYTES = {
    **dict.fromkeys(("bool", "int8", "uint8", "qint8", "quint8"), 1),
    **dict.fromkeys(("half", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("float", "int32", "uint32"), 4),
    **dict.fromkeys(("double", "int64", "uint64", "complex64"), 8),
    "complex128": 16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Memory that TensorFlow did not get."""

    sentence: str
    """Who refused what, as a clause."""
    on_host: bool = False
    """Whether it was memory of the host, and not of the device."""
    shape: str = ""
    """Of the tensor, as the message has it; empty where it does not say."""
    type_name: str = ""
    """TensorFlow's short name of its type; empty where the message does not say."""

    @property
    def asked_bytes(self) -> int | None:
        """Bytes of the tensor; None where the message does not say, or the type has no fixed
        size.
        """
        value_bytes = _VALUE_BYTES.get(self.type_name)
        return (
            None
            if value_bytes is None
            else math.prod(int(size) for size in re.findall(r"\d+", self.shape)) * value_bytes
        )


def refused_memory(message: str) -> Refused | None:
    """What the message of an error says of refused memory; None where it says nothing of any."""
    for pattern, name in _NAMED:
        if (found := pattern.search(message)) is not None:
            return name(found)
    return None


def _operation(found: re.Match[str]) -> Refused:
    device = found["device"].rpartition("/")[2]
    pinned = _PINNED if found["allocator"] == _PINNED_ALLOCATOR else ""
    return Refused(
        sentence=(
            f"the allocator {found['allocator']} refused a tensor of shape {found['shape']} "
            f"and type {found['type']} on {device}{pinned}"
        ),
        on_host=not found["allocator"].startswith(_DEVICE_ALLOCATORS),
        shape=found["shape"],
        type_name=found["type"],
    )


def _constant(found: re.Match[str]) -> Refused:
    return Refused(
        sentence=(
            f"the device refused a constant of shape {found['shape']} and type {found['type']}"
        ),
        shape=found["shape"],
        type_name=found["type"],
    )


def _copy(found: re.Match[str]) -> Refused:
    # What becomes a tensor by _EagerConst is an array or a number of Python.
    wanted = "an array" if found["op"] == "_EagerConst" else f"what {found['op']} needs"
    return _no_room(found["device"], f"a copy of {wanted}")


def _received(found: re.Match[str]) -> Refused:
    return _no_room(found["device"], "a copy inside a function")


def _no_room(device: str, wanted: str) -> Refused:
    """The device is ``"/job:localhost/replica:0/task:0/device:GPU:0"``; copies are made between the
    host and cards alone.
    """
    name = device.rpartition("/device:")[2]
    return Refused(sentence=f"{name} had no room for {wanted}", on_host=name.startswith("CPU"))


_NAMED: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Refused]], ...] = (
    (_OPERATION, _operation),
    (_CONSTANT, _constant),
    (_COPY, _copy),
    (_RECEIVED, _received),
    (_ANY_COPY, lambda found: Refused(sentence="the card had no room for a copy")),  # noqa: ARG005 - there is no more to say
    (
        _SCRATCH,
        lambda found: Refused(
            sentence=f"GPU:{found['number']} had no room for the buffer that its first operation "
            "needs"
        ),
    ),
)
