"""The scans that the scenarios read: made once, in a child of their own, then only opened."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ptycho.simulate
from ptycho.scan import Scan


def scan_path(workspace: Path, parameters: Mapping[str, Any]) -> Path:
    """The file with exactly ``stack_size`` frames that the point's parameters mean.

    Files that are made carry in their name whatever their content depends on, so that a stale one
    is never read.
    """
    stack_size, frame_size = parameters["stack_size"], parameters["frame_size"]
    source = parameters.get("scan_file")
    if source is None:
        simulator = hashlib.sha256(Path(ptycho.simulate.__file__).read_bytes()).hexdigest()[:8]
        return workspace / f"simulated-{stack_size}-frames-of-{frame_size}-{simulator}.npz"
    original = Path(source)
    state = original.stat()
    identity = hashlib.sha256(
        f"{original}:{state.st_size}:{state.st_mtime_ns}".encode()
    ).hexdigest()[:8]
    return workspace / f"{original.stem}-{stack_size}-frames-{identity}.npz"


def open_scan(workspace: Path, path: Path) -> Scan:
    """The scan at ``path``, as a new user opens it: kept energies would hide the pass over the
    frames from all runs but one.
    """
    return Scan.open(path, cache_dir=workspace, keep_energies=False)


def prepare(workspace: Path, parameters: Mapping[str, Any]) -> None:
    """Make the point's scan unless it is there: simulated, or the first frames of the user's own;
    unpack it if it is deflated.
    """
    path = scan_path(workspace, parameters)
    if not path.exists():
        _make(workspace, path, parameters)
    # The copy of compressed frames is made here, or the first run alone would have it in its
    # measurements.
    open_scan(workspace, path)


def _make(workspace: Path, path: Path, parameters: Mapping[str, Any]) -> None:
    source, stack_size = parameters.get("scan_file"), parameters["stack_size"]
    if source is None:
        ptycho.simulate.simulate(
            path, frame_count=stack_size, frame_size=parameters["frame_size"], seed=0
        )
        return
    scan = open_scan(workspace, Path(source))
    if scan.frame_count == stack_size:
        path.symlink_to(source)  # the user's own file is read as it is, deflated or not
    else:
        ptycho.simulate.subset(scan, path, frame_count=stack_size)
