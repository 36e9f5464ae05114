"""A run directory as tables: what scripts and notebooks get."""

import json

import pandas as pd
import pytest

import harness
from harness.__main__ import main
from harness.judge import ExitCode
from harness.judge.gate import FITS_FILE
from harness.judge.table import PHASES_FILE

POLICY = """
schema_version = 1
[[budget]]
scenarios = ["arrays"]
phases = ["release"]
meters = ["device_in_use"]
field = "net_end"
at_most = "1 MiB"
because = "chosen <b>here</b>"
"""
MIB = 1024 * 1024


@pytest.fixture
def run(synthetic_run, tmp_path, monkeypatch):
    """The lazy arrays, which break their budget by 1 MiB; a folder without baselines."""
    monkeypatch.chdir(tmp_path)
    synthetic_run.keep_points(lambda point: point.name.startswith("arrays-lazy"))
    synthetic_run.plant(
        phase="release", meter="device_in_use", keep=True, extra=lambda point, repeat: 2 * MIB
    )
    (tmp_path / "gate.toml").write_text(POLICY)
    (tmp_path / "none").mkdir()
    return synthetic_run.write()


def gate(run, *more):
    return main(["gate", str(run), "--policy", "gate.toml", *more])


def files(run):
    return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_the_judgement_in_the_directory_is_the_one_that_is_loaded(run):
    """The same verdict and findings; the tables are those of the files, and nothing is written."""
    code = gate(run)
    before = files(run)
    found = json.loads((run / "findings.json").read_text())
    loaded = harness.load(run)

    assert code == loaded.verdict.exit_code == ExitCode.REGRESSION
    assert loaded.judged == "judged before (findings.json)"
    assert loaded.verdict.sentence == found["sentence"]
    assert list(loaded.findings["sentence"]) == [one["sentence"] for one in found["findings"]]
    assert loaded.phases.to_csv(index=False) == (run / PHASES_FILE).read_text()
    assert loaded.fits.to_csv(index=False) == (run / FITS_FILE).read_text()
    assert files(run) == before


def test_a_run_without_a_judgement_is_judged_now_and_says_so(run):
    """By what it brings along, as the gate does."""
    before = files(run)
    loaded = harness.load(str(run))

    assert loaded.judged == f"judged now, because {run} was not judged yet"
    assert loaded.verdict.exit_code is not ExitCode.PASS
    assert files(run) == before


def test_a_run_is_judged_by_the_policy_and_baselines_that_are_named(run):
    """The verdict is that of the gate with the same arguments."""
    judged = harness.judge_run(run, policy="gate.toml", baselines="none", partial=True)
    code = gate(run, "--baselines", "none", "--partial")
    found = json.loads((run / "findings.json").read_text())

    assert judged.judged == "judged now by gate.toml"
    assert judged.verdict.exit_code == code
    assert judged.verdict.sentence == found["sentence"]


def test_every_table_has_the_columns_that_its_documentation_names(run):
    """With amounts as nullable integers: missing is missing, and never 0."""
    loaded = harness.judge_run(run, policy="gate.toml")
    (budget,) = loaded.findings[loaded.findings["rule"] == "budget"].to_dict("records")[:1]

    assert {"point", "repeat", "phase", "meter", "quality", "growth_bytes", "image_count"} <= set(
        loaded.phases.columns
    )
    assert {"over", "slope_bytes_per_image", "growth_class", "runs"} <= set(loaded.fits.columns)
    assert {"point", "repeat", "outcome", "duration_s", "exit_code"} <= set(loaded.runs.columns)
    assert list(loaded.traces.columns) == [
        "point", "outcome", "cause", "reason", "file", "launcher", "duration_s",
    ]  # fmt: skip
    assert (budget["measured"], budget["limit"], budget["unit"]) == (2 * MIB, MIB, "B")
    assert str(loaded.phases["peak_bytes"].dtype) == "Int64"
    assert len(loaded.runs) == loaded.phases[["point", "repeat"]].drop_duplicates().shape[0]
    assert isinstance(loaded.traces, pd.DataFrame)


def test_in_a_notebook_a_run_shows_its_verdict_and_every_text_is_escaped(run):
    """Verdict, causes and scaling, small enough to be read."""
    judged = harness.judge_run(run, policy="gate.toml")
    judged.causes.loc[0, "what"] = "<script>alert(1)</script>"
    shown = judged._repr_html_()

    assert shown.startswith("<p><b>Regression: ")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script>" not in shown
    assert shown.count("<table") == 2
    assert "device peak at the largest" in shown
    assert len(shown) < 20_000


def test_causes_hold_every_finding_and_scaling_every_series(run):
    """One row for each cause; of each series the phase that takes most at its largest size."""
    judged = harness.judge_run(run, policy="gate.toml")
    peaks = judged.fits[
        (judged.fits["meter"] == "device_in_use") & (judged.fits["field"] == "peak")
    ]
    (row,) = judged.scaling.to_dict("records")
    lines = peaks["intercept_bytes"] + peaks["largest"] * peaks["slope_bytes_per_image"]

    assert set(judged.causes["kind"]) <= {"memory", "death", "missing", "improvement"}
    assert 0 < len(judged.causes) <= len(judged.findings)
    assert row["peak_bytes"] == round(max(lines))
    assert row["phase"] == peaks.loc[lines.idxmax(), "phase"]
    assert row["loader"] == "lazy"


def test_a_run_of_one_size_has_no_scaling(run, synthetic_run):
    """And says so in a notebook."""
    synthetic_run.keep_points(lambda point: point.parameters["image_count"] == 100)
    judged = harness.judge_run(synthetic_run.write(), policy="gate.toml")

    assert judged.scaling.empty
    assert "<p>No series.</p>" in judged._repr_html_()


def test_at_a_prompt_a_run_is_its_counts_and_its_verdict(run):
    """Two lines."""
    judged = harness.judge_run(run, policy="gate.toml")
    first, second = repr(judged).splitlines()

    assert first.startswith(f"<RunTables {run}: 3 points, 6 runs, ")
    assert second == judged.verdict.sentence


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("none", "RunDirectoryError", "none is not a run directory: it has no run.json"),
        ("nowhere", "RunDirectoryError", "nowhere is not a run directory; name a folder"),
        ("gate.toml", "RunDirectoryError", "gate.toml is not a run directory; name a folder"),
    ],
)
def test_a_folder_that_is_no_run_is_one_error(run, name, error, sentence):
    """For loading and for judging."""
    for read in (harness.load, harness.judge_run):
        with pytest.raises(getattr(harness, error), match=sentence):
            read(name)


@pytest.mark.parametrize("argument", ["baselines", "against"])
def test_another_folder_that_is_not_there_is_a_usage_error(run, argument):
    """With its argument, as it was written."""
    with pytest.raises(harness.UsageError, match=f"^{argument} nowhere is not there"):
        harness.judge_run(run, policy="gate.toml", **{argument: "nowhere"})
