"""Arguments of ``@pytest.mark.memory`` and of ``memory_run`` that say what is measured, and how:
each one read and checked, near misses named.
"""

import dataclasses
import math
import numbers
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.errors import UsageError
from harness.plugin.limits import SECTIONS
from harness.records import MOST_REPEATS, Outcome, Scalar
from harness.run.devices import check_budget
from harness.words import closest, nearest, parse_bytes, phase_name

# Arguments of ``@pytest.mark.memory`` and of ``memory_run`` that say what is measured, and how;
# each one checked.


# What a column of the tables can hold.
_LEAST_INT, _LARGEST_INT = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured, and how; every one of them has a default but the body."""

    body: str | None = None
    """``"package.module:function"``; None where the test names it in its call of ``memory_run``."""
    path: str = ""
    """Folder from which the body and what it imports are taken first, from the root of the session;
    empty: the root alone."""
    phases: tuple[str, ...] = ()
    """Phases that a complete run has; empty: those that any run of the test enters."""
    device_budget: int | None = None
    """Size of the device for this test, in bytes; None: the session's."""
    expected: Outcome = Outcome.OK
    repeats: int | None = None
    """None: the session's."""
    scenario: str = ""
    """Empty: the name of the test's function without ``test_``."""
    prepare: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    """Parameters that all points of the test share; no part of their names."""
    over: str | None = None
    """The parameter that slopes and growth classes are about, where a rule does not say so
    itself."""


def read_settings(arguments: Mapping[str, Any], root: Path) -> Settings:
    """The settings from their arguments. Raises UsageError, which names the argument, for one that
    cannot be used.
    """
    read: dict[str, Any] = {}
    for name, value in arguments.items():
        try:
            read[name] = _READERS[name](
                as_text(value, root, arguments.get("path")) if name in _FUNCTIONS else value
            )
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from error
    settings = Settings(**{name: value for name, value in read.items() if value is not None})
    if settings.path and not (root / settings.path).is_dir():
        raise UsageError(
            f"path: there is no folder {root / settings.path}; write one that exists, from "
            f"the root of the session ({root}) on"
        )
    return settings


def scalar(name: str, value: object) -> Scalar:
    """A parameter that can be handed to a child. Raises UsageError, with what to pass instead, for
    anything else.
    """
    value = _unboxed(value)
    if isinstance(value, int) and not _LEAST_INT <= value <= _LARGEST_INT:
        raise UsageError(
            f"the parameter {name} is {value}, which is beyond 64 bits; pass it as a text"
        )
    if isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        # Of a subclass, such as an enum's member or a number of numpy's, the plain value.
        return value if type(value) in (str, bool, int, float) else _plain_setting(value)
    raise UsageError(
        f"the parameter {name} is {_shown(value)}, which cannot be handed to another "
        "process; pass a number, a text or a boolean, and let the body make the rest of it"
    )


def _unboxed(value: object) -> object:
    """The plain number of one of numpy's, which are registered as numbers without being int; all
    else as it is.
    """
    if isinstance(value, int | float):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def _plain_setting(value: str | float) -> Scalar:
    return next(kind(value) for kind in (bool, int, float, str) if isinstance(value, kind))


def _shown(value: object) -> str:
    number = value if isinstance(value, float) else None
    return (
        repr(value)
        if number is not None or value is None
        else "of the type "
        f"{f'{type(value).__module__}.{type(value).__qualname__}'.removeprefix('builtins.')}"
    )


def _function(value: object) -> str | None:
    if value is None:
        return None
    module, colon, name = str(value).partition(":")
    parts = [*module.split("."), name]
    if not isinstance(value, str) or not colon or not all(part.isidentifier() for part in parts):
        raise UsageError(f"{value!r} does not name a function; write 'package.module:function'")
    return value


def _folder(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise UsageError(f"{value!r} is not a folder; write its path, as 'vendor/their-checkout'")
    return os.fspath(value)


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(
            f"{value!r} is not a list of phases; write their names in order, as ['load', 'epoch']"
        )
    names = tuple(map(phase_name, value))
    if len(set(names)) < len(names):
        raise UsageError(f"{value!r} names a phase twice; each is entered once")
    return names


def _budget(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{value!r} is not a text; write an amount with its unit, as '256MiB'")
    return check_budget(parse_bytes(value))


def _outcome(value: object) -> Outcome:
    try:
        return Outcome(str(value))
    except ValueError:
        raise UsageError(
            f"{value!r} is not how a run can end; {nearest(str(value), map(str, Outcome))}"
        ) from None


def _repeats(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_REPEATS:
        raise UsageError(
            f"{value!r} is not a number of repeats; write a whole number from 1 to {MOST_REPEATS}"
        )
    return value


def _text(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{value!r} is not a name; write a text")
    return value


def _environment(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(
        isinstance(part, str) for pair in value.items() for part in pair
    ):
        raise UsageError(f"{value!r} is not an environment; write {{'NAME': 'value'}}, both texts")
    return dict(value)


def _fixed(value: object) -> Mapping[str, Scalar]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise UsageError(f"{value!r} is not a set of parameters; write {{'name': value}}")
    return {name: scalar(name, each) for name, each in value.items()}


_READERS: Mapping[str, Callable[[object], Any]] = MappingProxyType(
    {
        "body": _function,
        "path": _folder,
        "phases": _names,
        "device_budget": _budget,
        "expected": _outcome,
        "repeats": _repeats,
        "scenario": _text,
        "prepare": _function,
        "environment": _environment,
        "fixed": _fixed,
        "over": _text,
    }
)
_FUNCTIONS = frozenset({"body", "prepare"})
SETTINGS = tuple(_READERS)
"""Names of all arguments that are settings."""
OF_CALLS = tuple(name for name in SETTINGS if name not in ("scenario", "over", "body"))
"""Of those, what a call of ``memory_run`` takes as keywords; all others are parameters of the
point."""


OF_TESTS = ("scenario", "over", *SECTIONS)
"""Arguments of the marker alone: they are about all points of a test."""


def read_call(
    marked: Settings,
    parametrized: Mapping[str, Scalar],
    body: object,
    arguments: Mapping[str, Any],
    root: Path,
) -> tuple[Settings, Mapping[str, Scalar]]:
    """Settings and parameters of a call of ``memory_run``: its own arguments, then those of the
    markers and of parametrize.

    Raises UsageError for what cannot be used.
    """
    _refuse_near_misses(arguments, parametrized)
    called = {name: arguments[name] for name in OF_CALLS if name in arguments}
    given = read_settings({**called, "body": body}, root)
    changed = [*called, *(["body"] if body is not None else [])]
    changes = {name: getattr(given, name) for name in changed}
    parameters = {
        name: scalar(name, value) for name, value in arguments.items() if name not in OF_CALLS
    }
    settings = dataclasses.replace(marked, **changes)
    all_parameters = {**parametrized, **parameters}
    refuse_given_twice(settings, all_parameters)
    return settings, all_parameters


def refuse_given_twice(settings: Settings, parameters: Mapping[str, Scalar]) -> None:
    """Raises UsageError where a parameter of the point is in ``fixed`` too: one of the two values
    would be dropped silently.
    """
    twice = [name for name in settings.fixed if name in parameters]
    if twice:
        name = twice[0]
        raise UsageError(
            f"fixed has {name} = {settings.fixed[name]!r}, and {name} is a parameter of the "
            "point too: parametrized, or in the call; leave it out of one of them"
        )


# Near misses: which argument was probably meant.

_OTHER_WORDS: Mapping[str, str] = MappingProxyType(
    {
        "limit": "budgets",
        "limits": "budgets",
        "atmost": "budgets",
        "atleast": "budgets",
        "memorylimit": "budgets",
        "memorybudget": "budgets",
        "maxmemory": "budgets",
        "devicelimit": "device_budget",
        "devicememory": "device_budget",
        "gpubudget": "device_budget",
        "gpulimit": "device_budget",
        "gpumemory": "device_budget",
        "env": "environment",
        "environ": "environment",
        "outcome": "expected",
        "expects": "expected",
        "numrepeats": "repeats",
        "nrepeats": "repeats",
        "repetitions": "repeats",
        "runs": "repeats",
        "preparation": "prepare",
        "parameters": "fixed",
        "params": "fixed",
        "kwargs": "fixed",
        "parametersfixed": "fixed",
        "pythonpath": "path",
        "syspath": "path",
    }
)
"""What others call them, in small letters and without underscores."""
_SIMILAR = 0.8
"""Least likeness of a near miss. Chosen: "budget" is 0.92 like "budgets", "enviroment" 0.95 like
"environment"; "phased" is a near miss too."""
_SHORT = 5
"""Letters up to which a word has too many neighbours that are words themselves: patch and math
beside path, order beside over."""
_OWN_WORDS = frozenset({"patch"})


def meant(name: str, known: Collection[str]) -> str:
    """Which of the known arguments ``name`` is a near miss of; empty where it is of none."""
    plain = _plain(name)
    other = _OTHER_WORDS.get(plain, "")
    if other in known:
        return other
    for word in known:
        if plain == _plain(word):
            return word
    long = {_plain(word): word for word in known if len(word) > _SHORT}
    near = closest(plain, long, cutoff=_SIMILAR)
    if near:
        return long[near]
    short = [word for word in known if len(word) <= _SHORT and plain not in _OWN_WORDS]
    return next((word for word in short if plain[:1] == word[:1] and _one_apart(plain, word)), "")


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _one_apart(word: str, other: str) -> bool:
    """Whether a single letter was left out, added, exchanged, or has changed places with its
    neighbour.
    """
    shorter, longer = sorted((word, other), key=len)
    if len(longer) - len(shorter) > 1:
        return False
    place = next(
        (at for at, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter)
    )
    if len(shorter) < len(longer):
        return shorter[place:] == longer[place + 1 :]
    swapped = shorter[:place] + shorter[place : place + 2][::-1] + shorter[place + 2 :]
    return longer == swapped or shorter[place + 1 :] == longer[place + 1 :]


def _refuse_near_misses(arguments: Mapping[str, Any], parametrized: Collection[str]) -> None:
    """Raises UsageError, a sentence for each, for keywords that are no parameters, though nothing
    else takes them.
    """
    mistakes = [mistake for name in arguments if (mistake := _near_miss(name, parametrized))]
    if mistakes:
        raise UsageError("\n".join(mistakes))


def _near_miss(name: str, parametrized: Collection[str]) -> str:
    """What is wrong with a keyword of a call; empty where it may be a parameter of the body."""
    if name in OF_TESTS:
        return (
            f"memory_run does not take {name!r}, which is about all points of a test; "
            f"write @pytest.mark.memory({name}=...), and tell calls apart by their parameters"
        )
    if name == "body":
        return (
            "memory_run takes the body without a name; write "
            "memory_run('package.module:function', ...)"
        )
    if name in OF_CALLS or name in parametrized:
        return ""
    if not (word := meant(name, (*OF_CALLS, *OF_TESTS))):
        return ""
    marker = f"@pytest.mark.memory({word}=...)"
    where = f" It belongs in the test's marker: {marker}." if word in OF_TESTS else ""
    return (
        f"memory_run has no argument {name!r}; did you mean {word!r}?{where} If the "
        f"body has a parameter of that name, write fixed={{{name!r}: ...}}, or "
        "parametrize the test with it"
    )


# Functions that were given where the name of one is wanted: a child imports its body, nothing
# else can be handed to it.


def as_text(value: object, root: Path, path: object = None) -> object:
    """The value itself, if it is no function. Raises UsageError, with the text to write, for
    whatever can be called.

    ``path`` is the folder that the test names for its packages.
    """
    if not callable(value):
        return value
    raise UsageError(
        f"{_called(value)} is a function, and each child has to import its own; "
        f"{_advice(value, root, path)}"
    )


def _called(value: Any) -> str:  # noqa: ANN401 - anything may be passed
    return str(
        getattr(value, "__qualname__", None) or f"an object of the type {type(value).__qualname__}"
    )


def _advice(value: object, root: Path, path: object) -> str:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or not name.isidentifier():
        return (
            "define it with def at the top level of a module, and write its name, as "
            "'package.module:function'"
        )
    text, folder = f"{module}:{name}", _folder_below(module, root)
    if not folder or (isinstance(path, str) and Path(path) == Path(folder)):
        return f"write its name, {text!r}"
    return f"write its name, {text!r}, with path={folder!r}"


def _folder_below(module: str, root: Path) -> str:
    """The folder that the module is imported from, from the root on; empty where that is the root,
    or is elsewhere.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_relative_to(root):
        return ""
    parts = module.count(".") + (Path(file).name == "__init__.py")
    folder = (
        str(Path(file).parents[parts].relative_to(root)) if len(Path(file).parents) > parts else ""
    )
    return "" if folder == "." or "site-packages" in folder else folder
