"""A run directory says one verdict: whatever was typed before, in whatever order, and wherever it
was broken off.
"""

import json
import re
import subprocess
import sys
from xml.dom import minidom

import pytest

from harness.__main__ import main
from harness.judge import EXIT_MEANINGS
from harness.judge.gate import kept_judgement
from harness.judge.table import load_run
from harness.system import replace_judgement

LIMITS = """
schema_version = 1

[[budget]]
scenarios = ["arrays"]
meters = ["device_in_use"]
phases = ["first_batch"]
at_most = "{at_most}"
because = "chosen for this test"

[[tolerance]]
meter = "device_in_use"
percent = 2
floor = "64 KiB"
because = "chosen for this test"
"""
WORDS = {
    "Pass": "pass",
    "Regression": "regression",
    "Incomplete": "incomplete",
    "No baseline": "no_baseline",
}


@pytest.fixture
def place(synthetic_run, tmp_path, monkeypatch):
    """A folder with a run of three points, two policies and a folder of baselines without one; the
    run is accepted in another.
    """
    monkeypatch.chdir(tmp_path)
    synthetic_run.keep_points(
        lambda point: point.scenario == "arrays" and point.parameters["loader"] == "lazy"
    ).write()
    (tmp_path / "wide.toml").write_text(LIMITS.format(at_most="1 GiB"))
    (tmp_path / "tight.toml").write_text(LIMITS.format(at_most="1 KiB"))
    (tmp_path / "none").mkdir()
    assert (
        main(
            [
                "accept",
                "run",
                "--policy",
                "wide.toml",
                "--baselines",
                "some",
                "--reason",
                "the first",
            ]
        )
        == 0
    )
    return tmp_path / "run"


def ids_of(folder):
    """The id of the judgement in each file that bears one."""
    found = {}
    if (path := folder / "findings.json").exists():
        found["findings.json"] = json.loads(path.read_text())["judgement"]["id"]
    if (path := folder / "junit.xml").exists():
        (named,) = minidom.parseString(path.read_text()).getElementsByTagName("property")  # noqa: S318 - made by us
        found["junit.xml"] = named.getAttribute("value")
    if (path := folder / "summary.md").exists():
        found["summary.md"] = re.search(r"^Judgement (\w+) of run", path.read_text(), re.MULTILINE)[
            1
        ]
    if (path := folder / "report.html").exists():
        found["report.html"] = re.search(
            r'<meta name="judgement" content="(\w+)">', path.read_text()
        )[1]
    for path in folder.glob("plots/*"):
        found[f"plots/{path.name}"] = re.search(rb"judgement[ \0](\w{16})", path.read_bytes())[
            1
        ].decode()
    return found


def verdicts_of(folder):
    """What each file says, in the words of findings.json."""
    said = {json.loads((folder / "findings.json").read_text())["verdict"]}
    said.add(WORDS[re.match(r"## (.*)", (folder / "summary.md").read_text())[1]])
    if (folder / "report.html").exists():
        said.add(WORDS[re.search(r"<title>(.*?):", (folder / "report.html").read_text())[1]])
    return said


STEPS = {
    "pass": ["gate", "run", "--policy", "wide.toml", "--baselines", "some"],
    "no baseline": ["gate", "run", "--policy", "wide.toml", "--baselines", "none"],
    "regression, page": ["gate", "run", "--policy", "tight.toml", "--baselines", "some", "--page"],
    "report": ["report", "run"],
    "report of another": ["report", "run", "--policy", "wide.toml", "--baselines", "none"],
}


SAID = {
    "pass": "pass",
    "no baseline": "no_baseline",
    "regression, page": "regression",
    "report of another": "no_baseline",
}
"""The verdict of each; ``report`` keeps the one before it."""

# Each after several of the others, before and after there is a page.
WALK = (
    "pass",
    "no baseline",
    "pass",
    "regression, page",
    "pass",
    "report",
    "no baseline",
    "report",
    "report of another",
    "regression, page",
    "report of another",
    "pass",
)


def test_no_order_of_commands_leaves_two_verdicts(place):
    """After each of them all files bear one id and say one verdict; a page that is there is of the
    same judgement.
    """
    paged, said = False, ""
    for name in WALK:
        main(STEPS[name])
        ids = ids_of(place)
        paged = paged or "page" in name

        assert set(ids) >= {
            "findings.json",
            "junit.xml",
            "summary.md",
            *(["report.html", "plots/peak.png"] if paged else []),
        }
        assert len(set(ids.values())) == 1, (name, ids)
        assert verdicts_of(place) == {SAID.get(name, said)}, name
        (said,) = verdicts_of(place)


def test_the_id_is_that_of_what_was_judged(place):
    """The same again: the same. Another policy, other baselines, less of it, other rows:
    another.
    """
    found = []
    for arguments in (
        STEPS["pass"],
        STEPS["pass"],
        STEPS["no baseline"],
        [*STEPS["pass"], "--partial"],
        ["gate", "run", "--policy", "tight.toml", "--baselines", "some"],
    ):
        main(arguments)
        found.append(ids_of(place)["findings.json"])
    with (place / "rows.jsonl").open("a") as rows:
        rows.write(
            '{"kind": "declared", "point": "arrays-lazy-image_count=100", "repeat": 0, '
            '"values": {"batch": 4194304}}\n'
        )
    main(STEPS["pass"])
    found.append(ids_of(place)["findings.json"])

    assert found[0] == found[1]
    assert len(set(found[1:])) == len(found) - 1


@pytest.mark.parametrize(("step", "commits"), [("pass", ("0123abcd",)), ("no baseline", ())])
def test_a_judgement_keeps_the_commit_of_its_baseline(place, step, commits):
    """Also when it is read back from findings.json; without a baseline there is none."""
    main(STEPS[step])

    assert json.loads((place / "findings.json").read_text())["baseline_commits"] == [*commits]
    assert kept_judgement(load_run(place)).judgement.baseline_commits == commits


def test_the_other_side_of_a_comparison_is_part_of_it(place, synthetic_run, tmp_path):
    """Two runs to compare with, two judgements; and neither is that of the baseline."""
    ids = []
    for name in ("one", "two"):
        synthetic_run.path = tmp_path / name
        synthetic_run.manifest = {"run_id": name}
        synthetic_run.write()
        main(["gate", "run", "--policy", "wide.toml", "--against", name])
        ids.append(ids_of(place)["findings.json"])
        assert len(set(ids_of(place).values())) == 1
    main(STEPS["pass"])

    assert len({*ids, ids_of(place)["findings.json"]}) == 3


def test_a_page_is_made_of_the_judgement_that_is_there(place, capsys):
    """Report neither judges by other arguments nor tells another exit code."""
    assert main(["gate", "run", "--policy", "tight.toml", "--baselines", "some"]) == 1
    before = (place / "findings.json").read_bytes()
    capsys.readouterr()

    assert main(["report", "run"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Regression: ")
    assert said.err == ""
    assert (place / "findings.json").read_bytes() == before
    assert "<title>Regression" in (place / "report.html").read_text()


@pytest.mark.parametrize("change", ["edited", "rows", "old", "gone"])
def test_a_page_of_findings_that_cannot_be_used_is_judged_anew_and_says_so(place, change, capsys):
    """Edited by hand, of fewer rows, of another version, or not there; by the arguments that were
    known, the others' default.
    """
    main(["gate", "run", "--policy", "tight.toml", "--baselines", "some"])
    path = place / "findings.json"
    if change == "edited":
        path.write_text(path.read_text().replace("KiB", "GiB"))
    elif change == "rows":
        with (place / "rows.jsonl").open("a") as rows:
            rows.write("{}\n")
    elif change == "old":
        path.write_text(path.read_text().replace('"schema_version": 4', '"schema_version": 3'))
    else:
        path.unlink()
    capsys.readouterr()

    assert main(["report", "run"]) == 0
    assert capsys.readouterr().err.startswith("judged anew, because ")
    assert len(set(ids_of(place).values())) == 1
    assert kept_judgement(load_run(place)).judgement is not None


def test_findings_of_another_run_are_not_annotated(place, synthetic_run, tmp_path, capsys):
    """Copied beside other rows they would speak for those."""
    main(STEPS["no baseline"])
    synthetic_run.path = tmp_path / "other"
    synthetic_run.manifest = {"run_id": "other"}
    synthetic_run.write()
    (tmp_path / "other" / "findings.json").write_bytes((place / "findings.json").read_bytes())
    capsys.readouterr()

    assert main(["annotate", "run"]) == 0
    assert main(["annotate", "other", "--policy", "wide.toml", "--baselines", "none"]) == 2
    said = capsys.readouterr().err
    assert "findings.json is not of this run as it is now" in said
    assert "python -m harness gate other --policy wide.toml --baselines none" in said


KILLED = """
import os, sys
from pathlib import Path
from harness import system

folder = Path(sys.argv[1])
names = ["findings.json", "junit.xml", "summary.md", "report.html", "plots/peak.svg", \
"plots/peak.png"]
for deaths in range(40):
    system.replace_judgement(folder, {name: b"one" for name in names})
    if (child := os.fork()) == 0:
        steps = 0

        def dying(real):
            def step(*arguments, **settings):
                global steps
                steps += 1
                if steps > deaths:
                    os._exit(9)
                return real(*arguments, **settings)
            return step

        for name in ("unlink", "replace", "chmod", "mkdir"):
            setattr(Path, name, dying(getattr(Path, name)))
        system.replace_judgement(folder, {name: b"two" for name in names[:-1]})
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    there = {name: (folder / name).read_text() for name in names if (folder / name).exists()}
    assert len(set(there.values())) <= 1, (deaths, there)
    if code == 0:
        assert there == {name: "two" for name in names[:-1]}, there
        break
else:
    raise AssertionError("it never came to its end")
system.replace_judgement(folder, {"findings.json": b"three"})
print(deaths, sorted(path.name for path in folder.rglob("*")))
"""


def test_a_writer_that_is_killed_leaves_files_of_one_judgement(tmp_path):
    """At whichever of its steps; and the next one clears away what was never put in place."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    steps, left = done.stdout.split(" ", 1)
    assert int(steps) >= 16
    assert left.strip() == "['findings.json', 'plots']"


def test_a_file_that_cannot_be_written_leaves_no_mix(place):
    """One sentence; what is there is of one judgement."""
    main(STEPS["regression, page"])
    (place / "junit.xml").unlink()
    (place / "junit.xml").mkdir()

    assert main(STEPS["pass"]) == 2
    (place / "junit.xml").rmdir()
    assert len(set(ids_of(place).values())) <= 1


def test_every_exit_code_has_a_word(place):
    """This file's table of words is that of the program, as far as it is used."""
    assert {code.name.lower() for code in EXIT_MEANINGS} >= set(WORDS.values())


def test_nothing_is_written_where_nothing_was_judged(tmp_path):
    """Replacing by nothing removes what was there."""
    replace_judgement(tmp_path, {"findings.json": b"{}"})
    replace_judgement(tmp_path, {})

    assert list(tmp_path.iterdir()) == []


def broken(*_):
    """A drawing library that cannot."""
    raise FloatingPointError("no such axis")


@pytest.mark.parametrize(
    ("name", "code"), [("pass", 0), ("regression, page", 1), ("no baseline", 4)]
)
def test_a_page_that_cannot_be_drawn_leaves_the_verdict(place, monkeypatch, capsys, name, code):
    """Same exit code, all other files of this judgement, and no page: the earlier one is of another
    judgement.
    """
    assert main([*STEPS["no baseline" if name != "no baseline" else "pass"], "--page"]) in (0, 4)
    assert (place / "report.html").exists()
    capsys.readouterr()
    monkeypatch.setattr(sys.modules["harness.reports.html"], "draw_panels", broken)

    assert main([*STEPS[name], *([] if "page" in name else ["--page"])]) == code
    said = capsys.readouterr().out
    assert "the page could not be drawn: FloatingPointError: no such axis; the verdict" in said
    assert set(ids_of(place)) == {"findings.json", "junit.xml", "summary.md"}
    assert len(set(ids_of(place).values())) == 1
    assert verdicts_of(place) == {SAID[name]}
    assert "report.html" not in (place / "summary.md").read_text()


def test_report_that_cannot_draw_is_one_sentence(place, monkeypatch, capsys):
    """Exit code 2, no traceback; the judgement stays."""
    main(STEPS["pass"])
    main(["report", "run"])
    before = (place / "findings.json").read_bytes()
    capsys.readouterr()
    monkeypatch.setattr(sys.modules["harness.reports.html"], "draw_panels", broken)

    assert main(["report", "run"]) == 2
    assert (
        capsys.readouterr().err
        == "harness: the page could not be drawn: FloatingPointError: no such axis\n"
    )
    assert (place / "findings.json").read_bytes() == before
    assert not (place / "report.html").exists()
