"""What every command says of itself: what it is for, examples that work, exit codes; what was
misspelt is answered with what is near.
"""

import re
import shlex
import shutil
import subprocess

import pytest

from harness.__main__ import COMMANDS, main
from harness.commands import GATE_CODES
from harness.judge import FINDINGS
from harness.judge.rules import RULES

NAMES = [name for name, _ in COMMANDS]
LIMITS = """
schema_version = 1
[[budget]]
scenarios = ["arrays"]
meters = ["device_in_use"]
at_most = "1 GiB"
because = "chosen for this test"
"""


@pytest.fixture
def told(capsys, monkeypatch):
    """``told(*arguments)``: the help, as a terminal of 80 columns shows it."""
    monkeypatch.setenv("COLUMNS", "80")

    def told(*arguments):
        with pytest.raises(SystemExit, match="0"):
            main([*arguments, "--help"])
        return capsys.readouterr().out

    return told


def examples_of(text):
    """The commands of a help, as the words that a shell makes of them."""
    lines = re.search(r"^examples?:\n((?:  .+\n)+)", text, re.MULTILINE)[1].splitlines()
    return [shlex.split(line.strip()) for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_says_what_it_is_for_shows_an_example_and_its_exit_codes(told, name):
    """Within 80 columns."""
    text = told(name)
    usage, about, *_ = text.split("\n\n")

    assert usage.startswith("usage: ")
    assert about.endswith(".")
    assert examples_of(text)
    assert re.search(r"^exit codes:?", text, re.MULTILINE | re.IGNORECASE)
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_help_of_all_shows_an_example_within_80_columns(told):
    """How a run is measured, and then judged."""
    text = told()

    assert examples_of(text)[0][:2] == ["pytest", "scenarios"]
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_help_of_the_gate_has_every_exit_code_rule_and_finding(told):
    """With the words that findings themselves use."""
    text = " ".join(told("gate").split())

    for code, meaning in GATE_CODES.items():
        assert f"{code} {meaning}" in text
    for rule in RULES:
        assert f"{rule.name} {rule.meaning}" in text
    for kind, row in FINDINGS.items():
        assert f"{kind} {int(row.exit_code)} {row.meaning}" in text


@pytest.fixture
def project(synthetic_run, tmp_path, monkeypatch):
    """A repository with a policy, a baseline and a judged run that is called RUN."""
    monkeypatch.chdir(tmp_path)
    synthetic_run.keep_points(
        lambda point: point.scenario == "arrays" and point.parameters["loader"] == "lazy"
    )
    synthetic_run.path = tmp_path / "RUN"
    synthetic_run.write()
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "gate.toml").write_text(LIMITS)
    for command in (
        ["init", "-q", "-b", "main"],
        ["-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "c0"],
        ["update-ref", "refs/remotes/origin/main", "HEAD"],
    ):
        subprocess.run(["git", *command], check=True, cwd=tmp_path)
    assert main(["accept", "RUN", "--reason", "the first"]) == 0
    assert main(["gate", "RUN"]) == 0
    return tmp_path


OWN = ("gate", "accept", "annotate", "history", "report")
"""Commands whose examples are about the run RUN, which is here; the others measure."""


@pytest.mark.parametrize("name", OWN)
def test_every_example_is_what_it_says(project, told, name, capsys):
    """It can be typed as it stands, and ends with 0; what is measured again is what may be
    noise: nothing here.
    """
    for words in examples_of(told(name)):
        arguments = words[words.index("harness") + 1 :]
        if ">" in arguments:
            arguments = arguments[: arguments.index(">")]
        kept = project / "kept"
        shutil.copytree(project / "RUN", kept)

        assert main(arguments) == 0, (arguments, capsys.readouterr())
        shutil.rmtree(project / "RUN")
        kept.rename(project / "RUN")


@pytest.mark.parametrize("name", sorted({"doctor", "bisect"} & set(NAMES)))
def test_every_example_of_what_measures_can_be_parsed(told, name, monkeypatch):
    """Up to the command itself, which would take its time."""
    asked = []

    def run(options):
        asked.append(options)
        return 0

    monkeypatch.setattr(f"harness.commands.{name}.run", run)
    examples = examples_of(told(name))
    for words in examples:
        assert main(words[words.index("harness") + 1 :]) == 0

    assert [options.command for options in asked] == [name] * len(examples)


@pytest.mark.parametrize(
    ("typed", "near"), [("gaet", "gate"), ("acept", "accept"), ("docter", "doctor")]
)
def test_a_misspelt_command_is_answered_with_the_nearest(capsys, typed, near):
    """In one sentence, with exit code 2."""
    with pytest.raises(SystemExit, match="2"):
        main([typed])

    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"there is no command {typed!r}; did you mean {near!r}?")


# How much the gate prints, and for whom.


def test_quiet_prints_one_line_and_json_one_object(project, capsys):
    """Nothing else on either stream; the exit code is the verdict's."""
    import json

    capsys.readouterr()
    assert main(["gate", "RUN", "--quiet"]) == 0
    quiet = capsys.readouterr()
    assert main(["gate", "RUN", "--json"]) == 0
    found = capsys.readouterr()

    assert quiet.out.startswith("Pass: all ")
    assert (quiet.out.count("\n"), quiet.err, found.err) == (1, "", "")
    assert json.loads(found.out)["verdict"] == "pass"
    assert [row["series"] for row in json.loads(found.out)["loaders"]] == ["lazy"]


def test_the_gate_says_its_verdict_once(project, capsys):
    """The table is there, and no colour where no terminal is."""
    capsys.readouterr()
    main(["gate", "RUN"])
    said = capsys.readouterr().out

    assert said.count("Pass") == 1
    assert "arrays lazy" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(("encoding", "bars"), [("utf-8", True), ("ascii", False), (None, False)])
def test_bars_are_printed_where_the_encoding_has_them(encoding, bars):
    """A terminal in another encoding would stop with an error."""
    from harness.commands import _has_bars

    assert _has_bars(encoding) is bars
