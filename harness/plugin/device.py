"""The device of a pytest session: what can be refused at once, what is found out when there is a
plan, and by whom.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.plugin.options import as_typed
from harness.records import RUN_FILE
from harness.run.devices import Device, choose_device
from harness.run.usable import usable_device
from harness.rundir.manifest import device_kind
from harness.units import format_bytes


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


def check_one_pool(config: pytest.Config) -> None:
    """Raises UsageError for a pool that would both grow and have a limit."""
    budget_bytes = config.getoption("memory_device_budget")
    if config.getoption("memory_growth") and budget_bytes is not None:
        raise UsageError(
            f"{as_typed(config, 'memory_growth')} was given together with "
            f"{as_typed(config, 'memory_device_budget')} {format_bytes(budget_bytes)}, but "
            "a pool with a limit is reserved at once, and does not grow; leave one of them "
            "out"
        )


def can_be_checked(config: pytest.Config) -> bool:
    """Whether the options about the device can be checked before anything is collected.

    Whether ``auto`` can use a card takes seconds to find out, and a session may measure nothing.
    """
    choice = config.getoption("memory_device")
    if choice in {"gpu", "pretended"}:
        return True
    about_the_pool = config.getoption("memory_device_budget") is not None or config.getoption(
        "memory_growth"
    )
    return about_the_pool and choose_device(choice).kind == "emulated"


def choose_for(config: pytest.Config, directory: Path) -> Device:
    """The device that the options mean. Raises UsageError or DeviceUnavailable.

    Whether a card can be used is found out once: where it is insisted on, by the process that the
    user started; for ``auto`` by the one that writes run.json into ``directory``, and all others
    follow that.
    """
    choice, is_settled = config.getoption("memory_device"), is_worker(config)
    if choice == "auto" and (directory / RUN_FILE).exists():
        choice, is_settled = "cpu" if device_kind(directory) == "emulated" else "gpu", True
    growth, budget_bytes = (
        config.getoption("memory_growth"),
        config.getoption("memory_device_budget"),
    )
    if choice == "cpu" or (choice != "auto" and is_settled):
        device = choose_device(choice)
        return device.with_growth() if growth else device.with_budget(budget_bytes)
    return usable_device(choice, config.rootpath, budget_bytes=budget_bytes, growth=growth)


@contextlib.contextmanager
def one_decides(config: pytest.Config) -> Iterator[None]:
    """One worker at a time in the block, where workers have to find the device: only the first one
    looks for it.
    """
    with contextlib.ExitStack() as held:
        if is_worker(config) and config.getoption("memory_device") == "auto":
            # a folder that takes no lock: each worker looks for itself
            with contextlib.suppress(OSError):
                folder = os.open(config.rootpath, os.O_RDONLY)
                held.callback(os.close, folder)
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield
