"""History of the page: acceptances that git knows, runs that were named, and this run."""

import subprocess
from dataclasses import replace

import pytest

from harness.judge import Verdict
from harness.judge.advice import Asked
from harness.judge.baseline import from_run
from harness.judge.baseline_file import write
from harness.judge.gate import Judgement
from reports.history import MOST_RUNS, past_of
from reports.view import RunView


@pytest.fixture
def lazy_alone(only):
    """The lazy loader at one size: one point, and one series."""
    return only(lambda cell: cell.name == "arrays-lazy-image_count=500")


def judged_by(folder):
    return Judgement(Verdict(()), (), asked=Asked(baselines=folder))


def written(sweep, folder, number, **changes):
    """The run of a day of its own."""
    sweep = replace(
        sweep,
        changes={
            "run_id": f"run-{number}",
            "started": f"2026-11-{number:02}T20:00:00+00:00",
            "ended": f"2026-11-{number:02}T20:03:00+00:00",
            **changes,
        },
    )
    return sweep.write(folder)


def test_nothing_earlier_is_said(lazy_alone, tmp_path):
    """Neither a baseline nor a run."""
    past = past_of(RunView(written(lazy_alone, tmp_path / "now", 9)), judged_by(tmp_path))

    assert past.ways == ()
    assert past.sentence == (
        "Nothing earlier is known: no baseline of this run was accepted, and no earlier run was "
        "named."
    )


def test_earlier_runs_are_in_their_order_and_later_or_foreign_ones_are_not(
    lazy_alone, tmp_path, monkeypatch
):
    """The amounts of each, whatever their folders are called; what is left out is counted."""
    from tests.reports import conftest

    runs = tmp_path / "runs"
    for name, number, batch in (("b", 1, 4), ("a", 2, 5), ("later", 10, 6)):
        monkeypatch.setattr(conftest, "BATCH_BYTES", batch * 2**20)
        written(lazy_alone, runs / name, number)
    written(lazy_alone, runs / "other", 3, comparability={"device": "another"})
    (runs / "none").mkdir()
    (runs / "none" / "run.json").write_text("{")
    monkeypatch.setattr(conftest, "BATCH_BYTES", 8 * 2**20)
    past = past_of(RunView(written(lazy_alone, tmp_path / "now", 9)), judged_by(tmp_path), [runs])

    first = next(way for way in past.ways if way.what == "first batch, device in use, growth")
    assert first.where == "arrays, lazy, 500 images"
    assert (first.amounts, first.change) == ("8.00 -> 10.00 -> 16.00 MiB", "+100.0 %")
    assert past.sentence.startswith("Over 2 earlier runs and this run, each series at its largest")
    assert past.sentence.endswith(
        "3 folders given with --history are not comparable, later, or no run."
    )


def test_a_run_directory_itself_may_be_named_and_this_run_is_not_its_own_past(lazy_alone, tmp_path):
    """The folder that both lie in holds the run that is shown."""
    now = written(lazy_alone, tmp_path / "runs" / "now", 9)
    before = written(lazy_alone, tmp_path / "runs" / "before", 8)
    judgement = judged_by(tmp_path)
    one = past_of(RunView(now), judgement, [before.path])
    both = past_of(RunView(now), judgement, [tmp_path / "runs"])

    assert one == both
    assert one.sentence.startswith("Over 1 earlier run and this run")
    assert one.ways == ()


def test_the_newest_runs_are_read_and_no_more(lazy_alone, tmp_path):
    """At the limit all, one past it the oldest is left out."""
    runs = tmp_path / "runs"
    for number in range(1, MOST_RUNS + 2):
        written(lazy_alone, runs / str(number), 1, run_id=f"run-{number}")
    past = past_of(RunView(written(lazy_alone, tmp_path / "now", 9)), judged_by(tmp_path), [runs])

    assert past.sentence.startswith(f"Over {MOST_RUNS} earlier runs and this run")


def test_acceptances_come_from_the_history_of_the_baseline_file(lazy_alone, tmp_path, monkeypatch):
    """Two commits and this run; outside of git the present acceptance alone, and why."""
    from tests.reports import conftest

    folder = tmp_path / "baselines"
    for number, batch in ((1, 4), (2, 5)):
        monkeypatch.setattr(conftest, "BATCH_BYTES", batch * 2**20)
        run = written(lazy_alone, tmp_path / f"accepted-{number}", number)
        write(from_run(run, reason="r", accepted=f"2026-11-0{number}"), folder)
        _commit(folder)
    monkeypatch.setattr(conftest, "BATCH_BYTES", 6 * 2**20)
    now = written(lazy_alone, tmp_path / "now", 9)
    past = past_of(RunView(now), judged_by(folder))
    first = next(way for way in past.ways if way.what == "first batch, device in use, growth")

    assert first.amounts == "8.00 -> 10.00 -> 12.00 MiB"
    assert past.sentence.startswith("Over 2 acceptances and this run")


def _commit(folder):
    commands = (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "accept"],
    )
    for command in commands:
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)
