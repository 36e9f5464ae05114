"""Packages as they were at a revision, unpacked from a repository made for each test."""

import subprocess

import pytest

from harness.errors import UsageError
from harness.run.revisions import (
    commits_between,
    read_subjects,
    revision_side,
    unpack_revision,
    working_tree,
)
from harness.system.git import resolve


class Repository:
    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments):
        identity = [
            "-c",
            "user.name=A",
            "-c",
            "user.email=a@b",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "core.hooksPath=/dev/null",
        ]
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, subject, **files):
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "repository")


@pytest.fixture
def unpack(repository, tmp_path):
    """Unpack from the repository's root, or a folder of it."""

    def run(asked, *subjects, project="."):
        return unpack_revision(
            repository.folder / project,
            asked,
            read_subjects(subjects or ("src/pkg",)),
            tmp_path / "kept",
        )

    return run


PACKAGE = {
    "src/pkg/__init__.py": "MARK = 1\n",
    "src/pkg/deep/part.py": "PART = 1\n",
    "src/pkg/table.csv": "1,2\n",
    "other.py": "\n",
}


def test_a_repository_without_a_commit_has_no_revision(unpack):
    """There is no list of branches to look at."""
    with pytest.raises(
        UsageError,
        match="has no revision 'HEAD'; nothing was ever committed here: commit the packages",
    ):
        unpack("HEAD")


def test_a_revision_has_what_was_committed_and_nothing_of_the_working_tree(repository, unpack):
    """Data files too; the working tree, the index and what is not under test stay out and
    untouched.
    """
    first = repository.commit("one", **PACKAGE)
    repository.commit("two", **{"src/pkg/__init__.py": "MARK = 2\n"})
    (repository.folder / "src/pkg/__init__.py").write_text("MARK = 3\n")
    status = repository.git("status", "--porcelain")
    revision = unpack("HEAD~1")
    found = {
        str(path.relative_to(revision.folder))
        for path in revision.folder.rglob("*")
        if path.is_file()
    }

    assert (revision.commit, revision.subject) == (first, "one")
    assert {name for name in found if "__pycache__" not in name} == set(PACKAGE) - {"other.py"}
    assert (revision.folder / "src/pkg/__init__.py").read_text() == "MARK = 1\n"
    assert revision.code(read_subjects(["src/pkg"])).packages == {"pkg": revision.folder / "src"}
    assert repository.git("status", "--porcelain") == status


def test_what_an_archive_would_leave_out_is_there(repository, unpack):
    """export-ignore is for releases; what is measured is what runs."""
    repository.commit("one", **PACKAGE, **{".gitattributes": "src/pkg/deep export-ignore\n"})

    assert (unpack("HEAD").folder / "src/pkg/deep/part.py").exists()


@pytest.mark.parametrize("spoil", ["change", "delete", "add"])
def test_a_kept_copy_is_used_again_only_if_it_is_whole(repository, unpack, spoil):
    """A file that was changed, lost or added: the package is unpacked again. One that is whole is
    left alone.
    """
    repository.commit("one", **PACKAGE)
    package = unpack("HEAD").folder / "src/pkg"
    made = package.stat().st_ino
    assert unpack("HEAD").folder / "src/pkg" == package
    assert package.stat().st_ino == made

    part = package / "deep" / "part.py"
    if spoil == "change":
        part.write_text("PART = 2\n")
    elif spoil == "delete":
        part.unlink()
    else:
        (package / "stranger.py").write_text("")
    unpack("HEAD")

    assert part.read_text() == "PART = 1\n"
    assert not (package / "stranger.py").exists()


def test_packages_may_be_files_and_lie_below_a_project_that_is_no_root(repository, unpack):
    """As in a repository of several projects: paths start at the project."""
    repository.commit("one", **{"tool/lib/single.py": "MARK = 1\n"})
    revision = unpack("HEAD", "lib/single.py", project="tool")

    assert (revision.folder / "lib/single.py").read_text() == "MARK = 1\n"
    assert revision.code(read_subjects(["lib/single.py"])).packages == {
        "single": revision.folder / "lib"
    }


def test_the_merge_base_is_where_the_branches_parted(repository, unpack):
    """Not the tip of the other branch, which may have moved on."""
    parted = repository.commit("one", **PACKAGE)
    repository.git("checkout", "-q", "-b", "branch")
    repository.commit("on the branch")
    repository.git("checkout", "-q", "main")
    repository.commit("on main")
    repository.git("checkout", "-q", "branch")

    assert unpack("merge-base:main").commit == parted
    assert unpack("main").commit != parted


@pytest.mark.parametrize(
    ("asked", "subjects", "sentence"),
    [
        ("v9", ["src/pkg"], "has no revision 'v9'; git branch --all and git tag list some"),
        ("merge-base:v9", ["src/pkg"], "has no revision 'v9'; git branch --all"),
        (
            "merge-base:",
            ["src/pkg"],
            (
                "'merge-base:' is not a revision; name a commit, branch or tag, or "
                "merge-base:origin/main"
            ),
        ),
        ("--all", ["src/pkg"], "'--all' is not a revision"),
        (
            "orphan",
            ["src/pkg"],
            (
                "has no src/pkg, which memory_subject names as a package under test; compare "
                "with a later revision"
            ),
        ),
        (
            "merge-base:orphan",
            ["src/pkg"],
            "HEAD and orphan have no merge base here; their histories have nothing in common",
        ),
        ("main", ["src/gone"], "has no src/gone"),
        (
            "main",
            ["../pkg"],
            (
                "memory_subject '../pkg' is not a package of the repository; write its path "
                "from the root"
            ),
        ),
        ("main", ["my-package"], "memory_subject 'my-package' is not a package of the repository"),
        (
            "main",
            ["src/pkg", "old/pkg"],
            "memory_subject names src/pkg and old/pkg, two packages of one name; keep one",
        ),
    ],
)
def test_what_cannot_be_unpacked_is_one_sentence(repository, unpack, asked, subjects, sentence):
    """What was asked, what was found, what to do."""
    repository.git("checkout", "-q", "-b", "orphan")
    repository.commit("nothing yet", readme="")
    repository.git("checkout", "-q", "--orphan", "main")
    repository.commit("one", **PACKAGE)
    with pytest.raises(UsageError) as refused:
        unpack(asked, *subjects)

    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("asked", ["HEAD~1", "merge-base:origin/elsewhere"])
def test_a_shallow_clone_says_how_to_fetch_the_rest(repository, tmp_path, asked):
    """The usual case in a workflow, where the checkout has one commit unless it is told
    otherwise.
    """
    repository.commit("one", **PACKAGE)
    repository.commit("two")
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", f"file://{repository.folder}", clone], check=True
    )
    with pytest.raises(UsageError, match=r"this clone is shallow.*fetch-depth: 0"):
        resolve(clone, asked)


def test_without_a_repository_git_itself_says_so(tmp_path):
    """In one line, with what to do."""
    with pytest.raises(
        UsageError,
        match=r"cannot compare with main in .*: fatal: not a git repository.*; revisions are "
        r"taken from git, so work in a clone",
    ):
        unpack_revision(tmp_path, "main", read_subjects(["pkg"]), tmp_path / "kept")
    with pytest.raises(
        UsageError, match=r"cannot look for main in .*: fatal: not a git repository"
    ):
        resolve(tmp_path, "main")


@pytest.fixture
def submodule(repository):
    """Commit a submodule at a path, beside whatever there is."""

    def add(path):
        commit = repository.git("rev-parse", "HEAD")
        repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        return repository.git("commit", "-q", "-m", f"a submodule at {path}")

    return add


@pytest.mark.parametrize(
    "paths", [["src/pkg/inner"], ["src/pkg/a", "src/pkg/deep/b"], ["src/pkg/new/c", "vendor/other"]]
)
def test_submodules_in_a_package_are_left_empty_and_named(repository, unpack, submodule, paths):
    """As git does in a clone; those elsewhere are nobody's business. The kept copy is used again,
    and says the same.
    """
    repository.commit("one", **PACKAGE)
    for path in paths:
        submodule(path)
    revision, again = unpack("HEAD"), unpack("HEAD")

    assert (
        revision.left_empty
        == again.left_empty
        == tuple(path for path in paths if path.startswith("src/pkg/"))
    )
    assert all(list((revision.folder / path).iterdir()) == [] for path in revision.left_empty)
    assert (revision.folder / "src/pkg/deep/part.py").read_text() == "PART = 1\n"
    assert unpack("HEAD~1").left_empty == tuple(
        path for path in paths[:-1] if path.startswith("src/pkg/")
    )


@pytest.mark.parametrize("path", ["src/pkg", "src", "src/pkg/inner"])
def test_a_package_that_has_no_code_but_in_a_submodule_is_refused_by_name(
    repository, unpack, submodule, path
):
    """The package itself, a folder above it, or all that is in it; another one beside it does not
    count.
    """
    repository.commit("one", readme="")
    submodule(path)
    with pytest.raises(
        UsageError,
        match=rf"has no code in src/pkg, .*: {path} is a submodule, .* in a clone of that one$",
    ):
        unpack("HEAD")
    with pytest.raises(UsageError, match="has no other/pkg, which memory_subject names"):
        unpack("HEAD", "other/pkg")


def test_links_that_leave_the_package_are_no_difference_between_the_sides(repository, tmp_path):
    """A revision has the link and not what it led to; one that leads elsewhere is other code."""
    subjects = read_subjects(["src/pkg"])
    repository.commit("one", **PACKAGE, licence="MIT")
    link = repository.folder / "src/pkg/licence"
    link.symlink_to("../../licence")
    repository.commit("two")
    now, then = (
        working_tree(repository.folder, subjects),
        revision_side(repository.folder, "HEAD", subjects),
    )
    link.unlink()
    link.symlink_to("../../other.py")

    assert now.content == then.content
    assert working_tree(repository.folder, subjects).content != then.content


def test_the_commits_between_are_those_that_touch_the_packages_oldest_first(repository):
    """Others cannot have changed what the packages take; of a merge it is the merge that counts."""
    good = repository.commit("good", **PACKAGE)
    first = repository.commit("touches", **{"src/pkg/table.csv": "3\n"})
    repository.commit("does not", **{"other.py": "1\n"})
    repository.git("checkout", "-q", "-b", "branch")
    repository.commit("on the branch", **{"src/pkg/deep/part.py": "PART = 2\n"})
    repository.git("checkout", "-q", "main")
    repository.git("merge", "-q", "--no-ff", "-m", "merged", "branch")
    merged = repository.git("rev-parse", "HEAD")
    subjects = read_subjects(["src/pkg"])

    assert commits_between(repository.folder, good, "HEAD", subjects) == (first, merged)
    with pytest.raises(UsageError, match="is not an ancestor of"):
        commits_between(repository.folder, "HEAD", good, subjects)
