"""Build a pretended card: stubs of the CUDA libraries that TensorFlow's own GPU device starts on,
without a card.

Everything is compiled here, with the system's compilers, against headers of PyPI packages; nothing
of NVIDIA's is shipped. What it is, and what stays an artefact, is in README.md.
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import DeviceUnavailable
from harness.pretended.control import c_declarations

# Compilers and headers for the stubs: where they are, and sentences for what is missing.


SOURCES = Path(__file__).resolve().parent
_WARNINGS = ("-Wall", "-Wextra", "-Wno-missing-field-initializers")
WARNED = "warnings"
"""File beside the libraries with what the compiler warned of; a newer one may warn of more, which
is no reason to refuse."""
_COMPILERS = {"C": ("CC", "cc"), "C++": ("CXX", "c++")}
SOURCE = SOURCES / "nvml.c"
LIBRARY = "libnvidia-ml.so.1"
# What a driver before R510 does not have (the changes to the interface that nvml.h's own versions
# follow).
_OLD_LIBRARY_LACKS = re.compile(
    r"nvmlDeviceGet(MemoryInfo_v2|\w*RunningProcesses_v3|RunningProcessDetailList|TemperatureV)"
)
# What TensorFlow looks for when it starts its GPU device (stream_executor,
# MaybeTryDlopenGPULibraries) and when it traces; none of them is called by anything that runs on a
# pretended card.
_EMPTY = (
    "libcublas.so.12",
    "libcublasLt.so.12",
    "libcufft.so.11",
    "libcusolver.so.11",
    "libcusparse.so.12",
    "libnccl.so.2",
    "libcupti.so.12",
    "libnvrtc.so.12",
    "libcurand.so.10",
)
# cuda_runtime_api.h includes it from the compiler's package, which has 20 MB for these lines. They
# are empty for a host.
_HOST_DEFINES = """\
#pragma once
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __align__(n)
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __specialization_static static
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define __host__
#define __device__
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
"""
_FRAMEWORK = "libtensorflow_framework.so.2"


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


# Compile the stub of NVML with the system's C compiler, against the genuine header of the PyPI
# package nvidia-nvml-dev.


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowFound:
    """An installation of TensorFlow, found without importing it."""

    folder: Path
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A built card: the folder of its libraries, and the functions of its NVML in the order of
    their numbers.
    """

    folder: Path
    functions: tuple[str, ...]

    @property
    def nvml(self) -> Path:
        """libnvidia-ml.so.1, which a process that runs already loads before it asks NVML
        anything.
        """
        return self.folder / LIBRARY


def find_tensorflow(python: str = sys.executable) -> TensorFlowFound:
    """TensorFlow of the interpreter ``python``. Raises StubUnavailableError where none that knows
    CUDA is installed.
    """
    folder = _package_folder(python)
    if sys.platform != "linux" or not (folder / _FRAMEWORK).exists():
        raise StubUnavailableError(
            f"{folder} has no {_FRAMEWORK}: a pretended card needs TensorFlow's package for Linux"
        )
    built = re.search(
        r"'is_cuda_build',\s*(True|False)", (folder / "python/platform/build_info.py").read_text()
    )
    if built is None or built[1] == "False":
        raise StubUnavailableError(
            f"TensorFlow in {folder} is the CPU build (tensorflow-cpu), which has no GPU "
            "device; install tensorflow"
        )
    names = sorted(folder.parent.glob("tensorflow-*.dist-info")) or sorted(
        folder.parent.glob("t*f*.dist-info")
    )
    version = names[-1].name.removesuffix(".dist-info").split("-", 1)[1] if names else "unknown"
    return TensorFlowFound(folder=folder, version=version)


def _package_folder(python: str) -> Path:
    asked = (
        "import importlib.util as u; s = u.find_spec('tensorflow'); "
        "print(s.submodule_search_locations[0] if s else '')"
    )
    if python == sys.executable:
        spec = importlib.util.find_spec("tensorflow")
        found = (
            spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else ""
        )
    else:
        try:
            found = subprocess.run(
                [python, "-c", asked], capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError) as error:
            raise StubUnavailableError(
                f"{python} does not run, so its TensorFlow cannot be found: {error}"
            ) from error
    if not found:
        raise StubUnavailableError(
            f"TensorFlow is not installed for {python}; a pretended card is for one version of it"
        )
    return Path(found)


def build_card(folder: Path, python: str = sys.executable) -> Card:
    """The card for TensorFlow of ``python``, in ``folder``, built there unless it is there;
    ``folder`` appears complete.

    Takes about 12 s of CPU. Raises StubUnavailableError where a compiler, a header or TensorFlow's
    CUDA build is missing.
    """
    nvml_h = header()
    if not folder.exists():
        tensorflow = find_tensorflow(python)
        cuda_h = header_of("nvidia-cuda-runtime-cu12", "cuda.h")
        with made_complete(folder) as work:
            _build(work, tensorflow, nvml_h, cuda_h.parent)
    return Card(folder=folder, functions=load(folder, nvml_h).functions)


def cached_card(base: Path | None = None, python: str = sys.executable) -> Card:
    """The card from the user's cache (``base``), built if this version of TensorFlow has none from
    these sources yet.
    """
    folder = (base or _user_cache()) / card_key(find_tensorflow(python))
    with locked(folder.parent):
        return build_card(folder, python)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time builds in ``folder``, which is made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise StubUnavailableError(
            f"the pretended card cannot be kept in {folder} ({error.strerror}); name a "
            "cache to write to in XDG_CACHE_HOME"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _user_cache() -> Path:
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "ptycho-memory"
        / "pretended"
    )


def card_key(tensorflow: TensorFlowFound) -> str:
    """Version of TensorFlow and a digest of everything else that decides what is built: equal keys,
    equal cards.
    """
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        if source.suffix in {".c", ".cc", ".h"} or source.name in {"card.py", "control.py"}:
            digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    for package in ("nvidia-nvml-dev", "nvidia-cuda-runtime-cu12"):
        try:
            digest.update(importlib.metadata.version(package).encode())
        except importlib.metadata.PackageNotFoundError:
            continue  # building will say so
    return f"tensorflow-{tensorflow.version}-{digest.hexdigest()[:16]}"


def _build(work: Path, tensorflow: TensorFlowFound, nvml_h: Path, cuda: Path) -> None:
    c, cpp = find_compiler("C"), find_compiler("C++")
    compile_nvml(work, nvml_h)
    (work / "crt").mkdir()
    (work / "crt/host_defines.h").write_text(_HOST_DEFINES)
    (work / "cuda_rest.c").write_text(_rest((cuda / "cuda.h").read_text(), r"cu[A-Z]\w*"))
    (work / "cudart_rest.c").write_text(
        _rest((cuda / "cuda_runtime_api.h").read_text(), r"cuda[A-Z]\w*")
    )
    hidden = ("-std=gnu11", "-D_GNU_SOURCE", "-fvisibility=hidden", "-pthread", "-ldl")
    driver = [
        SOURCES / f"{name}.c" for name in ("cuda", "cuda_memory", "cuda_streams", "cards", "arena")
    ]
    compile_library(
        c,
        work / "libcuda.so.1",
        [*driver, work / "cuda_rest.c"],
        includes=(work, cuda),
        options=hidden,
    )
    runtime = (SOURCES / "cudart.c", work / "cudart_rest.c")
    compile_library(c, work / "libcudart.so.12", runtime, includes=(work, cuda), options=hidden)
    compile_library(c, work / "libcudnn.so.9", (SOURCES / "cudnn.c",))
    (work / "empty.c").write_text("typedef int nothing;\n")
    for name in _EMPTY:
        compile_library(c, work / name, (work / "empty.c",))
    _build_kernels(cpp, work, tensorflow)


def _build_kernels(compiler: str, work: Path, tensorflow: TensorFlowFound) -> None:
    compile_library(
        compiler,
        work / "libpretended_kernels.so",
        (SOURCES / "kernels.cc",),
        includes=(tensorflow.folder / "include",),
        # as tf.sysconfig.get_compile_flags() and get_link_flags() have them
        options=(
            "-std=c++17",
            "-fvisibility=hidden",
            "-D_GLIBCXX_USE_CXX11_ABI=1",
            "-DEIGEN_MAX_ALIGN_BYTES=64",
            f"-L{tensorflow.folder}",
            f"-l:{_FRAMEWORK}",
        ),
        warn=False,  # the headers of TensorFlow do
    )


def _rest(header: str, name: str) -> str:
    """A C source with all functions of ``header``, weak, so that those written out take
    precedence.
    """
    declared = re.findall(rf"(?:CUDAAPI|CUDARTAPI|CUDARTAPI_CDECL)\s+({name})\s*\(", header)
    versions = re.findall(rf"\b({name}_v[2-9])\b", header)  # "#define cuMemAlloc cuMemAlloc_v2"
    function = (
        '__attribute__((weak, visibility("default"))) int {0}(void) {{ return '
        'pretended_not_supported("{0}"); }}\n'
    )
    return "int pretended_not_supported(const char *);\n" + "".join(
        function.format(found) for found in dict.fromkeys([*declared, *versions])
    )
