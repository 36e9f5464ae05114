"""Placing arrays: the allocator counts every byte, whatever the alignment."""

import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

from ptycho.feeding.device_memory import (
    ALIGNMENT_BYTES,
    BatchMemory,
    aligned_empty,
    copy_to_device,
    from_host,
)

BFC = {
    "TF_CPU_ALLOCATOR_USE_BFC": "true",
    "TF_CPU_BFC_MEM_LIMIT_IN_MB": "64",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
}

GROWTH = """
import json
import numpy as np, tensorflow as tf
from ptycho.feeding.device_memory import aligned_empty, copy_to_device

def memory():
    return tf.config.experimental.get_memory_info("CPU:0")

# One region, made and given back at once: BFC leaves a chunk whole unless it is twice the \
request. Sizes start above
# the 2 MiB of its first region, which would else be handed out whole.
tf.raw_ops.Empty(shape=[48 << 20], dtype=tf.uint8)
rows = []
for step in range(20):
    size_bytes = (2 << 20) + 256 * (1 + 977 * step)
    shift = step % 17
    array = aligned_empty((size_bytes // 4 + shift,), np.float32)[shift:]
    array[...] = step
    tf.config.experimental.reset_memory_stats("CPU:0")
    start = memory()["current"]
    tensor = copy_to_device(array)
    end = memory()
    rows.append([size_bytes, end["current"] - start, end["peak"] - start, \
bool((tensor.numpy() == array).all())])
    del tensor
print(json.dumps(rows))
"""

LIMIT = """
import numpy as np, tensorflow as tf
from ptycho.feeding.device_memory import copy_to_device

small = copy_to_device(np.zeros(8 << 20, np.float32))
try:
    copy_to_device(np.zeros(9 << 20, np.float32))
except tf.errors.ResourceExhaustedError as error:
    print("device_oom" if "bfc" in str(error).lower() else str(error))
"""


def run(code):
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **BFC},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip().splitlines()[-1]


def test_the_allocator_counts_exactly_the_array_at_every_alignment():
    """20 sizes, 17 alignments: growth is the array, and the peak is no higher."""
    rows = json.loads(run(GROWTH))

    assert len(rows) == 20
    for size_bytes, growth_bytes, peak_bytes, is_equal in rows:
        assert (size_bytes, size_bytes, True) == (growth_bytes, peak_bytes, is_equal)


def test_more_than_the_device_holds_is_a_true_out_of_memory():
    """32 MiB fit into 64 MiB, 36 MiB more do not."""
    assert run(LIMIT) == "device_oom"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.int64])
@pytest.mark.parametrize("kind", ["aligned", "misaligned", "strided", "read-only"])
def test_the_tensor_is_the_array_and_shares_nothing_with_it(dtype, kind):
    shift = 16 // np.dtype(dtype).itemsize if kind == "misaligned" else 0
    array = aligned_empty((30 + shift,), dtype)[shift:].reshape(6, 5)
    array[...] = np.arange(30).reshape(6, 5)
    if kind == "strided":
        array = array.T
    expected = array.copy()
    array.flags.writeable = kind != "read-only"
    tensor = copy_to_device(array)
    array.flags.writeable = True
    array[...] = 77

    np.testing.assert_array_equal(expected, tensor.numpy())
    assert tensor.dtype == tf.as_dtype(dtype)


def test_the_dtype_may_be_changed_on_the_way():
    tensor = copy_to_device(np.arange(6.0), np.float32)

    assert tensor.dtype == tf.float32
    np.testing.assert_array_equal(np.arange(6), tensor.numpy())


def test_an_empty_array_is_aligned_for_tensorflow():
    array = aligned_empty((3, 5), np.float32)

    assert array.ctypes.data % ALIGNMENT_BYTES == 0
    assert array.shape == (3, 5)
    assert array.flags.c_contiguous


def test_lent_memory_is_aligned_and_used_again_only_when_nobody_has_it():
    """Three arrays at once are three pieces; one that is back is lent next, whoever had its
    tensor.
    """
    memory = BatchMemory((4, 3), np.float32)
    arrays = [memory.take(4) for _ in range(3)]
    addresses = [array.ctypes.data for array in arrays]
    tensor = from_host(arrays[0])
    assert len(set(addresses)) == 3
    assert all(address % ALIGNMENT_BYTES == 0 for address in addresses)

    del arrays[0]
    assert memory.take(4).ctypes.data not in addresses  # TensorFlow still has the first
    del tensor
    again = memory.take(2)
    assert again.ctypes.data in addresses
    assert (again.shape, again.flags.writeable, again.flags.c_contiguous) == ((2, 3), True, True)


def test_when_the_last_array_is_back_nothing_is_kept():
    """The memory goes with the last array, not with its owner; and one consumer's hoard is not
    kept for the rest.
    """
    memory = BatchMemory((4, 3), np.float32)
    hoard = [memory.take(4) for _ in range(10)]
    del hoard[1:]
    assert len(memory._free) == 2
    del hoard[:]
    assert memory._free == []


def test_memory_that_waits_goes_with_the_lender():
    """The last array of an owner that is gone holds its own memory and no more."""
    memory = BatchMemory((4, 3), np.float32)
    last, back = memory.take(4), memory.take(4)
    last[...] = 7
    del back
    waiting = weakref.ref(memory._free[0])
    del memory

    assert waiting() is None
    np.testing.assert_array_equal(np.full((4, 3), 7), last)


def test_two_that_come_back_at_once_leave_nothing():
    """Another thread gives the last one back while this one is about to put its own down."""
    memory = BatchMemory((4, 3), np.float32)
    arrays = [memory.take(4) for _ in range(2)]

    class Interrupted(list):
        def append(self, memory):
            if arrays:
                arrays.pop()  # which comes back in the middle of this call
            super().append(memory)

    memory._free = Interrupted()
    arrays.pop()

    assert memory._free == []


LENT = """
import json
import numpy as np, tensorflow as tf
from ptycho.feeding.device_memory import BatchMemory, from_host

def current():
    return tf.config.experimental.get_memory_info("CPU:0")["current"]

tf.raw_ops.Empty(shape=[48 << 20], dtype=tf.uint8)
memory, rows = BatchMemory((1024, 1024), np.float32), []
start = current()
tensors = [from_host(memory.take(1024)) for _ in range(2)]
rows.append(current() - start)
doubled = tf.identity(tensors.pop())
rows.append(current() - start)
del tensors, doubled
rows.append(current() - start)
print(json.dumps(rows))
"""


def test_the_allocator_counts_what_is_taken():
    """Two arrays of 4 MiB are 8 MiB for as long as any tensor has them, and nothing afterwards."""
    assert json.loads(run(LENT)) == [8 << 20, 8 << 20, 0]
