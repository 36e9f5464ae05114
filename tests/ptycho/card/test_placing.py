"""Arrays onto a card: where they lie, how many bytes the card's allocator counts, and that they are
the same.
"""

import pytest

ROW_BYTES = 1024 * 4
ARRAY_BYTES = 257 * ROW_BYTES
BATCH_BYTES = 16 * 32 * 32 * 4 * 4
SMALL_BYTES = 1024
"""Chosen: four of BFC's smallest chunks, for constants that TensorFlow makes once and keeps."""


@pytest.fixture(scope="module")
def found(measured):
    return measured("placing")


@pytest.mark.parametrize(
    ("array", "size_bytes"),
    [
        ("aligned", ARRAY_BYTES),
        ("not aligned", ARRAY_BYTES - ROW_BYTES),
        ("turned", ARRAY_BYTES),
        ("as float32", ARRAY_BYTES),
    ],
)
def test_a_placed_array_takes_its_bytes_of_the_card(found, array, size_bytes):
    """Kept and at the peak, to the byte, whatever its alignment, layout and dtype were on the
    host.
    """
    expected = {
        "device": "GPU:0",
        "kept_bytes": size_bytes,
        "peak_bytes": size_bytes,
        "is_equal": True,
    }

    assert found[array] == expected


def test_under_the_device_of_the_host_nothing_is_on_the_card(found):
    """0 B of the card where tf.device asks for the CPU."""
    assert found["on the host"] == {
        "device": "CPU:0",
        "kept_bytes": 0,
        "peak_bytes": 0,
        "is_equal": True,
    }


def test_memory_that_is_filled_on_the_host_is_on_the_card_once_it_is_placed(found):
    """Nothing before, 1 MiB then, and nothing more for a tensor that is there already."""
    filled = found["filled"]
    before, placed, again = filled["kept_bytes"]

    assert filled["devices"] == ["CPU:0", "GPU:0"]
    assert before <= SMALL_BYTES
    assert (placed, again) == (256 * ROW_BYTES, 0)
    assert filled["is_equal"]


def test_batches_without_tf_data_are_on_the_card_one_at_a_time(found):
    """The peak is one batch with its coordinates, and the dataset's values."""
    batches = found["batches"]

    assert batches["devices"] == ["GPU:0"]
    assert batches["is_equal"]
    assert BATCH_BYTES <= batches["peak_bytes"] <= BATCH_BYTES + SMALL_BYTES
    assert batches["kept_bytes"] == 0
