"""Traces read back: checked, compared with the untraced repeats, told in words; damage is one
sentence.
"""

import gzip
import json
from dataclasses import replace

import pytest

from harness.errors import RunDirectoryError
from harness.judge.completeness import (
    agreement,
    alive_when_refused,
    read_traces,
    recording_in_words,
    refusal_in_words,
    with_what_is_known,
)
from harness.judge.table import load_run
from harness.records import Outcome, from_json, to_json
from harness.rundir.rows import TraceEnd
from harness.rundir.traces import Alive, OutOfMemory, Trace, read_trace
from harness.words import COPY_TO_CARD

MIB = 1024 * 1024
COUNTS = dict.fromkeys(
    ("allocations", "deallocations", "from_before", "reordered", "jumps", "overwritten", "resized"),
    0,
)


def alive(**changes):
    values = {
        "op": "Empty",
        "shape": "[4]",
        "dtype": "float32",
        "region": "output",
        "each_bytes": 16,
        "count": 1,
        "like": "",
    }
    return values | changes


def phase(name, index, peak_bytes, **changes):
    edges = {"start_bytes": 0, "peak_bytes": peak_bytes, "end_bytes": 0}
    values = {
        "phase": name,
        "index": index,
        "finished": True,
        "start_ns": index,
        "peak_ns": index,
        "end_ns": index,
    }
    return values | {"requested": edges, "allocator": edges, "alive": [alive()]} | changes


def document(point="a-lazy", **changes):
    values = {
        "schema_version": 1,
        "point": point,
        "device": "CPU:0",
        "allocator": "bfc_cpu_allocator_for_gpu",
        "tensorflow": "2.21.0",
        "limit_bytes": 64 * MIB,
        "base_bytes": 256,
        "declared": {"batch": 4 * MIB},
        "phases": [phase("construct", 0, 0), phase("epoch_0", 1, 8 * MIB)],
        "timeline": {
            "time_ns": [5, 2, 3],
            "requested_bytes": [100, 50, -100],
            "allocator_bytes": [512, 256, -256],
        },
        "counts": {**COUNTS, "other_allocators": {}},
        "out_of_memory": None,
    }
    return values | changes


def pack(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    return path


def trace(**changes):
    return from_json(Trace, json.loads(json.dumps(document(**changes))))


@pytest.fixture
def path(tmp_path):
    return pack(tmp_path / "a.json.gz", document())


def test_a_trace_comes_back_as_it_was_written(path):
    """The timeline is added up again."""
    found = read_trace(path, "a-lazy")

    assert found == trace()
    assert found.timeline.columns() == ([5, 7, 10], [100, 150, 50], [512, 768, 512])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"schema_version": 2},
            "has schema_version 2; this program reads version 1: measure again",
        ),
        ({"schema_version": None}, "schema_version None"),
        ({"point": "b"}, "is the trace of b, not of a-lazy"),
        ({"base_bytes": -1}, "is damaged: base_bytes: "),
        ({"base_bytes": 1.0}, "is damaged: base_bytes: "),
        ({"base_bytes": 2**60 + 1}, "is damaged: base_bytes: "),
        ({"phases": [phase("epoch_0", 0, -1)]}, "is damaged: phases.0.requested.peak_bytes: "),
        ({"phases": [phase("epoch_0", 0, 1, alive=[alive(count=0)])]}, "phases.0.alive.0.count: "),
        (
            {"timeline": {"time_ns": [1], "requested_bytes": [], "allocator_bytes": [1]}},
            "its three columns differ in length",
        ),
        (
            {"timeline": {"time_ns": ["1"], "requested_bytes": [1], "allocator_bytes": [1]}},
            "timeline.time_ns.0: ",
        ),
        ({"counts": {}}, "counts.allocations: "),
    ],
)
def test_a_trace_that_is_not_as_it_should_be_is_one_sentence(tmp_path, changes, words):
    """Naming the file and the entry."""
    path = pack(tmp_path / "a.json.gz", document(**changes))
    with pytest.raises(RunDirectoryError) as told:
        read_trace(path, "a-lazy")

    assert words in str(told.value)
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kept", [0, 1, 9, 10, -1, -4, -8])
def test_a_file_that_was_cut_short_is_one_sentence(path, kept):
    """Anywhere: in its head, its body, its check sum."""
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunDirectoryError, match=r"a\.json\.gz is damaged"):
        read_trace(path, "a-lazy")


def test_a_flipped_bit_is_found_by_the_check_sum(path):
    """In the middle of the compressed text, or in the sum itself."""
    whole = path.read_bytes()
    for place in (12, len(whole) // 2, len(whole) - 6):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RunDirectoryError, match="is damaged"):
            read_trace(path, "a-lazy")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{}", "not gzip"),
        (gzip.compress(b"{"), "not JSON"),
        (gzip.compress(b"[" * 200_000), "not JSON"),
        (gzip.compress(b"\xff\xfe"), "not JSON"),
        (gzip.compress(b"[1]"), "holds a list instead of an object"),
    ],
    # gzip writes the time into what it makes: workers that collect in different seconds would not
    # agree about the names.
    ids=["no gzip", "cut short", "too deep", "no text", "a list"],
)
def test_another_kind_of_file_is_one_sentence(path, content, words):
    """Whatever it is."""
    path.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=words):
        read_trace(path, "a-lazy")


def test_a_small_file_that_unpacks_to_anything_is_refused(path, monkeypatch):
    """At the limit it is read, one byte past it not."""
    size = len(gzip.decompress(path.read_bytes()))
    monkeypatch.setattr("harness.rundir.traces._LARGEST_BYTES", size)
    assert read_trace(path, "a-lazy") == trace()

    monkeypatch.setattr("harness.rundir.traces._LARGEST_BYTES", size - 1)
    with pytest.raises(RunDirectoryError, match="which no trace has"):
        read_trace(path, "a-lazy")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "4.0 MiB: 1 x float32 [64,64,64,4] by Empty, 1.00 x batch"),
        (
            {"count": 3},
            "12.0 MiB: 3 x float32 [64,64,64,4] by Empty, 4.0 MiB each, 1.00 x batch each",
        ),
        ({"like": ""}, "4.0 MiB: 1 x float32 [64,64,64,4] by Empty"),
        (
            {"op": "", "shape": "", "dtype": "", "like": "2.00 x batch"},
            "4 MiB without an operation, 2.00 x batch",
        ),
        ({"shape": "", "dtype": ""}, "4.0 MiB: 1 x memory by Empty, 1.00 x batch"),
        (
            {"op": COPY_TO_CARD, "shape": "", "dtype": ""},
            "4.0 MiB: 1 x copy to the card, 1.00 x batch",
        ),
        (
            {"op": COPY_TO_CARD},
            "4.0 MiB: 1 x copy to the card of float32 [64,64,64,4], 1.00 x batch",
        ),
    ],
)
def test_what_was_alive_is_told_in_the_users_terms(changes, sentence):
    """How many, of which shape and type, by whom, and what of the scenario's it is as large as."""
    batch = alive(shape="[64,64,64,4]", each_bytes=4 * MIB, like="1.00 x batch")

    assert Alive(**batch | changes).sentence == sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "Empty (64, 64, 64, 4) float32, 4.0 MiB, 1.00 x batch"),
        (
            {"op": "model/block/Conv2D", "count": 3},
            "3 x block/Conv2D (64, 64, 64, 4) float32, 12.0 MiB, 1.00 x batch each",
        ),
        (
            {"op": COPY_TO_CARD, "shape": "", "dtype": "", "like": "1.00 x X"},
            "copy to the card, 4.0 MiB, 1.00 x X",
        ),
        ({"op": "", "shape": "", "dtype": "", "like": ""}, "4 MiB without an operation"),
        ({"shape": "[]", "like": ""}, "Empty float32, 4.0 MiB"),
    ],
)
def test_in_a_list_it_is_told_in_short(changes, words):
    """Operation, shape, type, how much together, and what one is as large as."""
    batch = alive(shape="[64,64,64,4]", each_bytes=4 * MIB, like="1.00 x batch")

    assert Alive(**batch | changes).short == words


def untraced(synthetic_run, peaks):
    """The table of a run whose first point read these peaks in epoch_0, one for each repeat."""
    synthetic_run.repeats = len(peaks)
    synthetic_run.points = synthetic_run.points[:1]
    rows = synthetic_run.rows()
    for row in rows:
        if row["kind"] == "phase":
            amount = peaks[row["repeat"]] if row["phase"] == "epoch_0" else 0
            row["readings"][0].update(start_bytes=0, peak_bytes=amount, end_bytes=0)
    return load_run(synthetic_run.write(rows))


@pytest.mark.parametrize(
    ("peaks", "sentence"),
    [
        ([8 * MIB], "agree in all 2 phases to the byte."),
        ([7 * MIB, 9 * MIB], "agree in all 2 phases to the byte."),
        ([8 * MIB + 1024, 9 * MIB], "agree in all 2 phases within 1,024 B."),
        ([8 * MIB - 1024], "agree in all 2 phases within 1,024 B."),
        (
            [8 * MIB + 1025, 9 * MIB],
            (
                "another one in 1 of 2 phases: epoch 0 peaked at 8.0 MiB when traced, at 8.0 "
                "MiB to 9.0 MiB"
            ),
        ),
        (
            [4 * MIB],
            (
                "another one in 1 of 2 phases: epoch 0 peaked at 8.0 MiB when traced, at 4.0 "
                "MiB when not."
            ),
        ),
    ],
)
def test_the_trace_agrees_with_the_untraced_repeats_or_says_where_not(
    synthetic_run, peaks, sentence
):
    """Within their own spread and four of the allocator's chunks: at the limit and one past it."""
    run = untraced(synthetic_run, peaks)

    assert sentence in agreement(trace(point=run.points[0].name), run)


def test_without_an_untraced_reading_nothing_is_compared(synthetic_run):
    """The meter was not there, or no repeat finished the phase."""
    run = load_run(synthetic_run.without_meter("device_in_use", "none here").write())

    assert "cannot be compared" in agreement(trace(point=run.points[0].name), run)


def test_everything_that_did_not_fit_is_told():
    """And that all fits, where it does."""
    odd = {
        "from_before": 1,
        "reordered": 2,
        "jumps": 3,
        "overwritten": 4,
        "resized": 5,
        "other_allocators": {"GPU_0_bfc": 6},
    }
    told = recording_in_words(
        trace(counts={**COUNTS, "allocations": 1000, "deallocations": 900} | odd)
    )

    assert told.startswith(
        "1,000 allocations and 900 deallocations of bfc_cpu_allocator_for_gpu on CPU:0, on "
        "top of 256 B"
    )
    for words in (
        "1 dealloc",
        "2 events put",
        "3 gaps",
        "4 allocations where",
        "5 dealloc",
        "6 events of GPU_0_bfc (left out)",
    ):
        assert words in told
    assert recording_in_words(trace()).endswith("every one of them fits.")


def test_a_refusal_says_what_was_asked_for_and_what_was_there():
    """Also where the error does not tell."""
    values = {
        "phase": "epoch_0",
        "shape": "[4]",
        "dtype": "float32",
        "asked_bytes": 8 * MIB,
        "like": "2.00 x batch",
        "requested_bytes": 0,
        "allocator_bytes": 60 * MIB,
        "alive": (),
    }

    assert refusal_in_words(OutOfMemory(**values), 64 * MIB) == (
        "Memory ran out in epoch 0: 8.0 MiB (2.00 x batch) for float32 [4] was asked for "
        "with 60.0 MiB in use."
    )
    assert refusal_in_words(
        OutOfMemory(**values | {"asked_bytes": None, "phase": None}), 64 * MIB
    ) == (
        "Memory ran out: an amount that the error does not tell was asked for with 60.0 MiB in use."
    )
    ended = (
        "GPU:0 had no room for a copy of an array (16.0 MiB); between 0 B and 64.0 MiB of 64.0 "
        "MiB were in use"
    )
    assert refusal_in_words(
        OutOfMemory(**values | {"asked_bytes": None}), 64 * MIB, reason=ended
    ) == (
        "Memory ran out in epoch 0: GPU:0 had no room for a copy of an array (16.0 MiB), "
        "with 60.0 MiB in use."
    )


FULL = {
    "phase": "epoch_0",
    "shape": "[]",
    "dtype": "float32",
    "asked_bytes": 4,
    "like": "",
    "requested_bytes": 40 * MIB,
}
LIVE = [
    alive(op="Cast", shape="[5,8]", each_bytes=25 * MIB, like="1.00 x Y"),
    alive(op=COPY_TO_CARD, shape="", dtype="", each_bytes=5 * MIB, count=3, like="1.00 x X"),
    alive(op="", shape="", dtype="", each_bytes=2 * MIB),
    alive(each_bytes=4),
]
THREE = (
    "the largest that were alive: Cast (5, 8) float32, 25.0 MiB, 1.00 x Y; 3 x copy to the "
    "card, 15.0 MiB, 1.00 x X each; 2 MiB without an operation; and one other, 4 B"
)


def exhausted(**changes):
    values = {**FULL, "allocator_bytes": 64 * MIB, "alive": tuple(Alive(**one) for one in LIVE)}
    return OutOfMemory(**values | changes)


@pytest.mark.parametrize(
    ("asked_bytes", "explained"), [(64 * MIB // 100, True), (64 * MIB // 100 + 1, False)]
)
def test_a_refusal_of_little_says_that_the_pool_had_been_handed_out(asked_bytes, explained):
    """Less than a hundredth of the device, and one byte past it; the three largest are named."""
    sentence = refusal_in_words(exhausted(asked_bytes=asked_bytes), 64 * MIB)

    assert (
        ": the pool had been handed out (a large tensor may be given the rest of it" in sentence
    ) == explained
    assert sentence.endswith(f"; {THREE}.")


def test_a_device_that_is_not_full_had_not_been_handed_out():
    """There was room for what was asked for, and one byte less."""
    for in_use_bytes, explained in ((64 * MIB - 4, False), (64 * MIB - 3, True)):
        assert (
            "handed out" in refusal_in_words(exhausted(allocator_bytes=in_use_bytes), 64 * MIB)
        ) == explained


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "what was alive is unknown, as there is no trace of this point"),
        (
            {"out_of_memory": None},
            "what was alive is unknown, as the traced run did not run out of memory",
        ),
        ({"out_of_memory": exhausted(alive=())}, "in the traced run nothing was alive then"),
        ({"out_of_memory": exhausted()}, f"in the traced run {THREE}"),
    ],
)
def test_what_was_alive_comes_from_the_traced_run_or_is_unknown(found, words):
    """With the reason; never left out."""
    assert alive_when_refused(None if found is None else replace(trace(), **found)) == words


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "between 2.0 MiB and 64.0 MiB of 64.0 MiB were in use"),
        ({"out_of_memory": None}, "between 2.0 MiB and 64.0 MiB of 64.0 MiB were in use"),
        (
            {"out_of_memory": exhausted(allocator_bytes=63 * MIB)},
            "63.0 MiB of 64.0 MiB were in use (by the traced run)",
        ),
    ],
)
def test_how_much_was_in_use_comes_from_the_traced_run_where_it_knows(found, words):
    """The error lets go of some before anybody can look; a range is what is left without a
    trace.
    """
    reason = (
        "ended device_oom: refused (125.0 MiB); between 2.0 MiB and 64.0 MiB of 64.0 MiB were "
        "in use"
    )
    known = with_what_is_known(reason, None if found is None else replace(trace(), **found))

    assert known == f"ended device_oom: refused (125.0 MiB); {words}"


def traced_row(point, file, outcome=Outcome.OK, reason=""):
    end = TraceEnd(
        point=point,
        outcome=outcome,
        cause="",
        reason=reason,
        file=file,
        launcher="zygote",
        duration_s=1.0,
    )
    return {"kind": "traced", **to_json(end)}


@pytest.fixture
def traced_run(synthetic_run):
    """A run of four points: a trace, a missing file, one without a file, one without a row."""
    synthetic_run.points = synthetic_run.points[:4]
    synthetic_run.manifest = {"settings": {"traces": True}}
    names = [point.name for point in synthetic_run.points]
    rows = [
        *synthetic_run.rows(),
        traced_row(names[0], "first.json.gz"),
        traced_row(names[1], "second.json.gz"),
        traced_row(names[2], None, Outcome.CRASHED, "killed by SIGSEGV in phase epoch_0"),
    ]
    pack(synthetic_run.path / "traces" / "first.json.gz", document(point=names[0]))
    return synthetic_run, rows, names


def test_missing_traces_are_named_with_their_reasons_and_make_no_run_incomplete(traced_run):
    """One was read; three are missing, each for another reason."""
    synthetic_run, rows, names = traced_run
    run = load_run(synthetic_run.write(rows))
    traces = read_traces(run)

    assert list(traces.found) == names[:1]
    assert list(traces.absent) == names[1:]
    notes = list(traces.notes)
    assert notes[0].startswith(f"No trace of {names[1]}, because ")
    assert "is not there any more" in notes[0]
    assert notes[1] == f"No trace of {names[2]}, because killed by SIGSEGV in phase epoch_0"
    assert (
        notes[2]
        == f"No trace of {names[3]}, because its traced run has no end: it was broken off, or "
        "left out"
    )
    assert run.problems == ()


def test_a_run_that_planned_no_traces_misses_none(traced_run):
    """--no-trace."""
    synthetic_run, rows, _ = traced_run
    synthetic_run.manifest = {"settings": {"traces": False}}
    traces = read_traces(load_run(synthetic_run.write(rows)))

    assert (traces.found, traces.absent) == ({}, {})


@pytest.mark.parametrize("file", ["../rows.jsonl", "/etc/passwd", "a/b.json.gz", ".."])
def test_a_trace_lies_in_its_folder_and_nowhere_else(traced_run, file):
    """A row that names another place is a problem."""
    synthetic_run, rows, names = traced_run
    (problem,) = load_run(synthetic_run.write([*rows, traced_row(names[3], file)])).problems

    assert "which is not a name in traces/" in problem


def test_a_row_of_a_point_that_nobody_planned_is_a_problem(traced_run):
    """As with every other row."""
    synthetic_run, rows, _ = traced_run
    (problem,) = load_run(synthetic_run.write([*rows, traced_row("elsewhere", None)])).problems

    assert "which this run neither planned nor announced" in problem
