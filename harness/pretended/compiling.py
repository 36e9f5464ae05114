"""Compilers and headers for the stubs: where they are, and sentences for what is missing."""

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from harness.errors import DeviceUnavailable

SOURCES = Path(__file__).resolve().parent
_WARNINGS = ("-Wall", "-Wextra", "-Wno-missing-field-initializers")
WARNED = "warnings"
"""File beside the libraries with what the compiler warned of; a newer one may warn of more, which
is no reason to refuse."""
_COMPILERS = {"C": ("CC", "cc"), "C++": ("CXX", "c++")}


class StubUnavailableError(DeviceUnavailable):
    """The stub cannot be built here; the message says what is missing, and what to do."""


class DoesNotCompileError(StubUnavailableError):
    """Compiler and headers are here, and refuse the sources: a fault of the sources, or a compiler
    that is too old.
    """


def find_compiler(language: Literal["C", "C++"]) -> str:
    """The system's compiler, or the one that CC or CXX names. Raises StubUnavailableError where
    there is none.
    """
    variable, usual = _COMPILERS[language]
    wanted = os.environ.get(variable, usual)
    found = shutil.which(wanted)
    if found is None:
        raise StubUnavailableError(
            f"there is no {language} compiler ({wanted}) here to build the stub driver "
            f"with; install one (gcc, g++), or name it in {variable}"
        )
    return found


def header_of(package: str, name: str) -> Path:
    """The header ``name`` of an installed PyPI package. Raises StubUnavailableError where it is not
    installed.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise StubUnavailableError(
            f"the package {package}, which has {name}, is not installed; pip install "
            "'ptycho-memory[pretended]' brings it"
        ) from error
    found = next((Path(str(file.locate())) for file in files if file.name == name), None)
    if found is None or not found.exists():
        raise StubUnavailableError(
            f"the package {package} is installed but has no {name}; install it again"
        )
    return found


@contextlib.contextmanager
def made_complete(folder: Path) -> Iterator[Path]:
    """A folder to build in, which becomes ``folder`` when all went well, and is gone when not.

    Where another process was faster, its ``folder`` stays and this one's work is dropped.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        _rename_new(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _rename_new(work: Path, folder: Path) -> None:
    try:
        work.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def compile_library(
    compiler: str,
    library: Path,
    sources: Sequence[Path],
    *,
    includes: Sequence[Path] = (),
    options: Sequence[str] = (),
    warn: bool = True,
) -> None:
    """One shared library of ``sources``, of C or C++; its soname is its name. Warnings go to a file
    beside it (``WARNED``).

    Raises DoesNotCompileError, with the compiler's words, where the sources do not compile.
    """
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        *(_WARNINGS if warn else ("-w",)),
        f"-Wl,-soname,{library.name}",
    ]
    command += [
        f"-I{SOURCES}",
        *(f"-I{folder}" for folder in includes),
        "-o",
        str(library),
        *map(str, sources),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DoesNotCompileError(
            f"{library.name} of the pretended card does not compile with {compiler}:\n{done.stderr}"
        )
    if done.stderr:
        with (library.parent / WARNED).open("a") as file:
            file.write(done.stderr)
