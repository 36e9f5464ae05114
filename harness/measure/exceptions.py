"""Name the exception that ended a body: which memory ran out, or what else went wrong."""

import resource
from dataclasses import replace

from harness.errors import CodeUnavailable, DeviceUnavailable
from harness.measure.messages import python_error, substance
from harness.measure.refusals import Refused, refused_memory
from harness.measure.room import Room
from harness.records import Ending, Outcome
from harness.tensors import ALIVE, handed_out, range_in_use
from harness.units import format_bytes

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
