"""A process that has imported TensorFlow, and forks a child for each case that is asked for, a line
of standard input.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from cuda_child import accounting, nvml
from cuda_child import host_meters as meters

MIB = 1024 * 1024


def devices(**_: Any) -> dict[str, Any]:
    found = tf.config.list_physical_devices("GPU")
    logical = [device.name for device in tf.config.list_logical_devices("GPU")]
    return {
        "details": [tf.config.experimental.get_device_details(one) for one in found],
        "logical": logical,
    }


def limited(limit_mib: int, **_: Any) -> dict[str, Any]:
    """A pool with a limit: one tensor of a quarter, then an operation and a copy that are refused
    (10 s each).
    """
    _limit(limit_mib)
    first = tf.convert_to_tensor(np.zeros(limit_mib * MIB // 4, np.uint8))
    in_use = tf.config.experimental.get_memory_info("GPU:0")["current"]
    refused = []
    for ask in (
        lambda: tf.raw_ops.Empty(shape=[limit_mib * MIB], dtype=tf.uint8),
        lambda: tf.convert_to_tensor(np.zeros(limit_mib * MIB, np.uint8)),
    ):
        try:
            with tf.device("GPU:0"):
                ask()
        except tf.errors.OpError as error:
            refused.append(f"{type(error).__name__}: {error}")
    return {"first": first.device[-5:], "in_use": in_use, "refused": refused, **_nvml()}


def grown(**_: Any) -> dict[str, Any]:
    """A pool that grows: NVML's bytes of this process after each of three tensors of 8 MiB."""
    tf.config.experimental.set_memory_growth(tf.config.list_physical_devices("GPU")[0], True)
    kept, seen, in_use = [], [], []
    for _ in range(3):
        kept.append(tf.convert_to_tensor(np.zeros(8 * MIB, np.uint8)))
        seen.append(_nvml()["process"])
        in_use.append(tf.config.experimental.get_memory_info("GPU:0")["current"])
    return {"process": seen, "in_use": in_use}


def host_meters(**_: Any) -> dict[str, Any]:
    """What a tensor of 256 MiB that is made on the card adds to each of the host's meters."""
    _limit(512)
    with tf.device("GPU:0"):
        warm = tf.fill([MIB], 1.0)
        before = meters()
        kept = tf.fill([64 * MIB], 1.0)
    after = meters()
    return {
        "device": kept.device[-5:],
        "warm": warm.device[-5:],
        **{name: after[name] - before[name] for name in after},
    }


def moved(**_: Any) -> dict[str, Any]:
    """Where batches lie, by how they were brought there."""
    dataset = tf.data.Dataset.from_tensor_slices(np.zeros((8, 16), np.float32)).batch(4)
    ways = {
        "plain": dataset,
        "prefetch_to_device": dataset.apply(tf.data.experimental.prefetch_to_device("/GPU:0", 2)),
        "copy_to_device": dataset.apply(tf.data.experimental.copy_to_device("/GPU:0")).prefetch(1),
    }
    return {name: [batch.device[-5:] for batch in way] for name, way in ways.items()}


def fitted(**_: Any) -> dict[str, Any]:
    """A small convolutional network trained on the card and on the CPU: its weights, and where they
    lie.
    """
    images = np.random.default_rng(0).random((64, 16, 16, 1), np.float32)
    answers = {}
    for place in ("CPU:0", "GPU:0"):
        with tf.device(place):
            tf.keras.utils.set_random_seed(0)
            model = tf.keras.Sequential(
                [
                    tf.keras.Input((16, 16, 1)),
                    tf.keras.layers.Conv2D(4, 3, activation="relu", padding="same"),
                    tf.keras.layers.BatchNormalization(),
                    tf.keras.layers.MaxPooling2D(),
                    tf.keras.layers.Flatten(),
                    tf.keras.layers.Dense(1),
                ]
            )
            model.compile("adam", "mse", jit_compile=False)
            start = model.layers[-1].get_weights()[0].copy()
            model.fit(
                images, images.mean((1, 2, 3)), epochs=2, batch_size=16, shuffle=False, verbose=0
            )
            end = model.layers[-1].get_weights()[0]
        answers[place] = {"moved": float(np.abs(end - start).max()), "end": end.ravel().tolist()}
    return answers


def mirrored(**_: Any) -> dict[str, Any]:
    """One step of descent on two cards, whose result is known: w = 1 - rate * mean(gradient)."""
    strategy = tf.distribute.MirroredStrategy(
        ["GPU:0", "GPU:1"], cross_device_ops=tf.distribute.HierarchicalCopyAllReduce()
    )
    with strategy.scope():
        model = tf.keras.Sequential(
            [
                tf.keras.Input((1,)),
                tf.keras.layers.Dense(1, use_bias=False, kernel_initializer="ones"),
            ]
        )
        model.compile(tf.keras.optimizers.SGD(0.125), "mse", jit_compile=False)
    points = np.arange(8, dtype=np.float32).reshape(8, 1)
    model.fit(points, np.zeros_like(points), epochs=1, batch_size=8, verbose=0, shuffle=False)
    in_use = [
        tf.config.experimental.get_memory_info(f"GPU:{index}")["current"] for index in range(2)
    ]
    return {
        "replicas": strategy.num_replicas_in_sync,
        "weight": float(model.get_weights()[0][0, 0]),
        "in_use": in_use,
    }


def traced(**_: Any) -> dict[str, Any]:
    """Allocators and largest allocation of a profile in which 1 MiB was put on the card."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    _limit(64)
    tf.zeros([])
    level = 1 if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 20) else 2
    options = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=level, python_tracer_level=0, device_tracer_level=0
    )
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder, options=options)
        tf.convert_to_tensor(np.zeros(MIB // 4, np.float32))
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    most: dict[str, int] = {}
    for plane in space.planes:
        names = {key: value.name for key, value in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                if plane.event_metadata[event.metadata_id].name == "MemoryAllocation":
                    stats = {names[stat.metadata_id]: stat for stat in event.stats}
                    allocator = (
                        names.get(stats["allocator_name"].ref_value)
                        or stats["allocator_name"].str_value
                    )
                    most[allocator] = max(
                        most.get(allocator, 0), stats["allocation_bytes"].int64_value
                    )
    return most


def _limit(limit_mib: int) -> None:
    card = tf.config.list_physical_devices("GPU")[0]
    tf.config.set_logical_device_configuration(
        card, [tf.config.LogicalDeviceConfiguration(memory_limit=limit_mib)]
    )


def _nvml() -> dict[str, Any]:
    found, accounted = (
        nvml(os.environ["FIRST_CARD"]),
        accounting(os.environ["FIRST_CARD"], os.getpid())[0],
    )
    return {
        "used": found["used"],
        "process": found["processes"][str(os.getpid())],
        "accounted": accounted,
    }


CASES = {
    case.__name__: case
    for case in (devices, limited, grown, host_meters, moved, fitted, mirrored, traced)
}


def _child(request: dict[str, Any], write: int) -> None:
    os.environ.update(request["environment"])
    try:
        answer = CASES[request["case"]](**request["settings"])
    except Exception as error:  # noqa: BLE001 - the test shows it
        answer = {"error": f"{type(error).__name__}: {error}"}
    os.write(write, json.dumps(answer).encode())
    os._exit(0)


if __name__ == "__main__":
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if not child:
            _child(json.loads(line), write)
        os.close(write)
        with os.fdopen(read, "rb") as file:
            answer = json.loads(file.read() or b"{}")
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps({"answer": answer, "code": code}) + "\n")
        sys.stdout.flush()
