"""How accepted amounts moved: told from git, at every acceptance, and said where git cannot
tell.
"""

import subprocess
import tomllib
from dataclasses import replace

import pytest

from harness.__main__ import main
from harness.commands.accept import accept
from harness.commands.history import histories, read_history
from harness.errors import BaselineError, UsageError
from harness.judge.baseline_file import file_name, find, parse
from harness.judge.table import load_run
from harness.words import KIB, MIB

NAME = "arrays-lazy-image_count=500"
PLACE = f"{NAME} / epoch_0 / device_in_use growth"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty git repository with a folder of baselines; nothing of the user's own settings is
    read.
    """
    for name in (
        "GIT_AUTHOR_NAME",
        "GIT_COMMITTER_NAME",
        "GIT_AUTHOR_EMAIL",
        "GIT_COMMITTER_EMAIL",
    ):
        monkeypatch.setenv(name, "tester@example.org")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    folder = tmp_path / "project" / "baselines"
    folder.mkdir(parents=True)
    git(folder.parent, "init", "--quiet")
    return folder


def git(folder, *arguments):
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def accepting(policy, synthetic_run):
    """Accept the arrays with both epochs of one point ``more`` bytes larger; the lines that are
    printed.
    """
    synthetic_run.keep_points(lambda point: point.scenario == "arrays")
    good = synthetic_run.amounts

    def accepting(folder, more, *, commit=True, **options):
        synthetic_run.amounts = good
        synthetic_run.manifest["run_id"] = f"run-{more}"
        for phase in ("epoch_0", "epoch_1"):
            synthetic_run.plant(
                phase=phase,
                meter="device_in_use",
                extra=lambda point, repeat: more if point.name == NAME else 0,
            )
        lines = accept(load_run(synthetic_run.write()), policy, folder, reason="chosen", **options)
        if commit:
            git(folder, "add", "--all")
            git(folder, "commit", "--quiet", "--message", f"accept {more}")
        return lines

    return accepting


def test_an_acceptance_shows_the_whole_way_of_what_it_moves(accepting, repository):
    """From the third one on: old and new are in the line anyway."""
    lines = [accepting(repository, round(more * MIB)) for more in (0, 0.2, 0.5)]
    date = (
        find(repository, tomllib.loads(next(repository.iterdir()).read_text())["key"])
        .point[NAME]
        .accepted.date
    )

    assert lines[1][0] == f"{PLACE}: 8.0 MiB (8,388,608 B) -> 8.2 MiB (8,598,323 B)"
    assert lines[2][0] == (
        f"{PLACE}: 8.2 MiB (8,598,323 B) -> 8.5 MiB (8,912,896 B) "
        f"(8.00 -> 8.20 -> 8.50 MiB over 3 acceptances since {date}: +6.2 %)"
    )
    assert not any(line.startswith("history:") for line in lines[2])


def test_history_tells_who_accepted_and_what_moved(accepting, repository, capsys):
    """And how many amounts never did; with a phase and meter, also those."""
    for more in (0, MIB):
        accepting(repository, more)
    assert main(["history", NAME, "--baselines", str(repository)]) == 0
    told = capsys.readouterr().out
    main(["history", NAME, "release", "device_in_use", "--baselines", str(repository)])

    assert "run run-0, commit 0123abcd, emulated: chosen" in told
    assert "  epoch_0 / device_in_use growth: 8.00 -> 9.00 MiB over 2 acceptances since " in told
    assert told.rstrip().endswith("amounts never moved")
    assert "release / device_in_use growth: 0 B over 2 acceptances" in capsys.readouterr().out


def test_what_is_not_committed_yet_is_the_last_of_the_way(accepting, repository):
    """The working tree counts."""
    accepting(repository, 0)
    accepting(repository, MIB, commit=False)
    told = "\n".join(histories(repository, NAME, phase="epoch_0", meter="device_in_use"))

    assert "epoch_0 / device_in_use growth: 8.00 -> 9.00 MiB over 2 acceptances" in told


def test_a_point_that_did_not_change_keeps_its_evidence(accepting, repository):
    """Its block is not touched, so that a review shows what moved and nothing else."""
    accepting(repository, 0)
    (path,) = repository.iterdir()
    before = path.read_text().splitlines()
    accepting(repository, MIB, commit=False)
    changed = [line for line in path.read_text().splitlines() if line not in before]

    assert len(changed) == 3
    assert changed[0].startswith('accepted = { date = "')
    assert f'run = "run-{MIB}"' in changed[0]
    assert [line.partition(" =")[0] for line in changed[1:]] == [
        "phase.epoch_0.device_in_use",
        "phase.epoch_1.device_in_use",
    ]


def test_branches_that_accept_different_points_merge(accepting, repository):
    """Each touches its own blocks alone."""
    accepting(repository, 0)
    git(repository, "checkout", "--quiet", "-b", "other")
    accepting(repository, MIB, only=NAME)
    git(repository, "checkout", "--quiet", "-")
    git(repository, "checkout", "--quiet", "-b", "third")
    text = next(repository.iterdir()).read_text()
    head, mark, tail = text.partition('[point."arrays-lazy-image_count=100"]')
    (path,) = repository.iterdir()
    path.write_text(head + mark + tail.replace('reason = "chosen"', 'reason = "another"', 1))
    git(repository, "commit", "--quiet", "--all", "--message", "another")
    git(repository, "merge", "--quiet", "other")
    merged = parse(path.read_text(), "merged")

    assert merged.point[NAME].accepted.run == f"run-{MIB}"
    assert merged.point["arrays-lazy-image_count=100"].accepted.reason == "another"


def test_without_git_only_the_present_is_known_and_said(accepting, tmp_path, monkeypatch):
    """No repository, and no git at all."""
    folder = tmp_path / "baselines"
    accepting(folder, 0, commit=False)
    outside = list(histories(folder, NAME))
    monkeypatch.setenv("PATH", str(tmp_path))
    without = list(histories(folder, NAME))

    assert outside[-1] == (
        "  history: only the present acceptance is known, because git says: "
        "not a git repository (or any of the parent directories): .git"
    )
    assert without[-1] == (
        "  history: only the present acceptance is known, because git is not installed, or "
        "the folder is not there"
    )
    assert "run run-0" in outside[1]


def test_a_shallow_clone_says_that_it_forgot(accepting, repository, tmp_path):
    """As build machines make them."""
    for more in (0, MIB):
        accepting(repository, more)
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository.parent}", "shallow")
    (path,) = (tmp_path / "shallow" / "baselines").iterdir()

    assert "git has only a part of the past (a shallow clone)" in read_history(path).note


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("arrays-lazy-image_count=501",), "did you mean 'arrays-lazy-image_count=500'?"),
        (
            ("arrays-lazy",),
            (
                "3 begin like this: arrays-lazy-image_count=100, arrays-lazy-image_count=500, "
                "arrays-lazy-image_count=1000"
            ),
        ),
        ((NAME, "epoch0"), "was never accepted with a phase epoch0; did you mean 'epoch_0'?"),
        (
            (NAME, "epoch_0", "device"),
            "with a meter device in epoch_0; did you mean 'device_in_use'?",
        ),
    ],
)
def test_what_was_never_accepted_is_a_sentence_with_the_nearest_name(
    accepting, tmp_path, arguments, words
):
    """Exit 2 on the command line."""
    name, phase, meter = (*arguments, None, None)[:3]
    accepting(tmp_path / "baselines", 0, commit=False)
    with pytest.raises(UsageError) as refusal:
        list(histories(tmp_path / "baselines", name, phase=phase, meter=meter))

    assert words in str(refusal.value)


def test_files_of_the_first_version_are_read_as_if_each_point_had_their_evidence(
    accepting, tmp_path
):
    """So that what was accepted before still holds, and its history too."""
    accepting(tmp_path / "baselines", 0, commit=False)
    (path,) = (tmp_path / "baselines").iterdir()
    lines = [line for line in path.read_text().splitlines() if not line.startswith("accepted =")]
    provenance = [
        "[provenance]",
        'run_id = "b1"',
        'git_commit = "abc"',
        'git_dirty = "false"',
        'device = "emulated"',
        "repeats = 2",
        'accepted = "2026-01-01"',
        'reason = "first"',
        "",
    ]
    place = next(number for number, line in enumerate(lines) if line.startswith("[point."))
    text = "\n".join([*lines[:place], *provenance, *lines[place:]]).replace(
        "schema_version = 2", "schema_version = 1"
    )
    baseline = parse(text, "old")
    accepted = baseline.point[NAME].accepted

    assert (accepted.run, accepted.date, accepted.reason, accepted.isolation) == (
        "b1",
        "2026-01-01",
        "first",
        "not recorded",
    )
    assert baseline.point[NAME].is_judged_like(find(path.parent, baseline.key).point[NAME])
    with pytest.raises(BaselineError, match=r"is damaged: point\..*\.accepted\.run"):
        parse(text.replace('run_id = "b1"\n', ""), "old")


# --- only some points ---


def test_only_the_points_that_match_are_taken(accepting, tmp_path):
    """The others keep their amounts and their evidence, although the run has others."""
    folder = tmp_path / "baselines"
    accepting(folder, 0, commit=False)
    (path,) = folder.iterdir()
    before = path.read_text()
    lines = accepting(folder, MIB, commit=False, only="arrays-eager-*")
    same = path.read_text()
    taken = accepting(folder, MIB, commit=False, only="*image_count=500")

    assert lines[0] == "nothing changed"
    assert same == before
    assert taken[0].startswith(f"{PLACE}: 8.0 MiB (8,388,608 B) -> 9.0 MiB")


def test_a_pattern_that_matches_nothing_is_refused(accepting, tmp_path):
    """With a name that there is."""
    with pytest.raises(
        BaselineError, match=r"--only arrays-lasy-\*: none of the 6 points .* such as arrays-"
    ):
        accepting(tmp_path / "baselines", 0, commit=False, only="arrays-lasy-*")

    assert not (tmp_path / "baselines").exists()


def test_a_broken_limit_matters_where_it_is_taken(accepting, synthetic_run, policy, tmp_path):
    """The eager points may be accepted while a lazy one is over its budget; the lazy one may
    not.
    """
    folder = tmp_path / "baselines"
    accepting(folder, 0, commit=False)
    synthetic_run.plant(
        phase="release", meter="device_in_use", keep=True, extra=lambda point, repeat: 2 * MIB
    )
    run = load_run(synthetic_run.write())

    assert accept(run, policy, folder, reason="chosen", only="arrays-eager-*")
    with pytest.raises(BaselineError, match=r"with 2\.0 MiB, limit 1\.0 MiB"):
        accept(run, policy, folder, reason="chosen", only=NAME)


def test_an_incomplete_run_gives_not_even_some_points(accepting, synthetic_run, policy, tmp_path):
    """What is missing may be why the rest looks as it does; a floor that was not reached was not
    seen.
    """
    folder = tmp_path / "baselines"
    accepting(folder, 0, commit=False)
    synthetic_run.plant(
        phase="epoch_1", meter="device_in_use", extra=lambda point, repeat: -8 * MIB + 4 * KIB
    )
    with pytest.raises(BaselineError, match="the meter did not see what the phase needs"):
        accept(load_run(synthetic_run.write()), policy, folder, reason="chosen", only=NAME)
    rows = [row for row in synthetic_run.rows() if row["point"] != "arrays-eager-image_count=100"]
    with pytest.raises(BaselineError, match="no end of it was recorded"):
        accept(load_run(synthetic_run.write(rows)), policy, folder, reason="chosen", only=NAME)


def test_the_command_line_takes_one_of_the_three(capsys):
    """--only keeps the others anyway."""
    with pytest.raises(SystemExit, match="2"):
        main(["accept", "run", "--reason", "r", "--only", "x", "--forget-others"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_meter_that_a_tolerance_names_is_accepted_as_well(synthetic_run, policy, tmp_path):
    """Else its tolerance would never find a baseline."""
    tolerance = policy.tolerance[0].model_copy(update={"meter": "nvml_process"})
    base = synthetic_run.amounts
    synthetic_run.amounts = lambda point, repeat, phase: {
        **(found := dict(base(point, repeat, phase))),
        "nvml_process": replace(found["device_in_use"]),
    }
    run = load_run(synthetic_run.write())
    accept(
        run,
        policy.model_copy(update={"tolerance": (*policy.tolerance, tolerance)}),
        tmp_path,
        reason="chosen",
    )

    assert "nvml_process" in find(tmp_path, run.manifest.comparability).point[NAME].phase["epoch_0"]
    assert (tmp_path / file_name(run.manifest.comparability)).exists()
