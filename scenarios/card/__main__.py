"""Try everything that only a card reaches: exit code 0 when all is as it should be, 1 when not, 3
where it cannot be tried.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from harness.errors import DeviceUnavailable, HarnessError, UsageError
from harness.judge import ExitCode
from harness.pretended.card import cached_card
from scenarios.card.bench import Bench
from scenarios.card.steps import LANES, STEPS

_FAILED = 1
_EPILOG = """\
A pretended card is TensorFlow's own GPU device over a stub of the driver: the harness, the \
loaders and TensorFlow's allocator
are the real ones, the card is not (harness/pretended/README.md). The whole takes under 4 minutes \
on two processors.

exit codes: 0 everything is as it should be, 1 something is not, 2 usage, 3 a pretended card \
cannot be built here
(the message says what is missing: a C or C++ compiler, or the packages of the extra "pretended")
"""


def main(arguments: list[str] | None = None) -> int:
    """Build the cards, try the steps one after the other, print a line for each."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except DeviceUnavailable as error:
        print(f"card: {error}; nothing was measured", file=sys.stderr)
        return ExitCode.INCOMPLETE
    except HarnessError as error:
        print(f"card: {error}", file=sys.stderr)
        return ExitCode.USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.card",
        description="The catalogue, planted bugs and a machine's mishaps on pretended cards, with "
        "--device gpu.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="STEP",
        choices=STEPS,
        help=f"of {', '.join(STEPS)} (default: all)",
    )
    out = Path(f"artifacts/card-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=out,
        help="where everything goes (default: %(default)s)",
    )
    parser.add_argument(
        "--accept",
        metavar="REASON",
        help="make what is measured the committed baseline where there is none, for this reason",
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    root, console = Path.cwd(), Console(stderr=False, highlight=False)
    if not (root / "scenarios" / "gate.toml").exists():
        raise UsageError(f"{root} has no scenarios/gate.toml; start this in the project's root")
    if options.out.exists() and any(options.out.iterdir()):
        raise UsageError(f"--out {options.out} is not empty; name a new folder")
    began_s = time.monotonic()
    card = cached_card()
    console.print(
        f"the pretended card is {card.folder} ({time.monotonic() - began_s:.0f} s)", markup=False
    )
    options.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(out=options.out.resolve(), root=root, card=card, accept=options.accept)
    asked = options.only or tuple(STEPS)
    lanes = [[step for step in lane if step.__name__ in asked] for lane in LANES]
    with console.status(f"trying {', '.join(asked)}"), ThreadPoolExecutor(len(lanes)) as pool:
        done = list(
            pool.map(
                lambda lane: [
                    step.__name__ for step in lane if not _is_right(bench, step, console)
                ],
                lanes,
            )
        )
    failed = [name for wrong in done for name in wrong]
    console.print(
        f"{'everything is as it should be' if not failed else 'not right: ' + ', '.join(failed)}; "
        f"see {options.out}"
    )
    return _FAILED if failed else ExitCode.PASS


def _is_right(bench: Bench, step: Callable[[Bench], str], console: Console) -> bool:
    began_s = time.monotonic()
    try:
        said, right = step(bench), True
    except HarnessError as error:
        said, right = str(error), False
    took_s = time.monotonic() - began_s
    console.print(
        f"{'ok' if right else 'WRONG'}  {step.__name__} ({took_s:.0f} s): {said}",
        markup=False,
        soft_wrap=True,
    )
    return right


if __name__ == "__main__":
    sys.exit(main())
