"""Bring this process onto the user's own machine with pretended cards, for ``--device pretended``.
Experimental.
"""

import ctypes
import os

from harness.pretended.control import VARIABLE
from harness.pretended.machine import cached_machine


def join_machine() -> None:
    """From now on this process, and whatever it starts, has the driver of the user's pretended
    cards.

    The loader reads LD_LIBRARY_PATH when a process is started, and NVML its control file's name
    from the environment: so this process loads NVML by its path, and everything else is left to the
    environment of those that it starts. A process that has such a machine already stays on it.
    Raises StubUnavailableError where the cards cannot be built here.
    """
    if os.environ.get(VARIABLE):
        return
    machine = cached_machine()
    os.environ.update(machine.environment)
    ctypes.CDLL(str(machine.card.nvml))
    machine.control.close()
