"""How much of a card TensorFlow's pool may take, and what the pool costs of the host's memory.
Arithmetic alone.
"""

from harness.units import GIB, MIB

CONTEXT_BYTES = 600 * MIB
"""Left free for the CUDA context, which a child takes only after the driver was asked. Chosen:
contexts of 300 to 600 MiB are usual; a larger one is covered by what TensorFlow leaves free
besides."""
_SMALL_CARD_BYTES = 2 * GIB
_LEFT_ON_A_SMALL_CARD_BYTES = 225 * MIB
_LEFT_BYTES = ((6, 500 * MIB), (7, 1050 * MIB), (8, 1536 * MIB))
"""(largest major number of the compute capability, bytes); above the last one
``_MOST_LEFT_BYTES``."""
_MOST_LEFT_BYTES = 1800 * MIB
# All of them: MinSystemMemory in tensorflow/core/common_runtime/gpu/gpu_device.cc (2.13 to 2.21).

_BYTES_PER_HANDLE, _BYTES_PER_CHUNK = 8, 256
"""BFC's table has a handle (size_t) for each smallest chunk of the pool (bfc_allocator.h:
AllocationRegion, kMinAllocationBits)."""


def left_free_bytes(free_bytes: int, capability_major: int | None) -> int:
    """What is left to the context, to libraries and to the driver, of ``free_bytes`` that nobody
    has taken yet.

    TensorFlow leaves as much by itself, of what is free once the context is there: 225 MiB where
    that is below 2 GiB, else by the card's compute capability; the most where that is unknown
    (None).
    """
    with_context_bytes = max(0, free_bytes - CONTEXT_BYTES)
    if with_context_bytes < _SMALL_CARD_BYTES:
        return CONTEXT_BYTES + _LEFT_ON_A_SMALL_CARD_BYTES
    if capability_major is None:
        return CONTEXT_BYTES + _MOST_LEFT_BYTES
    left = (left_bytes for most_major, left_bytes in _LEFT_BYTES if capability_major <= most_major)
    return CONTEXT_BYTES + next(left, _MOST_LEFT_BYTES)


def reservable_bytes(free_bytes: int, capability_major: int | None) -> int:
    """The largest pool that may be reserved, in whole MiB as TensorFlow's limit is set; 0 where
    there is no room for any.
    """
    return max(0, free_bytes - left_free_bytes(free_bytes, capability_major)) // MIB * MIB


def budgetable_bytes(free_bytes: int) -> int:
    """The largest budget that there is room for, in whole MiB: TensorFlow leaves nothing of a limit
    that it is given.
    """
    return max(0, free_bytes - CONTEXT_BYTES) // MIB * MIB


def table_bytes(pool_bytes: int) -> int:
    """Host memory of BFC's table of a pool: 1/32 of it, written when the pool takes a region of the
    device.
    """
    return pool_bytes // _BYTES_PER_CHUNK * _BYTES_PER_HANDLE
