"""Name the exception that ended a body: which memory ran out, or what else went wrong."""

import math
import re
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import CodeUnavailable, DeviceUnavailable
from harness.records import Ending, Outcome
from harness.system.proc import PROC, amounts_of, read_text, sum_bytes
from harness.words import ALIVE, format_bytes, handed_out, range_in_use

# What TensorFlow's errors say of memory that it was refused: whose, and for what. Pure text;
# TensorFlow is not imported. The sentences are those of TensorFlow 2.19.1, 2.20.0 and 2.21.0,
# which do not differ.


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


# What a message of TensorFlow or Keras says, without what they wrap it in. Pure text: neither is
# imported.


_MOST_CHARACTERS = 500
"""Chosen: reasons are table cells."""
# Nodes of TensorFlow's graphs, which mean nothing to the reader: {{function_node
# __wrapped__IteratorGetNext_...}}.
_NODE = re.compile(r"\{\{[^{}]*\}\}\s*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# First lines that say only where: in a graph (a tf.function, fit), once or several times, in a
# function while it is traced, in a layer of Keras. Seen with TensorFlow 2.19 to 2.21 and Keras 3.
_WRAPPED = re.compile(
    r"Graph execution error:$|\d+ root error\(s\) found\.$|in user code:$|Exception "
    r"encountered when calling .+\.$"
)
# What comes after the cause: nodes of the graph, advice, what the layer was given.
_AFTER = re.compile(r"^\s*(?:\[\[|Hint: |Arguments received by )", re.MULTILINE)
# Before one of several causes: "(0) RESOURCE_EXHAUSTED:  ".
_NUMBERED = re.compile(r"\(\d+\) [A-Z_]+: +")
# An error of Python inside a tf.data function: TensorFlow puts words before it and the traceback
# after it (py_func.cc).
_PYTHON_ERROR = re.compile(r"\b\w*(?:Error|Exception): .*")
_TRACEBACK = "Traceback (most recent call last)"


def substance(message: str) -> str:
    """The line that says what went wrong: the first one, or the last before the nodes where the
    first says only where.
    """
    text = _COLOURS.sub("", message).strip()
    first, _, rest = text.partition("\n")
    after = _AFTER.search(rest)
    lines = [
        line.strip()
        for line in rest[: after.start() if after else None].splitlines()
        if line.strip()
    ]
    line = lines[-1] if lines and _WRAPPED.match(first) else first
    return _NODE.sub("", _NUMBERED.sub("", line))[:_MOST_CHARACTERS]


def python_error(message: str) -> str | None:
    """The ``XError: message`` that a function of tf.data died of, where TensorFlow's message
    carries its traceback.
    """
    before, found, _ = message.partition(_TRACEBACK)
    error = _PYTHON_ERROR.search(_NODE.sub("", before)) if found else None
    return None if error is None else error[0][:_MOST_CHARACTERS]


# How much room was left when a body was refused memory: on its device, and in its process.


_DATA_SEGMENT = amounts_of("VmData")


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What was left when a body was refused memory."""

    limit_bytes: int
    """Size of the device."""
    in_use_bytes: int
    """Held on the device after the error: no more than at the refusal."""
    peak_bytes: int
    """Most held on the device since the phase began: no less than at the refusal."""
    data_bytes: int | None
    """Data segment of this process; None where the kernel does not report it."""
    data_limit_bytes: int
    """Its RLIMIT_DATA."""


def look_for_room(device: Mapping[str, Any]) -> Room | None:
    """What is left on the leased device and in this process; None where TensorFlow does not report
    it, or there is no limit.
    """
    tensorflow, limit_bytes = sys.modules.get("tensorflow"), device["limit_bytes"]
    if tensorflow is None or limit_bytes is None:
        return None
    try:
        held = tensorflow.config.experimental.get_memory_info(
            "CPU:0" if device["kind"] == "emulated" else "GPU:0"
        )
    except ValueError:
        return None
    if not (status := read_text(PROC / "self" / "status")):
        return None
    return Room(
        limit_bytes=limit_bytes,
        in_use_bytes=int(held["current"]),
        peak_bytes=int(held["peak"]),
        data_bytes=sum_bytes(status, _DATA_SEGMENT) if _DATA_SEGMENT.search(status) else None,
        data_limit_bytes=resource.getrlimit(resource.RLIMIT_DATA)[0],
    )


_SHELL_LIMITS = (
    ("the data segment", "-d", resource.RLIMIT_DATA),
    ("the address space", "-v", resource.RLIMIT_AS),
)


def name_exception(error: BaseException, room: Room | None = None) -> Ending:
    """The outcome, its cause and its reason, in one line.

    TensorFlow raises ResourceExhaustedError for refused device memory and for refused host memory
    alike; its message names the allocator, and ``room`` tells whether the device could have had the
    memory. It is recognised by name, so that this module never imports TensorFlow.
    """
    kind, message = type(error).__name__, str(error)
    if isinstance(error, (DeviceUnavailable, CodeUnavailable)):
        absent = (
            (Outcome.SKIPPED, "device")
            if isinstance(error, DeviceUnavailable)
            else (Outcome.ERROR, "import")
        )
        return Ending(*absent, message)
    if isinstance(error, MemoryError):
        return _refused_by_host(f"MemoryError: {substance(message) or 'the system refused memory'}")
    if (refused := refused_memory(message)) is not None:
        return _with_what_was_alive(_name_refusal(refused, room), error)
    inner = python_error(message)
    if kind == "ResourceExhaustedError":
        return (
            Ending(Outcome.DEVICE_OOM, "allocator", substance(message))
            if inner is None
            else _refused_by_host(inner)
        )
    if inner is not None:
        return Ending(Outcome.ERROR, inner.partition(":")[0], inner)
    # nothing, of a bare KeyboardInterrupt or a bare assert
    said = substance(message).removeprefix(f"{kind}: ")
    return Ending(Outcome.ERROR, kind, f"{kind}: {said}" if said else kind)


def _refused_by_host(reason: str) -> Ending:
    """Memory that the system refused. The harness limits no address space; whoever has started it
    may have.
    """
    limits = [
        f"{what} of this process is limited to {format_bytes(limit_bytes)} (ulimit "
        f"{option}, from where the run was started)"
        for what, option, kind in _SHELL_LIMITS
        if (limit_bytes := resource.getrlimit(kind)[0]) != resource.RLIM_INFINITY
    ]
    return Ending(Outcome.HOST_OOM, "limit" if limits else "refused", "; ".join([reason, *limits]))


def _with_what_was_alive(ending: Ending, error: BaseException) -> Ending:
    """The ending with what was alive, where the device's memory ran out and the recording of the
    run has left a note of it.
    """
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(ALIVE)]
    return (
        replace(ending, reason="; ".join([ending.reason, *notes]))
        if ending.outcome is Outcome.DEVICE_OOM
        else ending
    )


def _name_refusal(refused: Refused, room: Room | None) -> Ending:
    if refused.on_host:
        return _refused_by_host(refused.sentence)
    if room is None:
        return Ending(Outcome.DEVICE_OOM, "allocator", refused.sentence)
    asked_bytes = refused.asked_bytes
    if asked_bytes is None:
        return Ending(
            Outcome.DEVICE_OOM,
            "allocator",
            f"{refused.sentence}; {_in_use(room, apart=room.in_use_bytes < room.peak_bytes)}",
        )
    return _name_by_room(f"{refused.sentence} ({format_bytes(asked_bytes)})", asked_bytes, room)


def _name_by_room(reason: str, asked_bytes: int, room: Room) -> Ending:
    """Was it the device that had no room? Only where even its peak leaves enough can it have been
    something else.
    """
    if room.peak_bytes + asked_bytes > room.limit_bytes:
        in_use = _in_use(room, apart=room.in_use_bytes + asked_bytes <= room.limit_bytes)
        return Ending(
            Outcome.DEVICE_OOM,
            "allocator",
            f"{reason}; {in_use}{handed_out(asked_bytes, room.peak_bytes, room.limit_bytes)}",
        )
    reason = (
        f"{reason} though at most {format_bytes(room.peak_bytes)} of "
        f"{format_bytes(room.limit_bytes)} were in use"
    )
    limited = room.data_limit_bytes != resource.RLIM_INFINITY
    if (
        limited
        and room.data_bytes is not None
        and room.data_bytes + asked_bytes > room.data_limit_bytes
    ):
        of_host = f"{format_bytes(room.data_bytes)} of {format_bytes(room.data_limit_bytes)}"
        return Ending(
            Outcome.HOST_OOM,
            "limit",
            f"{reason}: the host refused it, with {of_host} of its data segment in use",
        )
    return Ending(
        Outcome.DEVICE_OOM,
        "fragmentation",
        f"{reason}: no free piece of the device was large enough",
    )


def _in_use(room: Room, *, apart: bool) -> str:
    """How much was in use of how much; a range where the error let go of some before anybody could
    look (``apart``).
    """
    if apart:
        return range_in_use(room.in_use_bytes, room.peak_bytes, room.limit_bytes)
    return f"{format_bytes(room.in_use_bytes)} of {format_bytes(room.limit_bytes)} were in use"
