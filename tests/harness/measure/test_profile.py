"""The profiler's file: made here as TensorFlow makes it, read in pieces, and refused when it is damaged."""

import pytest
from google.protobuf.message import DecodeError
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from harness.measure import profile as profile_module
from harness.measure.ordering import Event
from harness.measure.profile import EDGE_EVENT, EDGE_NUMBER, read_profile

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
        event = line.events.add(metadata_id=number, offset_ps=offset_ns * 1000, duration_ps=duration_ns * 1000)
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
    """Two threads: marks and one allocation in the first, a deallocation and another allocator's event in the second."""
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
    """Start of the line and offset; names and types in words; other allocators counted and left out."""
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
    recording.event(recording.plane.lines[0], "MemoryAllocation", 50, **amounts(8, 1, 256), data_type=9999)

    assert read(recording.space.SerializeToString()).events[1].dtype == ""


def test_texts_that_tensorflow_2_19_calls_null_are_empty(recording, read):
    """A conversion of an array, which no operation makes."""
    named = {"tf_op": "(null)", "shape": "", "region_type": "(null)", "data_type": 0}
    recording.event(recording.plane.lines[0], "MemoryAllocation", 50, **amounts(8, 1, 256), **named)
    event = read(recording.space.SerializeToString()).events[1]

    assert (event.op, event.region, event.shape, event.dtype) == ("", "", "", "")


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
