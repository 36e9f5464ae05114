"""Name the exception that ended a body: which memory ran out, or what else went wrong."""

import math
import re
import resource

from harness.errors import CodeUnavailable, DeviceUnavailable
from harness.measure.messages import python_error, substance
from harness.measure.room import Room
from harness.records import Ending, Outcome
from harness.units import format_bytes

# The sentence of TensorFlow's Allocator errors (op_kernel.cc), with the parts that decide.
_REFUSED = re.compile(
    r"OOM when allocating tensor with shape(?P<shape>\[[^\]]*\]) and type (?P<type>\w+)"
    r" on (?P<device>\S+) by allocator (?P<allocator>\S+)"
)
# The allocators that stand for the device: a card's, and the one that the CPU borrows from it.
_DEVICE_ALLOCATORS = ("GPU_", "bfc_cpu_allocator_for_gpu", "cuda_malloc_async")
# What TensorFlow says when a copy to the card found no room there.
_COPY_REFUSED = "Dst tensor is not initialized"
# Names of TensorFlow's types in its messages (DataTypeString, types.cc) with the size of one value.
_VALUE_BYTES = {
    **dict.fromkeys(("bool", "int8", "uint8", "qint8", "quint8"), 1),
    **dict.fromkeys(("half", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("float", "int32", "uint32"), 4),
    **dict.fromkeys(("double", "int64", "uint64", "complex64"), 8),
    "complex128": 16,
}


def name_exception(error: BaseException, room: Room | None = None) -> Ending:
    """The outcome, its cause and its reason, in one line.

    TensorFlow raises ResourceExhaustedError for refused device memory and for refused host memory alike; its message
    names the allocator, and ``room`` tells whether the device could have had the memory. It is recognised by name, so
    that this module never imports TensorFlow.
    """
    kind, message = type(error).__name__, str(error)
    if isinstance(error, (DeviceUnavailable, CodeUnavailable)):
        absent = (Outcome.SKIPPED, "device") if isinstance(error, DeviceUnavailable) else (Outcome.ERROR, "import")
        return Ending(*absent, message)
    if isinstance(error, MemoryError):
        return Ending(Outcome.HOST_OOM, "limit", f"MemoryError: {substance(message) or 'the limit of host memory was reached'}")
    if kind == "ResourceExhaustedError":
        return _name_refusal(message, room)
    if _COPY_REFUSED in message:
        return Ending(Outcome.DEVICE_OOM, "allocator", substance(message))
    if (inner := python_error(message)) is not None:
        return Ending(Outcome.ERROR, inner.partition(":")[0], inner)
    said = substance(message).removeprefix(f"{kind}: ")  # nothing, of a bare KeyboardInterrupt or a bare assert
    return Ending(Outcome.ERROR, kind, f"{kind}: {said}" if said else kind)


def _name_refusal(message: str, room: Room | None) -> Ending:
    refused = _REFUSED.search(message)
    if refused is None:
        inner = python_error(message)
        if inner is None:
            return Ending(Outcome.DEVICE_OOM, "allocator", substance(message))
        return Ending(Outcome.HOST_OOM, "limit", inner)
    reason = (
        f"the allocator {refused['allocator']} refused a tensor of shape {refused['shape']} and type {refused['type']}"
        f" on {refused['device'].rpartition('/')[2]}"
    )
    if not refused["allocator"].startswith(_DEVICE_ALLOCATORS):
        return Ending(Outcome.HOST_OOM, "limit", reason)
    asked_bytes = _size(refused["shape"], refused["type"])
    if room is None or asked_bytes is None:
        return Ending(Outcome.DEVICE_OOM, "allocator", reason)
    return _name_by_room(f"{reason} ({format_bytes(asked_bytes)})", asked_bytes, room)


def _name_by_room(reason: str, asked_bytes: int, room: Room) -> Ending:
    """Was it the device that had no room? Only where even its peak leaves enough can it have been something else."""
    of_limit = f" of {format_bytes(room.limit_bytes)}"
    if room.peak_bytes + asked_bytes > room.limit_bytes:
        in_use = format_bytes(room.in_use_bytes)
        if room.in_use_bytes + asked_bytes <= room.limit_bytes:
            in_use = f"between {in_use} and {format_bytes(room.peak_bytes)}"  # the error let go of some
        return Ending(Outcome.DEVICE_OOM, "allocator", f"{reason}; {in_use}{of_limit} were in use")
    reason = f"{reason} though at most {format_bytes(room.peak_bytes)}{of_limit} were in use"
    limited = room.data_limit_bytes != resource.RLIM_INFINITY
    if limited and room.data_bytes is not None and room.data_bytes + asked_bytes > room.data_limit_bytes:
        of_host = f"{format_bytes(room.data_bytes)} of {format_bytes(room.data_limit_bytes)}"
        return Ending(Outcome.HOST_OOM, "limit", f"{reason}: the host refused it, with {of_host} of its data segment in use")
    return Ending(Outcome.DEVICE_OOM, "fragmentation", f"{reason}: no free piece of the device was large enough")


def _size(shape: str, type_name: str) -> int | None:
    """Bytes of a tensor as TensorFlow's message has it; None for types without a fixed size."""
    value_bytes = _VALUE_BYTES.get(type_name)
    return None if value_bytes is None else math.prod(int(size) for size in re.findall(r"\d+", shape)) * value_bytes


def refused_tensor(error: BaseException) -> tuple[str, str] | None:
    """Shape and type of the tensor for which memory was refused, as the message has them; None where it has none."""
    refused = _REFUSED.search(str(error))
    return None if refused is None else (refused["shape"], refused["type"])
