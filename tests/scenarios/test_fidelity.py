"""The table of devices: which run is which, what a difference is made of, and that nothing of it is hidden."""

import json

import pytest

from harness.judge.table import load_run
from harness.judge.traces import Alive, Edges, TracedPhase
from harness.records import SCHEMA_VERSION, Outcome, PhaseRecord, Point, Quality, Reading, RunEnd, to_json
from harness.seal import SEAL, seal_of
from harness.units import GIB, MIB
from scenarios.fidelity.__main__ import EMULATED, main
from scenarios.fidelity.compare import Kind, rows_of, sides_of
from scenarios.fidelity.explain import SMALL_SUM_BYTES, Part, Traced, explain
from scenarios.fidelity.words import in_words, page, summary

POINT = Point(scenario="loading", body="a:b", parameters={"loader": "lazy", "image_count": 100}, phases=("construct", "epoch_0"))
NAMES = {"emulated": "TensorFlow's BFC allocator on the CPU", "pretended": "Pretended A100", "real": "NVIDIA H200"}
BATCH = {"batch": 4 * MIB}


def write_run(folder, kind, amounts, *, outcome=Outcome.OK, repeats=1):
    """A run of one point; ``amounts`` are (start, peak, end) of each phase, None for a phase in which it died."""
    key = {"point": POINT.name, "repeat": 0}
    rows = [{"kind": "declared", **key, "values": BATCH}]
    died = None
    for index, (phase, edges) in enumerate(zip(POINT.phases, amounts, strict=True)):
        rows.append({"kind": "begin", **key, "phase": phase, "index": index})
        if edges is None:
            died = phase
            break
        start, peak, end = edges
        reading = Reading(meter="device_in_use", quality=Quality.EXACT, start_bytes=start, peak_bytes=peak, end_bytes=end)
        record = PhaseRecord(**key, phase=phase, index=index, finished=True, duration_s=0.1, readings=(reading,))
        rows.append({"kind": "phase", **to_json(record)})
    end = RunEnd(**key, outcome=outcome, cause="", reason="", phase=died, exit_code=0, launcher="spawn", duration_s=1.0)
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
        "ended": "2026-11-27T13:01:00+00:00",
        "command": "pytest scenarios",
        "repeats": repeats,
        "environment": {"tensorflow": "2.21.0", "git_commit": "e559833c0ffee"},
        "device": device,
        "comparability": {"device": NAMES[kind]},
        "settings": {},
        "planned": [to_json(POINT)],
    }
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    (folder / "run.json").write_text(json.dumps({**manifest, SEAL: seal_of(manifest, text.encode())}))
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
    return write_run(tmp_path / "real", "real", [(0, 0, 0), (256, 8 * MIB + 1280 + 12_345_600, 256)])


def growth(rows):
    return next(row for row in rows if (row.phase, row.field) == ("epoch_0", "growth"))


def test_runs_are_told_apart_by_what_they_ran_on(emulated, pretended, real):
    """In any order; the name of a pretended card says that it is one."""
    sides = sides_of([load_run(path) for path in (real, pretended, emulated)])

    assert list(sides) == [Kind.EMULATED, Kind.PRETENDED, Kind.REAL]
    assert {kind: side.run.path for kind, side in sides.items()} == dict(zip(Kind, (emulated, pretended, real), strict=True))


def test_a_difference_is_split_and_the_rest_is_said(emulated, pretended, real):
    """A batch and a small tensor are explained; what no rule covers is not, to the byte."""
    row = growth(rows_of(sides_of([load_run(path) for path in (emulated, pretended, real)])))

    assert row.amounts == {Kind.EMULATED: 8 * MIB + 1024, Kind.PRETENDED: 4 * MIB + 768, Kind.REAL: 8 * MIB + 1024 + 12_345_600}
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
    assert row.split(" | ")[3:8] == ["8,389,632", "4,195,072", "-4,194,560", "20,735,232", "+12,345,600"]
    assert "real: NVIDIA H200, driver 580.159.04, TensorFlow 2.21.0, commit e559833c0ffe, 2026-11-27" in text
    assert "3 further amounts are 0 B on every device." in text
    said = "8 amounts compared: 6 equal to the byte, 1 differ and are explained, 1 are not, by up to 12,345,600 B."
    assert said in text
    assert said in capsys.readouterr().out
    found = json.loads((tmp_path / "fidelity.json").read_text())
    assert found["rows"][2]["differences"]["real"]["unexplained_bytes"] == 12_345_600


def test_a_run_that_is_missing_says_how_to_get_it(emulated, pretended):
    """Without a real card its column is empty, and the page names the command."""
    sides = sides_of([load_run(path) for path in (emulated, pretended)])

    text = page(sides, rows_of(sides))

    assert "- real: No run on a real card was given. On a machine that has one: `nox -s gpu`" in text


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


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("real",), ("--out", "{}/f.md"), "no run on the emulated device was given"),
        (("emulated", "emulated"), ("--out", "{}/f.md"), "were both measured on the emulated device"),
        (("emulated",), ("--out", "{}/f.txt"), "does not end in .md"),
        (("emulated",), (), "name the runs and --out FILE.md, or --beside RUN"),
        (("emulated",), ("--beside", "{}/real"), "name no other run with it"),
        ((), ("--beside", "{}/nowhere"), "is not a run directory"),
        (("emulated",), ("--out", "{}/no/f.md"), "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(emulated, real, tmp_path, capsys, names, options, said):
    """Usage: exit 2, one line, no traceback."""
    code = main([*(str(tmp_path / name) for name in names), *(option.format(tmp_path) for option in options)])

    told = capsys.readouterr().err
    assert code == 2
    assert said in told
    assert len(told.splitlines()) == 1


def test_the_emulated_run_beside_a_card_is_measured_once(emulated, real):
    """One that is there already is taken; the page lies in the card's run directory."""
    emulated.rename(real / EMULATED)

    assert main(["--beside", str(real)]) == 0
    assert "12,345,600 B unexplained" in (real / "fidelity.md").read_text()


@pytest.mark.parametrize(
    ("amount_bytes", "parts"),
    [
        (0, []),
        (256, [256]),
        (SMALL_SUM_BYTES, [SMALL_SUM_BYTES]),
        (SMALL_SUM_BYTES + 256, []),
        (100, []),
        (-8 * MIB - 512, [-8 * MIB, -512]),
        (-4 * MIB + SMALL_SUM_BYTES + 256, []),
    ],
)
def test_without_traces_batches_and_small_tensors_are_told(amount_bytes, parts):
    """Up to their limits; one chunk past them, or no whole chunk, is unexplained."""
    assert [part.amount_bytes for part in explain(amount_bytes, "growth", BATCH, None, None)] == parts


def traced(*alive, start_bytes=0, base_bytes=0, whole_bytes=0):
    """A phase whose peak is what is alive, rounded up, and what the allocator handed out whole."""
    asked = sum(-(-group.each_bytes // 256) * 256 * group.count for group in alive)
    allocator = Edges(start_bytes=base_bytes + start_bytes, peak_bytes=base_bytes + asked + whole_bytes, end_bytes=base_bytes)
    requested = Edges(start_bytes=0, peak_bytes=asked, end_bytes=0)
    phase = TracedPhase(
        phase="epoch_0",
        index=0,
        finished=True,
        start_ns=0,
        peak_ns=1,
        end_ns=2,
        requested=requested,
        allocator=allocator,
        alive=alive,
    )
    return Traced(phase, base_bytes)


def group(op, each_bytes, count=1, region="output", like=""):
    return Alive(op=op, shape="[]", dtype="float32", region=region, each_bytes=each_bytes, count=count, like=like)


def test_traces_tell_what_was_alive_on_one_device_alone():
    """By size, whatever the operation is called; workspace by its region; the parts add up to the difference."""
    emulated = traced(group("GetNext", 4 * MIB, 2, like="1.00 x batch"), group("Shape", 4, 3), start_bytes=512, base_bytes=256)
    card = traced(group("_EagerConst", 4 * MIB), group("Conv2D", 9 * MIB + 1, region="temp"), group("Mul", 8), whole_bytes=2048)
    difference = card.growth_bytes - emulated.growth_bytes

    parts = explain(difference, "growth", BATCH, emulated, card)

    assert parts == (
        Part(9 * MIB + 256, "9.0 MiB: workspace of Conv2D"),
        Part(-4 * MIB, "4.0 MiB, 1.00 x batch: on the host of a card (float32 [] by GetNext)"),
        Part(-512, parts[2].words),
        Part(2048, "chunks that the allocator hands out whole, or that peaked at another moment"),
        Part(512, "512 B fewer from the phases before"),
    )
    assert sum(part.amount_bytes for part in parts) == difference


def test_a_summary_counts_what_is_left_over(emulated, pretended):
    """All differences of this pair are explained."""
    sides = sides_of([load_run(path) for path in (emulated, pretended)])

    assert summary(rows_of(sides)) == "4 amounts compared: 3 equal to the byte, 1 differ and are explained, none is left over."
    assert summary([]).startswith("Nothing could be compared")
