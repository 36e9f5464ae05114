"""Compile the stub driver with the system's C compiler, against the genuine header of the PyPI package nvidia-nvml-dev."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness.pretended.control import c_declarations

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
# What a driver before R510 does not have (the changes to the interface that nvml.h's own versions follow).
_OLD_LIBRARY_LACKS = re.compile(r"nvmlDeviceGet(MemoryInfo_v2|\w*RunningProcesses_v3|RunningProcessDetailList|TemperatureV)")
_WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")


class StubUnavailableError(Exception):
    """The stub cannot be built here; the message says what is missing."""


@dataclass(frozen=True)
class Stub:
    """A built library, and the names of its functions in the order of their numbers."""

    library: Path
    functions: tuple[str, ...]


def header() -> Path:
    """nvml.h. Raises StubUnavailableError where the package is not installed."""
    try:
        files = importlib.metadata.files("nvidia-nvml-dev") or []
    except importlib.metadata.PackageNotFoundError as error:
        raise StubUnavailableError("the package nvidia-nvml-dev, which has nvml.h, is not installed") from error
    return next(Path(str(file.locate())) for file in files if file.name == "nvml.h")


def build(folder: Path, nvml_h: Path, *, old_library: bool = False) -> Stub:
    """Compile into ``folder``, which must not exist; ``old_library`` leaves out what drivers before R510 lack.

    Raises StubUnavailableError where there is no compiler. ``folder`` appears only when it is whole.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise StubUnavailableError("there is no C compiler (cc) here to build the stub driver with")
    functions, implemented = _functions(nvml_h, old_library=old_library)
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    work.mkdir(parents=True)
    (work / "control.h").write_text(c_declarations())
    numbers = "".join(f"FUNCTION_{name} = {number},\n" for number, name in enumerate(functions))
    (work / "functions.h").write_text(f"enum function {{\n{numbers}}};\n")
    rest = "".join(f"int {name}(void) {{ return stub_not_supported(FUNCTION_{name}); }}\n" for name in functions[implemented:])
    (work / "rest.c").write_text(f'#include "functions.h"\nint stub_not_supported(int);\n{rest}')
    command = [compiler, "-shared", "-fPIC", "-O1", *_WARNINGS, f"-Wl,-soname,{LIBRARY}", f"-I{work}", f"-I{nvml_h.parent}"]
    command += ["-DSTUB_OLD_LIBRARY"] if old_library else []
    command += ["-o", str(work / LIBRARY), str(SOURCE), str(work / "rest.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the stub driver does not compile:\n{done.stderr}")
    work.rename(folder)
    return Stub(library=folder / LIBRARY, functions=functions)


def load(folder: Path, nvml_h: Path, *, old_library: bool = False) -> Stub:
    """The stub that ``build`` left in ``folder``."""
    return Stub(library=folder / LIBRARY, functions=_functions(nvml_h, old_library=old_library)[0])


def _functions(nvml_h: Path, *, old_library: bool) -> tuple[tuple[str, ...], int]:
    """All functions of the header, those of nvml.c first, and how many these are."""
    own = re.findall(r"^(?:EXPORT(?:_EARLY)?|LIST_FUNCTION)\((nvml\w+),", SOURCE.read_text(), re.MULTILINE)
    declared = re.findall(r"^nvmlReturn_t\s+DECLDIR\s+(nvml\w+)\s*\(", nvml_h.read_text(), re.MULTILINE)
    names = [name for name in dict.fromkeys([*own, *declared]) if not (old_library and _OLD_LIBRARY_LACKS.fullmatch(name))]
    return tuple(names), len([name for name in own if name in names])
