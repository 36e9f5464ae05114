"""The command line: exit codes, and sentences instead of tracebacks."""

import json
import platform
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest

from harness import __main__ as command_line
from harness.__main__ import COMMANDS, main
from harness.judge import ExitCode


def is_about(rule, scenarios):
    """Whether a rule of the policy says anything of one of these scenarios."""
    return "scenarios" not in rule or bool(scenarios & set(rule["scenarios"]))


@pytest.fixture
def judged(synthetic_run, tmp_path, project_root):
    """Write the synthetic run and give the arguments every command takes.

    The policy is the project's, without the rules of scenarios that the synthetic sweep does not
    have.
    """
    swept = {point.scenario for point in synthetic_run.points}
    policy = tmp_path / "gate.toml"
    head, *rules = re.split(
        r"\n(?=\[\[)", (project_root / "scenarios" / "gate.toml").read_text(encoding="utf-8")
    )
    settings = [next(iter(tomllib.loads(rule).values()))[0] for rule in rules]
    kept = [rule for rule, setting in zip(rules, settings, strict=True) if is_about(setting, swept)]
    policy.write_text("\n".join([head, *kept]), encoding="utf-8")
    (tmp_path / "baselines").mkdir()

    def arguments(command, *more):
        run = synthetic_run.write()
        return [
            command,
            str(run),
            "--policy",
            str(policy),
            "--baselines",
            str(tmp_path / "baselines"),
            *more,
        ]

    return arguments


def test_a_run_without_a_baseline_exits_with_4_and_says_how_to_accept_it(judged, capsys):
    """Limits hold, but nothing was accepted before."""
    assert main(judged("gate")) == 4
    assert "python -m harness accept" in capsys.readouterr().out


def test_an_accepted_run_passes_and_leaves_every_file(judged, capsys, synthetic_run):
    """accept prints old -> new; gate writes tables, findings, junit and summary; report the
    page.
    """
    assert main(judged("accept", "--reason", "a known run")) == 0
    assert "none -> " in capsys.readouterr().out
    assert main(judged("gate")) == 0
    assert capsys.readouterr().out.startswith("Pass: all ")
    assert main(judged("report")) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1] == f"report: {synthetic_run.path / 'report.html'}"
    )
    written = {path.name for path in synthetic_run.path.iterdir()}

    assert {
        "run.json",
        "rows.jsonl",
        "phases.csv",
        "fits.csv",
        "findings.json",
        "junit.xml",
        "summary.md",
        "report.html",
        "plots",
    } <= written
    assert json.loads((synthetic_run.path / "findings.json").read_text())["exit_code"] == 0


def test_the_gate_can_write_the_page_of_what_it_judged(judged, capsys, synthetic_run):
    """Its exit code stays that of the verdict."""
    assert main(judged("gate", "--page")) == 4
    assert (
        capsys.readouterr().out.splitlines()[-1] == f"report: {synthetic_run.path / 'report.html'}"
    )
    assert (synthetic_run.path / "report.html").exists()


def test_accept_needs_a_reason(judged, capsys):
    """It is written into the file that others review."""
    with pytest.raises(SystemExit, match="2"):
        main(judged("accept"))
    assert "--reason" in capsys.readouterr().err


def test_the_reason_stands_in_the_baseline(judged, tmp_path, capsys):
    """With the run that it was taken from."""
    main(judged("accept", "--reason", 'a "quoted" reason'))
    capsys.readouterr()
    (file,) = (tmp_path / "baselines").iterdir()

    points = tomllib.loads(file.read_text())["point"].values()

    assert {point["accepted"]["reason"] for point in points} == {'a "quoted" reason'}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["gate", "nowhere"], "nowhere"),
        (["accept", "nowhere", "--reason", "r"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["gate", ".", "--policy", "nowhere.toml"], "run.json"),
    ],
)
def test_what_is_not_there_is_one_sentence_and_exit_code_2(
    arguments, sentence, capsys, tmp_path, monkeypatch
):
    """No traceback for a wrong path."""
    monkeypatch.chdir(tmp_path)

    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(rf"harness: [^\n]*{sentence}[^\n]*\n", said), said


def test_findings_become_annotations_and_a_run_that_was_not_judged_is_refused(
    judged, capsys, monkeypatch, tmp_path
):
    """Without a revision they are on no file, and say so; with one that is not there they are
    printed all the same, exit 2.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    assert main(judged("annotate")) == 2
    assert re.fullmatch(
        r"harness: .* was not judged; judge it first: [^\n]*\n", capsys.readouterr().err
    )
    assert main(judged("gate")) == 4
    capsys.readouterr()
    assert main(judged("annotate")) == 0
    (without,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"::warning title=Memory gate%3A no baseline [^:]*::there is nothing accepted .*%0ANot "
        r"put on a file, .*",
        without,
    )
    assert main(judged("annotate", "--format", "gitlab")) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["check_name"], entry["severity"]) == ("memory gate: comparability", "minor")
    assert main(judged("annotate", "--changed-since", "main")) == 2
    told = capsys.readouterr()
    assert "%0ANot put on a file: git rev-parse failed" in told.out
    assert "not a git repository" in told.err


def exit_codes_of_the_readme(project_root):
    """The first two cells of each row of the README's table: code and meaning."""
    rows = re.findall(
        r"^\| (\d) \| ([^|]+) \|",
        (project_root / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return {int(code): meaning for code, meaning in rows}


def test_help_and_the_readme_tell_the_exit_codes_that_there_are(project_root):
    """One table: the words of --help are those of the README, for every code and for no other."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--help"],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=True,
    )
    unwrapped = done.stdout.replace(f"\n{' ' * 5}", " ")
    told = {
        int(code): meaning
        for code, meaning in re.findall(r"^  (\d)  (.+)$", unwrapped, re.MULTILINE)
    }

    assert {int(code) for code in ExitCode} == told.keys()
    assert exit_codes_of_the_readme(project_root) == told


LOADED = """
import sys
from harness.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
loaded = sorted(name for name in sys.modules if name.startswith("harness.commands."))
heavy = sorted({"numpy", "pandas", "pydantic", "rich", "tensorflow"} & sys.modules.keys())
print(*loaded, *heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (["--help"], ""),
        (["--version"], ""),
        (["gaet"], ""),
        (["annotate", "--help"], "harness.commands.annotate"),
    ],
)
def test_only_the_command_that_is_typed_is_imported(arguments, loaded):
    """So that its help and a misspelt name take no time, whatever the others need."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True
    )

    assert done.stderr.splitlines()[-1] == loaded


def test_every_command_has_a_module_of_its_name_and_every_module_is_a_command(project_root):
    """A literal tuple, which nothing can be missing from."""
    folder = project_root / "harness" / "commands"
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}

    assert {name for name, _ in COMMANDS} == modules


def test_versions_are_those_that_are_installed(capsys):
    """Of the distribution, Python and TensorFlow, a line each."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])

    assert capsys.readouterr().out.splitlines() == [
        f"harness {version('ptycho-memory')}",
        f"Python {platform.python_version()}",
        f"TensorFlow {version('tensorflow')}",
    ]


def test_a_tensorflow_that_is_not_installed_is_no_error(capsys, monkeypatch):
    """Runs can be judged without it."""

    def no_version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(command_line, "version", no_version)
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])

    assert capsys.readouterr().out.splitlines()[-1] == "TensorFlow not installed"


def test_no_other_page_has_a_table_of_exit_codes(project_root):
    """A copy would go out of date; pages link to the README's."""
    pages = [*project_root.glob("docs/**/*.md"), project_root / "CONTRIBUTING.md"]

    assert pages
    assert [
        page.name
        for page in pages
        if re.search(r"^\| [0-5] \| ", page.read_text(encoding="utf-8"), re.MULTILINE)
    ] == []
