"""Functions that children run in the tests of the runner; loaded by name, never by the tests themselves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def do_nothing(workspace, parameters):
    """A preparation that works."""


def touch(workspace, parameters):
    """Leave a file behind."""
    (workspace / parameters["name"]).touch()


def wait_forever(workspace, parameters):
    """Never end, and ignore the polite signal."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def kill_itself(workspace, parameters):
    """Die by the signal in the parameters."""
    os.kill(os.getpid(), parameters["signal"])


def exit_early(workspace, parameters):
    """Leave without a word, with the code in the parameters."""
    os._exit(parameters["code"])


def leave_a_grandchild(workspace, parameters):
    """Start a process that would outlive this one, and note its id."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(workspace, "grandchild").write_text(str(grandchild.pid))


def leave_a_session(workspace, parameters):
    """Start a process that leaves this one's group, with a child of its own, and note both ids."""
    left = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True, start_new_session=True)
    Path(workspace, "left").write_text(f"{left.pid} {left.stdout.readline()}")


def fail(workspace, parameters):
    """Raise an error with a sentence."""
    raise ValueError("the beam was off")


def allocate_too_much(workspace, parameters):
    """Ask for more host memory than the child may have."""
    bytearray(parameters["bytes"])


def show_environment(workspace, parameters):
    """Write down what the parent handed over."""
    Path(workspace, "environment").write_text(
        f"{os.environ.get('MARK')} {os.getpgrp() == os.getpid()} {Path('/proc/self/oom_score_adj').read_text().strip()}"
    )


def die_in_second_phase(memory, parameters):
    """Finish one phase and be killed by SIGKILL in the next."""
    with memory.phase("first"):
        pass
    with memory.phase("second"):
        os.kill(os.getpid(), signal.SIGKILL)


def allocate_on_device(memory, parameters):
    """Hold known bytes, then a temporary of twice as many."""
    import tensorflow as tf

    amount_bytes = parameters["amount_bytes"]
    tf.zeros([amount_bytes], tf.uint8)  # the op's own constants, some 256 B, are cached before the first phase
    tf.zeros([2 * amount_bytes], tf.uint8)
    memory.declare(arrays=amount_bytes)
    with memory.phase("hold"):
        held = tf.zeros([amount_bytes], tf.uint8)
    with memory.phase("temporary"):
        temporary = tf.zeros([2 * amount_bytes], tf.uint8)
        del temporary
    with memory.phase("release"):
        del held


def exhaust_device(memory, parameters):
    """Ask for more than the budget in the second phase."""
    import tensorflow as tf

    with memory.phase("fits"):
        held = tf.zeros([parameters["amount_bytes"]], tf.uint8)
    with memory.phase("does_not_fit"):
        tf.zeros([64 * parameters["amount_bytes"]], tf.uint8)
    del held


def declare_environment(memory, parameters):
    """Leave the named variables of this process in the workspace."""
    with memory.phase("look"):
        found = {name: os.environ.get(name) for name in parameters["names"].split(",")}
    memory.workspace.mkdir(exist_ok=True)
    (memory.workspace / "environment.json").write_text(json.dumps(found))


def nothing_at_all(memory, parameters):
    """A body without a phase."""
