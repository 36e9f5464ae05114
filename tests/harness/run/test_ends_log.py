"""Logs of children that crashed, as TensorFlow 2.21 and Python 3.11 write them."""

import pytest

from harness.run.ends import Refusal, crash_site, last_words, unreported_refusal, with_asked
from harness.words import MIB

REFUSAL = (
    "W0000 00:00:1795543447.166745   25440 bfc_allocator.cc:502] Allocator "
    "(bfc_cpu_allocator_for_gpu) ran out of memory trying to allocate 200.00MiB (rounded "
    "to 209715200)requested by op \nIf the cause is memory fragmentation maybe the "
    "environment variable 'TF_GPU_ALLOCATOR=cuda_malloc_async' will improve the situation. "
    "\nCurrent allocation summary follows.\nCurrent allocation summary follows.\nW0000 "
    f"00:00:1795543447.166865   25440 bfc_allocator.cc:513] {'*' * 50}{'x' * 46}*___\n"
)
REPORTED = (
    "W0000 00:00:1795543465.231992   25681 op_kernel.cc:1858] OP_REQUIRES failed at "
    "constant_op.cc:176 : RESOURCE_EXHAUSTED: OOM when allocating tensor with "
    "shape[209715200] and type uint8 on /job:localhost by allocator "
    "bfc_cpu_allocator_for_gpu\n"
)
MAY_FAIL = (
    "W0000 00:00:1795543447.166745   25440 bfc_allocator.cc:310] Allocator (GPU_0_bfc) ran "
    "out of memory trying to allocate 1.25GiB with freed_by_count=0. The caller indicates "
    "that this is not a failure\n"
)
CRASH = """Fatal Python error: Segmentation fault

Thread 0x00007f2f2b7fe640 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait

Current thread 0x00007f2fd1c4a740 (most recent call first):
  File "/opt/tensorflow/python/framework/constant_op.py", line 108 in convert_to_eager_tensor
  File "/home/me/bodies.py", line 7 in measure

Extension modules: numpy._core._multiarray_umath, h5py (total: 2)
"""


def test_a_refusal_that_nobody_was_told_of_has_its_amount_and_the_state_of_the_pool():
    """The last thing that TensorFlow said before the crash."""
    found = unreported_refusal(REFUSAL + CRASH)

    assert found == Refusal(
        allocator="bfc_cpu_allocator_for_gpu", asked_bytes=200 * MIB, held=0.51, rounded=0.46
    )
    assert found.sentence(64 * MIB) == (
        "the allocator bfc_cpu_allocator_for_gpu was asked for 200.0 MiB of its 64.0 MiB,"
        " with 51% of its pool held and 46% lost to rounding"
    )


@pytest.mark.parametrize(
    "log",
    ["", CRASH, MAY_FAIL + CRASH, REFUSAL + REPORTED + CRASH, "starting\n" + CRASH + REFUSAL],
    ids=range(5),
)
def test_no_refusal_is_made_up(log):
    """None at all, one that was allowed to fail, one that the caller was told of, one after the
    crash.
    """
    assert unreported_refusal(log) is None


def test_a_later_refusal_that_was_not_reported_counts():
    """The body was told of the first one and went on."""
    assert unreported_refusal(REFUSAL + REPORTED + REFUSAL + CRASH) is not None


def test_the_place_of_a_crash_is_that_of_the_thread_that_crashed():
    """Not of the first one that is listed."""
    assert crash_site(REFUSAL + CRASH) == "constant_op.py:108 in convert_to_eager_tensor"
    assert crash_site(REFUSAL) == ""


def test_last_words_come_before_the_crash_and_are_no_part_of_the_allocators_warning():
    """What the program itself said."""
    assert last_words("loading frames\n" + REFUSAL + CRASH) == "loading frames"


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            (
                "GPU:0 had no room for a copy of an array; between 0 B and 64.0 MiB of 64.0 "
                "MiB were in use"
            ),
            (
                "GPU:0 had no room for a copy of an array (200.0 MiB); between 0 B and 64.0 "
                "MiB of 64.0 MiB were in use"
            ),
        ),
        ("the card had no room for a copy", "the card had no room for a copy (200.0 MiB)"),
        (
            "the allocator GPU_0_bfc refused a tensor of shape [4] (16 B); 8 B were in use",
            "the allocator GPU_0_bfc refused a tensor of shape [4] (16 B); 8 B were in use",
        ),
    ],
)
def test_a_copy_that_found_no_room_is_as_large_as_the_log_says(reason, expected):
    """TensorFlow's error does not say it, its allocator does; what says it already, and a log
    without it, change nothing.
    """
    assert with_asked(reason, REFUSAL) == expected
    assert with_asked(expected, REFUSAL) == expected
    assert with_asked(reason, MAY_FAIL) == reason
