"""``python -m ptycho``: look at a scan, simulate one, cut one."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ptycho
from ptycho.errors import ContainerError, PtychoError, one_line
from ptycho.files import Progress
from ptycho.scan import DEFAULT_CACHE_BYTES, Scan
from ptycho.simulate import DEFAULT_PHOTONS_PER_FRAME, simulate, subset

if TYPE_CHECKING:
    from rich.progress import TaskID

    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_USAGE = 2
"""What argparse itself ends with on a bad command line."""
EXIT_BROKEN_PIPE = 1
"""As docs.python.org recommends for SIGPIPE."""
_EXAMPLES = """examples:
  python -m ptycho info scan.npz
  python -m ptycho info scan.cxi --intensity --check
  python -m ptycho info scan.h5 --frames /entry/data --positions /entry/x /entry/y --intensity \
--dc corner
  python -m ptycho info frames.npy --positions positions.csv --units metres --pixel-size-m 20e-9
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 with one sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        text = options.run(options)
    except PtychoError as error:
        print(f"ptycho: {error}", file=sys.stderr)
        return EXIT_USAGE
    return _print(text)


def _print(text: str) -> int:
    """0, or 1 where the reader of a pipe has gone: nothing is left to say then, not even by the
    interpreter.
    """
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered is flushed at exit: it must not meet the broken pipe again
        # (docs.python.org, SIGPIPE).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return 0


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; name a file")
    return Path(text)


_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
"""IEC 80000-13; a number alone is bytes."""


def _bytes(text: str) -> int:
    """An amount of bytes, with its unit or without."""
    found = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2] not in _UNITS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an amount of bytes; write B, KiB, MiB or GiB, for example 32MiB"
        )
    return int(found[1]) * _UNITS[found[2]]


_SIMULATING: dict[str, dict[str, Any]] = {
    "out": {"type": _path, "metavar": "OUT", "help": "the NPZ to write, for example scan.npz"},
    "--frame-count": {
        "type": int,
        "required": True,
        "help": "frames to simulate, for example 2048",
    },
    "--frame-size": {
        "type": int,
        "default": 64,
        "help": "pixels N of a frame of N x N (default: %(default)s)",
    },
    "--seed": {
        "type": int,
        "default": 0,
        "help": "the same seed gives the same file (default: %(default)s)",
    },
    "--photons-per-frame": {
        "type": float,
        "default": DEFAULT_PHOTONS_PER_FRAME,
        "help": "mean counts of a frame (default: %(default)g)",
    },
}
"""The arguments of ``simulate``: those of ``ptycho.simulate.simulate``."""
_READING: dict[str, dict[str, Any]] = {
    "--frames": {"metavar": "NAME", "help": "the frames in the file; plain HDF5 needs it"},
    "--positions": {
        "nargs": "+",
        "metavar": "NAME",
        "help": "patch centres [x, y], column and row: one NAME of (M, 2), or two, x first",
    },
    "--probe": {"metavar": "NAME", "help": "(N, N) complex"},
    "--object": {"metavar": "NAME", "help": "(H, W) complex"},
    "--mask": {
        "metavar": "NAME",
        "help": "(N, N), 0 for good pixels; the others read 0 (default: that of CXI)",
    },
    "--intensity": {
        "action": "store_true",
        "help": "frames are counts; the amplitude is their square root",
    },
    "--dc": {
        "choices": ("center", "corner"),
        "default": "center",
        "help": "where zero frequency is (default: %(default)s)",
    },
    "--axes": {
        "default": "frame,row,column",
        "help": "the stored axes, slowest first (default: %(default)s)",
    },
    "--units": {
        "choices": ("pixels", "metres"),
        "help": "of positions (default: metres for CXI, else pixels)",
    },
    "--pixel-size-m": {
        "type": float,
        "help": "one object pixel in metres (default for CXI: that of the far field)",
    },
    "--cache-dir": {
        "type": _path,
        "help": "of unpacked frames and kept energies (default: the user's cache folder)",
    },
    "--cache-bytes": {
        "metavar": "SIZE",
        "type": _bytes,
        "default": DEFAULT_CACHE_BYTES,
        "help": f"memory for chunks of an HDF5 file, such as 64MiB (default: "
        f"{DEFAULT_CACHE_BYTES // 2**20}MiB)",
    },
    "--repack": {
        "action": "store_true",
        "help": "write chunked or scattered frames one after the other, once",
    },
}
"""The options of every command that reads a scan: the arguments of ``Scan.open``."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ptycho", description="Look at ptychography scans, simulate one, cut one."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    reading = _reading_options()
    _add_info(commands, reading)
    _add_simulate(commands)
    _add_subset(commands, reading)
    return parser


class _Version(argparse.Action):
    """Look the version up when it is asked for: reading metadata takes longer than parsing."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"ptycho-lazy {ptycho.__version__}")
        parser.exit()


def _add_info(commands: _Commands, reading: argparse.ArgumentParser) -> None:
    info = commands.add_parser(
        "info",
        parents=[reading],
        help="say what a scan file holds; frames are not read",
        description="Say what a scan file holds, and what was assumed to read it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    info.add_argument("--json", action="store_true", help="print JSON instead of lines")
    info.add_argument(
        "--check",
        action="store_true",
        help="read all frames once: check every value, keep the energies",
    )
    info.set_defaults(run=_info)


def _add_simulate(commands: _Commands) -> None:
    simulated = commands.add_parser(
        "simulate", help="write a simulated scan: probe x object, far field, Poisson counts"
    )
    for name, settings in _SIMULATING.items():
        simulated.add_argument(name, **settings)
    simulated.set_defaults(run=_simulate)


def _add_subset(commands: _Commands, reading: argparse.ArgumentParser) -> None:
    cut = commands.add_parser(
        "subset",
        parents=[reading],
        help="write the first frames of a scan as a new, uncompressed contract NPZ",
        description=(
            "Write the first frames of a scan, of any format, as a new, uncompressed contract NPZ."
        ),
    )
    cut.add_argument("out", type=_path, metavar="OUT", help="the NPZ to write")
    cut.add_argument(
        "--frame-count", type=int, required=True, help="how many of the first frames to keep"
    )
    cut.set_defaults(run=_subset)


def _reading_options() -> argparse.ArgumentParser:
    """What ``Scan.open`` takes, for every command that reads a scan."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "file",
        type=_path,
        metavar="FILE",
        help="a contract NPZ, .cxi, .h5, .hdf5, .hdf, .nxs, or .npy of frames",
    )
    group = parser.add_argument_group(
        "reading", "NAME is a data set of HDF5, a key of an NPZ, or a .npy, .csv or .txt file."
    )
    for name, settings in _READING.items():
        group.add_argument(name, **settings)
    return parser


def _open(options: argparse.Namespace, progress: Progress | None) -> Scan:
    positions = options.positions
    if positions is not None and len(positions) > 2:
        raise ContainerError(
            f"--positions has {len(positions)} names; one of (M, 2), or two, x first, after FILE"
        )
    return Scan.open(
        options.file,
        frames=options.frames,
        positions=positions[0] if positions is not None and len(positions) == 1 else positions,
        probe=options.probe,
        object=options.object,
        mask=options.mask,
        intensity=options.intensity,
        dc=options.dc,
        axes=options.axes,
        units=options.units,
        pixel_size_m=options.pixel_size_m,
        cache_dir=options.cache_dir,
        cache_bytes=options.cache_bytes,
        repack=options.repack,
        progress=progress,
    )


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on stderr, if a person is looking there."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # only where somebody looks: a tenth of a second
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done_bytes: int, total_bytes: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total_bytes)
            bar.update(tasks[what], completed=done_bytes)

        yield show


def _info(options: argparse.Namespace) -> str:
    with _progress() as progress:
        scan = _open(options, progress)
        if options.check:
            scan.energies(progress=progress)
    facts = _facts(scan)
    if options.json:
        return json.dumps(facts, indent=2)
    lines = [
        f"{key.replace('_', ' '):<12} {value}" for key, value in facts.items() if key != "notes"
    ]
    return "\n".join(
        one_line(line) for line in [*lines, *(f"note: {note}" for note in facts["notes"])]
    )


def _facts(scan: Scan) -> dict[str, Any]:
    return {
        "path": str(scan.path),
        "frame_count": scan.frame_count,
        "frame_size": scan.frame_size,
        "dtype": str(scan.frames.dtype),
        "reading": scan.frames.description,
        "keys": list(scan.keys),
        "x_range": [float(scan.x.min()), float(scan.x.max())],
        "y_range": [float(scan.y.min()), float(scan.y.max())],
        "has_probe": scan.probe is not None,
        "object_shape": None if scan.object is None else list(scan.object.shape),
        "notes": list(scan.notes),
    }


def _simulate(options: argparse.Namespace) -> str:
    simulate(
        options.out,
        frame_count=options.frame_count,
        frame_size=options.frame_size,
        seed=options.seed,
        photons_per_frame=options.photons_per_frame,
    )
    return one_line(
        f"{options.out}: {options.frame_count} frames of {options.frame_size} x "
        f"{options.frame_size} pixels"
    )


def _subset(options: argparse.Namespace) -> str:
    with _progress() as progress:
        scan = _open(options, progress)
    subset(scan, options.out, options.frame_count)
    return one_line(f"{options.out}: the first {options.frame_count} frames of {options.file}")


if __name__ == "__main__":
    sys.exit(main())
