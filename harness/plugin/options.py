"""Options of a session that measures, as pytest declares them, and where each setting takes its
value from.

The plug-in is active in every session of whoever has it installed, so that all its options begin
with ``--memory-``: other plug-ins have a ``--device`` or ``--repeats`` of their own.
"""

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness import commands as options
from harness.errors import UsageError
from harness.records import RUN_FILE
from harness.run.cards import choose_device, usable_device
from harness.run.devices import Device
from harness.rundir.manifest import device_kind
from harness.system.files import lock
from harness.units import GIB, format_bytes

DEFAULT_REPEATS = 2
"""Chosen: the smallest number that shows a spread, and that tells a slope from noise with four
sizes."""
DEFAULT_HOST_LIMIT_BYTES = 5 * GIB
"""Chosen: twice what the largest eager point of the catalogue needs beside the device (with
TensorFlow's own code)."""
DEFAULT_TIMEOUT_S = 300.0
"""Chosen: twenty times the longest point of the catalogue; it includes the 10 s that BFC waits
before it reports OOM."""
DEFAULTS: Mapping[str, Any] = {
    "memory_repeats": DEFAULT_REPEATS,
    "memory_device": "auto",
    "memory_device_budget": None,
    "memory_growth": False,
    "memory_isolation": "auto",
    "memory_host_budget": DEFAULT_HOST_LIMIT_BYTES,
    "memory_timeout": DEFAULT_TIMEOUT_S,
    "memory_no_trace": False,
    "memory_against": None,
    "memory_revision": None,
}
"""Settings of a run where no option is given, by their names in pytest's configuration. The options
themselves have no defaults, so that a resumed run can tell those that were given from those that it
knows."""

_PREFIX = "--memory-"
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "out": {
        "metavar": "DIR",
        "type": options.folder,
        "help": "run directory to write: run.json, rows.jsonl, logs; it must not hold a run yet "
        "(default: artifacts/runs/TIME)",
    },
    "resume": {
        "metavar": "RUN",
        "type": options.folder,
        "help": "go on with a run that was broken off: measures what its directory lacks and keeps "
        "the rest; its settings are known, options that choose points (-k and the like "
        "aside) must be given again",
    },
    "points": {
        "metavar": "PATTERN",
        "action": "append",
        "help": "measure only points whose names match, as 'loading-lazy-*' (* ? [abc]; may be "
        "given several times); tests that measure nothing run as ever",
    },
    "against": {
        "metavar": "REV",
        "help": "measure the packages that memory_subject names at this git revision as well (a "
        "commit, branch, tag, or merge-base:origin/main), in turns with the working tree, "
        "so that the gate compares the two instead of asking a baseline",
    },
    "revision": {
        "metavar": "REV",
        "help": "with against: measure this git revision instead of the working tree",
    },
    "repeats": {
        "metavar": "N",
        "type": options.repeat_count,
        "help": f"times each point is measured, in fresh children (default: {DEFAULT_REPEATS})",
    },
    "no-trace": {
        "action": "store_true",
        "help": "leave out the extra run of each point (its test is called traced) in which "
        "TensorFlow's profiler records every allocation: without it nobody can say what "
        "was alive at a peak; with it a sweep takes one repeat longer, and the measured "
        "repeats stay as they are",
    },
    "device-budget": {
        "metavar": "SIZE",
        "type": options.device_budget,
        "help": "limit of the device's memory, as 512MiB or 2GiB (default: 3GiB for the emulated "
        "device; of a card what the driver says is free, less what CUDA's context and "
        "libraries need, reserved at once so that readings are exact)",
    },
    "growth": {
        "action": "store_true",
        "help": "on a card: have TensorFlow's pool grow on demand instead of reserving it, as most "
        "programs do; a tensor may then count as up to twice its bytes, and rules with "
        "pool = 'grown' apply; not together with a device budget",
    },
    "device": {
        "choices": ("auto", "cpu", "gpu", "pretended"),
        "help": "auto: the first NVIDIA card that has room and that TensorFlow can use, or without "
        "one TensorFlow's GPU allocator emulated on the CPU, saying why; gpu insists on a "
        "card, and exits with 3 where there is none to use; pretended (experimental, needs "
        "cc, c++ and the extra [pretended]): TensorFlow's own GPU device over a stub of "
        "the driver, which tells apart what is on the card and what on the host; networks "
        "run CPU algorithms there (default: auto)",
    },
    "isolation": {
        "choices": ("auto", "zygote", "spawn"),
        "help": "how children start: forks of a process that has only imported TensorFlow "
        "(zygote), fresh interpreters (spawn), or auto: the first where it is safe "
        "(default: auto)",
    },
    "host-budget": {
        "metavar": "SIZE",
        "type": options.byte_amount,
        "help": "limit of each child's host memory; an emulated device is host memory too, so that "
        "its size and 1/32 of it are added, used or not (--memory-device-budget makes that "
        "small; default: 5GiB)",
    },
    "timeout": {
        "metavar": "SECONDS",
        "type": options.seconds,
        "help": "time after which a child is stopped and its point recorded as timed_out; one that "
        "is idle then gets 11 s more, because TensorFlow's allocator sleeps before it "
        f"reports that memory ran out (default: {DEFAULT_TIMEOUT_S:g})",
    },
}


def declare_options(parser: pytest.Parser) -> None:
    """Declare the options of a session that measures."""
    group = parser.getgroup(
        "memory",
        "memory measurement (each point in a child of its own; choose points by words of "
        'their names: -k "lazy and 500")',
    )
    for name, settings in _OPTIONS.items():
        group.addoption(f"{_PREFIX}{name}", default=None, **settings)
    parser.addini(
        "memory_subject",
        "packages under test, by their paths from the project's root (mypkg, src/mypkg): "
        "what two revisions are compared in",
        type="args",
        default=[],
    )
    parser.addini(
        "memory_preload",
        "libraries that scenario bodies import and that the zygote may import for all of "
        "them, before it forks; never the code under test, which each child has to import "
        "for itself",
        type="args",
        default=[],
    )


def declare_short_names(parser: pytest.Parser, group_name: str, names: tuple[str, ...]) -> None:
    """Declare ``--repeats`` and the like beside ``--memory-repeats``, where nobody else has a use
    for the short names.
    """
    group = parser.getgroup(group_name)
    for name in names:
        group.addoption(
            f"--{name}",
            dest=f"memory_{name.replace('-', '_')}",
            default=None,
            **{**_OPTIONS[name], "help": f"the same as {_PREFIX}{name}"},
        )


_FOLDERS = frozenset({f"{_PREFIX}out", f"{_PREFIX}resume"})
"""Options whose value is a folder. Their short names may be those of other plug-ins."""


def check_folders(args: Sequence[str], invocation_dir: Path) -> None:
    """Raises UsageError for a folder of ours that pytest takes for one with tests.

    It looks for its root and its settings before it knows our options. Then the value after a space
    is just another path, and an existing folder outside of the project moves both.
    """
    for option, value in pairwise(args):
        if option not in _FOLDERS or value.startswith("-"):
            continue
        folder = (invocation_dir / value).resolve()
        if folder.is_dir() and not folder.is_relative_to(invocation_dir.resolve()):
            raise UsageError(
                f"{option} {value} lies outside of {invocation_dir}, and after a space "
                "pytest takes it for a folder with tests, so that its root and its "
                f"settings are no longer yours; write {shlex.quote(f'{option}={value}')}"
            )


def with_joined_folders(args: Sequence[str]) -> list[str]:
    """The same arguments, each folder of ours in one with its option: ``["--memory-out=RUN"]`` for
    ``["--memory-out", "RUN"]``.

    For the workers of pytest-xdist, which look for their root anew when the folder is there
    already.
    """
    joined: list[str] = []
    for argument in args:
        if joined and joined[-1] in _FOLDERS and not argument.startswith("-"):
            joined[-1] = f"{joined[-1]}={argument}"
        else:
            joined.append(argument)
    return joined


def pythonpath_of(config: pytest.Config) -> list[Path]:
    """The folders of pytest's own setting pythonpath, which children import from too; none where
    that plug-in is off.
    """
    try:
        return list(config.getini("pythonpath"))
    except (KeyError, ValueError):  # nobody has declared it (-p no:python_path)
        return []


_DRY = (
    "collectonly",
    "setuponly",
    "setupplan",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
)
"""Where pytest keeps that it is to run no test: --collect-only, --setup-only, --setup-plan,
--fixtures and the like."""


def is_dry(config: pytest.Config) -> bool:
    """Whether the session runs no test, so that nothing is to be measured, written or judged."""
    return any(getattr(config.option, name, False) for name in _DRY)


def as_typed(config: pytest.Config, setting: str) -> str:
    """The option of a setting, in its short form where that is what the user typed:
    ``"--resume"``.
    """
    whole = f"--{setting.replace('_', '-')}"
    short = whole.replace(_PREFIX, "--", 1)
    typed = [argument.partition("=")[0] for argument in map(str, config.invocation_params.args)]
    return short if short in typed and whole not in typed else whole


def settle_options(config: pytest.Config, resume: Path | None) -> None:
    """Give every setting its value: what the option says, what the resumed run was started with, or
    the default.

    Raises UsageError for an option that contradicts the resumed run.
    """
    known = DEFAULTS
    if resume is not None:
        from harness.rundir.resume import settings_of  # only where a run is resumed

        known = settings_of(resume)
    for name, value in known.items():
        given = config.getoption(name)
        if resume is not None and given is not None and given != value:
            shown = "" if isinstance(given, bool) else f" {given}"
            raise UsageError(
                f"{as_typed(config, name)}{shown} was given, but {resume} was started with "
                f"{value!r}; leave the option out, or start a new run"
            )
        setattr(config.option, name, value if given is None else given)


# The device of a pytest session: what can be refused at once, what is found out when there is a
# plan, and by whom.


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
                lock(folder)
        yield
