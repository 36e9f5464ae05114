"""The parent stays light: TensorFlow is imported in children only, and importing anything of ours
does nothing.
"""

import subprocess
import sys

import pytest

PARENT = (
    "harness.__main__, harness.pytest_plugin, harness.commands.doctor, harness.run.runner, "
    "harness.rundir.manifest, harness.judge.gate, harness.judge.baseline, harness.commands, "
    "harness.judged_run, harness.commands.gate, harness.commands.bisect, "
    "reports.html, reports.markdown, scenarios.catalog"
)


def run(code, project_root, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project_root,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_no_module_of_the_parent_imports_tensorflow(project_root):
    """Nor Keras, nor the code under test."""
    code = (
        f"import sys, {PARENT}; print(sorted({{'tensorflow', 'keras', 'ptycho'}} & "
        "sys.modules.keys()))"
    )

    assert run(code, project_root).stdout == "[]\n"


def test_a_sweep_is_collected_without_tensorflow_numpy_or_the_code_under_test(project_root):
    """What runs in the parent before the first child is plain Python."""
    code = (
        "import sys, pytest; code = pytest.main(sys.argv[1:]); print(int(code), "
        "sorted({'tensorflow', 'keras', 'numpy', 'pandas', 'ptycho'} & sys.modules.keys()))"
    )
    done = run(
        code,
        project_root,
        "scenarios",
        "--collect-only",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
    )

    assert done.stdout.splitlines()[-1] == "0 []", done.stdout + done.stderr


@pytest.mark.parametrize("module", PARENT.split(", "))
def test_importing_changes_nothing(module, project_root):
    """No environment variable, no thread, no child, no output."""
    code = (
        f"import os, threading; before = dict(os.environ); import {module}; changed = {{k "
        "for k in before.keys() | os.environ.keys() if before.get(k) != "
        f"os.environ.get(k)}}; assert changed == set(), changed; assert "
        "threading.active_count() == 1; assert not "
        f"open(f'/proc/self/task/{{os.getpid()}}/children').read()"
    )
    done = run(code, project_root)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
