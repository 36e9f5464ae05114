"""The sessions of the noxfile, as far as they can be run without installing the project."""

import json
import subprocess
import sys
import tomllib
from itertools import product

import pytest
import yaml
from packaging.specifiers import SpecifierSet

SESSIONS = """
import sys

sys.path.insert(0, {root!r})

import nox

nox.options.reuse_existing_virtualenvs = True

from noxfile import _code, _installs_only


@nox.session
def coded(session):
    print("code", _code(session, "python", "-c", \
"print('it ' + 'ran', flush=True); raise SystemExit(7)"), flush=True)
    print("installs only:", _installs_only(session), flush=True)
"""


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ([], ["it ran", "code 7", "installs only: False"], []),
        (["--install-only"], ["code 0", "installs only: True"], ["it ran"]),
    ],
)
def test_a_session_that_only_installs_runs_no_program(
    options, said, unsaid, project_root, tmp_path
):
    """`nox --install-only` holds for programs whose exit code a session wants, too."""
    file = tmp_path / "sessions.py"  # `noxfile` is the project's own
    file.write_text(SESSIONS.format(root=str(project_root)))
    nox = [sys.executable, "-m", "nox", *options, "-f", str(file), "-s", "coded"]
    done = subprocess.run(
        nox, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    assert [words for words in said if words not in done.stdout] == []
    assert [words for words in unsaid if words in done.stdout] == []


def test_every_session_starts_programs_through_what_obeys_install_only(project_root):
    """They are started by session.run and by _code alone, and a session that ends well does not end
    those behind it.
    """
    text = (project_root / "noxfile.py").read_text()

    assert text.count("subprocess.run") == 1
    assert "sys.exit(_code(" not in text


def test_the_workflow_asks_for_every_session_of_versions(project_root):
    """Lowest and highest versions, on every Python; one that is not there fails, where it is
    skipped elsewhere.
    """
    listed = [
        sys.executable,
        "-m",
        "nox",
        "-f",
        str(project_root / "noxfile.py"),
        "-s",
        "versions",
        "-l",
        "--json",
    ]
    sessions = json.loads(
        subprocess.run(listed, capture_output=True, text=True, timeout=120, check=True).stdout
    )
    job = yaml.safe_load((project_root / ".github" / "workflows" / "tests.yml").read_text())[
        "jobs"
    ]["tests"]
    matrix = job["strategy"]["matrix"]
    asked = [
        f"versions-{python}({versions})"
        for python, versions in product(matrix["python"], matrix["versions"])
    ]

    assert len(asked) == 6
    assert asked == [session["session"] for session in sessions]
    assert any(
        'nox -s "versions-$PYTHON($VERSIONS)" --error-on-missing-interpreters'
        in step.get("run", "")
        for step in job["steps"]
    )


def test_the_sessions_of_versions_are_of_every_python_that_is_promised(project_root):
    """No more than TensorFlow has wheels for, and no less than `requires-python` says."""
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    promised = SpecifierSet(project["requires-python"])
    pythons = yaml.safe_load((project_root / ".github" / "workflows" / "tests.yml").read_text())[
        "jobs"
    ]["tests"]["strategy"]

    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in promised] == pythons["matrix"][
        "python"
    ]
