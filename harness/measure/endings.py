"""Name the exception that ended a body: which memory ran out, or what else went wrong."""

import re

from harness.errors import DeviceUnavailable
from harness.records import Ending, Outcome

# The sentence of TensorFlow's Allocator errors (op_kernel.cc), with the parts that decide.
_REFUSED = re.compile(
    r"OOM when allocating tensor with shape(?P<shape>\[[^\]]*\]) and type (?P<type>\w+)"
    r" on (?P<device>\S+) by allocator (?P<allocator>\S+)"
)
# The allocators that stand for the device: a card's, and the one that the CPU borrows from it.
_DEVICE_ALLOCATORS = ("GPU_", "bfc_cpu_allocator_for_gpu", "cuda_malloc_async")
# Nodes of TensorFlow's graphs, which mean nothing to the reader: {{function_node __wrapped__IteratorGetNext_...}}.
_NODE = re.compile(r"\{\{[^{}]*\}\}\s*")
# An error of Python inside a tf.data function: TensorFlow puts words before it and the traceback after it (py_func.cc).
_PYTHON_ERROR = re.compile(r"\b\w*(?:Error|Exception): .*")
_TRACEBACK = "Traceback (most recent call last)"
# What TensorFlow says when a copy to the card found no room there.
_COPY_REFUSED = "Dst tensor is not initialized"


def name_exception(error: BaseException) -> Ending:
    """The outcome, its cause and its reason, in one line.

    TensorFlow raises ResourceExhaustedError for refused device memory and for refused host memory alike; its message
    names the allocator, and that decides. It is recognised by name, so that this module never imports TensorFlow.
    """
    kind, message = type(error).__name__, _NODE.sub("", str(error))
    if isinstance(error, DeviceUnavailable):
        return Ending(Outcome.SKIPPED, "device", message)
    if isinstance(error, MemoryError):
        return Ending(Outcome.HOST_OOM, "limit", f"MemoryError: {_first_line(message) or 'the limit of host memory was reached'}")
    if kind == "ResourceExhaustedError":
        return _name_refusal(message)
    if _COPY_REFUSED in message:
        return Ending(Outcome.DEVICE_OOM, "allocator", _first_line(message))
    if (inner := _python_error(message)) is not None:
        return Ending(Outcome.ERROR, inner.partition(":")[0], inner)
    return Ending(Outcome.ERROR, kind, f"{kind}: {_first_line(message)}")


def _name_refusal(message: str) -> Ending:
    refused = _REFUSED.search(message)
    if refused is None:
        inner = _python_error(message)
        if inner is None:
            return Ending(Outcome.DEVICE_OOM, "allocator", _first_line(message))
        return Ending(Outcome.HOST_OOM, "limit", inner)
    reason = (
        f"the allocator {refused['allocator']} refused a tensor of shape {refused['shape']} and type {refused['type']}"
        f" on {refused['device'].rpartition('/')[2]}"
    )
    if refused["allocator"].startswith(_DEVICE_ALLOCATORS):
        return Ending(Outcome.DEVICE_OOM, "allocator", reason)
    return Ending(Outcome.HOST_OOM, "limit", reason)


def _python_error(message: str) -> str | None:
    """The ``XError: message`` that a function of tf.data died of, where TensorFlow's message carries its traceback."""
    found = _PYTHON_ERROR.search(_first_line(message)) if _TRACEBACK in message else None
    return None if found is None else found[0]


def _first_line(message: str) -> str:
    return message.strip().partition("\n")[0][:500]


def refused_tensor(error: BaseException) -> tuple[str, str] | None:
    """Shape and type of the tensor for which memory was refused, as the message has them; None where it has none."""
    refused = _REFUSED.search(str(error))
    return None if refused is None else (refused["shape"], refused["type"])
