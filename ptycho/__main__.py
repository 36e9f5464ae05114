"""``python -m ptycho``: look at a scan, simulate one, cut one."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptycho.errors import PtychoError, one_line
from ptycho.scan import Scan
from ptycho.simulate import DEFAULT_PHOTONS_PER_FRAME, simulate
from ptycho.writing import subset

EXIT_USAGE = 2
"""What argparse itself ends with on a bad command line."""
EXIT_BROKEN_PIPE = 1
"""As docs.python.org recommends for SIGPIPE."""


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
    """0, or 1 where the reader of a pipe has gone: nothing is left to say then, not even by the interpreter."""
    try:
        print(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered is flushed at exit: it must not meet the broken pipe again (docs.python.org, SIGPIPE).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return 0


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; name a file")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ptycho", description="Ptychography scans in the contract NPZ format.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="say what a scan file holds; frames are not read")
    info.add_argument("file", type=_path, metavar="FILE", help="a contract NPZ")
    info.add_argument("--json", action="store_true", help="print JSON instead of lines")
    info.add_argument("--cache-dir", type=_path, help="where compressed frames are unpacked (default: the user's cache folder)")
    info.set_defaults(run=_info)

    simulated = commands.add_parser("simulate", help="write a simulated scan: probe x object, far field, Poisson counts")
    simulated.add_argument("out", type=_path, metavar="OUT", help="the NPZ to write, for example scan.npz")
    simulated.add_argument("--frame-count", type=int, required=True, help="frames to simulate, for example 2048")
    simulated.add_argument("--frame-size", type=int, default=64, help="pixels N of a frame of N x N (default: %(default)s)")
    simulated.add_argument("--seed", type=int, default=0, help="the same seed gives the same file (default: %(default)s)")
    simulated.add_argument(
        "--photons-per-frame", type=float, default=DEFAULT_PHOTONS_PER_FRAME, help="mean counts of a frame (default: %(default)g)"
    )
    simulated.set_defaults(run=_simulate)

    cut = commands.add_parser("subset", help="write the first frames of a scan as a new, uncompressed scan")
    cut.add_argument("file", type=_path, metavar="FILE", help="a contract NPZ")
    cut.add_argument("out", type=_path, metavar="OUT", help="the NPZ to write")
    cut.add_argument("--frame-count", type=int, required=True, help="how many of the first frames to keep")
    cut.add_argument("--cache-dir", type=_path, help="where compressed frames are unpacked (default: the user's cache folder)")
    cut.set_defaults(run=_subset)
    return parser


def _info(options: argparse.Namespace) -> str:
    facts = _facts(Scan.open(options.file, cache_dir=options.cache_dir))
    if options.json:
        return json.dumps(facts, indent=2)
    lines = [f"{key.replace('_', ' '):<12} {value}" for key, value in facts.items() if key != "notes"]
    return "\n".join(one_line(line) for line in [*lines, *(f"note: {note}" for note in facts["notes"])])


def _facts(scan: Scan) -> dict[str, Any]:
    return {
        "path": str(scan.path),
        "frame_count": scan.frame_count,
        "frame_size": scan.frame_size,
        "dtype": str(scan.frames.dtype),
        "keys": list(scan.keys),
        "x_range": [float(scan.x.min()), float(scan.x.max())],
        "y_range": [float(scan.y.min()), float(scan.y.max())],
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
    return one_line(f"{options.out}: {options.frame_count} frames of {options.frame_size} x {options.frame_size} pixels")


def _subset(options: argparse.Namespace) -> str:
    subset(Scan.open(options.file, cache_dir=options.cache_dir), options.out, options.frame_count)
    return one_line(f"{options.out}: the first {options.frame_count} frames of {options.file}")


if __name__ == "__main__":
    sys.exit(main())
