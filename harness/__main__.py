"""Composition root for the command line: ``python -m harness doctor | gate | bisect | accept |
annotate | history | report``.
"""

import argparse
import contextlib
import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import add_against, add_baselines, add_partial, add_run, worker_count
from harness.commands.doctor import add_doctor
from harness.errors import DeviceUnavailable, HarnessError, UsageError
from harness.judge.advice import DEFAULT_BASELINES, Asked
from harness.judge.verdict import EXIT_MEANINGS, ExitCode
from harness.words import existing_folder, nearest

if TYPE_CHECKING:
    from harness.commands.gate import Gate

CONSOLE_SCRIPT = "memory-harness"  # the same, without the working directory on the import path
DEFAULT_WORKERS = 2
"""Chosen: as many as the sweeps of the README take."""

_EPILOG = "\n".join(
    [
        "exit codes of gate:",
        *(f"  {int(code)}  {meaning}" for code, meaning in EXIT_MEANINGS.items()),
    ]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; a mistake of the user's is one sentence on standard error and exit code
    2.
    """
    own, for_pytest = _split(sys.argv[1:] if arguments is None else arguments)
    parser, names = _parser()
    if own and not own[0].startswith("-") and own[0] not in names:
        parser.error(f"there is no command {own[0]!r}; {nearest(own[0], names)}")
    options = parser.parse_args(own)
    options.pytest = for_pytest
    try:
        return int(options.command(options))
    except DeviceUnavailable as error:
        print(f"harness: {error}; nothing was measured", file=sys.stderr)
        return ExitCode.INCOMPLETE
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return ExitCode.USAGE
    except BrokenPipeError:
        return ExitCode.USAGE


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What is for the command itself, and what follows ``--``; argparse would hand the first of
    those to an absent BAD.
    """
    if arguments[:1] != ["bisect"] or "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _parser() -> tuple[argparse.ArgumentParser, tuple[str, ...]]:
    """The parser, and the names of its commands."""
    parser = argparse.ArgumentParser(
        prog=CONSOLE_SCRIPT
        if Path(sys.argv[0]).name == CONSOLE_SCRIPT
        else f"python -m {__package__}",
        description=(
            "Judge how memory of TensorFlow data loaders grows. A run is measured with pytest: "
            "pytest scenarios --help"
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_doctor(
        commands.add_parser(
            "doctor", help="say which meters and devices work here, and why the others do not"
        ),
        _tell,
    )

    gate = commands.add_parser("gate", help="judge a run directory: tables, findings, exit code")
    add_run(gate)
    add_partial(gate)
    add_against(gate)
    gate.add_argument(
        "--page",
        action="store_true",
        help="also write report.html and plots/; a page that is there is written anew in any case",
    )
    gate.add_argument(
        "--remeasure",
        action="store_true",
        help="measure the points of findings that may be noise again, as often as the policy "
        "says, and let most of all runs decide; needs the machine, device and code that "
        "the run was measured with",
    )
    gate.add_argument(
        "--workers",
        metavar="N",
        type=worker_count,
        help=f"with --remeasure: children at a time (default: {DEFAULT_WORKERS})",
    )
    gate.set_defaults(command=_gate)

    accept = commands.add_parser(
        "accept", help="make a complete run the baseline, and print old -> new"
    )
    add_run(accept)
    accept.add_argument(
        "--reason",
        required=True,
        help="why these numbers are right; it is written into the baseline",
    )
    others = accept.add_mutually_exclusive_group()
    others.add_argument(
        "--keep-others",
        dest="others",
        action="store_const",
        const="keep",
        default="refuse",
        help="keep the points of the baseline that this run did not measure",
    )
    others.add_argument(
        "--forget-others",
        dest="others",
        action="store_const",
        const="forget",
        help="drop the points of the baseline that this run did not measure, because they are "
        "gone for good",
    )
    others.add_argument(
        "--only",
        metavar="PATTERN",
        help="take only the points whose names match, as 'loading-lazy-*', and leave all others "
        "as they were accepted before",
    )
    others.add_argument(
        "--same-as",
        metavar="VERSION",
        help="change no amount, but note that the baseline of TensorFlow VERSION, such as 2.21, "
        "holds for the version of this run too; refused where the run does not pass "
        "against it",
    )
    accept.set_defaults(command=_accept)

    _add_annotate(
        commands.add_parser(
            "annotate",
            help="print the findings of a judged run for pull requests of GitHub or GitLab",
        )
    )

    bisect = commands.add_parser(
        "bisect",
        help="find the commit that made memory worse, or better, measuring each beside a good one",
        usage="%(prog)s [-h] [--better] [--out DIR] [--policy FILE] GOOD [BAD] [-- PYTEST OPTIONS]",
        epilog="After --: what pytest is to measure, and how (default: scenarios, or what its "
        "settings select). Exit codes: 0 nothing to find, 1 found, 2 an argument cannot be "
        "used, 3 could not measure.",
    )
    bisect.add_argument(
        "good", metavar="GOOD", help="the earlier revision, which was good, or merge-base:REV"
    )
    bisect.add_argument(
        "bad",
        metavar="BAD",
        nargs="?",
        default="HEAD",
        help="the later one, which is bad (default: %(default)s)",
    )
    bisect.add_argument(
        "--better",
        action="store_true",
        help="find the commit that made memory better: BAD takes less than GOOD",
    )
    bisect.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="where the runs of its steps are kept (default: artifacts/bisect-TIME)",
    )
    bisect.add_argument("--policy", metavar="FILE", type=Path, help="as of gate")
    bisect.set_defaults(command=_bisect)

    history = commands.add_parser(
        "history", help="how the accepted amounts of a point moved, as far as git remembers"
    )
    history.add_argument("point", metavar="POINT", help="name of a point, as the baselines have it")
    history.add_argument(
        "phase", metavar="PHASE", nargs="?", help="only this phase, also what never moved"
    )
    history.add_argument("meter", metavar="METER", nargs="?", help="only this meter of it")
    add_baselines(history)
    history.set_defaults(command=_history)

    report = commands.add_parser(
        "report",
        help="write the page, RUN/report.html and RUN/plots, of the judgement that is in a run "
        "directory; with options, judge anew",
    )
    add_run(report)
    add_against(report)
    add_partial(report)
    report.set_defaults(command=_report)
    return parser, tuple(commands.choices)


def _add_annotate(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument(
        "--changed-since",
        metavar="REV",
        help="put them on the file under test that differs most from this revision; "
        "merge-base:REF is where HEAD left REF (default: on no file)",
    )
    parser.add_argument(
        "--subject",
        metavar="PATH",
        action="append",
        default=[],
        help="a package under test, as a path from here: mypkg, src/mypkg (default: those that "
        "the run knows)",
    )
    parser.add_argument(
        "--format",
        choices=("github", "gitlab"),
        default="github",
        help="workflow commands for GitHub's log, or GitLab's code quality report as JSON "
        "(default: %(default)s)",
    )
    parser.set_defaults(command=_annotate)


def _gate(options: argparse.Namespace) -> int:
    from harness.commands.gate import run_gate

    if options.workers is not None and not options.remeasure:
        raise UsageError(
            f"--workers {options.workers} is for measuring again; give it together with --remeasure"
        )
    workers = (options.workers or DEFAULT_WORKERS) if options.remeasure else None
    return run_gate(_asked_gate(options), workers=workers, page=options.page, tell=_tell, say=_say)


def _accept(options: argparse.Namespace) -> int:
    from harness.commands.accept import accept, accept_as_same
    from harness.judge.policy import choose_policy
    from harness.judge.table import load_run

    run = load_run(options.run)
    policy = choose_policy(options.policy, run.manifest)
    folder = options.baselines or DEFAULT_BASELINES
    if not folder.exists():
        _say(f"{folder} is not there yet: it is made")
    if options.same_as is None:
        lines = accept(
            run, policy, folder, reason=options.reason, others=options.others, only=options.only
        )
    else:
        lines = accept_as_same(
            run, policy, folder, as_version=options.same_as, reason=options.reason
        )
    for line in lines:
        print(line)
    return ExitCode.PASS


def _annotate(options: argparse.Namespace) -> int:
    from harness.pages import annotate

    lines = annotate(
        options.run,
        since=options.changed_since,
        subjects=options.subject,
        policy=options.policy,
        baselines=options.baselines,
        folder=Path.cwd(),
        form=options.format,
    )
    for line in lines:
        print(line, flush=True)
    return ExitCode.PASS


def _bisect(options: argparse.Namespace) -> int:
    from harness.commands.bisect import IMPROVEMENT, REGRESSION, bisect
    from harness.judge.policy import DEFAULT_POLICY

    folder = options.out or Path("artifacts", f"bisect-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    return bisect(
        Path.cwd(),
        options.good,
        options.bad,
        folder,
        pytest_options=options.pytest or (["scenarios"] if DEFAULT_POLICY.is_file() else []),
        policy=options.policy,
        sought=IMPROVEMENT if options.better else REGRESSION,
        show=lambda line: print(line, flush=True),
    )


def _history(options: argparse.Namespace) -> int:
    from harness.commands.history import histories

    folder = (
        DEFAULT_BASELINES
        if options.baselines is None
        else existing_folder(options.baselines, "--baselines")
    )
    for line in histories(folder, options.point, phase=options.phase, meter=options.meter):
        print(line)
    return ExitCode.PASS


def _report(options: argparse.Namespace) -> int:
    from harness.commands.gate import write_page

    anew = (
        options.policy is not None
        or options.baselines is not None
        or options.against is not None
        or options.partial
    )
    write_page(_asked_gate(options), anew=anew, tell=_tell, say=_say)
    return ExitCode.PASS


def _tell(line: str) -> None:
    # who reads only the head of it still gets the exit code
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _asked_gate(options: argparse.Namespace) -> "Gate":
    from harness.commands.gate import Gate

    given = Asked(policy=options.policy, partial=options.partial, against=options.against)
    if options.baselines is not None:
        given = dataclasses.replace(
            given, baselines=existing_folder(options.baselines, "--baselines"), baselines_typed=True
        )
    if options.against is not None:
        existing_folder(options.against, "--against")
    return Gate(directory=options.run, asked=given)


if __name__ == "__main__":
    sys.exit(main())
