"""Distributed training: all replicas of all workers together see every group once."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

GROUPS = 101

CODE = """
import json, sys
import numpy as np
import tensorflow as tf
from ptycho.loader import LazyPtychoDataContainer

kind, groups = sys.argv[1], int(sys.argv[2])
if kind == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
else:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
images = np.broadcast_to(np.arange(groups, dtype=np.float32)[:, None, None, None], \
(groups, 8, 8, 1))
coords = np.zeros((groups, 1, 2, 1), np.float32)
container = LazyPtychoDataContainer(images, None, None, 1.0, None, coords, coords, None, None, \
None, np.ones((8, 8), np.complex64))

def make(context):
    size = context.get_per_replica_batch_size(8)
    return container.as_dataset(size, shuffle=True, seed=0, input_context=context)

def numbers(batch):
    # A replica that gets nothing of a partial batch has none.
    return [int(value) for part in strategy.experimental_local_results(batch) \
for value in part[:, 0, 0, 0].numpy()]

def epoch(dataset):
    # One step after the other without a collective, so that workers with unequal shares need not \
wait for each other.
    seen = []
    for images, _ in dataset:
        seen += numbers(images)
    return seen

seen = [epoch(strategy.distribute_datasets_from_function(make)) for _ in range(2)] \
if kind != "whole" else []
if kind == "mirrored":
    seen.append(epoch(strategy.experimental_distribute_dataset(container.as_dataset(8))))
print(json.dumps(seen))
"""


def start(*arguments, **environment):
    settings = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(processes):
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.strip().splitlines()[-1]) for output, _ in outputs]


def test_replicas_of_one_worker_share_an_epoch():
    """MirroredStrategy over two logical devices, by input_context and by TensorFlow's own
    distribution of a plain dataset.
    """
    (epochs,) = results([start("mirrored", GROUPS)])

    assert len(epochs) == 3
    for seen in epochs:
        np.testing.assert_array_equal(np.arange(GROUPS), np.sort(seen))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("worker_count", [2])
def test_workers_share_an_epoch(worker_count):
    """MultiWorkerMirroredStrategy over two processes: what one worker sees the other does not."""
    cluster = {"worker": [f"127.0.0.1:{free_port()}" for _ in range(worker_count)]}
    configurations = [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}})
        for i in range(worker_count)
    ]
    workers = results(
        [start("multi", GROUPS, TF_CONFIG=configuration) for configuration in configurations]
    )
    for epoch in range(2):
        shares = [worker[epoch] for worker in workers]

        np.testing.assert_array_equal(np.arange(GROUPS), np.sort(np.concatenate(shares)))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
