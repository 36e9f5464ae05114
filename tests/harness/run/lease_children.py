"""Functions that children run in the tests of leases and of neighbours; they need no TensorFlow and
no card.
"""

import fcntl
import os
import signal
import time
from pathlib import Path

from harness.records import Quality, Reading


def leave_the_device_alone(device):
    """What makes TensorFlow use the device, where there is no TensorFlow."""
    return "GPU:0"


def hold_device(memory, parameters):
    """Note when the device was held; whoever finds it held says so. The kernel, not a lease, knows
    who holds it.
    """
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


def mark_a_phase(memory, parameters):
    """One phase, in which nothing happens."""
    with memory.phase("look"):
        pass


def fail_in_a_phase(memory, parameters):
    """One phase, which does not end well."""
    with memory.phase("look"):
        raise ValueError("no room")


class NeighbourMeter:
    """Has seen a neighbour at the first attempts; counts them in a file."""

    names = ("nvml_device_used",)

    def __init__(self, context):
        path, self._contended, self._who = os.environ["NEIGHBOURS"].split(" ", 2)
        self._attempts = Path(path)

    def open(self):
        self._before = len(self._attempts.read_bytes()) if self._attempts.exists() else 0
        self._attempts.write_bytes(b"." * (self._before + 1))

    def begin(self):
        pass

    def end(self):
        who = self._who if self._before < int(self._contended) else ""
        return (
            Reading(
                meter="nvml_device_used",
                quality=Quality.SAMPLED,
                start_bytes=1,
                peak_bytes=1,
                end_bytes=1,
                contended=who,
            ),
        )


def appear_on_the_card(device):
    """Become the first process that the stub driver lists on its only card; leave the others as
    they are.
    """
    from harness.pretended.control import StubControl

    card = StubControl.open().state.devices[0]
    card.processes[0].pid, card.processes[0].used_bytes, card.processes[0].running = (
        os.getpid(),
        40 << 20,
        1,
    )
    card.process_count = max(card.process_count, 1)
    return "GPU:0"


def see_the_neighbour_off(memory, parameters):
    """One phase; the neighbour's process, the second on the card, ends after it."""
    from harness.pretended.control import StubControl

    with memory.phase("look"):
        pass
    StubControl.open().state.devices[0].processes[1].running = 0


def wait_for_word(workspace, parameters):
    """Say that this child is there, and stay until somebody answers."""
    with (workspace / "there").open("w"):  # a pipe: opens when the other side does
        pass
    (workspace / "word").read_bytes()
