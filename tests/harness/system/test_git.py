"""Git is run in one place: what it prints, and the one error where it cannot be run or refuses."""

import subprocess

import pytest

from harness.errors import GitError, UsageError
from harness.system import git


@pytest.fixture
def repository(tmp_path):
    """An empty repository."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True, capture_output=True)
    return tmp_path


def test_what_git_prints_comes_in_bytes_and_as_text(repository):
    """Bytes that are no UTF-8 stay in the text, as surrogates."""
    (repository / "odd").write_bytes(b"\xff\n")

    identity = git.text(repository, "hash-object", "-w", "odd").strip()

    assert git.run(repository, "cat-file", "blob", identity) == b"\xff\n"
    assert git.text(repository, "cat-file", "blob", identity) == "\udcff\n"


def test_a_refusal_has_gits_own_words_and_its_exit_code(repository):
    """The message ends with the last line that git wrote."""
    with pytest.raises(GitError, match=r"git cat-file failed in .*: fatal: ") as raised:
        git.run(repository, "cat-file", "blob", "0" * 40)

    assert raised.value.failure == "CalledProcessError"
    assert raised.value.exit_code == 128
    assert raised.value.said[-1].startswith("fatal: ")


def test_a_git_that_cannot_be_run_has_no_exit_code(repository, monkeypatch):
    """Whoever asks a question about revisions gets a sentence, also where a refusal would do."""
    monkeypatch.setenv("PATH", str(repository))

    with pytest.raises(GitError) as raised:
        git.run(repository, "status")
    with pytest.raises(UsageError, match=r"git cannot be run in .* \(FileNotFoundError\)"):
        git.try_to_ask(repository, "status")

    assert (raised.value.failure, raised.value.exit_code) == ("FileNotFoundError", None)


def test_a_question_that_git_refuses_is_one_sentence_or_none(repository):
    """With what was to be done; ``try_to_ask`` leaves it to its caller."""
    arguments = ("rev-parse", "--verify", "no-such-revision")

    with pytest.raises(UsageError, match=r"cannot look for it in .*: fatal: "):
        git.ask(repository, *arguments, what="look for it")

    assert git.try_to_ask(repository, *arguments) is None


def test_git_asks_nobody_and_takes_no_lock_that_it_can_do_without(repository, monkeypatch):
    """A measurement that is killed while git refreshes its index would leave the lock behind."""
    seen = repository / "seen"
    (repository / "git").write_text(f"#!/bin/sh\nenv > '{seen}'\n")
    (repository / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{repository}:/usr/bin:/bin")

    git.run(repository, "status")

    assert {"GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0"} <= set(seen.read_text().splitlines())


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ("https://github.com/owner/loaders.git", "loaders"),
        ("git@host:owner/loaders.git", "loaders"),
        ("/srv/mirror/loaders/.git", "loaders"),
        ("https://user:s3cret@host/owner/loaders.git", "loaders"),
        ("https://user:s3cret@host", "declared"),
        ("https://user:s3cret", "declared"),
        ("https://host/owner/loaders?token=s3cret", "declared"),
        ("../..", "declared"),
        ("", "declared"),
    ],
)
def test_a_project_is_called_as_its_repository_and_no_password_of_it_is_told(
    repository, origin, name
):
    """Where the address has no path with a plain name, as pyproject.toml says."""
    (repository / "pyproject.toml").write_text('[project]\nname = "declared"\n')
    if origin:
        git.run(repository, "remote", "add", "origin", origin)

    assert git.project_name(repository) == name


@pytest.mark.parametrize("declared", ["[project\n", "[project]\n", "[project]\nname = 3\n", None])
def test_a_project_without_a_name_is_called_as_its_folder(tmp_path, declared):
    """Also where pyproject.toml is damaged, and without a repository."""
    folder = tmp_path / "my-loaders"
    folder.mkdir()
    if declared is not None:
        (folder / "pyproject.toml").write_text(declared)

    assert git.project_name(folder) == "my-loaders"
