"""The command line, ``python -m harness COMMAND``: finds the command, and turns errors into
sentences and exit codes.
"""

import argparse
import platform
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.errors import DeviceUnavailable, HarnessError
from harness.judge import EXIT_MEANINGS, ExitCode, program_version
from harness.words import nearest

CONSOLE_SCRIPT = "memory-harness"  # the same, without the working directory on the import path

COMMANDS = (
    ("doctor", "say which meters and devices work here, and why the others do not"),
    ("gate", "judge a run directory: tables, findings, exit code"),
    ("accept", "make a complete run the baseline, and print old -> new"),
    ("annotate", "print the findings of a judged run for pull requests of GitHub or GitLab"),
    (
        "bisect",
        "find the commit that made memory worse, or better, measuring each beside a good one",
    ),
    ("compare", "compare two run directories: what they were measured with, and what moved"),
    (
        "why",
        "run a TensorFlow script, and tell what was alive when memory ran out, or at its peak",
    ),
    (
        "export",
        "write a run in the formats of other viewers and trackers: Perfetto, pprof, Bencher, ...",
    ),
    ("history", "show how the accepted amounts of a point moved, as far as git remembers"),
    (
        "report",
        (
            "write the page of the judgement that is in a run directory, RUN/report.html and "
            "RUN/plots; with options, judge anew"
        ),
    ),
)
"""Name and summary of each command, a module of ``harness.commands``. Only the one that is typed is
imported."""

_WORKERS = 2
"""Of the example. Chosen: as the README's."""
_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-rocm", "tf-nightly")
"""Distributions that install TensorFlow (https://pypi.org)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one sentence on standard error and exit code
    2.
    """
    typed, after_dashes = _split(sys.argv[1:] if arguments is None else arguments)
    options = _parser(typed).parse_args(typed)
    options.pytest = after_dashes
    try:
        return int(import_module(f"harness.commands.{options.command}").run(options))
    except DeviceUnavailable as error:
        print(f"harness: {error}; nothing was measured", file=sys.stderr)
        return ExitCode.INCOMPLETE
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except BrokenPipeError:
        return ExitCode.USAGE


def versions() -> str:
    """A line each for the harness, Python and TensorFlow, which is looked up and not imported."""
    found = (_version(name) for name in _TENSORFLOWS)
    tensorflow = next(filter(None, found), "not installed")
    return "\n".join(
        [
            f"harness {program_version()}",
            f"Python {platform.python_version()}",
            f"TensorFlow {tensorflow}",
        ]
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


class _PrintVersions(argparse.Action):
    """Needs no command beside it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(versions())
        parser.exit()


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is for the command itself, and what follows ``--``, which is pytest's.

    Only bisect takes options of pytest. argparse would take the first of them for an absent BAD.
    """
    if "bisect" not in arguments[:1] or "--" not in arguments:
        return list(arguments), []
    place = arguments.index("--")
    return list(arguments[:place]), list(arguments[place + 1 :])


def _parser(typed: Sequence[str]) -> argparse.ArgumentParser:
    """The parser, with the arguments of the command that was typed."""
    is_script = Path(sys.argv[0]).name == CONSOLE_SCRIPT
    program = CONSOLE_SCRIPT if is_script else f"python -m {__package__}"
    parser = argparse.ArgumentParser(
        prog=program,
        description=(
            "Judge how memory of TensorFlow data loaders grows.\nA run is measured with pytest: "
            "pytest scenarios --help"
        ),
        epilog="\n".join(
            [
                "example:",
                f"  pytest scenarios -n {_WORKERS} --memory-out RUN",
                f"  {program} gate RUN --page",
                "",
                "exit codes of gate:",
                *(
                    line
                    for code, meaning in EXIT_MEANINGS.items()
                    for line in textwrap.wrap(
                        meaning, 78, initial_indent=f"  {int(code)}  ", subsequent_indent="     "
                    )
                ),
                "",
                "COMMAND --help says more of each.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version",
        action=_PrintVersions,
        nargs=0,
        help="print the versions of the harness, Python and TensorFlow, and exit",
    )

    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    parsers = {
        name: commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        for name, summary in COMMANDS
    }
    name = next((argument for argument in typed if not argument.startswith("-")), None)
    if name in parsers:
        import_module(f"harness.commands.{name}").add(parsers[name])
    elif name is not None:
        parser.error(f"there is no command {name!r}; {nearest(name, parsers)}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
