"""Findings on the files of a pull request: where, how many, and nothing in a sentence that GitHub
would obey.
"""

import json
import re
import subprocess

import pytest

from harness.errors import RunDirectoryError, UsageError
from harness.judge.gate import SCHEMA_VERSION
from reports.annotations import MOST_OF_A_LEVEL, annotations, command, parse_findings, spot
from reports.changed import ChangedFile, changed_files

FEED = ChangedFile(path="ptycho/feed.py", changed_lines=9, first_line=12)
ORDER = ChangedFile(path="ptycho/order.py", changed_lines=2, first_line=3)
GONE = ChangedFile(path="ptycho/old.py", changed_lines=300, first_line=None)
TEST = ChangedFile(path="tests/ptycho/test_feed.py", changed_lines=80, first_line=1)
POLICY = ChangedFile(path="scenarios/gate.toml", changed_lines=1, first_line=40)


def put(*changed, subjects=("ptycho",)):
    return spot(changed, since="main", subjects=subjects, beside=["scenarios/gate.toml"])


def judged(*causes, exit_code=1, verdict="regression", following=""):
    """What findings.json holds, of causes as (kind, sentence)."""
    checks = [{"rule": "slope", "sentence": "It says so."} for _ in causes]
    told = [
        {"id": f"id{n}", "finding": kind, "told": said, "checks": [n], "following": following}
        for n, (kind, said) in enumerate(causes)
    ]
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdict,
        "exit_code": exit_code,
        "sentence": "All.",
        "causes": told,
        "checks": checks,
    }
    return parse_findings(
        json.dumps(document), "findings.json", judging="python -m harness gate run"
    )


def commands(found, place):
    return [command(annotation) for annotation in annotations(found, place)]


def test_a_cause_is_put_on_the_file_of_the_package_that_changed_most():
    """With its first changed line, and the others by name; a test of the package is none of its
    files.
    """
    (line,) = commands(judged(("regression", "loading: grows.")), put(TEST, GONE, FEED, ORDER))

    assert line == (
        "::error file=ptycho/feed.py,line=12,title=Memory gate%3A regression (slope); exit "
        "code 1::loading: grows.%0AIt says so.%0APut here because, of the 3 files of ptycho that "
        "differ from main, ptycho/feed.py is the one with most changed lines that can be shown; "
        "the others: ptycho/old.py, ptycho/order.py."
    )


@pytest.mark.parametrize(
    ("changed", "where", "why"),
    [
        (
            (FEED,),
            ("ptycho/feed.py", 12),
            "ptycho/feed.py is the only file of ptycho that differs from main.",
        ),
        (
            (TEST, POLICY),
            ("scenarios/gate.toml", 40),
            "No file of ptycho differs from main; scenarios/gate.toml, which decides",
        ),
        ((TEST,), ("", 1), "No file of ptycho differs from main: look at"),
        ((), ("", 1), "No file of ptycho differs from main: look at"),
        (
            (GONE,),
            ("", 1),
            "No file of ptycho but ptycho/old.py, which cannot be shown, differs from main",
        ),
    ],
)
def test_where_no_file_of_the_package_changed_it_says_so(changed, where, why):
    """On the policy when that changed, else on no file at all."""
    place = put(*changed)

    assert (place.file, place.line) == where
    assert why in place.why


def test_without_a_named_package_any_python_file_outside_of_tests_is_taken():
    """The largest change that is neither a test nor a text."""
    text = ChangedFile(path="README.md", changed_lines=90, first_line=1)

    assert put(text, TEST, FEED, subjects=()).file == "ptycho/feed.py"


@pytest.mark.parametrize(
    ("path", "subject", "belongs"),
    [
        ("src/loaders/feed.py", "src/loaders", True),
        ("src/loaders_old/feed.py", "src/loaders", False),
        ("tools/single.py", "tools/single.py", True),
        ("tools/single.pyi", "tools/single.py", False),
    ],
)
def test_a_subject_is_a_path_from_the_root(path, subject, belongs):
    """A folder with all below it, or one file; never a name that only begins alike."""
    assert belongs == bool(
        put(ChangedFile(path=path, changed_lines=1, first_line=1), subjects=(subject,)).file
    )


@pytest.mark.parametrize("number", [MOST_OF_A_LEVEL, MOST_OF_A_LEVEL + 1])
def test_github_shows_ten_errors_and_the_last_counts_the_rest(number):
    """Ten causes at the limit; nine and "2 more" one past it, the gravest first."""
    found = judged(*[("regression", f"finding {index}.") for index in range(number)])
    lines = commands(found, put(FEED))

    assert len(lines) == MOST_OF_A_LEVEL
    assert "::finding 0." in lines[0]
    assert ("2 more causes in the summary" in lines[-1]) == (number > MOST_OF_A_LEVEL)


@pytest.mark.parametrize(
    ("kind", "exit_code", "level"),
    [
        ("regression", 1, "error"),
        ("incomplete", 3, "error"),
        ("no_baseline", 4, "warning"),
        ("improvement", 5, "warning"),
    ],
)
def test_every_kind_has_a_level_and_names_its_exit_code(kind, exit_code, level):
    """What was not measured is as bad as what got worse."""
    (line,) = commands(judged((kind, "x"), exit_code=exit_code), put(FEED))

    assert line.startswith(f"::{level} file=")
    assert f"exit code {exit_code}::x%0A" in line


def test_what_follows_from_a_cause_is_a_count_in_its_annotation():
    """And no annotation of its own."""
    told = judged(("regression", "Kept."), following="21 more findings follow from it")
    (line,) = commands(told, put(FEED))

    assert "::Kept.%0AIt says so.%0A21 more findings follow from it%0APut here" in line


def test_a_pass_has_no_annotation_and_a_gate_that_checked_nothing_has_one():
    """Exit code 3 without a finding is not silent."""
    assert commands(judged(exit_code=0, verdict="pass"), put(FEED)) == []
    (line,) = commands(judged(exit_code=3, verdict="incomplete"), put())

    assert line.startswith("::error title=Memory gate%3A incomplete (exit code 3)::All.%0A")


@pytest.mark.parametrize(
    "hostile",
    [
        "a\n::error file=x::forged",
        "a\r::set-output name=verdict::pass",
        "a\r\n::stop-commands::x",
        "100%0A::warning::x",
        "\x1b[2K\x00##[error]\u2028x",
        "\ud800",
    ],
)
def test_a_hostile_sentence_stays_one_line_and_is_read_back_as_it_was(hostile):
    """As the runner reads it: split at line ends, decoded; what terminals obey is shown as a
    box.
    """
    (line,) = commands(
        judged(("regression", hostile)),
        put(ChangedFile(path="ptycho/a,b: c%.py", changed_lines=1, first_line=7)),
    )
    head, message = re.fullmatch(r"::error ([^\r\n]*?)::([^\r\n]*)", line).groups()
    properties = dict(part.split("=", 1) for part in head.split(","))
    said = message.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")

    line.encode()
    assert (
        properties["file"].replace("%3A", ":").replace("%2C", ",").replace("%25", "%")
        == "ptycho/a,b: c%.py"
    )
    assert not re.search("[\x00-\x09\x0b-\x1f\u2028\ud800]", said)
    assert said.startswith(
        re.sub("[\x00\x1b\u2028\ud800]", "\ufffd", re.sub("\r\n?", "\n", hostile))
        + "\nIt says so.\nPut here"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema_version": 999}', "is of version 999"),
        (f'{{"schema_version": {SCHEMA_VERSION}}}', "is damaged"),
    ],
)
def test_findings_that_cannot_be_read_are_one_sentence(text, words):
    """Never an empty list, which would look like a pass."""
    with pytest.raises(RunDirectoryError, match=words):
        parse_findings(text, "findings.json", judging="python -m harness gate run")


@pytest.fixture
def repository(tmp_path):
    """One commit of four files."""
    for name in ("ptycho/feed.py", "ptycho/ä b.py", "ptycho/gone.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(f"line {number}\n" for number in range(1, 11)))
    (tmp_path / "image.bin").write_bytes(b"\0\1")

    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", tmp_path, *arguments],
            check=True,
            capture_output=True,
        )

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path, git


def test_git_tells_what_changed_how_much_and_from_which_line_on(repository):
    """Most changed first; a name with spaces and letters of its own; deleted and binary files have
    no line.
    """
    folder, _ = repository
    (folder / "ptycho" / "feed.py").write_text(
        "".join(f"line {number}\n" for number in (1, 2, 3, 40, 5, 6, 70, 8, 9, 10))
    )
    (folder / "ptycho" / "ä b.py").write_text(
        "".join(f"line {number}\n" for number in range(2, 11))
    )
    (folder / "ptycho" / "gone.py").unlink()
    (folder / "image.bin").write_bytes(b"\0\2")
    found = changed_files(folder / "ptycho", "main")

    assert [(file.path, file.changed_lines, file.first_line) for file in found] == [
        ("ptycho/gone.py", 10, None),
        ("ptycho/feed.py", 4, 4),
        ("ptycho/ä b.py", 1, 1),
        ("image.bin", 0, None),
    ]


def test_the_merge_base_leaves_out_what_the_target_did_since(repository):
    """As a pull request shows it."""
    folder, git = repository
    git("switch", "-q", "-c", "feature")
    (folder / "ptycho" / "feed.py").write_text("changed\n")
    git("commit", "-q", "-am", "the feature")
    git("switch", "-q", "main")
    (folder / "README.md").write_text("changed\n")
    git("commit", "-q", "-am", "meanwhile")
    git("switch", "-q", "feature")

    assert [file.path for file in changed_files(folder, "merge-base:main")] == ["ptycho/feed.py"]
    assert {file.path for file in changed_files(folder, "main")} == {"ptycho/feed.py", "README.md"}


@pytest.mark.parametrize("since", ["nowhere", "--output=x", "merge-base:nowhere", ""])
def test_a_revision_that_is_not_there_is_one_sentence(repository, since):
    """And nothing that looks like an option is one."""
    with pytest.raises(UsageError, match="git does not have it here"):
        changed_files(repository[0], since)
    assert not (repository[0] / "x").exists()


def test_outside_of_a_repository_it_says_so(tmp_path, monkeypatch):
    """One sentence, whatever git is called in."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    with pytest.raises(UsageError, match="not a git repository"):
        changed_files(tmp_path, "HEAD")
