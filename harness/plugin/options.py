"""Options of a session that measures, as pytest declares them, and the settings that they make.

The plug-in is active in every session of everyone who has it installed. So all its options begin
with ``--memory-`` (other plug-ins have a ``--device`` or ``--repeats`` of their own), and this
module loads nothing that only a session with measurements needs.
"""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from harness.errors import UsageError
from harness.words import GIB, format_bytes

DEFAULT_REPEATS = 2
"""Chosen: the smallest number that shows a spread, and that tells a slope from noise with four
sizes."""
DEFAULT_HOST_LIMIT_BYTES = 5 * GIB
"""Chosen: twice what the largest eager point of the catalogue needs beside the device (with
TensorFlow's own code)."""
DEFAULT_TIMEOUT_S = 300.0
"""Chosen: twenty times the longest point of the catalogue; it includes the 10 s that BFC waits
before it reports OOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How a session measures: settled once by the process that the user started, and handed to its
    workers.

    A field has the name of its option, and is what run.json records. The options themselves have no
    defaults, so that a resumed run can tell those that were given from those that it knows.
    """

    repeats: int = DEFAULT_REPEATS
    """How often a point is measured whose test does not say it."""
    device: Literal["auto", "cpu", "gpu", "pretended"] = "auto"
    device_budget: int | None = None
    """Bytes; None: the device's own size."""
    growth: bool = False
    isolation: Literal["auto", "zygote", "spawn"] = "auto"
    host_budget: int = DEFAULT_HOST_LIMIT_BYTES
    """Bytes."""
    timeout: float = DEFAULT_TIMEOUT_S
    """Seconds."""
    no_trace: bool = False
    against: str | None = None
    revision: str | None = None

    repeats_given: bool = False
    """Whether an option says how often; then it takes precedence over what a test says."""
    points: tuple[str, ...] = ()
    """Patterns for the names of the points that are measured; empty: all points."""

    @property
    def traces(self) -> bool:
        """Whether each point is traced as well."""
        return not self.no_trace

    def to_json(self) -> dict[str, Any]:
        """As ``from_json`` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """The settings that ``to_json`` wrote."""
        return cls(**{**found, "points": tuple(found["points"])})


_CHOSEN_ANEW = frozenset({"repeats_given", "points"})
"""Fields that belong to this session alone: a resumed run knows no value for them."""


def settle_settings(config: pytest.Config, resumed: Mapping[str, Any] | None) -> SessionSettings:
    """Each setting from its option, from the resumed run, or its default.

    ``resumed`` holds what the resumed run was started with, by the names of the options in pytest's
    configuration; None for a new run. Raises UsageError for an option that contradicts it, and for
    a pool that would both grow and have a limit.
    """
    settled: dict[str, Any] = {}
    for field in dataclasses.fields(SessionSettings):
        if field.name in _CHOSEN_ANEW:
            continue
        name = f"memory_{field.name}"
        given = config.getoption(name)
        if resumed is not None and given not in (None, resumed[name]):
            raise UsageError(_contradiction(config, name, given, resumed[name]))
        known = field.default if resumed is None else resumed[name]
        settled[field.name] = known if given is None else given

    settings = SessionSettings(
        **settled,
        repeats_given=config.getoption("memory_repeats") is not None,
        points=tuple(config.getoption("memory_points") or ()),
    )
    _check_one_pool(config, settings)
    return settings


def _contradiction(config: pytest.Config, name: str, given: object, known: object) -> str:
    shown = "" if isinstance(given, bool) else f" {given}"
    return (
        f"{as_typed(config, name)}{shown} was given, but {config.getoption('memory_resume')} was "
        f"started with {known!r}; leave the option out, or start a new run"
    )


def _check_one_pool(config: pytest.Config, settings: SessionSettings) -> None:
    if settings.growth and settings.device_budget is not None:
        raise UsageError(
            f"{as_typed(config, 'memory_growth')} was given together with "
            f"{as_typed(config, 'memory_device_budget')} "
            f"{format_bytes(settings.device_budget)}, but a pool with a limit is reserved at "
            "once, and does not grow; leave one of them out"
        )


# The options, and how they are declared.


def _read_by(reader: str) -> Callable[[str], Any]:
    """What reads the text of an option: a function of the command line, loaded with the first
    text.
    """

    def read(text: str) -> object:
        from harness import commands

        return getattr(commands, reader)(text)

    return read


_PREFIX = "--memory-"
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "out": {
        "metavar": "DIR",
        "type": _read_by("folder"),
        "help": "run directory to write: run.json, rows.jsonl, logs; it must not hold a run yet "
        "(default: artifacts/runs/TIME)",
    },
    "resume": {
        "metavar": "RUN",
        "type": _read_by("folder"),
        "help": "resume a run that was broken off: measure what its directory lacks, and keep the "
        "rest; its settings are known, but options that choose points (such as -k) must be given "
        "again",
    },
    "points": {
        "metavar": "PATTERN",
        "action": "append",
        "help": "measure only points whose names match, such as 'loading-lazy-*' (* ? [abc]; may "
        "be given several times); tests that measure nothing still run",
    },
    "against": {
        "metavar": "REV",
        "help": "also measure the packages that memory_subject names at this git revision (a "
        "commit, branch, tag, or merge-base:origin/main), in turns with the working tree; the "
        "gate then compares the two instead of asking a baseline",
    },
    "revision": {
        "metavar": "REV",
        "help": "with --memory-against: measure this git revision instead of the working tree",
    },
    "repeats": {
        "metavar": "N",
        "type": _read_by("repeat_count"),
        "help": "how often each point is measured, each time in a fresh child (default: "
        f"{DEFAULT_REPEATS})",
    },
    "no-trace": {
        "action": "store_true",
        "help": "leave out the extra run of each point (its test is called traced) in which "
        "TensorFlow's profiler records every allocation. Without it, nothing says what was alive "
        "at a peak; with it, a sweep takes one repeat longer. The measured repeats are the same "
        "either way",
    },
    "device-budget": {
        "metavar": "SIZE",
        "type": _read_by("device_budget"),
        "help": "limit of the device's memory, such as 512MiB or 2GiB (default: 3GiB for the "
        "emulated device; for a card what the driver reports as free, less what CUDA's context "
        "and libraries need, reserved at once so that readings are exact)",
    },
    "growth": {
        "action": "store_true",
        "help": "on a card: let TensorFlow's pool grow on demand instead of reserving it, as most "
        "programs do. A tensor may then count as up to twice its bytes, and rules with "
        "pool = 'grown' apply. Not together with a device budget",
    },
    "device": {
        "choices": ("auto", "cpu", "gpu", "pretended"),
        "help": "auto: the first NVIDIA card that has room and that TensorFlow can use; without "
        "one, TensorFlow's GPU allocator emulated on the CPU, with the reason. gpu: a card; "
        "exits with 3 where none can be used. pretended (experimental; needs cc, c++ and the "
        "extra [pretended]): TensorFlow's own GPU device over a stub of the driver, which tells "
        "apart what is on the card and what is on the host; networks run CPU algorithms there "
        "(default: auto)",
    },
    "isolation": {
        "choices": ("auto", "zygote", "spawn"),
        "help": "how children start. zygote: forks of a process that has only imported "
        "TensorFlow; spawn: fresh interpreters; auto: zygote where it is safe, else spawn "
        "(default: auto)",
    },
    "host-budget": {
        "metavar": "SIZE",
        "type": _read_by("byte_amount"),
        "help": "limit of each child's host memory (default: 5GiB). An emulated device is host "
        "memory too: its size and 1/32 of it are added, used or not; --memory-device-budget "
        "makes that small",
    },
    "timeout": {
        "metavar": "SECONDS",
        "type": _read_by("seconds"),
        "help": "time after which a child is stopped and its point recorded as timed_out "
        f"(default: {DEFAULT_TIMEOUT_S:g}). A child that is idle then gets 11 s more, because "
        "TensorFlow's allocator sleeps before it reports that memory ran out",
    },
}


def declare_options(parser: pytest.Parser) -> None:
    """Declare the options and the settings of pytest's configuration file."""
    group = parser.getgroup(
        "memory",
        "memory measurement (each point in a child of its own; choose points by words of "
        'their names: -k "lazy and 500", which takes 5000 too; --memory-points takes whole ones)',
    )
    for name, arguments in _OPTIONS.items():
        group.addoption(f"{_PREFIX}{name}", default=None, **arguments)
    group.addoption(
        f"{_PREFIX}no-table",
        action="store_true",
        help="print no table of what a sweep has measured at its end, for example because the "
        "gate follows, which prints it",
    )

    parser.addini(
        "memory_subject",
        "packages under test, by their paths from the project's root (mypkg, src/mypkg): "
        "what two revisions are compared in",
        type="args",
        default=[],
    )
    parser.addini(
        "memory_preload",
        "libraries that scenario bodies import, and that the zygote may import once for all of "
        "them before it forks; never the code under test, which each child must import itself",
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
            dest=_destination(name),
            default=None,
            **{**_OPTIONS[name], "help": f"the same as {_PREFIX}{name}"},
        )


def _destination(name: str) -> str:
    return f"memory_{name.replace('-', '_')}"


def are_given(config: pytest.Config) -> bool:
    """Whether the user has given any of these options."""
    return any(config.getoption(_destination(name)) is not None for name in _OPTIONS)


def as_typed(config: pytest.Config, setting: str) -> str:
    """The option of a setting, in its short form where that is what the user typed:
    ``"--resume"``.
    """
    long = f"--{setting.replace('_', '-')}"
    short = long.replace(_PREFIX, "--", 1)
    typed = [argument.partition("=")[0] for argument in map(str, config.invocation_params.args)]
    return short if short in typed and long not in typed else long


# Folders among the arguments: pytest looks at them before it knows our options.


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
                f"{option} {value} is outside of {invocation_dir}, and after a space "
                "pytest takes it for a folder with tests, so that its root and its "
                f"settings are no longer yours; write {shlex.quote(f'{option}={value}')}"
            )


def with_joined_folders(args: Sequence[str]) -> list[str]:
    """The same arguments, each folder of ours joined to its option: ``["--memory-out=RUN"]`` for
    ``["--memory-out", "RUN"]``.

    For the workers of pytest-xdist, which look for their root anew when the folder exists.
    """
    joined: list[str] = []
    for argument in args:
        if joined and joined[-1] in _FOLDERS and not argument.startswith("-"):
            joined[-1] = f"{joined[-1]}={argument}"
        else:
            joined.append(argument)
    return joined


# What kind of session, and what kind of process, a configuration belongs to.


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


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


def worker_count(config: pytest.Config) -> int:
    """How many workers of xdist the user asked for; 0 where the session is not distributed."""
    return int(getattr(config.option, "numprocesses", None) or 0)


def only_distributes(config: pytest.Config) -> bool:
    """Whether this process is the controller of a distributed session, which collects nothing
    itself.
    """
    return not is_worker(config) and worker_count(config) > 0


def pythonpath_of(config: pytest.Config) -> list[Path]:
    """The folders of pytest's own setting pythonpath, which children import from too; none where
    that plug-in is off.
    """
    try:
        return list(config.getini("pythonpath"))
    except (KeyError, ValueError):  # nobody has declared it (-p no:python_path)
        return []
