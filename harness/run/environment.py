"""Where and with what a run was measured, read without importing any of it."""

import hashlib
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "h5py",
    "pandas",
    "scipy",
    "nvidia-ml-py",
    "ptycho-memory",
)

_NO_LOCKS = ("--no-optional-locks",)
"""git refreshes its index while it is asked for changes; a measurement that is killed then would
leave a lock behind."""


def describe_environment(folder: Path, *, isolation: str) -> dict[str, Any]:
    """Versions, machine and git commit of ``folder``; what cannot be told is "unavailable: why"."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain")
    return {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        **{package: _version(package) for package in _PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count() or "unavailable: the system does not tell",
        "host_memory_bytes": host_memory_bytes(),
        "git_commit": commit,
        "git_dirty": changes if changes.startswith("unavailable") else bool(changes),
        "git_changes": _fingerprint(folder),
        "isolation": isolation,
    }


def host_memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def tensorflow_minor() -> str:
    """``"2.21"``: numbers of the allocator are compared only within a minor version."""
    return ".".join(_version("tensorflow").split(".")[:2])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unavailable: not installed"


def _fingerprint(folder: Path) -> str:
    """Sixteen digits for the changes to tracked files: two runs with the same ones ran the same
    code.

    Files that git does not track are left out: the run directory itself may be one.
    """
    try:
        done = subprocess.run(
            ["git", *_NO_LOCKS, "diff", "HEAD"],
            cwd=folder,
            capture_output=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"unavailable: git diff failed ({type(error).__name__})"
    return hashlib.sha256(done.stdout).hexdigest()[:16] if done.stdout else "none"


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *_NO_LOCKS, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"unavailable: git {arguments[0]} failed ({type(error).__name__})"
    return done.stdout.strip()
