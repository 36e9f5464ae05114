"""For the children: the cards capped and their memory read, and what a container is made of."""

import json
import sys

import numpy as np
import tensorflow as tf

LIMIT_MIB = 512
"""Of each card; the pool is reserved at once, so that chunks are counted to the byte."""


def cap_cards():
    """Every card as one logical device of ``LIMIT_MIB``; before anything else runs."""
    for card in tf.config.list_physical_devices("GPU"):
        limit = tf.config.LogicalDeviceConfiguration(memory_limit=LIMIT_MIB)
        tf.config.set_logical_device_configuration(card, [limit])
    # What TensorFlow keeps for good, such as small constants, is there before anything is measured.
    for card in tf.config.list_logical_devices("GPU"):
        with tf.device(card.name):
            tf.zeros(()).numpy()


def current(device="GPU:0"):
    return tf.config.experimental.get_memory_info(device)["current"]


class Growth:
    """``with Growth() as growth``: the bytes a block needed at its peak and those that it kept, on
    every device named.
    """

    def __init__(self, *devices):
        self.devices = devices or ("GPU:0",)

    def __enter__(self):
        for device in self.devices:
            tf.config.experimental.reset_memory_stats(device)
        self.start = {device: current(device) for device in self.devices}
        return self

    def __exit__(self, *_):
        found = {device: tf.config.experimental.get_memory_info(device) for device in self.devices}
        self.peak = {device: found[device]["peak"] - self.start[device] for device in self.devices}
        self.kept = {
            device: found[device]["current"] - self.start[device] for device in self.devices
        }


def device_of(tensor):
    """CPU:0, GPU:0 or GPU:1."""
    return tensor.device.rpartition("device:")[2]


def arrays(group_count, frame_size, channel_count):
    """A container's eleven arguments. The first pixel of an image of X is the number of its
    group.
    """
    generator = np.random.default_rng(0)
    images = generator.random((group_count, frame_size, frame_size, channel_count), np.float32)
    images[:, 0, 0, :] = np.arange(group_count)[:, None]
    coords = generator.uniform(-3, 3, (group_count, 1, 2, channel_count)).astype(np.float32)
    truth = generator.random(images.shape, np.float32)
    probe = np.ones((frame_size, frame_size), np.complex64)
    return images, truth, truth, 1.0, None, coords, coords, None, None, None, probe


def report(result):
    sys.stdout.write(json.dumps(result) + "\n")
