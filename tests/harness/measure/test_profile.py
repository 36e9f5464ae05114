"""The profiler's file: made here as TensorFlow makes it, read in pieces, and refused when it is
damaged.
"""

import pytest
from google.protobuf.message import DecodeError
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from harness.measure import tracing as profile_module
from harness.measure.replay import Event
from harness.measure.tracing import EDGE_EVENT, EDGE_NUMBER, read_profile

MINE = "bfc_cpu_allocator_for_gpu"


class Recording:
    """An XSpace with one plane; names become numbers as the profiler makes them."""

    def __init__(self):
        self.space = xplane_pb2.XSpace()
        self.plane = self.space.planes.add(name="/host:CPU")
        self.names = {}
        self.events = {}

    def line(self, start_ns):
        return self.plane.lines.add(id=len(self.plane.lines), timestamp_ns=start_ns)

    def event(self, line, name, offset_ns, duration_ns=0, **stats):
        number = self.events.setdefault(name, len(self.events) + 1)
        self.plane.event_metadata[number].name = name
        self.plane.event_metadata[number].id = number
        event = line.events.add(
            metadata_id=number, offset_ps=offset_ns * 1000, duration_ps=duration_ns * 1000
        )
        for key, value in stats.items():
            stat = event.stats.add(metadata_id=self._name(key))
            if isinstance(value, str):
                stat.ref_value = self._name(value)
            elif isinstance(value, float):
                stat.double_value = value
            else:
                stat.int64_value = value

    def _name(self, text):
        number = self.names.setdefault(text, len(self.names) + 1)
        self.plane.stat_metadata[number].id = number
        self.plane.stat_metadata[number].name = text
        return number


def amounts(address, size, in_use, allocator=MINE):
    return {
        "allocator_name": allocator,
        "addr": address,
        "requested_bytes": size,
        "allocation_bytes": 256,
        "bytes_allocated": in_use,
        "fragmentation": 0.5,
    }


@pytest.fixture
def recording():
    """Two threads: marks and one allocation in the first, a deallocation and another allocator's
    event in the second.
    """
    made = Recording()
    first, second = made.line(1000), made.line(2000)
    made.event(first, EDGE_EVENT, 5, 10, **{EDGE_NUMBER: 0})
    named = {"tf_op": "MatMul", "shape": "[5,5]", "region_type": "temp", "data_type": 1}
    made.event(first, "MemoryAllocation", 20, **amounts(7, 100, 256), **named)
    made.event(first, "EagerExecute", 21, 5, eager_op="MatMul")
    made.event(first, EDGE_EVENT, 5000, 10, **{EDGE_NUMBER: 1})
    made.event(second, "MemoryDeallocation", 30, **amounts(7, 100, 0), data_type=0)
    made.event(second, "MemoryAllocation", 40, **amounts(9, 50, 50, "GPU_0_bfc"))
    return made


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "x.xplane.pb"
        path.write_bytes(content)
        return read_profile(path, MINE, xplane_pb2)

    return read


@pytest.mark.parametrize("piece_bytes", [1, 1 << 20], ids=["every field a piece", "one piece"])
def test_events_and_marks_have_the_lines_clock(recording, read, monkeypatch, piece_bytes):
    """Start of the line and offset; names and types in words; other allocators counted and left
    out.
    """
    monkeypatch.setattr(profile_module, "_PIECE_BYTES", piece_bytes)
    found = read(recording.space.SerializeToString())

    assert found.edges == {0: (1005, 1015), 1: (6000, 6010)}
    assert found.others == {"GPU_0_bfc": 1}
    common = {"address": 7, "requested_bytes": 100, "allocation_bytes": 256}
    taken = {"op": "MatMul", "shape": "[5,5]", "dtype": "float32", "region": "temp"}
    assert found.events == [
        Event(time_ns=1020, allocated=True, in_use_bytes=256, **common, **taken),
        Event(time_ns=2030, allocated=False, in_use_bytes=0, **common),
    ]


def test_a_type_that_tensorflow_does_not_know_is_not_told(recording, read):
    """A number from a later version."""
    recording.event(
        recording.plane.lines[0], "MemoryAllocation", 50, **amounts(8, 1, 256), data_type=9999
    )

    assert read(recording.space.SerializeToString()).events[1].dtype == ""


def test_texts_that_tensorflow_2_19_calls_null_are_empty(recording, read):
    """A conversion of an array, which no operation makes."""
    named = {"tf_op": "(null)", "shape": "", "region_type": "(null)", "data_type": 0}
    recording.event(recording.plane.lines[0], "MemoryAllocation", 50, **amounts(8, 1, 256), **named)
    event = read(recording.space.SerializeToString()).events[1]

    assert (event.op, event.region, event.shape, event.dtype) == ("", "", "", "")


# Allocations of GPU_0_bfc as the profiler of TensorFlow 2.19.1, 2.20.0 and 2.21.0 has them: how an
# array of 24,000 B of complex64 was converted, how a tensor of the host was taken to the card by
# tf.identity, for a gather's indices, by prefetch_to_device.
COPIED = ("copy to the card", "", "")


@pytest.mark.parametrize(
    ("op", "region", "shape", "dtype", "size", "named"),
    [
        ("_EagerConst", "dynamic", "[0]", 1, 24_000, COPIED),
        ("Identity", "dynamic", "[0]", 1, 20_000, COPIED),
        ("GatherV2", "dynamic", "[0]", 1, 12, COPIED),
        ("Identity", "dynamic", "[4,0]", 1, 1, COPIED),
        (
            "SameWorkerRecvDone",
            "dynamic",
            "[4,1000]",
            1,
            16_000,
            ("copy to the card", "[4,1000]", "float32"),
        ),
        ("Identity", "dynamic", "[0]", 1, 0, ("Identity", "[0]", "float32")),
        ("Empty", "output", "[0]", 1, 256, ("Empty", "[0]", "float32")),
        ("ones", "dynamic", "[3,3,10,4]", 1, 1440, ("ones", "[3,3,10,4]", "float32")),
        ("mul/y", "dynamic", "[]", 1, 4, ("mul/y", "[]", "float32")),
    ],
)
def test_copies_to_the_card_are_called_so_and_lose_what_the_tensor_was_before(
    recording, read, op, region, shape, dtype, size, named
):
    """Shape and type are those of the tensor while it was empty; what has elements, or no bytes,
    keeps both.
    """
    stats = {
        **amounts(8, size, 256),
        "tf_op": op,
        "shape": shape,
        "region_type": region,
        "data_type": dtype,
    }
    recording.event(recording.plane.lines[0], "MemoryAllocation", 50, **stats)
    event = read(recording.space.SerializeToString()).events[1]

    assert (event.op, event.shape, event.dtype) == named


def test_planes_without_such_events_give_nothing(read):
    """As that of the environment."""
    made = Recording()
    made.event(made.line(0), "EagerExecute", 1, 2)

    assert read(made.space.SerializeToString()).events == []


def test_a_file_that_is_cut_short_is_refused(recording, read):
    """Wherever it ends, but between two planes."""
    content = recording.space.SerializeToString()
    for length in range(1, len(content)):
        with pytest.raises((ValueError, DecodeError)):
            read(content[:length])


def test_a_file_of_another_kind_is_refused(read):
    """Wire type 7 does not exist."""
    with pytest.raises(ValueError, match="wire type 7"):
        read(b"\x0f\x00")
