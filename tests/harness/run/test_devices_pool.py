"""How large a pool may be, and what its table costs; what was left free is TensorFlow's own
table.
"""

import pytest

from harness.run.devices import CONTEXT_BYTES, left_free_bytes, reservable_bytes, table_bytes
from harness.words import GIB, MIB


@pytest.mark.parametrize(
    ("free_bytes", "capability_major", "left_mib"),
    [
        (CONTEXT_BYTES + 2 * GIB - 1, 9, 225),
        (CONTEXT_BYTES + 2 * GIB, 6, 500),
        (80 * GIB, 5, 500),
        (80 * GIB, 7, 1050),
        (80 * GIB, 8, 1536),
        (80 * GIB, 9, 1800),
        (80 * GIB, 12, 1800),
        (80 * GIB, None, 1800),
        (0, None, 225),
    ],
)
def test_as_much_is_left_free_as_tensorflow_leaves_beside_the_context(
    free_bytes, capability_major, left_mib
):
    """MinSystemMemory of gpu_device.cc, which TensorFlow applies to what is free once the context
    has taken its part.
    """
    assert left_free_bytes(free_bytes, capability_major) == CONTEXT_BYTES + left_mib * MIB


def test_a_pool_is_in_whole_mib_and_never_below_nothing():
    """TensorFlow's limit is set in MiB; a card with less free than is left has no room at all."""
    assert reservable_bytes(80 * GIB + MIB - 1, 8) == (80 * 1024 - 600 - 1536) * MIB
    assert reservable_bytes(825 * MIB, 8) == 0
    assert reservable_bytes(826 * MIB - 1, 8) == 0
    assert reservable_bytes(826 * MIB, 8) == MIB


def test_the_table_of_a_pool_is_a_thirty_second_of_it():
    """A handle of 8 B for each 256 B."""
    assert table_bytes(56 * GIB) == 56 * GIB // 32
    assert table_bytes(255) == 0
