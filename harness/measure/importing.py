"""What a child imports: which folders come first, which packages stay out, and where everything
came from.

Two codes of the same name would otherwise be mistaken for each other in silence: a foreign checkout
may have a package ``ptycho`` of its own, and a revision under test has to be measured instead of
what is installed.
"""

import importlib
import inspect
import site
import sys
import sysconfig
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.errors import CodeUnavailable, HarnessError, UsageError
from harness.words import closest

_OURS = Path("harness", "measure", "worker.py")
"""What every folder has in which a copy of this harness lies: a checkout, or site-packages."""
_MOST_FOLDERS = 200
"""Chosen: of a root with more folders than that, the first ones are looked into."""

_HARNESS = str(Path(__file__).resolve().parents[1])
_MADE_BY_AUTOGRAPH = "__autograph_generated_file"
"""How the files begin that TensorFlow writes for functions it has translated
(tensorflow/python/autograph/pyct/loader.py)."""

# What to do about a body whose call alone runs none of its lines.
_ADVICE = "everything has to happen in the call itself: write a plain def "
_RUN = "that runs it with asyncio.run(...), inside a phase where it is to be measured"
_LOOP = "without yield; loop over a generator of your own inside it"


def arrange_imports(
    folders: Sequence[str],
    *,
    root: str,
    kept_out: Collection[str] = (),
    subjects: Mapping[str, str] | None = None,
) -> None:
    """Let this process import from ``folders`` before anything else, and then from ``root``.

    Packages named in ``kept_out`` come with this harness: they may be imported from ``folders``,
    and from anywhere else where no copy of it lies. ``subjects`` are packages under test, by name,
    with the one folder that each may be imported from. Raises CodeUnavailable when a package under
    test has been imported already.
    """
    sys.path[:0] = [*folders, root]
    importlib.invalidate_caches()
    found = [name for name in subjects or {} if name in sys.modules]
    if found:
        raise CodeUnavailable(
            f"{found[0]} was imported before the body ({_origin(sys.modules[found[0]])}), "
            "so that no other code of this name can be measured; leave what imports it "
            "out of memory_preload"
        )
    if kept_out or subjects:
        sys.meta_path.insert(0, Gatekeeper(folders, kept_out, subjects or {}))


class Gatekeeper:
    """The first of the finders: it alone finds the packages that may not come from just
    anywhere.
    """

    def __init__(
        self, folders: Collection[str], kept_out: Collection[str], subjects: Mapping[str, str]
    ) -> None:
        self._folders = frozenset(folders)
        self._kept_out = frozenset(kept_out)
        self._subjects = dict(subjects)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The package from where it may come; None leaves a name to the other finders. Raises
        ModuleNotFoundError.
        """
        del path, target  # top-level packages have neither
        if folder := self._subjects.get(name):
            return self._found(
                PathFinder.find_spec(name, [folder]), f"no package {name!r} in {folder}", name
            )
        if name in self._kept_out:
            return self._find_elsewhere(name)
        return None

    def _find_elsewhere(self, name: str) -> ModuleSpec:
        ours = [
            entry
            for entry in dict.fromkeys(sys.path)
            if entry not in self._folders and _is_ours(entry)
        ]
        elsewhere = [entry for entry in sys.path if entry not in ours]
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = (
                PathFinder.find_spec(name, elsewhere)
                if finder is PathFinder
                else finder.find_spec(name, None)
            )
            if spec is not None and (
                finder is PathFinder or not any(map(_is_ours, _folders_of(spec)))
            ):
                return self._found(spec, "", name)
        kept = next((Path(entry, name) for entry in ours if Path(entry, name).exists()), None)
        but = (
            f"; the one that comes with this harness ({kept}) was kept out, so that it is "
            "not measured by mistake"
            if kept
            else ""
        )
        raise ModuleNotFoundError(f"no package {name!r} in {_searched(elsewhere)}{but}", name=name)

    def _found(self, spec: ModuleSpec | None, sentence: str, name: str) -> ModuleSpec:
        if spec is None:
            raise ModuleNotFoundError(sentence, name=name)
        if spec.submodule_search_locations is not None:
            # A folder without __init__.py would otherwise take in others of its name whenever
            # sys.path changes.
            spec.submodule_search_locations = list(spec.submodule_search_locations)
        return spec


def load(name: str) -> Callable[..., Any]:
    """The function that ``"package.module:function"`` names.

    Raises CodeUnavailable when its module is missing or fails to import, UsageError when the
    function is not there.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (MemoryError, HarnessError):
        raise
    except (Exception, SystemExit) as error:
        if type(error).__name__ == "ResourceExhaustedError":
            # TensorFlow's, by name: nothing here imports it; an import can run out of memory too
            raise
        raise CodeUnavailable(f"{name!r} cannot be loaded: {_why(module_name, error)}") from error
    found = getattr(module, function_name, None)
    if found is None:
        functions = [each for each in vars(module) if callable(vars(module)[each])]
        near = closest(function_name, functions)
        hint = f"; did you mean {near!r}?" if near else ""
        raise UsageError(
            f"{name!r} cannot be loaded: {module_name} ({_origin(module)}) has no "
            f"{function_name!r}{hint}"
        )
    if not callable(found):
        raise UsageError(
            f"{name!r} is no function, but of the type {type(found).__name__}; name one"
        )
    loaded: Callable[..., Any] = found
    return loaded


def origins(watched: Collection[str] = ()) -> dict[str, str]:
    """Where code came from, as file by top-level package: this harness, ``watched``, and all that
    is not installed.
    """
    installed = _installed_folders()
    # A copy: a thread of the body's may be importing.
    modules = [
        (name, module)
        for name, module in sys.modules.copy().items()
        if "." not in name and name != "__main__"
    ]
    places = {name: _origin(module) for name, module in modules}
    asked = {"harness", *watched}
    return {
        name: place
        for name, place in sorted(places.items())
        if place and (name in asked or not _lies_in(place, installed))
    }


@cache
def is_users(filename: str) -> bool:
    """Whether a file of code is somebody's own: not Python's, not installed, not of this harness,
    and not made by TensorFlow out of a function.
    """
    made = filename.startswith("<") or Path(filename).name.startswith(_MADE_BY_AUTOGRAPH)
    return not made and not _lies_in(filename, (_HARNESS, *_installed_folders()))


def _why(module_name: str, error: BaseException) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    at = _place_of(error)
    if missing is not None and str(error) != f"No module named {missing!r}":
        return f"{error}{at}"  # the gatekeeper's sentence, or somebody's own
    if missing is not None and (module_name == missing or module_name.startswith(f"{missing}.")):
        return (
            f"no module {missing!r} in {_searched(sys.path)}, and none is "
            f"installed{_lies_elsewhere(missing)}"
        )
    if missing is not None:
        return (
            f"no module {missing!r} in {_searched(sys.path)}, and none is "
            f"installed{at}{_lies_elsewhere(missing)}"
        )
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}{at}" if said else f"{type(error).__name__}{at}"


def _lies_elsewhere(module_name: str) -> str:
    """What to write where a folder of the root has the module that was not found: ``src`` in most
    layouts.
    """
    parts = module_name.split(".")
    for folder in sorted(
        _folders_to_look_in(Path.cwd()), key=lambda folder: (folder.name != "src", folder.name)
    ):
        place = folder.joinpath(*parts)
        if place.with_suffix(".py").is_file() or (place.is_dir() and any(place.glob("*.py"))):
            return (
                f"; {folder.name} has one: write path={folder.name!r}, or add it to pytest's "
                "setting pythonpath"
            )
    return ""


def _folders_to_look_in(root: Path) -> list[Path]:
    try:
        found = [
            folder
            for folder in root.iterdir()
            if folder.is_dir() and not folder.name.startswith((".", "_"))
        ]
    except OSError:
        return []
    return found[:_MOST_FOLDERS]


def _place_of(error: BaseException) -> str:
    """Which line of the user's asked for it; empty where that was no line of a file."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
    ]
    own = [
        frame
        for frame in frames
        if frame.filename != __file__ and not frame.filename.endswith("/importlib/__init__.py")
    ]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


def _searched(entries: Sequence[str]) -> str:
    """The folders that are searched before what is installed, for people."""
    installed = _installed_folders()
    own = [
        entry
        for entry in dict.fromkeys(entries)
        if entry and not entry.endswith(".zip") and not _lies_in(entry, installed)
    ]
    return ", ".join(own) or "no folder at all"


def _installed_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    found = [
        paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")
    ] + site.getsitepackages()
    every = [*found, site.getusersitepackages()]
    return tuple(dict.fromkeys([*every, *(str(Path(folder).resolve()) for folder in every)]))


def _lies_in(place: str, folders: Sequence[str]) -> bool:
    # Nearly all of some hundred modules are recognized by their text; only the rest is worth asking
    # the file system for.
    return _begins(place, folders) or _begins(str(Path(place).resolve()), folders)


def _begins(place: str, folders: Sequence[str]) -> bool:
    return any(place == folder or place.startswith(f"{folder}/") for folder in folders)


def _is_ours(entry: str) -> bool:
    return Path(entry, _OURS).exists()


def _folders_of(spec: ModuleSpec) -> list[str]:
    """The folders that hold the package or module; none where it comes from no file."""
    places = spec.submodule_search_locations  # of a package: its own folders
    if places is None:
        places = [spec.origin] if spec.origin and spec.has_location else []
    return [str(Path(place).resolve().parent) for place in places]


def _origin(module: ModuleType | None) -> str:
    """The file of a module, or the first folder of a package without one; empty for what is built
    in.
    """
    file = getattr(module, "__file__", None)
    return str(file or next(iter(getattr(module, "__path__", ())), ""))


# Bodies that do nothing when they are called: what they give back would have to be awaited, or
# iterated over, by somebody.


def refuse_deferred(name: str, body: Callable[..., Any], *, what: str = "body") -> None:
    """Raises UsageError for a function whose call alone runs none of its lines, before anything is
    measured.

    What a decorator has made of it is asked, not what it was made of: that may well run it.
    """
    called = f"the {what} {name!r} is"
    for given in (body, getattr(type(body), "__call__", body)):  # noqa: B004 - of an object that is called, its method
        if inspect.isasyncgenfunction(given):
            raise UsageError(
                f"{called} an async generator (async def with yield), and a call runs none "
                f"of it; {_ADVICE}{_RUN}"
            )
        if inspect.iscoroutinefunction(given):
            raise UsageError(
                f"{called} a coroutine (async def), and a call runs none of it; {_ADVICE}{_RUN}"
            )
        if inspect.isgeneratorfunction(given):
            raise UsageError(
                f"{called} a generator (it has a yield), and a call runs none of it; "
                f"{_ADVICE}{_LOOP}"
            )


def refuse_returned(name: str, returned: object, *, what: str = "body") -> None:
    """Raises UsageError where a body has returned what still waits to be run."""
    called = f"the {what} {name!r} returned"
    if inspect.iscoroutine(returned):
        returned.close()  # or Python warns that it was never awaited
    if inspect.isgenerator(returned):
        raise UsageError(f"{called} a generator, none of which has run; {_ADVICE}{_LOOP}")
    if inspect.isasyncgen(returned):
        raise UsageError(f"{called} an async generator, none of which has run; {_ADVICE}{_RUN}")
    if isinstance(returned, Awaitable):
        raise UsageError(
            f"{called} a {type(returned).__name__} that nobody awaits; {_ADVICE}{_RUN}"
        )
