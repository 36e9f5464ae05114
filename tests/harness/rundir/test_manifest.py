"""run.json: written once, whole, and never over another run."""

import json
import subprocess
from pathlib import Path

import pytest

from harness.errors import RunDirectoryError, UsageError
from harness.records import Outcome, Point
from harness.run.devices import Device, emulated_device
from harness.rundir.manifest import (
    CI_SERVICES,
    claim_run_directory,
    describe_environment,
    end_run,
    make_run_directory,
    plans_anything,
    read_manifest,
    start_run,
)
from harness.rundir.reading import seal_of
from harness.system import git
from harness.words import GIB

POINT = Point(
    scenario="loading",
    body="b:b",
    parameters={"loader": "lazy", "image_count": 5},
    fixed={"scan": "mine.npz"},
    phases=("open",),
    expected=Outcome.DEVICE_OOM,
)

CARD = Device(
    kind="gpu", name="H100", uuid="GPU-0", memory_bytes=80 * GIB, limit_bytes=None, driver="575.57"
)


def start(path, points=(POINT,), swept=None, root=Path()):
    device = emulated_device("no driver")
    start_run(
        path,
        points=points,
        swept=swept,
        repeats=2,
        device=device,
        command="c",
        root=root,
        settings={},
    )


def test_the_plan_is_read_back_as_it_was(tmp_path):
    """Points, their expected outcomes and their order."""
    start(tmp_path / "run")

    assert read_manifest(tmp_path / "run").planned == (POINT,)


def test_runs_are_comparable_by_device_allocator_tensorflow_and_scan(tmp_path):
    """Nothing else: another host or commit is no other baseline."""
    start(tmp_path / "run")
    key = json.loads((tmp_path / "run" / "run.json").read_text())["comparability"]

    assert key.keys() == {"device", "allocator", "tensorflow", "scan"}
    assert (key["device"], key["allocator"], key["scan"]) == (
        "emulated, 3.0 GiB",
        "bfc",
        "mine.npz",
    )


def test_a_selection_is_comparable_with_the_sweep_that_it_was_chosen_from(tmp_path):
    """The scan is that of all the points, even if none of the chosen reads it."""
    start(tmp_path / "run", points=(), swept=(POINT,))

    assert (
        json.loads((tmp_path / "run" / "run.json").read_text())["comparability"]["scan"]
        == "mine.npz"
    )


def test_an_empty_plan_plans_nothing(tmp_path):
    """And a plan of one point does."""
    start(tmp_path / "empty", points=())
    start(tmp_path / "one")

    assert (plans_anything(tmp_path / "empty"), plans_anything(tmp_path / "one")) == (False, True)


def test_a_folder_is_tried_out_and_left_empty(tmp_path):
    """What cannot be written to is refused by its name."""
    make_run_directory(tmp_path / "a" / "run")

    assert list((tmp_path / "a" / "run").iterdir()) == []
    with pytest.raises(
        UsageError,
        match=r"--memory-out /proc/x cannot be written to \(.*\); name a folder in which",
    ):
        make_run_directory(Path("/proc/x"))
    with pytest.raises(UsageError, match=r"--memory-out /proc cannot be written to"):
        make_run_directory(Path("/proc"))


def test_the_first_of_several_workers_writes_the_plan(tmp_path):
    """The others find it there and leave it."""
    start(tmp_path / "run")
    first = (tmp_path / "run" / "run.json").read_bytes()
    start(tmp_path / "run", points=())

    assert (tmp_path / "run" / "run.json").read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["rows.jsonl", "run.json"]


def test_the_end_is_noted_and_nothing_else_changes(tmp_path):
    """An interrupted run has none."""
    start(tmp_path / "run")
    before = json.loads((tmp_path / "run" / "run.json").read_text())
    end_run(tmp_path / "run")
    after = json.loads((tmp_path / "run" / "run.json").read_text())

    assert before["ended"] is None
    assert after["ended"] is not None
    assert after.pop("seal") == seal_of(after, b"")
    assert {**after, "ended": None} == before


def test_an_empty_folder_may_be_used_and_a_run_may_not(tmp_path):
    """Nor a file."""
    claim_run_directory(tmp_path)
    start(tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a run"):
        claim_run_directory(tmp_path / "run")
    with pytest.raises(UsageError, match="is a file"):
        claim_run_directory(tmp_path / "run" / "run.json")


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    """Its parent is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        start(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("device", "words", "pool"),
    [
        (CARD, "H100, 80.0 GiB", "reserved"),
        (CARD.with_budget(3 * GIB), "H100, 80.0 GiB, limited to 3.0 GiB", "reserved"),
        (CARD.with_growth(), "H100, 80.0 GiB, growing on demand", "grown"),
        # told apart by the key's allocator
        (CARD.with_allocator("cuda_malloc_async"), "H100, 80.0 GiB", "driver"),
        (emulated_device("no driver"), "emulated, 3.0 GiB", "reserved"),
    ],
)
def test_runs_with_another_pool_are_not_comparable(tmp_path, device, words, pool):
    """The key has the card's size, its budget, and whether it grows; run.json says how the pool is
    taken.
    """
    start_run(
        tmp_path / "run",
        points=[POINT],
        repeats=2,
        device=device,
        command="c",
        root=Path(),
        settings={},
    )
    written = json.loads((tmp_path / "run" / "run.json").read_text())

    assert (written["comparability"]["device"], written["device"]["pool"]) == (words, pool)
    assert written["comparability"]["allocator"] == device.allocator


# What the header of a page says: the project, the branch, the commit's subject, the CI job.


@pytest.fixture
def no_service(monkeypatch):
    """No CI service, wherever the tests themselves run."""
    for service in CI_SERVICES:
        monkeypatch.delenv(service.told_by, raising=False)


@pytest.fixture
def committed(tmp_path, no_service):
    """A repository with one commit on the branch ``topic``; its folder and the commit."""
    folder = tmp_path / "loaders"
    subprocess.run(["git", "init", "-q", "-b", "topic", folder], check=True)
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    subject = "Batches: \x1b[31mfreed"
    git.run(folder, *author, "commit", "-q", "--allow-empty", "-m", f"{subject}\n\nbody")
    return folder, git.text(folder, "rev-parse", "HEAD").strip()


def test_a_run_records_the_project_its_branch_and_the_subject_of_its_commit(committed, tmp_path):
    """Without the characters that would move a terminal's cursor; without a CI job no address."""
    folder, _ = committed
    start(tmp_path / "run", root=folder)
    content = json.loads((tmp_path / "run" / "run.json").read_text())

    assert content["project"] == "loaders"
    assert content["environment"]["git_branch"] == "topic"
    assert content["environment"]["git_subject"] == "Batches: \ufffd[31mfreed"
    assert "ci_url" not in content["environment"]


GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "owner/loaders",
    "GITHUB_RUN_ID": "17",
    "GITHUB_TOKEN": "s3cret",
}


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        (GITHUB, "https://github.com/owner/loaders/actions/runs/17"),
        (
            {"GITLAB_CI": "true", "CI_JOB_URL": "https://u:s3cret@gitlab.org/a/-/jobs/2?t=s3cret"},
            "https://gitlab.org/a/-/jobs/2",
        ),
        (
            {"BUILDKITE": "true", "BUILDKITE_BUILD_URL": "https://buildkite.com/a/b/builds/3"},
            "https://buildkite.com/a/b/builds/3",
        ),
        (
            {"JENKINS_URL": "http://ci:8080/", "BUILD_URL": "http://ci:8080/job/a/4/"},
            "http://ci:8080/job/a/4/",
        ),
        ({"BUILDKITE": "true"}, None),
        ({"JENKINS_URL": "x", "BUILD_URL": "javascript:alert(1)"}, None),
        ({"JENKINS_URL": "x", "BUILD_URL": "http://[half"}, None),
        ({"BUILD_URL": "http://ci:8080/job/a/4/"}, None),
    ],
)
def test_a_run_records_the_page_of_its_ci_job_and_nothing_secret(
    no_service, tmp_path, monkeypatch, variables, address
):
    """Where the service does not tell it, or it is no address of a page, there is none."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    start(tmp_path / "run")
    text = (tmp_path / "run" / "run.json").read_text()

    assert json.loads(text)["environment"].get("ci_url") == address
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("head", "branch", "told"),
    [
        ("", "main", "main"),
        ("fix", "12/merge", "fix"),
        ("", "", "unavailable: the CI job is of no branch"),
    ],
)
def test_a_ci_job_that_checks_a_commit_out_names_its_branch(
    committed, monkeypatch, head, branch, told
):
    """That of a pull request goes before the one of its merge."""
    folder, commit = committed
    git.run(folder, "checkout", "-q", "--detach")
    job = {**GITHUB, "GITHUB_SHA": commit, "GITHUB_HEAD_REF": head, "GITHUB_REF_NAME": branch}
    for name, value in job.items():
        monkeypatch.setenv(name, value)

    assert describe_environment(folder, isolation="")["git_branch"] == told


def test_a_branch_of_another_commit_is_not_taken_for_this_one(committed, monkeypatch):
    """A job measures a second checkout, whose branch its service does not know."""
    folder, _ = committed
    git.run(folder, "checkout", "-q", "--detach")
    for name, value in {**GITHUB, "GITHUB_SHA": "0" * 40, "GITHUB_REF_NAME": "main"}.items():
        monkeypatch.setenv(name, value)

    told = describe_environment(folder, isolation="")["git_branch"]

    assert told == "unavailable: a commit is checked out, and no branch"


def test_an_older_run_has_no_project_and_is_read_all_the_same(tmp_path):
    """Its run.json has no such key."""
    start(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    content = json.loads(path.read_text())
    del content["project"]
    path.write_text(json.dumps(content))

    assert read_manifest(tmp_path / "run").project == ""
