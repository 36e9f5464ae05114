"""Live tensors on one device, as TensorFlow's own allocator counts them: exact, peak included."""

import gc

import tensorflow as tf

from harness.errors import MeterUnavailable
from harness.measure.meter import MeterContext
from harness.meters import DEVICE_IN_USE
from harness.records import Quality, Reading

# Large enough that every allocator TensorFlow has counts it: without BFC, tensors under 256 KiB are
# left out.
_KNOWN_BYTES = 1024 * 1024


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
                "is told to"
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
