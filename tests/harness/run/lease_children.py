"""Functions that children run in the tests of leases and of neighbours; they need no TensorFlow and no card."""

import fcntl
import os
import signal
import time
from pathlib import Path


def leave_the_device_alone(device):
    """What makes TensorFlow use the device, where there is no TensorFlow."""
    return "GPU:0"


def hold_device(memory, parameters):
    """Note when the device was held; whoever finds it held says so. The kernel, not a lease, knows who holds it."""
    uuid = os.environ["CUDA_VISIBLE_DEVICES"]
    with memory.phase("hold"):
        held = os.open(memory.workspace / f"{uuid}.held", os.O_RDWR | os.O_CREAT)
        note = f"held {uuid}"
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note = f"overlap {uuid}"
        _note(memory.workspace, f"{note} {parameters['number']}")
        time.sleep(0.1)  # long enough for the other workers to want the device meanwhile
        if parameters["number"] in parameters["crashing"].split(","):
            os.kill(os.getpid(), signal.SIGKILL)
        if parameters["number"] in parameters["killing"].split(","):
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()  # its own death comes with its parent's
        os.close(held)
        _note(memory.workspace, f"free {uuid} {parameters['number']}")


def _note(workspace: Path, line: str) -> None:
    notes = os.open(workspace / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(notes, f"{line}\n".encode())
    os.close(notes)
