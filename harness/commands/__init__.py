"""What several commands share: where their lines go, and arguments for argparse.

Each command is a module with ``add(parser)``, which declares its arguments, and ``run(options)``,
which gives the exit code; ``harness.__main__`` lists them.
"""

import argparse
import contextlib
import importlib.util
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from harness.errors import HarnessError, PageError, UsageError
from harness.judge import EXIT_MEANINGS
from harness.judge.advice import DEFAULT_BASELINES
from harness.records import MOST_REPEATS
from harness.run.devices import check_budget
from harness.system import FINDINGS_FILE, JUNIT_FILE, REPORT_FILE, replace_judgement
from harness.words import existing_folder, parse_bytes

if TYPE_CHECKING:
    from harness.judge.gate import Judgement
    from harness.judge.table import Run


MOST_WORKERS = 64
"""Chosen: each holds a process that has imported TensorFlow; this catches a zero too many."""


_LEAST_COLUMNS, _MOST_COLUMNS = 80, 100
"""Chosen: what every terminal and the log of a CI job shows, and what an eye follows."""


def to_stdout(line: str) -> None:
    """Print a line of the result. A reader who has gone (``| head``) changes no exit code."""
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


def to_stderr(line: str) -> None:
    """Print a line about the way to the result: what is done, and what was passed over."""
    print(line, file=sys.stderr, flush=True)


_HELP_COLUMNS = 78
"""argparse's own lines are two columns shorter than the terminal; these are those of 80."""
RUN_CODES = {
    0: "it is done",
    2: "usage: an argument, the run directory or a file that it needs cannot be used",
}
"""What commands that judge nothing exit with."""
GATE_CODES = {int(code): meaning for code, meaning in EXIT_MEANINGS.items()}


def explain(
    parser: argparse.ArgumentParser,
    about: str,
    *,
    examples: Sequence[str],
    exit_codes: Mapping[int, str] | Mapping[int | str, str],
    more: Iterable[str] = (),
) -> None:
    """What the help of a command says besides its arguments: what it is for, ``examples`` of them
    (what follows the command), its exit codes, and ``more`` lines. All within 80 columns.
    """
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = textwrap.fill(about, _HELP_COLUMNS)
    codes = [
        part for code, meaning in exit_codes.items() for part in hanging(f"  {code}  ", meaning)
    ]
    parser.epilog = "\n".join(
        [
            "examples:" if len(examples) > 1 else "example:",
            *(f"  {parser.prog} {arguments}".rstrip() for arguments in examples),
            "",
            "exit codes:",
            *codes,
            *more,
        ]
    )


def hanging(first: str, text: str) -> list[str]:
    """The text in lines of the help: ``first`` begins the first, and the others are indented as
    much.
    """
    return textwrap.wrap(
        text,
        _HELP_COLUMNS,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """How much is printed, and for whom."""
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="print every finding too, with all commands that may help",
    )
    output.add_argument(
        "-q", "--quiet", action="store_true", help="print nothing but the verdict's first line"
    )
    output.add_argument(
        "--json",
        action="store_true",
        help="print the verdict as one JSON object, and nothing else on standard output",
    )


def print_verdict(
    run: "Run", judgement: "Judgement", options: argparse.Namespace, about_page: str
) -> None:
    """Print a judgement as the options of ``add_output`` ask for; ``about_page`` says where its
    page is, or why there is none. Raises UsageError for JSON where there are no pages.
    """
    if options.json:
        to_stdout(load_pages("terminal").verdict_json(run, judgement))
        return
    for line, colour in verdict_lines(run, judgement, verbose=options.verbose):
        _to_stdout_in(colour, line)
        if options.quiet:
            return
    if about_page:
        to_stdout(about_page)


def verdict_lines(
    run: "Run", judgement: "Judgement", *, verbose: bool = False
) -> Iterator[tuple[str, str]]:
    """What a terminal shows of a judgement, each line with its colour, which may be none. Without
    the pages' package there is no table, and sentences are not wrapped.
    """
    try:
        terminal = load_pages("terminal")
    except (UsageError, ImportError):
        yield judgement.verdict.sentence, ""
        for cause in judgement.causes:
            yield cause.sentence, ""
        return
    bars = _has_bars(sys.stdout.encoding)
    lines = terminal.verdict_lines(run, judgement, width=_columns(), verbose=verbose, bars=bars)
    yield from ((line.text, str(line.tone)) for line in lines)


def measured_lines(run: "Run") -> Iterator[tuple[str, str]]:
    """The same of a run that nobody has judged yet: a table of what was measured."""
    try:
        terminal = load_pages("terminal")
    except (UsageError, ImportError):
        return
    lines = terminal.measured_lines(run, width=_columns(), bars=_has_bars(sys.stdout.encoding))
    yield from ((line.text, str(line.tone)) for line in lines)


def _columns() -> int:
    """How wide the reader's page is, within what is easily read."""
    if not sys.stdout.isatty():
        return _LEAST_COLUMNS
    return max(_LEAST_COLUMNS, min(shutil.get_terminal_size().columns, _MOST_COLUMNS))


def _has_bars(encoding: str | None) -> bool:
    try:
        "\u2581".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _to_stdout_in(colour: str, line: str) -> None:
    """Print a line in a colour where there is one: on a terminal, without NO_COLOR."""
    if not colour or not sys.stdout.isatty():
        to_stdout(line)
        return
    from rich.console import Console
    from rich.text import Text

    with contextlib.suppress(BrokenPipeError):
        Console(highlight=False, soft_wrap=True).print(Text(line, style=colour))


@contextlib.contextmanager
def doing(text: str) -> Iterator[None]:
    """While the block runs, a terminal on standard error says so, once it takes half a second;
    nothing is left of it.
    """
    with _live_line(lambda: text):
        yield


@contextlib.contextmanager
def showing_progress(paths: Sequence[Path], text: str) -> Iterator[None]:
    """While the block measures into run directories, a terminal on standard error says how far it
    has come, after ``text``: run, point, phase, peak and about how much time is left.
    """
    try:
        progress = load_pages("progress").Progress(paths, only_new=True)
    except (UsageError, ImportError):
        yield
        return

    def line() -> str:
        progress.look()
        return f"{text} {progress.line}" if progress.line else ""

    progress.look()
    try:
        with _live_line(line):
            yield
    finally:
        progress.close()


@contextlib.contextmanager
def _live_line(text: Callable[[], str]) -> Iterator[None]:
    try:
        live_line, descriptor = load_pages("progress").live_line, sys.stderr.fileno()
    except (UsageError, ImportError, OSError, ValueError):
        yield
        return
    with live_line(descriptor, text):
        yield


def add_run(parser: argparse.ArgumentParser) -> None:
    """A run directory, and what to judge it by."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a run directory, written by pytest --memory-out"
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        type=Path,
        help="file of budgets, slopes and tolerances, each with its reason (default: the limits "
        "that the run brings along, as runs of marked tests do, else scenarios/gate.toml)",
    )
    add_baselines(parser)


def add_baselines(parser: argparse.ArgumentParser) -> None:
    """Where the committed baselines are; None where nobody says."""
    parser.add_argument(
        "--baselines",
        metavar="DIR",
        type=Path,
        help=f"folder of committed baselines (default: {DEFAULT_BASELINES})",
    )


def add_against(parser: argparse.ArgumentParser) -> None:
    """The other run of a comparison."""
    parser.add_argument(
        "--against",
        metavar="DIR",
        type=Path,
        help="compare with this run instead of a baseline (default: RUN/then, if pytest "
        "--memory-against measured it)",
    )


def add_history(parser: argparse.ArgumentParser) -> None:
    """Earlier runs, whose amounts the page shows beside those that were accepted."""
    parser.add_argument(
        "--history",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="a folder of earlier run directories, or one of them, for the history in the page; "
        "may be given several times",
    )


def earlier_runs(options: argparse.Namespace) -> tuple[Path, ...]:
    """The folders of ``--history``. Raises UsageError where one is none."""
    return tuple(existing_folder(folder, "--history") for folder in options.history)


def worker_count(text: str) -> int:
    """A number of workers, 1 to ``MOST_WORKERS``."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_WORKERS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of workers; write 1 or more, up to {MOST_WORKERS}"
        )
    return int(text)


def add_partial(parser: argparse.ArgumentParser) -> None:
    """Whether less was measured on purpose."""
    parser.add_argument(
        "--partial",
        action="store_true",
        help="judge only what was measured, although the baseline has more points (use it after "
        "-k, --image-counts, ...)",
    )


# Texts as settings, also for the options of pytest (``type=``). Each refuses what it cannot read in
# one sentence (argparse.ArgumentTypeError).


def folder(text: str) -> Path:
    """A folder's path. An empty text is refused: it would mean the working directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a folder; name one, for example artifacts/runs/first"
        )
    return Path(text)


def byte_amount(text: str) -> int:
    """An amount of bytes.

    >>> byte_amount("5GiB")
    5368709120
    """
    try:
        return parse_bytes(text)
    except HarnessError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def device_budget(text: str) -> int:
    """An amount of bytes that TensorFlow accepts as the limit of a device."""
    try:
        return check_budget(parse_bytes(text))
    except HarnessError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def repeat_count(text: str) -> int:
    """A number of repeats, 1 to ``MOST_REPEATS``."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_REPEATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of repeats; write 1 or more, up to {MOST_REPEATS}"
        )
    return int(text)


def seconds(text: str) -> float:
    """A time above 0, in seconds.

    >>> seconds("1.5")
    1.5
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < sys.maxsize:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time in seconds; write a number above 0"
        )
    return value


# The pages, found where they are: inside this package in an installation, beside it in the
# repository. Nothing else here knows them, and they are loaded when they are asked for:
# matplotlib and jinja2 come with them. Nobody else's package of the name ``reports`` can come in
# their place, nor is one replaced: here they are ``harness.reports``.


_FOLDER = "reports"
_NAME = f"harness.{_FOLDER}"


def write_outputs(
    run: "Run",
    judgement: "Judgement",
    *,
    page: bool = False,
    earlier_runs: Sequence[Path] = (),
) -> Path | None:
    """Replace everything that an earlier judgement left in the run directory; the path of the page,
    where there is one.

    findings.json, junit.xml and summary.md are written; report.html and plots/ where ``page`` asks
    for them, and where the directory has them already; ``earlier_runs`` are folders of runs for
    its history. Where the pages cannot be loaded, findings
    and junit.xml are written all the same, and an earlier page and summary go: they are of another
    judgement. Raises RunDirectoryError where something cannot be written, and PageError where a
    page is wanted and cannot be made; then all else is written.
    """
    try:
        writing = load_pages("writing")
    except (UsageError, ImportError) as error:
        wanted = page or (run.path / REPORT_FILE).exists()
        _write_without_pages(run, judgement)
        if wanted:
            raise PageError(f"the page could not be drawn: {error}") from error
        return None
    written: Path | None = writing.write_outputs(
        run, judgement, page=page, earlier_runs=earlier_runs
    )
    return written


def write_annotations(
    run: Path,
    *,
    since: str | None,
    subjects: Collection[str],
    policy: Path | None,
    baselines: Path | None,
    folder: Path,
    form: str,
) -> Iterator[str]:
    """The findings of a judged run as lines for GitHub's log or GitLab's report (``form``), as
    ``reports.annotate`` says. Raises UsageError where there are no pages.
    """
    lines: Iterator[str] = load_pages("annotate").annotate(
        run,
        since=since,
        subjects=subjects,
        policy=policy,
        baselines=baselines,
        folder=folder,
        form=form,
    )
    return lines


def load_pages(module: str) -> ModuleType:
    """A module of the pages. Raises UsageError where there are none, ImportError where a library
    that they need is missing.
    """
    if _NAME not in sys.modules:
        _load_package(Path(__file__).resolve().parents[1])
    return import_module(f"{_NAME}.{module}")


def _write_without_pages(run: "Run", judgement: "Judgement") -> None:
    """What the gate itself has to say, without summary and page."""
    from harness.judge.gate import findings_text, junit_of, write_tables

    contents = {
        FINDINGS_FILE: findings_text(run, judgement).encode(),
        JUNIT_FILE: junit_of(run, judgement).encode(),
    }
    write_tables(run, judgement)
    replace_judgement(run.path, contents)


def _load_package(home: Path) -> None:
    """The package of the pages, as a part of this one. Raises UsageError where there is none."""
    candidates = (home / _FOLDER / "__init__.py", home.parent / _FOLDER / "__init__.py")
    file = next((path for path in candidates if path.exists()), None)
    spec = file and importlib.util.spec_from_file_location(
        _NAME, file, submodule_search_locations=[str(file.parent)]
    )
    if not spec or spec.loader is None:
        raise UsageError(
            f"{home} has no pages, neither in it nor beside it; install the project with pip"
        )

    package = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
