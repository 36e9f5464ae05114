"""When a process may be forked from, and when it must refuse."""

import re
import subprocess
import sys

import pytest

ASK = "from harness.measure.worker import unfit_to_fork; print(unfit_to_fork())"


@pytest.fixture
def answer(project_root):
    def run(before):
        # One thread for OpenBLAS, as the launcher sets it: numpy's import would start others.
        environment = {
            "OPENBLAS_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run(
            [sys.executable, "-c", f"{before}; {ASK}"],
            cwd=project_root,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return done.stdout.strip()

    return run


def test_a_process_that_has_only_imported_may_be_forked(answer):
    """The import starts no thread and no runtime."""
    assert answer("import tensorflow") == ""


def test_after_the_first_operation_a_fork_is_refused(answer):
    """Its threads would not exist in the child, which would wait for them for ever."""
    assert answer("import tensorflow as tf; tf.zeros([1])") != ""


def test_a_second_thread_is_refused_by_name(answer):
    """Whatever it does; its name is what tells which library it belongs to."""
    said = answer(
        "import tensorflow, threading; threading.Thread(target=threading.Event().wait, "
        "daemon=True).start()"
    )

    assert re.fullmatch(r"the import left 2 threads running: \S+, \S+", said)
