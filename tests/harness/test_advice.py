"""Whatever a sentence tells people to type works as it stands, in the state in which it is said:
each is typed here.
"""

import ast
import os
import re
import shlex
import subprocess

import pytest

from harness.__main__ import main
from harness.commands.history import read_history
from harness.errors import UsageError
from harness.judge.advice import Asked, Commands, launcher, measuring, stopped
from harness.judge.baseline import Against, Baseline
from harness.rundir.manifest import CodeSide
from harness.system.git import resolve

LIMITS = """
schema_version = 1

[[budget]]
scenarios = ["arrays"]
meters = ["device_in_use"]
phases = ["construct"]
at_most = "{at_most}"
because = "chosen for this test"

[[tolerance]]
meter = "device_in_use"
percent = 2
floor = "64 KiB"
because = "chosen for this test"
"""
RUN = "my run's"
"""A name that a shell would take apart."""
OPTIONS = ["--policy", "my limits.toml", "--baselines", "my baselines"]
MIB = 1024 * 1024

# Texts that hold a command, beside those that harness/judge/advice.py makes: where, and what
# tries it.
SPOKEN = {
    "harness/commands/bisect.py": (
        "an example with placeholders: test_the_example_of_bisect_can_be_read"
    ),
    "harness/pretended/__main__.py": "an example in its own help: tests/harness/pretended",
    "harness/system/git.py": (
        "git fetch: test_a_shallow_clone_has_all_of_its_past_after_the_command"
    ),
    "harness/rundir/manifest.py": "the name of what failed, not an advice",
    "harness/judge/baseline_file.py": (
        "a comment with placeholders: test_the_head_of_a_baseline_can_be_typed; "
        "git fetch: test_a_shallow_clone_has_all_of_its_past_after_the_command"
    ),
}
COMMAND = re.compile(
    r"-m harness(?! ?\.)|\bnox -s|pytest \.\.\.|--memory-resume \S|\bgit "
    r"(diff|fetch|log|show|checkout) -?"
)


@pytest.fixture
def place(synthetic_run, tmp_path, monkeypatch):
    """``place``: the synthetic run, not written yet; the folder holds its limits, wide and tight,
    and a folder of baselines.
    """
    monkeypatch.chdir(tmp_path)
    synthetic_run.path = tmp_path / RUN
    synthetic_run.keep_points(
        lambda point: point.scenario == "arrays" and point.parameters["loader"] == "lazy"
    )
    (tmp_path / "my limits.toml").write_text(LIMITS.format(at_most="1 GiB"))
    (tmp_path / "tight.toml").write_text(LIMITS.format(at_most="1 KiB"))
    (tmp_path / "my baselines").mkdir()
    return synthetic_run


@pytest.fixture
def typed(capsys):
    """``typed(command, *more)``: exit code and all that was said; of the gate every finding, with
    its sentence on one line again.
    """

    def typed(*words):
        capsys.readouterr()
        verbose = ["--verbose"] if words[0] == "gate" else []
        try:
            code = main([*words, *verbose])
        except SystemExit as error:
            code = error.code
        said = capsys.readouterr()
        # a command has a line of its own
        return code, re.sub(r"\n     (?!python|pytest| )", " ", said.out + said.err)

    return typed


def advised(text, command):
    """The first advice to type a command of the harness in a text, as the words that a shell makes
    of it.
    """
    found = re.search(rf"(`?)python -m harness ({command} [^\n`]*)", text)
    if found is None:
        return None
    # In backticks, or up to the end of its line: nothing that follows may be taken along by whoever
    # copies it.
    said = found[2] if found[1] else re.sub(r" \(\d+ more findings?\)$", "", found[2])
    return shlex.split(said)


def accepted(place, typed):
    """Make what is there the baseline."""
    place.write()
    code, said = typed("accept", RUN, *OPTIONS, "--reason", "the first")
    assert code == 0, said


def further(bytes_more):
    return {
        "phase": "first_batch",
        "meter": "device_in_use",
        "extra": lambda point, repeat: bytes_more,
    }


def test_without_a_baseline_the_command_makes_one(place, typed):
    """With the policy and the folder of the gate, and a path that needs quotes; then it passes."""
    place.write()
    code, said = typed("gate", RUN, *OPTIONS)
    words = advised(said, "accept")

    assert code == 4
    assert words == ["accept", RUN, *OPTIONS, "--reason", "..."]
    assert typed(*words)[0] == 0
    assert typed("gate", RUN, *OPTIONS)[0] == 0


@pytest.mark.parametrize(
    ("bytes_more", "code"), [(8 * MIB, 1), (-4 * MIB, 5)], ids=["worse", "better"]
)
def test_what_moved_is_accepted_by_the_command(place, typed, bytes_more, code):
    """Worse on purpose, or better; then it passes."""
    accepted(place, typed)
    place.plant(**further(bytes_more)).write()
    found, said = typed("gate", RUN, *OPTIONS)

    assert found == code
    assert typed(*advised(said, "accept"))[0] == 0
    assert typed("gate", RUN, *OPTIONS)[0] == 0


def test_beside_broken_limits_nobody_is_told_to_accept(place, typed):
    """Accept would refuse; the sentence says what comes first."""
    place.plant(phase="construct", meter="device_in_use", extra=lambda point, repeat: MIB).write()
    code, said = typed("gate", RUN, "--policy", "tight.toml", "--baselines", "my baselines")

    assert code == 1
    assert advised(said, "accept") is None
    assert (
        "deal first with what keeps this run from becoming a baseline: 3 reasons, the "
        "first: arrays / lazy / " in said
    )
    assert (
        typed(
            "accept", RUN, "--policy", "tight.toml", "--baselines", "my baselines", "--reason", "r"
        )[0]
        == 2
    )


def test_of_a_run_whose_repeats_differ_nobody_is_told_to_accept(place, typed):
    """No finding says so: accept does."""
    place.plant(
        phase="first_batch", meter="device_in_use", extra=lambda point, repeat: repeat * MIB
    ).write()
    code, said = typed("gate", RUN, *OPTIONS)

    assert code == 4
    assert advised(said, "accept") is None
    assert "deal first with" in said
    assert "its repeats differ by" in typed("accept", RUN, *OPTIONS, "--reason", "r")[1]


def test_of_a_run_without_an_end_nobody_is_told_to_accept(place, typed):
    """But how to go on, with what was typed to measure it, less the directory that it was to
    make.
    """
    place.manifest = {
        "ended": None,
        "command": "pytest scenarios -k 'lazy and not oom' --memory-out 'my run'\"'\"'s'",
    }
    place.write()
    code, said = typed("gate", RUN, *OPTIONS)

    assert code == 3
    assert advised(said, "accept") is None
    resume = re.search(
        r"measure what is missing with:\s+(pytest .*?)(?:$| \(\d)", said, re.MULTILINE
    )[1]
    assert shlex.split(resume) == [
        "pytest",
        "scenarios",
        "-k",
        "lazy and not oom",
        f"--memory-resume={RUN}",
    ]


def test_a_run_that_is_measured_again_goes_on_with_the_arguments_of_the_gate(place, typed):
    """It has no end, because that was broken off."""
    place.manifest = {"ended": None, "remeasured": [{"points": ["a"]}]}
    place.write()
    code, said = typed("gate", RUN, *OPTIONS)

    assert code == 3
    assert advised(said, "gate") == ["gate", RUN, *OPTIONS, "--remeasure"]


def test_points_that_are_gone_are_forgotten_by_the_command_or_left_out_by_the_option(place, typed):
    """Of three accepted points two were measured."""
    accepted(place, typed)
    place.points = place.points[1:]
    place.write()
    code, said = typed("gate", RUN, *OPTIONS)

    assert code == 3
    assert "pass --partial when less was measured on purpose" in said
    assert typed("gate", RUN, *OPTIONS, "--partial")[0] == 0
    words = advised(said, "accept")
    assert words == ["accept", RUN, *OPTIONS, "--forget-others", "--reason", "..."]
    assert typed(*words)[0] == 0
    assert typed("gate", RUN, *OPTIONS)[0] == 0


def test_a_new_point_is_accepted_without_losing_those_that_were_not_measured(place, typed):
    """One accepted, another measured: the command keeps the first."""
    points = place.points
    place.points = points[:1]
    accepted(place, typed)
    place.points = points[1:2]
    place.write()
    code, said = typed("gate", RUN, *OPTIONS, "--partial")
    words = advised(said, "accept")

    assert code == 4
    assert words == ["accept", RUN, *OPTIONS, "--keep-others", "--reason", "..."]
    assert typed(*words)[0] == 0
    place.points = points[:2]
    place.write()
    assert typed("gate", RUN, *OPTIONS)[0] == 0


def test_the_other_run_is_judged_again_as_it_was(place, typed, tmp_path):
    """--against is among the arguments that summary.md repeats, and so is --partial."""
    place.write()
    place.path, place.manifest = tmp_path / "other", {"run_id": "other"}
    place.write()
    code, _ = typed("gate", RUN, *OPTIONS, "--against", "other", "--partial")
    summary = (tmp_path / RUN / "summary.md").read_text()
    words = advised(summary, "gate")

    assert words == ["gate", RUN, *OPTIONS, "--against", "other", "--partial"]
    assert typed(*words)[0] == code


def test_summary_and_page_say_how_to_measure_the_same_and_how_to_make_the_page(
    place, typed, tmp_path
):
    """The directory that it was measured into is there already: the command leaves it out."""
    place.manifest = {"command": "pytest scenarios --memory-out=out -n 2"}
    place.write()
    typed("gate", RUN, *OPTIONS, "--page")
    summary, page = (
        (tmp_path / RUN / "summary.md").read_text(),
        (tmp_path / RUN / "report.html").read_text(),
    )

    assert "```\npytest scenarios -n 2\n```" in summary
    assert '<pre class="command">pytest scenarios -n 2</pre>' in page
    assert typed(*words_of_the_page(page))[0] == 0


def words_of_the_page(page):
    """The words of the page's own command."""
    found = re.search(r">python -m harness (report .*?)</pre>", page)[1]
    return shlex.split(found.replace("&#39;", "'").replace("&#34;", '"'))


def test_a_meter_that_did_not_read_is_asked_about_on_the_device_of_the_run(place, typed):
    """A card's meters cannot be asked about on the emulated device."""
    place.manifest = {"settings": {"device": "gpu", "growth": True}}
    place.without_meter("device_in_use", "no card").write()
    _, said = typed("gate", RUN, *OPTIONS)

    assert advised(said, "doctor") == ["doctor", "--device", "gpu", "--growth"]
    assert typed("doctor", "--device", "gpu", "--growth", "--help")[0] == 0


def test_findings_that_are_not_there_are_written_by_the_command(place, typed):
    """Annotate says it with the arguments that it was given."""
    place.write()
    code, said = typed("annotate", RUN, *OPTIONS)
    words = advised(said, "gate")

    assert code == 2
    assert words == ["gate", RUN, *OPTIONS]
    assert typed(*words)[0] == 4
    assert typed("annotate", RUN, *OPTIONS)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["gate", RUN, "--baselines", "my baseline"],
            "--baselines my baseline is not there; did you mean my baselines?",
        ),
        (
            ["gate", RUN, "--baselines", "my limits.toml"],
            "--baselines my limits.toml is a file; name a folder",
        ),
        (["report", RUN, "--baselines", "/nosuch"], "--baselines /nosuch is not there; / holds "),
        (
            ["history", "arrays", "--baselines", "nosuch"],
            "--baselines nosuch is not there; this folder holds ",
        ),
        (["gate", RUN, "--policy", "my limit.toml"], "did you mean my limits.toml?"),
        (["gate", "my runs"], f"did you mean {RUN}?"),
        (["gate", "nosuch/at/all"], "this folder holds "),
        (["accept", "my runs", "--reason", "r"], f"did you mean {RUN}?"),
        (["annotate", "my runs"], f"did you mean {RUN}?"),
        (["report", "my runs"], f"did you mean {RUN}?"),
        (["gate", RUN, "--against", "my runs"], f"did you mean {RUN}?"),
        (["gaet", RUN], "there is no command 'gaet'; did you mean 'gate'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_was_mistyped_is_a_mistake_and_the_nearest_is_named(place, typed, words, said):
    """Exit code 2: never a missing baseline."""
    place.write()
    code, found = typed(*words)

    assert code == 2
    assert said in found


def test_a_folder_of_baselines_that_nobody_has_named_may_be_missing(place, typed):
    """A new project has none yet: that is exit code 4; accept makes it, wherever it is asked to,
    and says so.
    """
    place.write()
    code, said = typed("gate", RUN, "--policy", "my limits.toml")
    words = advised(said, "accept")

    assert code == 4
    assert "--baselines" not in words
    done, told = typed(*words)
    assert (done, "scenarios/baselines does not exist yet, and is made" in told) == (0, True)
    assert typed("gate", RUN, "--policy", "my limits.toml")[0] == 0


def test_the_head_of_a_baseline_can_be_typed(place, typed, tmp_path):
    """RUN and POINT stand for names."""
    accepted(place, typed)
    (file,) = (tmp_path / "my baselines").glob("*.toml")
    names = {"RUN": shlex.quote(RUN), "POINT": place.points[0].name}
    commands = re.findall(r"`python -m harness (.*?)`", file.read_text())

    assert [command.split()[0] for command in commands] == ["accept", "history"]
    for command in commands:
        words = shlex.split(re.sub("RUN|POINT", lambda found: names[found[0]], command))
        assert typed(*words, *OPTIONS[2:], *(OPTIONS[:2] if words[0] == "accept" else []))[0] == 0


def test_the_example_of_bisect_can_be_read(place, typed):
    """GOOD stands for a revision; what follows -- is pytest's."""
    assert typed("bisect", "--help", "--", "scenarios", "-n", "2")[0] == 0


def test_a_folder_called_harness_is_kept_out_of_the_way(tmp_path):
    """Somebody else's package of the name; ours is none."""
    assert launcher(tmp_path) == ("python", "-m", "harness")
    (tmp_path / "harness").mkdir()
    assert launcher(tmp_path) == ("python", "-P", "-m", "harness")
    (tmp_path / "harness" / "measure").mkdir()
    (tmp_path / "harness" / "measure" / "worker.py").touch()
    assert launcher(tmp_path) == ("python", "-m", "harness")


@pytest.mark.parametrize(
    ("typed", "again"),
    [
        ("pytest scenarios --memory-out 'a b' -n 2", "pytest scenarios -n 2 '--memory-resume=c d'"),
        ("pytest --memory-out=a -k 'x and y'", "pytest -k 'x and y' '--memory-resume=c d'"),
        ("pytest scenarios --resume a", "pytest scenarios '--memory-resume=c d'"),
        ("pytest 'never closed", "pytest 'never closed '--memory-resume=c d'"),
        ("", "'--memory-resume=c d'"),
    ],
)
def test_what_was_typed_goes_on_elsewhere(typed, again):
    """The directories that it named are left out, whichever way they were written."""
    assert measuring(typed, resuming="c d") == again


@pytest.mark.parametrize(
    "before", ["", " --memory-against main", " --against=main", " --against main"]
)
def test_another_revision_comes_in_place_of_the_one_that_was_named(before):
    """Both sides again, on one machine."""
    commands = Commands(run=Asked().baselines, typed=f"pytest scenarios{before} --memory-out out")

    assert commands.compare("abc") == "pytest scenarios --memory-against=abc"


@pytest.mark.parametrize("typed", ["python run.py", "pytest 'never closed", ""])
def test_what_was_not_measured_by_pytest_has_no_command_of_a_point(typed):
    """Nor one that searches its commits."""
    commands = Commands(run=Asked().baselines, typed=typed)

    assert (commands.measure_point("load-lazy"), commands.bisect("abc1234")) == ("", "")


def test_a_point_is_named_to_the_letter():
    """A name is no pattern, whatever is in it."""
    again = Commands(run=Asked().baselines, typed="pytest tests").measure_point("load-a[1]*")

    assert shlex.split(again) == ["pytest", "tests", "--memory-points=load-a[[]1][*]"]


def test_a_bisection_that_is_advised_can_be_read(typed):
    """It comes as far as asking git for the revision."""
    command = Commands(run=Asked().baselines, typed="pytest tests -n 2 --memory-against main")
    words = shlex.split(command.bisect("0" * 40))
    code, said = typed(*words[3:])

    assert words[-4:] == ["--", "tests", "-n", "2"]
    assert code == 2
    assert "0000000" in said


def test_what_was_asked_survives_being_written_down():
    """findings.json keeps it for the next report."""
    asked = Asked(policy=None, partial=True, by_pytest=True)

    assert Asked.from_json(asked.to_json()) == asked


def side(commit):
    return CodeSide(
        asked=commit,
        commit=commit,
        date="",
        title="",
        subjects=("my pkg",),
        packages={"my pkg": "a"},
        content={},
    )


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository in which ``my pkg`` has two commits and a change on top; nothing of the user's
    own settings is read.
    """
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in (
        "GIT_AUTHOR_NAME",
        "GIT_COMMITTER_NAME",
        "GIT_AUTHOR_EMAIL",
        "GIT_COMMITTER_EMAIL",
    ):
        monkeypatch.setenv(name, "tester@example.org")
    folder = tmp_path / "repository"
    (folder / "my pkg").mkdir(parents=True)
    git(folder, "init", "-q")
    for number in (1, 2, 3):
        (folder / "my pkg" / "code.py").write_text(f"{number}\n")
        if number < 3:
            git(folder, "add", ".")
            git(folder, "commit", "-q", "-m", f"commit {number}")
    return folder


def git(folder, *arguments):
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("now", "lines"), [("HEAD", "-1\n+2"), ("", "-1\n+3")], ids=["a commit", "the working tree"]
)
def test_what_changed_is_shown_by_the_command(repository, now, lines):
    """Between the two commits, or up to the working tree; the package's path needs quotes."""
    then = side(git(repository, "rev-parse", "HEAD~1"))
    now_side = side(now and git(repository, "rev-parse", now))
    against = Against(
        name="then",
        now_name="now",
        run=None,
        baseline=Baseline(key={}, point={}),
        then=then,
        now=now_side,
    )
    program, *words = shlex.split(against.to_do.removeprefix("look at "))

    assert program == "git"
    assert lines in git(repository, *words)


def test_a_shallow_clone_has_all_of_its_past_after_the_command(repository, tmp_path):
    """Said of a revision that is not there, and of a history that may lack some; after it both are
    whole.
    """
    first, clone = git(repository, "rev-list", "--max-parents=0", "HEAD"), tmp_path / "clone"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{repository}", str(clone))
    with pytest.raises(UsageError, match="this clone is shallow") as error:
        resolve(clone, first)
    note = read_history(clone / "baseline.toml").note
    (command,) = {re.search(r"git fetch [-\w]+", text)[0] for text in (str(error.value), note)}
    git(clone, *shlex.split(command)[1:])

    assert resolve(clone, first) == first
    assert "shallow" not in read_history(clone / "baseline.toml").note


def spoken(path):
    """The texts of a module that are no docstrings and hold a command."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    idle = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [node.value for node in texts if id(node) not in idle and COMMAND.search(node.value)]


def test_no_other_text_tells_people_what_to_type(project_root):
    """A command that is written by hand has not the arguments of the run, and nobody tries it: they
    come from one place.
    """
    modules = [*project_root.glob("harness/**/*.py"), *project_root.glob("reports/**/*.py")]
    found = {os.fspath(path.relative_to(project_root)) for path in modules if spoken(path)}

    assert len(modules) > 100
    assert found == set(SPOKEN)


MAKERS = {
    "gate",
    "accept",
    "doctor",
    "compare",
    "resume",
    "resuming",
    "report",
    "measuring",
    "accept_words",
    "accept_command",
}
MAKERS |= {"doctor_command", "judge_again", "again"}


def taken_along(path):
    """Where a text puts a mark right behind a command, which is not in backticks: a copy would take
    it along.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for before, part, behind in zip([None, *parts], parts, [*parts[1:], None], strict=False):
            if not isinstance(part, ast.FormattedValue) or not isinstance(behind, ast.Constant):
                continue
            called = [each.func for each in ast.walk(part.value) if isinstance(each, ast.Call)]
            # a folder
            plain = (
                []
                if isinstance(part.value, ast.Name) and part.value.id == "resume"
                else [part.value]
            )
            names = {getattr(each, "attr", getattr(each, "id", "")) for each in [*called, *plain]}
            quoted = "quoted" in names or (
                isinstance(before, ast.Constant) and before.value.endswith("`")
            )
            if names & MAKERS and not quoted and behind.value[:1] in set(".,;:!?)"):
                yield f"{path.name}:{node.lineno}"


def test_no_text_puts_a_mark_behind_a_command(project_root, tmp_path):
    """And what looks for one finds one."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        'f"do: {commands.gate()}."\nf"do: `{commands.gate()}`."\nf"do: '
        '{quoted(commands.gate())}."\n'
    )
    modules = [*project_root.glob("harness/**/*.py"), *project_root.glob("reports/**/*.py")]

    assert list(taken_along(bad)) == ["bad.py:1"]
    assert [place for path in modules for place in taken_along(path)] == []


@pytest.mark.parametrize(
    ("sentence", "ends"),
    [
        ("judge it with: {gate}", ""),
        ('accept it with: {gate} --reason "..."', ""),
        ("go on with it first: {resume}", ""),
        ("see that it does what it is there for, and run `{gate}`", "."),
        ("did you mean 'gate'?", ""),
        ("it has an end.", ""),
        ("measure more values", "."),
    ],
)
@pytest.mark.parametrize("isolated", [False, True])
def test_a_sentence_that_ends_with_a_command_has_no_full_stop(sentence, ends, isolated):
    """Whichever way the harness is started."""
    gate = "python -P -m harness gate out/run.1" if isolated else "python -m harness gate out/run.1"
    said = sentence.format(gate=gate, resume="pytest tests --memory-resume=out")

    assert stopped(said) == said + ends


def test_the_doctor_that_is_advised_within_a_sentence_is_in_backticks(place, typed):
    """Of a host that took less than its floor."""
    floor = (
        LIMITS.format(at_most="1 GiB")
        .replace('"device_in_use"', '"host_anon"', 1)
        .replace("at_most", "at_least", 1)
    )
    (place.path.parent / "floor.toml").write_text(floor)
    place.write()
    code, said = typed("gate", RUN, "--policy", "floor.toml", "--baselines", "my baselines")

    assert code == 3
    assert "run `python -m harness doctor`; the limit is budget rule 1 of floor.toml." in said
