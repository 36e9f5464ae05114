"""The emulated device's own memory, which is the host's, kept out of what is read of the host."""

import tensorflow as tf


def touch(size_bytes: int) -> None:
    """Use that much of the device once and give it back, before the first phase.

    Pages of the emulated device are pages of the host the first time that a tensor lies on them.
    Which ones those are depends on the order in which threads ask: readings of the host then differ
    by megabytes between runs that do the same. Pages that were touched before are in no phase. On a
    card this changes nothing on the host.
    """
    tf.raw_ops.Empty(shape=[size_bytes], dtype=tf.uint8, init=True)
