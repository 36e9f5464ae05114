"""Compile the stub of NVML with the system's C compiler, against the genuine header of the PyPI
package nvidia-nvml-dev.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from harness.pretended.compiling import (
    SOURCES,
    StubUnavailableError,
    compile_library,
    find_compiler,
    header_of,
    made_complete,
)
from harness.pretended.layout import c_declarations

__all__ = ["LIBRARY", "Stub", "StubUnavailableError", "build", "compile_nvml", "header", "load"]

SOURCE = SOURCES / "nvml.c"
LIBRARY = "libnvidia-ml.so.1"
# What a driver before R510 does not have (the changes to the interface that nvml.h's own versions
# follow).
_OLD_LIBRARY_LACKS = re.compile(
    r"nvmlDeviceGet(MemoryInfo_v2|\w*RunningProcesses_v3|RunningProcessDetailList|TemperatureV)"
)


@dataclass(frozen=True)
class Stub:
    """A built library, and the names of its functions in the order of their numbers."""

    library: Path
    functions: tuple[str, ...]


def header() -> Path:
    """nvml.h. Raises StubUnavailableError where the package is not installed."""
    return header_of("nvidia-nvml-dev", "nvml.h")


def build(folder: Path, nvml_h: Path, *, old_library: bool = False) -> Stub:
    """Compile into ``folder``, which must not exist; ``old_library`` leaves out what drivers before
    R510 lack.

    Raises StubUnavailableError where there is no compiler. ``folder`` appears only when it is
    complete.
    """
    with made_complete(folder) as work:
        compile_nvml(work, nvml_h, old_library=old_library)
    return load(folder, nvml_h, old_library=old_library)


def compile_nvml(work: Path, nvml_h: Path, *, old_library: bool = False) -> None:
    """The library into ``work``. Raises StubUnavailableError where there is no compiler."""
    compiler = find_compiler("C")
    functions, implemented = _functions(nvml_h, old_library=old_library)
    (work / "control.h").write_text(c_declarations())
    numbers = "".join(f"FUNCTION_{name} = {number},\n" for number, name in enumerate(functions))
    (work / "functions.h").write_text(f"enum function {{\n{numbers}}};\n")
    rest = "".join(
        f"int {name}(void) {{ return stub_not_supported(FUNCTION_{name}); }}\n"
        for name in functions[implemented:]
    )
    (work / "nvml_rest.c").write_text(
        f'#include "functions.h"\nint stub_not_supported(int);\n{rest}'
    )
    compile_library(
        compiler,
        work / LIBRARY,
        (SOURCE, work / "nvml_rest.c"),
        includes=(work, nvml_h.parent),
        options=("-DSTUB_OLD_LIBRARY",) if old_library else (),
    )


def load(folder: Path, nvml_h: Path, *, old_library: bool = False) -> Stub:
    """The stub that ``build`` left in ``folder``."""
    return Stub(library=folder / LIBRARY, functions=_functions(nvml_h, old_library=old_library)[0])


def _functions(nvml_h: Path, *, old_library: bool) -> tuple[tuple[str, ...], int]:
    """All functions of the header, those of nvml.c first, and how many these are."""
    own = re.findall(
        r"^(?:EXPORT(?:_EARLY)?|LIST_FUNCTION)\((nvml\w+),", SOURCE.read_text(), re.MULTILINE
    )
    declared = re.findall(
        r"^nvmlReturn_t\s+DECLDIR\s+(nvml\w+)\s*\(", nvml_h.read_text(), re.MULTILINE
    )
    names = [
        name
        for name in dict.fromkeys([*own, *declared])
        if not (old_library and _OLD_LIBRARY_LACKS.fullmatch(name))
    ]
    return tuple(names), len([name for name in own if name in names])
