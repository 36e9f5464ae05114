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
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.pretended import building
from harness.pretended.building import compile_nvml
from harness.pretended.compiling import (
    SOURCES,
    StubUnavailableError,
    compile_library,
    find_compiler,
    header_of,
    made_complete,
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
        return self.folder / building.LIBRARY


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
    nvml_h = building.header()
    if not folder.exists():
        tensorflow = find_tensorflow(python)
        cuda_h = header_of("nvidia-cuda-runtime-cu12", "cuda.h")
        with made_complete(folder) as work:
            _build(work, tensorflow, nvml_h, cuda_h.parent)
    return Card(folder=folder, functions=building.load(folder, nvml_h).functions)


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
        if source.suffix in {".c", ".cc", ".h"} or source.name in {
            "layout.py",
            "card.py",
            "building.py",
            "compiling.py",
        }:
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
