"""Ptychography scans fed to TensorFlow without holding them in memory.

``Scan.open`` opens a measured scan without reading its frames. ``LazyPtychoDataContainer`` groups
its frames and feeds them batch by batch; ``PtychoDataContainer`` puts all of them on the device.
``RawData`` is PtychoPINN's scan of loose arrays. The modules: ``loader`` has these containers and
PtychoPINN's functions, ``model`` builds and compiles a network, ``reconstruct`` gives the object of
a complete scan, ``simulate`` writes scans for users without data, ``errors`` has what users can act
on.

Importing this package imports neither TensorFlow nor h5py: each name is loaded when it is first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptycho.containers.eager import PtychoDataContainer
    from ptycho.containers.lazy import LazyPtychoDataContainer
    from ptycho.errors import ContainerError, PtychoError, ScanError, ScanFileError
    from ptycho.raw_data import RawData
    from ptycho.scan import Scan

    __version__: str

__all__ = [
    "ContainerError",
    "LazyPtychoDataContainer",
    "PtychoDataContainer",
    "PtychoError",
    "RawData",
    "Scan",
    "ScanError",
    "ScanFileError",
]

_HOMES = {
    "ContainerError": "ptycho.errors",
    "LazyPtychoDataContainer": "ptycho.containers.lazy",
    "PtychoDataContainer": "ptycho.containers.eager",
    "PtychoError": "ptycho.errors",
    "RawData": "ptycho.raw_data",
    "Scan": "ptycho.scan",
    "ScanError": "ptycho.errors",
    "ScanFileError": "ptycho.errors",
}
"""Where each name of ``__all__`` is defined."""
_MODULES = ("errors", "loader", "model", "raw_data", "reconstruct", "scan", "simulate")
"""What users import beside these names."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class, a module or the version
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"ptycho.{name}")
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES, "__version__"])


def _version() -> str:
    """That of the installed distribution; a copy of the files alone has none."""
    from importlib.metadata import PackageNotFoundError, version  # as slow as all else here

    try:
        return version("ptycho-lazy")
    except PackageNotFoundError:
        return "unknown, because the distribution ptycho-lazy is not installed"
