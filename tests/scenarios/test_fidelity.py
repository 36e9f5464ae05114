"""The table of devices: which run is which, what a difference is made of, and that nothing of it is
hidden.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from harness.judge.table import load_run
from harness.records import SCHEMA_VERSION, Outcome, Point, Quality, Reading, to_json
from harness.rundir.reading import SEAL, seal_of
from harness.rundir.rows import PhaseRecord, RunEnd
from harness.rundir.traces import Alive, Counts, Edges, Timeline, Trace, TracedPhase
from harness.words import COPY_TO_CARD, GIB, MIB
from scenarios.fidelity.__main__ import EMULATED, SELECTION, main
from scenarios.fidelity.compare import Difference, Kind, rows_of, sides_of
from scenarios.fidelity.explain import (
    LEAST_BATCH_BYTES,
    SMALL_SUM_BYTES,
    Amounts,
    Part,
    Traced,
    explain,
)
from scenarios.fidelity.words import in_words, page, summary

POINT = Point(
    scenario="loading",
    body="a:b",
    parameters={"loader": "lazy", "image_count": 100},
    phases=("construct", "epoch_0"),
)
NAMES = {
    "emulated": "TensorFlow's BFC allocator on the CPU",
    "pretended": "Pretended A100",
    "real": "NVIDIA H200",
}
BATCH = {"batch": 4 * MIB}


def write_run(folder, kind, amounts, *, outcome=Outcome.OK, ended="2026-11-27T13:01:00+00:00"):
    """A run of one point; ``amounts`` are (start, peak, end) of each phase, None for a phase in
    which it died.
    """
    key = {"point": POINT.name, "repeat": 0}
    rows = [{"kind": "declared", **key, "values": BATCH}]
    died = None
    for index, (phase, edges) in enumerate(zip(POINT.phases, amounts, strict=True)):
        rows.append({"kind": "begin", **key, "phase": phase, "index": index})
        if edges is None:
            died = phase
            break
        start, peak, end = edges
        reading = Reading(
            meter="device_in_use",
            quality=Quality.EXACT,
            start_bytes=start,
            peak_bytes=peak,
            end_bytes=end,
        )
        record = PhaseRecord(
            **key, phase=phase, index=index, finished=True, duration_s=0.1, readings=(reading,)
        )
        rows.append({"kind": "phase", **to_json(record)})
    end = RunEnd(
        **key,
        outcome=outcome,
        cause="",
        reason="",
        phase=died,
        exit_code=0,
        launcher="spawn",
        duration_s=1.0,
    )
    rows.append({"kind": "end", **to_json(end)})
    device = {
        "kind": "emulated" if kind == "emulated" else "gpu",
        "name": NAMES[kind],
        "uuid": None if kind == "emulated" else "GPU-1",
        "memory_bytes": 3 * GIB,
        "allocator": "bfc",
        "driver": "none" if kind == "emulated" else "580.159.04",
    }
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "run_id": "a",
        "started": "2026-11-27T13:00:00+00:00",
        "ended": ended,
        "command": "pytest scenarios",
        "repeats": 1,
        "environment": {"tensorflow": "2.21.0", "git_commit": "e559833c0ffee"},
        "device": device,
        "comparability": {"device": NAMES[kind]},
        "settings": {},
        "planned": [to_json(POINT)],
    }
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    (folder / "run.json").write_text(
        json.dumps({**manifest, SEAL: seal_of(manifest, text.encode())})
    )
    return folder


@pytest.fixture
def emulated(tmp_path):
    """Two batches in an epoch, which are given back."""
    return write_run(tmp_path / "emulated", "emulated", [(0, 0, 0), (256, 8 * MIB + 1280, 256)])


@pytest.fixture
def pretended(tmp_path):
    """One batch less, and one small tensor."""
    return write_run(tmp_path / "pretended", "pretended", [(0, 0, 0), (256, 4 * MIB + 1024, 256)])


@pytest.fixture
def real(tmp_path):
    """Something of 12,345,600 B on top."""
    return write_run(
        tmp_path / "real", "real", [(0, 0, 0), (256, 8 * MIB + 1280 + 12_345_600, 256)]
    )


def growth(rows):
    return next(row for row in rows if (row.phase, row.field) == ("epoch_0", "growth"))


def test_runs_are_told_apart_by_what_they_ran_on(emulated, pretended, real):
    """In any order; the name of a pretended card says that it is one."""
    sides = sides_of([load_run(path) for path in (real, pretended, emulated)])

    assert list(sides) == [Kind.EMULATED, Kind.PRETENDED, Kind.REAL]
    assert {kind: side.run.path for kind, side in sides.items()} == dict(
        zip(Kind, (emulated, pretended, real), strict=True)
    )


def test_a_difference_is_split_and_the_rest_is_said(emulated, pretended, real):
    """A batch and a small tensor are explained; what no rule covers is not, to the byte."""
    row = growth(rows_of(sides_of([load_run(path) for path in (emulated, pretended, real)])))

    assert row.amounts == {
        Kind.EMULATED: 8 * MIB + 1024,
        Kind.PRETENDED: 4 * MIB + 768,
        Kind.REAL: 8 * MIB + 1024 + 12_345_600,
    }
    assert row.differences[Kind.PRETENDED].amount_bytes == -4 * MIB - 256
    assert [part.amount_bytes for part in row.differences[Kind.PRETENDED].parts] == [-4 * MIB, -256]
    assert row.differences[Kind.PRETENDED].unexplained_bytes == 0
    assert row.differences[Kind.REAL].unexplained_bytes == 12_345_600
    assert in_words(row.differences[Kind.REAL]) == "**+12,345,600 B unexplained**"


def test_the_page_shows_all_three(emulated, pretended, real, tmp_path, capsys):
    """Every amount to the byte, the devices, and how many differences are left over; exit 0."""
    code = main([str(emulated), str(pretended), str(real), "--out", str(tmp_path / "fidelity.md")])

    text = (tmp_path / "fidelity.md").read_text()
    row = next(line for line in text.splitlines() if "epoch_0 | growth" in line)
    assert code == 0
    assert row.split(" | ")[3:8] == [
        "8,389,632",
        "4,195,072",
        "-4,194,560",
        "20,735,232",
        "+12,345,600",
    ]
    assert (
        "real: NVIDIA H200, driver 580.159.04, TensorFlow 2.21.0, commit e559833c0ffe, 2026-11-27"
        in text
    )
    assert "3 further amounts are 0 B on every device." in text
    said = (
        "8 amounts compared: 6 equal to the byte, 1 differ and are explained, 1 are not, by up "
        "to 12,345,600 B."
    )
    assert said in text
    assert said in capsys.readouterr().out
    found = json.loads((tmp_path / "fidelity.json").read_text())
    assert found["rows"][2]["differences"]["real"]["unexplained_bytes"] == 12_345_600


def test_a_run_that_is_missing_says_how_to_get_it(emulated, pretended):
    """Without a real card its column is empty, and the page names the command."""
    sides = sides_of([load_run(path) for path in (emulated, pretended)])

    text = page(sides, rows_of(sides))

    assert (
        "- real: No run on a real card was given. On a machine that has one: `nox -s gpu`" in text
    )


def test_a_phase_that_one_device_did_not_finish_is_no_amount(emulated, tmp_path):
    """Its end stands in the place of the amount, and nothing is compared with it."""
    died = write_run(tmp_path / "died", "real", [(0, 0, 0), None], outcome=Outcome.DEVICE_OOM)
    sides = sides_of([load_run(path) for path in (emulated, died)])

    row = growth(rows_of(sides))

    assert row.amounts[Kind.REAL] is None
    assert row.reasons == {Kind.REAL: "device_oom in epoch_0"}
    assert row.differences == {}
    assert "| device_oom in epoch_0 |" in page(sides, [row])


def test_nothing_to_compare_is_no_success(emulated, tmp_path, capsys):
    """One run alone: the page is written, the exit code is 3."""
    assert main([str(emulated), "--out", str(tmp_path / "fidelity.md")]) == 3
    assert "Nothing could be compared" in capsys.readouterr().out


def test_the_emulated_device_is_measured_beside_a_card(real, monkeypatch, capsys):
    """The smallest points, without a card, into the card's run directory; a run that was broken off
    is gone on with.
    """
    commands = []

    def measured(command, *, check):
        assert not check
        commands.append(command)
        ended = None if len(commands) == 1 else "2026-11-27T13:01:00+00:00"
        shutil.rmtree(real / EMULATED, ignore_errors=True)
        write_run(real / EMULATED, "emulated", [(0, 0, 0), (256, 8 * MIB + 1280, 256)], ended=ended)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", measured)
    codes = [main(["--beside", str(real)]) for _ in range(3)]

    assert codes == [0, 0, 0]
    assert [command[1:6] for command in commands] == [["-m", "pytest", "scenarios", "-q", "-n"]] * 2
    assert [command[7:9] for command in commands] == [["-k", SELECTION]] * 2
    assert commands[0][9:] == [
        "--device",
        "cpu",
        "--repeats",
        "2",
        "--memory-out",
        str(real / EMULATED),
    ]
    assert commands[1][9:] == ["--resume", str(real / EMULATED)]
    assert "12,345,600 B" in capsys.readouterr().out


def test_an_emulated_device_that_cannot_be_measured_is_said(real, monkeypatch, capsys):
    """pytest wrote no run: exit 2, with its code."""
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 4)
    )

    assert main(["--beside", str(real)]) == 2
    assert (
        "the emulated device could not be measured: pytest ended with code 4"
        in capsys.readouterr().err
    )


def test_the_selection_has_points_of_every_scenario(project_root):
    """As pytest chooses them: the smallest of each scenario and loader, and those of the budget."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "scenarios",
        "--collect-only",
        "-q",
        "-k",
        SELECTION,
        "--repeats",
        "1",
        "--device",
    ]
    done = subprocess.run(
        [*command, "cpu", "--memory-no-trace"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
    )

    assert [
        line.partition("[")[2].removesuffix("-repeat=0]")
        for line in done.stdout.splitlines()
        if "::" in line
    ] == [
        "loading-eager-image_count=100-stack_size=2048",
        "loading-lazy-image_count=100-stack_size=2048",
        "arrays-eager-image_count=100",
        "arrays-lazy-image_count=100",
        "oom-eager-image_count=2000-stack_size=2048",
        "oom-lazy-image_count=2000-stack_size=2048",
        "feeds-lazy-hdf5-image_count=128-stack_size=2048",
        "feeds-lazy-raw_data-image_count=128-stack_size=2048",
        "training-eager-image_count=64",
        "training-lazy-image_count=64",
        "inference-lazy-image_count=16",
    ]


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("real",), ("--out", "{}/f.md"), "no run on the emulated device was given"),
        (
            ("emulated", "emulated"),
            ("--out", "{}/f.md"),
            "were both measured on the emulated device",
        ),
        (("emulated",), ("--out", "{}/f.txt"), "does not end in .md"),
        (("emulated",), (), "name the runs and --out FILE.md, or --beside RUN"),
        (("emulated",), ("--beside", "{}/real"), "name no other run with it"),
        ((), ("--beside", "{}/nowhere"), "is not a run directory"),
        (("emulated",), ("--out", "{}/no/f.md"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    emulated, real, tmp_path, capsys, names, options, said
):
    """Usage: exit 2, one line, no traceback."""
    code = main(
        [
            *(str(tmp_path / name) for name in names),
            *(option.format(tmp_path) for option in options),
        ]
    )

    told = capsys.readouterr().err
    assert code == 2
    assert said in told
    assert len(told.splitlines()) == 1


def test_the_emulated_run_beside_a_card_is_measured_once(emulated, real):
    """One that is there already is taken; the page lies in the card's run directory."""
    emulated.rename(real / EMULATED)

    assert main(["--beside", str(real)]) == 0
    assert "12,345,600 B unexplained" in (real / "fidelity.md").read_text()


def parts_of(amount_bytes, field="growth", declared=BATCH, kept_bytes=0):
    """The bytes of the parts of a difference without traces."""
    parts = explain(
        field,
        declared,
        Amounts((1_000_000,)),
        Amounts((1_000_000 + amount_bytes,), kept_bytes=kept_bytes),
    )
    return [part.amount_bytes for part in parts]


@pytest.mark.parametrize(
    ("amount_bytes", "parts"),
    [
        (0, []),
        (256, [256]),
        (SMALL_SUM_BYTES, [SMALL_SUM_BYTES]),
        (SMALL_SUM_BYTES + 256, []),
        (100, []),
        (-8 * MIB - 512, [-8 * MIB, -512]),
        (-12 * MIB, []),
        (-4 * MIB + SMALL_SUM_BYTES + 256, []),
    ],
)
def test_without_traces_batches_and_small_tensors_are_told(amount_bytes, parts):
    """Up to their limits; one chunk past them, a third batch, or no whole chunk, is unexplained."""
    assert parts_of(amount_bytes) == parts


@pytest.mark.parametrize(
    ("batch_bytes", "parts"),
    [(LEAST_BATCH_BYTES, [-LEAST_BATCH_BYTES]), (LEAST_BATCH_BYTES - 256, [])],
)
def test_small_batches_explain_nothing(batch_bytes, parts):
    """Any amount would be a multiple of one by chance."""
    assert parts_of(-batch_bytes, declared={"batch": batch_bytes}) == parts


@pytest.mark.parametrize(
    ("amount_bytes", "parts"),
    [(40_960, [40_960]), (40_960 + 8192, [40_960, 8192]), (40_960 + 8448, [])],
)
def test_what_was_kept_otherwise_is_given_back(amount_bytes, parts):
    """A release that frees 40,960 B less, as so much less was kept, give or take the small
    tensors.
    """
    assert parts_of(amount_bytes, field="retained", kept_bytes=-40_960) == parts


def test_repeats_that_overlap_are_told_as_such():
    """The same point differs from repeat to repeat by more than from device to device; one repeat
    apart does not overlap.
    """
    [part] = explain("retained", {}, Amounts((10_000, 90_000)), Amounts((50_000, 95_000)))

    assert part == Part(
        40_000, "from repeat to repeat: 10,000 to 90,000 emulated, 50,000 to 95,000 on the card"
    )
    assert explain("retained", {}, Amounts((10_000, 49_999)), Amounts((50_000, 95_000))) == ()


def traced(*alive, base_bytes=0, kept_bytes=0, whole_bytes=0, repeat_bytes=None):
    """A phase whose peak is what is alive, rounded up, and what the allocator handed out whole; it
    ends empty.
    """
    asked = sum(-(-group.each_bytes // 256) * 256 * group.count for group in alive)
    peak_bytes = base_bytes + asked + whole_bytes
    phase = TracedPhase(
        phase="epoch_0",
        index=0,
        finished=True,
        start_ns=0,
        peak_ns=5,
        end_ns=9,
        requested=Edges(start_bytes=0, peak_bytes=asked, end_bytes=0),
        allocator=Edges(
            start_bytes=base_bytes + kept_bytes, peak_bytes=peak_bytes, end_bytes=base_bytes
        ),
        alive=alive,
    )
    columns = {
        "time_ns": (5, 2),
        "requested_bytes": (asked, -asked),
        "allocator_bytes": (peak_bytes, -peak_bytes),
    }
    names = (
        "allocations",
        "deallocations",
        "from_before",
        "reordered",
        "jumps",
        "overwritten",
        "resized",
    )
    trace = Trace(
        schema_version=1,
        point=POINT.name,
        device="GPU:0",
        allocator="GPU_0_bfc",
        tensorflow="2.21.0",
        limit_bytes=None,
        base_bytes=base_bytes,
        declared=BATCH,
        phases=(phase,),
        timeline=Timeline(**columns),
        counts=Counts(**dict.fromkeys(names, 0), other_allocators={}),
        out_of_memory=None,
    )
    growth_bytes = peak_bytes - base_bytes - kept_bytes
    return Amounts(
        (growth_bytes if repeat_bytes is None else repeat_bytes,), kept_bytes, trace, phase
    )


def group(op, each_bytes, count=1, region="output", like=""):
    return Alive(
        op=op,
        shape="[4]",
        dtype="float32",
        region=region,
        each_bytes=each_bytes,
        count=count,
        like=like,
    )


def test_a_copy_to_the_card_is_called_so():
    """It has no shape and no type, and may be as large as an array."""
    copies = replace(
        group(COPY_TO_CARD, 4 * MIB, 2, region="dynamic", like="1.00 x batch"), shape="", dtype=""
    )

    parts = explain("growth", BATCH, traced(group("Mul", 8)), traced(group("Mul", 8), copies))

    assert parts == (Part(8 * MIB, "2 x copy to the card, 1.00 x batch, on the card alone"),)


def test_traces_tell_what_was_alive_on_one_device_alone():
    """By size, whatever the operation is called; workspace by its region; the parts add up to the
    difference.
    """
    emulated = traced(
        group("GetNext", 4 * MIB, 2, like="1.00 x batch"),
        group("Shape", 4, 3),
        base_bytes=256,
        kept_bytes=512,
    )
    card = traced(
        group("_EagerConst", 4 * MIB),
        group("step/a/b/Conv2D", 9 * MIB + 1, region="temp"),
        group("Mul", 8),
        whole_bytes=2048,
    )

    parts = explain("growth", BATCH, emulated, card)

    assert parts == (
        Part(9 * MIB + 256, "workspace of a/b/Conv2D (card alone)"),
        Part(
            -4 * MIB, "float32 [4], 1.00 x batch by GetNext, on the host of a card, or freed before"
        ),
        Part(-512, "small tensors on the host of a card"),
        Part(2048, "chunks that the allocator hands out whole"),
        Part(512, "the phases before kept 512 B fewer"),
    )
    assert sum(part.amount_bytes for part in parts) == card.least_bytes - emulated.least_bytes


def test_what_traced_runs_differ_by_otherwise_is_from_run_to_run():
    """The untraced repeat of the card grew by 1 MiB more than its traced run."""
    emulated = traced(group("GetNext", 4 * MIB))
    card = traced(group("GetNext", 4 * MIB), repeat_bytes=5 * MIB)

    assert explain("growth", BATCH, emulated, card) == (
        Part(MIB, "from run to run: the traced runs differ otherwise"),
    )


def test_the_rest_of_many_sizes_is_one_part():
    """The three largest sizes are told, the others together."""
    sizes = [64 * 1024 * number for number in range(1, 7)]
    parts = explain("growth", {}, traced(), traced(*(group(f"op{size}", size) for size in sizes)))

    assert [part.amount_bytes for part in parts] == [*sizes[:2:-1], sum(sizes[:3])]
    assert parts[-1].words == "tensors of 3 other sizes, alive at one of the peaks alone"


def test_the_allocators_peak_at_another_moment_is_unexplained():
    """Then it is not known what was alive; the amount is left over."""
    card = traced(group("GetNext", 4 * MIB))
    later = replace(card.phase, allocator=Edges(start_bytes=0, peak_bytes=6 * MIB, end_bytes=0))
    card = Amounts((6 * MIB,), 0, card.trace, later)

    [part] = explain("growth", BATCH, traced(group("GetNext", 4 * MIB)), card)
    difference = Difference(amount_bytes=2 * MIB, parts=(part,))

    assert (part.amount_bytes, part.explains) == (2 * MIB, False)
    assert difference.unexplained_bytes == 2 * MIB
    assert in_words(difference).startswith(
        "**+2,097,152 B unexplained** (+2,097,152 B: the allocator's peak is at another moment"
    )
    assert Traced.of(card).at_peak_bytes == 4 * MIB


def test_a_summary_counts_what_is_left_over(emulated, pretended):
    """All differences of this pair are explained."""
    sides = sides_of([load_run(path) for path in (emulated, pretended)])

    assert (
        summary(rows_of(sides))
        == "4 amounts compared: 3 equal to the byte, 1 differ and are explained, none is left over."
    )
    assert summary([]).startswith("Nothing could be compared")
