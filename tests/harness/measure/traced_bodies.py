"""Bodies with known allocations, run in traced children; loaded by name, never by the tests
themselves.
"""

import os
import signal
import sys
from threading import Barrier, Thread

import numpy as np
import tensorflow as tf


def empty(shape, dtype):
    """A tensor whose shape argument is there already, so that the operation allocates exactly its
    output.
    """
    return tf.raw_ops.Empty(shape=shape, dtype=dtype)


def known_sequence(memory, parameters):
    """4,000, 300 and 8,000 B in one phase, 8,000 more in the next, nothing in the last."""
    thousand, some, two_thousand = (tf.constant([size]) for size in (1000, 300, 2000))
    memory.declare(batch=8000, image=100)
    with memory.phase("first"):
        a = empty(thousand, tf.float32)
        b = empty(some, tf.uint8)
        del a
        c = empty(two_thousand, tf.float32)
    with memory.phase("second"):
        d = tf.raw_ops.AddV2(x=c, y=c)
        del d, b
    with memory.phase("third"):
        pass
    with memory.phase("fourth"):
        del c


def convert_arrays(memory, parameters):
    """Eight arrays of numpy, of three batches each, become tensors. TensorFlow keeps the copies
    that happen to be aligned.

    Malloc's headers of 16 B move each copy on by a quarter of the alignment, so that six of eight
    are not.
    """
    memory.declare(batch=4096)
    arrays = [np.full(3 * 4096, number, np.uint8) for number in range(8)]
    with memory.phase("convert"):
        tensors = [tf.convert_to_tensor(array) for array in arrays]
    with memory.phase("release"):
        del tensors


def exhaust(memory, parameters):
    """Hold 10 and 20 MiB, then ask for 64 MiB of a device of 64."""
    ten, twenty, too_much = (tf.constant([size * 1024 * 1024]) for size in (10, 20, 64))
    memory.declare(batch=64 * 1024 * 1024)
    with memory.phase("fits"):
        ten_mib = empty(ten, tf.uint8)
    with memory.phase("does_not_fit"):
        twenty_mib = empty(twenty, tf.uint8)
        empty(too_much, tf.uint8)
    del ten_mib, twenty_mib


def die_by_signal(memory, parameters):
    """SIGSEGV in the second phase."""
    with memory.phase("first"):
        pass
    with memory.phase("second"):
        os.kill(os.getpid(), signal.SIGSEGV)


def many_threads(memory, parameters):
    """Four threads allocate and free at the same time, 200 times each; one tensor of each stays."""
    shapes = [tf.constant([1000 + number]) for number in range(4)]
    kept = []
    together = Barrier(len(shapes))

    def work(shape):
        together.wait()
        for _ in range(200):
            held = empty(shape, tf.float32)
            del held
        kept.append(empty(shape, tf.float32))

    with memory.phase("threads"):
        threads = [Thread(target=work, args=(shape,)) for shape in shapes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def without_xplane_prepare(device):
    """Prepare the device, and hide TensorFlow's description of the profiler's file."""
    from harness.measure.device import prepare_device

    sys.modules["tensorflow.tsl.profiler.protobuf.xplane_pb2"] = None
    return prepare_device(device)


def unheard_prepare(device):
    """Prepare the device, and have the profiler's file hold no allocation, as that of TensorFlow
    2.19 at level 1.
    """
    from harness.measure import tracing
    from harness.measure.device import prepare_device

    read = tracing.read_profile

    def read_without_events(*arguments):
        profile = read(*arguments)
        profile.events.clear()
        return profile

    tracing.read_profile = read_without_events
    return prepare_device(device)


def allocate_nothing(memory, parameters):
    """A phase in which the device is left alone."""
    with memory.phase("idle"):
        sum(range(1000))
