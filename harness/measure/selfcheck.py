"""A body with known answers: allocate known amounts, kept and for a moment, and let the meters find
them.
"""

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from harness.measure.phases import Memory


def measure(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Phases by what they hold, for ``small_bytes`` and ``large_bytes``: tensors, private and
    shared host memory.

    ``spike`` holds ``large_bytes`` of private memory for a moment while as much of a file is read
    through a mapping; ``mapped`` keeps that mapping. Every amount is let go again in a phase of its
    own.
    """
    file = memory.workspace / "known.bin"
    file.write_bytes(bytes(parameters["large_bytes"]))
    for size in ("small", "large"):
        _hold(memory, size, parameters[f"{size}_bytes"], parameters["device_name"])
    _map(memory, file, parameters["large_bytes"])


def _hold(memory: Memory, size: str, known_bytes: int, device_name: str) -> None:
    with memory.phase(f"device_{size}"), tf.device(device_name):
        tensor = tf.zeros([known_bytes], tf.uint8)
    with memory.phase(f"device_{size}_release"):
        del tensor
    for kind, flags in (("private", mmap.MAP_PRIVATE), ("shared", mmap.MAP_SHARED)):
        with memory.phase(f"{kind}_{size}"):
            pages = _touched(known_bytes, flags)
        with memory.phase(f"{kind}_{size}_release"):
            pages.close()


def _map(memory: Memory, path: Path, known_bytes: int) -> None:
    with (
        memory.phase("spike"),
        path.open("rb") as opened,
        mmap.mmap(opened.fileno(), known_bytes, access=mmap.ACCESS_READ) as read_through,
    ):
        _read(read_through)
        _touched(known_bytes, mmap.MAP_PRIVATE).close()
    with memory.phase("mapped"), path.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), known_bytes, access=mmap.ACCESS_READ)
        _read(mapped)
    with memory.phase("mapped_release"):
        mapped.close()


def _touched(known_bytes: int, flags: int) -> mmap.mmap:
    pages = mmap.mmap(-1, known_bytes, flags=flags | mmap.MAP_ANONYMOUS)
    for offset in range(0, known_bytes, mmap.PAGESIZE):
        pages[offset] = 1
    return pages


def _read(mapped: mmap.mmap) -> int:
    return sum(mapped[offset] for offset in range(0, len(mapped), mmap.PAGESIZE))
