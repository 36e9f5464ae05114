"""The moment at which the device's memory was refused, out of the replay of a traced run: what was
asked for, what was alive.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import tensorflow as tf

from harness.measure.exceptions import name_exception
from harness.measure.refusals import refused_memory
from harness.measure.replay import Replay, Span, alive_after, multiple_of, refusal_place
from harness.measure.room import look_for_room
from harness.records import Outcome
from harness.tensors import ALIVE, largest_in_words, tensors_in_words


def out_of_memory(
    done: Replay,
    spans: list[Span],
    error: BaseException,
    declared: Mapping[str, int],
    device: Mapping[str, Any],
) -> dict[str, Any] | None:
    """What was asked for and what was live, where the error says that the device's memory ran out;
    None where it does not.
    """
    if name_exception(error, look_for_room(device)).outcome is not Outcome.DEVICE_OOM:
        return None
    shape, dtype, asked_bytes = _asked(error)
    unfinished = spans[-1] if spans and not spans[-1].finished else None
    from_ns = unfinished.start_ns if unfinished else spans[-1].end_ns if spans else 0
    place = refusal_place(
        done, from_ns=from_ns, asked_bytes=asked_bytes or 0, limit_bytes=device["limit_bytes"]
    )
    return {
        "phase": unfinished.phase if unfinished else None,
        "shape": shape,
        "dtype": dtype,
        "asked_bytes": asked_bytes,
        "like": multiple_of(asked_bytes or 0, declared),
        "requested_bytes": done.timeline.requested_bytes[place] if place >= 0 else 0,
        "allocator_bytes": done.timeline.allocator_bytes[place] if place >= 0 else done.base_bytes,
        "alive": [asdict(alive) for alive in alive_after(done, place, declared)],
    }


def largest_alive(alive: Sequence[Mapping[str, Any]]) -> str:
    """A note for the exception: the largest of what was alive."""
    return f"{ALIVE}{largest_in_words([_in_words(one) for one in alive])}"


def _in_words(one: Mapping[str, Any]) -> tuple[str, int, int]:
    total_bytes = one["each_bytes"] * one["count"]
    words = tensors_in_words(
        op=one["op"],
        shape=one["shape"],
        dtype=one["dtype"],
        count=one["count"],
        total_bytes=total_bytes,
        like=one["like"],
    )
    return words, one["count"], total_bytes


def _asked(error: BaseException) -> tuple[str, str, int | None]:
    """Shape, type and bytes of the tensor that was refused; empty and None where the message does
    not tell.
    """
    refused = refused_memory(str(error))
    if refused is None or not refused.type_name:
        return "", "", None
    # the message has the short names of types.cc, which as_dtype knows
    dtype = tf.as_dtype(refused.type_name)
    numbers = [int(number) for number in refused.shape.strip("[]").split(",") if number]
    return refused.shape, str(dtype.name), math.prod(numbers) * dtype.size or None
