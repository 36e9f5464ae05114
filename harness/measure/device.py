"""Make TensorFlow use exactly the device that was leased, before its first operation."""

import ctypes
import gc
import json
import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from harness.errors import DeviceUnavailable, MeterUnavailable
from harness.measure import Memory, MeterContext
from harness.meters import DEVICE_IN_USE
from harness.records import Quality, Reading
from harness.words import MIB

_FIRST_REGION_BYTES = 2 * MIB
"""What BFC takes for TensorFlow's first small tensors, before it is asked for the pool; seen with
limits of 16 to 3,072 MiB."""
_ARGUMENTS_BYTES = 1024
"""Left free of it, for the arguments of the operation that fills it: four of BFC's smallest chunks,
of 256 B."""
_KNOWN_BYTES = MIB
"""Chosen: large enough that every allocator TensorFlow has counts it; without BFC, tensors under
256 KiB are left out."""
_held: "list[tf.Tensor]" = []
"""What fills that region, as long as the process lives."""


def prepare_device(device: dict[str, Any]) -> str:
    """Configure the leased device and start TensorFlow's runtime; gives its name, as ``"CPU:0"``.

    The emulated device is the CPU under TensorFlow's BFC allocator; its limit came with the
    environment. A card is capped with a logical device of ``limit_bytes``, or its pool grows when
    there is no limit (``configure``). Raises DeviceUnavailable when TensorFlow does not see the
    card that the driver has, or sees others too, or cannot be configured, and when the emulated
    device has no room here.

    The card's branch has met TensorFlow's GPU device on a pretended card, and never a real one.
    """
    if device["kind"] == "emulated":
        name = "CPU:0"
        _reserve(name, device["limit_bytes"])
    else:
        name = "GPU:0"
        configure(_only("GPU", device["name"]), device["limit_bytes"])
    with tf.device(name):
        tf.zeros([]).numpy()  # thread pools and contexts start here, not inside the first phase
    return name


def _only(kind: str, named: str) -> Any:  # noqa: ANN401 - tf.config.PhysicalDevice has no type stubs
    """The one device of a kind that TensorFlow sees; the environment made it the only visible
    one.
    """
    found = tf.config.list_physical_devices(kind)
    if not found:
        raise DeviceUnavailable(
            f"TensorFlow {tf.__version__} sees no {kind}, though the driver has {named}; "
            "install a build with CUDA (pip install 'tensorflow[and-cuda]') or ask for "
            "--memory-device cpu"
        )
    if len(found) > 1:
        raise DeviceUnavailable(
            f"TensorFlow sees {len(found)} devices of the kind {kind}, but {named} was "
            "leased alone; something has changed CUDA_VISIBLE_DEVICES in the child"
        )
    return found[0]


def configure(card: Any, limit_bytes: int | None) -> None:  # noqa: ANN401 - tf.config.PhysicalDevice has no type stubs
    """Cap a card, or have its pool grow on demand where there is no limit. Raises DeviceUnavailable
    with TensorFlow's words.

    With a limit, which a pool that is reserved has too, the pool is one region of that size from
    the first tensor on, as on the emulated device: BFC cuts every request out of it to 256 B, and
    the driver sees the whole pool. Its table, 1/32 of the limit, is written into the host's memory
    then, before the first phase. Without a limit the pool grows in steps, which the driver sees
    too, and a tensor that fills more than half of a step counts as all of it. PoolKind says which
    it is.
    """
    try:
        if limit_bytes is None:
            tf.config.experimental.set_memory_growth(card, True)  # noqa: FBT003 - TensorFlow's own signature
        else:
            capped = tf.config.LogicalDeviceConfiguration(memory_limit=limit_bytes // MIB)
            tf.config.set_logical_device_configuration(card, [capped])
    except (
        ValueError,
        RuntimeError,
    ) as error:  # what tf.config raises, for what it cannot do and for what comes too late
        wish = (
            "grow on demand" if limit_bytes is None else f"be limited to {limit_bytes // MIB:,} MiB"
        )
        raise DeviceUnavailable(f"TensorFlow cannot have {card.name} {wish}: {error}") from error


def _reserve(name: str, limit_bytes: int) -> None:
    """Have BFC take its whole pool as one region, as it does on a capped card.

    A pool that grows in steps makes readings coarse: a chunk is split only when it is at least
    twice the request, so 6.25 MiB at the end of a fresh 8 MiB region count as 8 (bfc_allocator.cc).
    Out of one large chunk every request is cut to 256 B. A request for more than half of the pool
    makes the region the whole rest of the limit. The pages stay untouched; what it costs is BFC's
    table of chunks, 1/32 of the limit, before the first phase. What is left of the small first
    region is filled for good, or 1 MiB out of its 2 MiB would count as both.
    """
    try:
        with tf.device(name):
            # In MiB by bytes, because the op's dimensions are 32 bits wide.
            limit_mib = limit_bytes // MIB
            most_mib = min(limit_mib * 15 // 16, limit_mib - _FIRST_REGION_BYTES // MIB)
            tf.raw_ops.Empty(shape=[most_mib, MIB], dtype=tf.uint8, init=False)
            left_bytes = (
                _FIRST_REGION_BYTES
                - tf.config.experimental.get_memory_info(name)["current"]
                - _ARGUMENTS_BYTES
            )
            if left_bytes > 0:
                _held.append(tf.raw_ops.Empty(shape=[left_bytes], dtype=tf.uint8, init=False))
    except tf.errors.ResourceExhaustedError as error:
        # Not the body's doing: it would pass for a loader that ran out of memory.
        raise DeviceUnavailable(
            f"the emulated device of {limit_bytes // MIB:,} MiB could not be reserved in "
            "this machine's memory; ask for a smaller --memory-device-budget, or free "
            "memory"
        ) from error


# A body with known answers: allocate known amounts, kept and for a moment, and let the meters
# find them.


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


# Live tensors on one device, as TensorFlow's own allocator counts them: exact, peak included.


class AllocatorMeter:
    """``device_in_use``: bytes of live tensors; the peak is kept by the allocator and reset at the
    start of each phase.
    """

    names = (DEVICE_IN_USE,)

    def __init__(self, context: MeterContext) -> None:
        self._device = context.device_name
        self._forget = tf.config.experimental.reset_memory_stats
        self._start_bytes = 0
        self._kept_peak_bytes = 0
        """The highest peak that the body has had forgotten in this phase."""

    def open(self) -> None:
        """Allocate a known tensor and look for it, and for its peak once that is reset.

        Raises MeterUnavailable when the allocator did not count it, keeps no statistics
        (cuda_malloc_async had none at first), or cannot forget a peak.
        """
        before_bytes, _ = self._read()
        with tf.device(self._device):
            known = tf.zeros([_KNOWN_BYTES], tf.uint8)
        found_bytes = self._read()[0] - before_bytes
        del known
        gc.collect()  # before the first phase: nothing measured sees it
        if found_bytes < _KNOWN_BYTES:
            raise MeterUnavailable(
                f"TensorFlow's allocator on {self._device} counted {found_bytes} B of a "
                f"tensor of {_KNOWN_BYTES} B; its statistics cannot be trusted here"
            )
        self._forget_peak()
        left_bytes, peak_bytes = self._read()
        if peak_bytes - left_bytes >= _KNOWN_BYTES:
            raise MeterUnavailable(
                f"TensorFlow's allocator on {self._device} does not forget its peak when it "
                "is asked to"
            )
        self._keep_what_the_body_resets()

    def begin(self) -> None:
        """Set the peak to what is live now."""
        tf.test.experimental.sync_devices()
        self._forget_peak()
        self._kept_peak_bytes = 0
        self._start_bytes, _ = self._read()

    def end(self) -> tuple[Reading, ...]:
        """Live bytes at both edges and the allocator's own peak between them."""
        tf.test.experimental.sync_devices()
        end_bytes, peak_bytes = self._read()
        reading = Reading(
            meter=self.names[0],
            quality=Quality.EXACT,
            start_bytes=self._start_bytes,
            peak_bytes=max(peak_bytes, self._kept_peak_bytes),
            end_bytes=end_bytes,
        )
        return (reading,)

    def _keep_what_the_body_resets(self) -> None:
        """Remember the peak whenever somebody else has TensorFlow forget it, as code with a meter
        of its own does.

        Only calls by the function's full name are seen, not one that was taken out of the module
        beforehand.
        """

        def reset_memory_stats(device: str) -> None:
            self._kept_peak_bytes = max(self._kept_peak_bytes, self._read()[1])
            self._forget(device)

        tf.config.experimental.reset_memory_stats = reset_memory_stats

    def _forget_peak(self) -> None:
        try:
            self._forget(self._device)
        except ValueError as error:
            raise MeterUnavailable(
                f"TensorFlow cannot reset the peak of {self._device}: {error}"
            ) from error

    def _read(self) -> tuple[int, int]:
        try:
            stats = tf.config.experimental.get_memory_info(self._device)
        except ValueError as error:
            raise MeterUnavailable(
                f"TensorFlow has no memory statistics for {self._device}: {error}"
            ) from error
        return int(stats["current"]), int(stats["peak"])


# What TensorFlow sees of the one card that the environment makes visible, asked in a process of
# its own; JSON on the last line. TensorFlow's warnings, which alone say why it sees none, go to
# standard error.


def main() -> int:
    """Print TensorFlow's version, whether it is a build with CUDA, how many cards it sees, and
    whether CUDA's driver is there.
    """
    found = {
        "tensorflow": tf.__version__,
        "is_cuda_build": bool(tf.test.is_built_with_cuda()),
        "cards": len(tf.config.list_physical_devices("GPU")),
        "has_libcuda": _has("libcuda.so.1"),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _has(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
