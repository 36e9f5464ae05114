"""Make pretended cards for a shell: ``python -m harness.pretended FOLDER --cards 2 --gib 8`` prints
what to export.
"""

import argparse
import math
import shlex
import sys
from pathlib import Path

from harness.errors import DeviceUnavailable, HarnessError
from harness.pretended import DEFAULT_BYTES, NAME, make_machine
from harness.pretended.card import build_card, cached_card
from harness.words import GIB

_DESCRIPTION = """\
Make a machine with pretended NVIDIA cards, on which TensorFlow's own GPU device starts without a \
card or a driver:
stubs of the driver's libraries, compiled here (cc, c++; about 12 s of CPU, once), \
and FOLDER/control, which says
what the cards are. The last lines are for the shell that is to have them."""
_EPILOG = """\
example:
  eval "$(python -m harness.pretended /var/tmp/cards --cards 2 --gib 8)"
  python -c "import tensorflow as tf; print(tf.config.list_logical_devices('GPU'))"
  python -m harness doctor --device gpu

The control file is changed while processes run, from Python:
  from harness.pretended.control import StubControl
  StubControl.open("/var/tmp/cards/control").state.devices[0].used_bytes = 2 << 30   \
# a neighbour on the first card

exit codes: 0 made, 2 an argument cannot be used, 3 the cards cannot be built here (the message \
says what is missing)"""


def main(arguments: list[str] | None = None) -> int:
    """Build the libraries unless they are there, write the control file, print the exports."""
    options = _parser().parse_args(arguments)
    try:
        card = cached_card() if options.libraries is None else build_card(options.libraries)
        machine = make_machine(
            options.folder,
            card,
            cards=options.cards,
            total_bytes=int(options.gib * GIB),
            name=options.name,
            context_bytes=int(options.context_mib) << 20,
        )
    except DeviceUnavailable as error:
        print(f"harness.pretended: {error}", file=sys.stderr)
        return 3
    except HarnessError as error:
        print(f"harness.pretended: {error}", file=sys.stderr)
        return 2
    for name, value in machine.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size in GiB; write a number, as 8")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness.pretended",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        type=Path,
        help="where the control file and the cards' memory go; on a disk, not in tmpfs",
    )
    parser.add_argument(
        "--cards", metavar="N", type=int, default=1, help="how many, 1 to 8 (default: %(default)s)"
    )
    parser.add_argument(
        "--gib",
        metavar="GIB",
        type=_gib,
        default=DEFAULT_BYTES / GIB,
        help="size of each; nothing is taken until it is touched (default: %(default)g)",
    )
    parser.add_argument("--name", default=NAME, help="their name (default: %(default)s)")
    parser.add_argument(
        "--context-mib",
        metavar="MIB",
        type=int,
        default=0,
        help="what a process takes of a card for itself (default: %(default)s)",
    )
    parser.add_argument(
        "--libraries",
        metavar="DIR",
        type=Path,
        help="where the libraries are built (default: a folder of the user's cache)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
