"""The command ``export``: a run in the formats of other people's viewers and trackers."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from harness.commands import explain, hanging, load_pages, to_stderr, to_stdout
from harness.errors import RunDirectoryError, UsageError
from harness.judge import ExitCode
from harness.judge.completeness import read_traces
from harness.judge.gate import Judgement, kept_judgement
from harness.judge.table import Run, load_run
from harness.judged_run import Gate
from harness.rundir.traces import Trace
from harness.system import write_bytes, write_text
from harness.words import file_stem, nearest

PROFILES: Mapping[str, str] = MappingProxyType(
    {
        "perfetto": "the timeline, for ui.perfetto.dev, chrome://tracing, speedscope",
        "pprof": "what was alive at the peak of each phase, for go tool pprof, speedscope",
        "collapsed": "the same as folded stacks, for flamegraph.pl, speedscope, Perfetto",
        "xplane": "the timeline, for XProf and TensorBoard",
    }
)
"""Formats of traces: a file for each point, or for each of its phases, whose peaks were never there
together."""
DOCUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "csv": "every reading in a row, as phases.csv has it",
        "bmf": "Bencher Metric Format, for bencher run --adapter json",
        "github-action-benchmark": "peaks, for its tool customSmallerIsBetter",
        "openmetrics": "amounts and findings, for Prometheus and GitLab's report of metrics",
        "badge": "the verdict, for shields.io/endpoint",
    }
)
"""Formats of the run as a whole: one text."""
_FOLDER = "export"
"""In the run directory: where profiles go by default."""


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the help ends with the formats, an example and the exit codes."""
    explain(
        parser,
        "Write a run in the formats of other people's viewers and trackers.",
        examples=(
            "RUN --format bmf > results.json",
            "RUN loading-lazy-image_count=500 --format pprof",
        ),
        exit_codes={0: "it is written", 2: "the run, the point or PATH cannot be used"},
        more=_formats(),
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run directory")
    parser.add_argument(
        "point",
        metavar="POINT",
        nargs="?",
        default="",
        help="name of one point (default: all of them)",
    )
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        choices=(*PROFILES, *DOCUMENTS),
        required=True,
        help=", ".join((*PROFILES, *DOCUMENTS)),
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        type=Path,
        help=f"of profiles: the folder that they are written to (default: RUN/{_FOLDER}); of all "
        "others: the file (default: standard output)",
    )


def _formats() -> Iterator[str]:
    for heading, formats in (
        ("profiles, of points that were traced", PROFILES),
        ("texts, of the whole run or of one point", DOCUMENTS),
    ):
        yield ""
        yield f"{heading}:"
        for name, meaning in formats.items():
            yield from hanging(f"  {name:<24}", meaning)


def run(options: argparse.Namespace) -> int:
    """Write what is asked for; profiles are listed, a text is printed unless it goes to a file."""
    measured = load_run(options.run)
    _check_point(measured, options.point)
    pages = load_pages("export")
    if options.format in PROFILES:
        folder = options.out or measured.path / _FOLDER
        traces = _traces(measured, options.point)
        for path in _write_profiles(traces, pages.PROFILES[options.format], folder):
            to_stdout(str(path))
        return ExitCode.PASS

    judgement = _judgement(measured)
    text = pages.DOCUMENTS[options.format](measured, judgement, options.point)
    if options.out is None:
        to_stdout(text.removesuffix("\n"))
    else:
        write_text(options.out, text)
        to_stdout(str(options.out))
    return ExitCode.PASS


def _check_point(measured: Run, point: str) -> None:
    names = [one.name for one in measured.points]
    if point and point not in names:
        raise UsageError(
            f"{measured.path} has no point {point}; {nearest(point, names, cutoff=0.4)}"
        )


def _traces(measured: Run, point: str) -> Mapping[str, Trace]:
    """The traces that are asked for. Raises UsageError where there are none."""
    traces = read_traces(measured)
    if point and point not in traces.found:
        why = traces.absent.get(point, "it was not to be traced")
        raise UsageError(f"there is no trace of {point}, because {why.rstrip('.')}")
    if not traces.found:
        why = next(traces.notes, "measure again, without --memory-no-trace").rstrip(".")
        raise UsageError(f"{measured.path} has no trace to export: {why}")
    for note in traces.notes if not point else ():
        to_stderr(note)
    return {point: traces.found[point]} if point else traces.found


def _write_profiles(
    traces: Mapping[str, Trace], write: Callable[[Trace], Mapping[str, bytes]], folder: Path
) -> Iterator[Path]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{folder} cannot be made: {error.strerror}") from error
    for point, trace in traces.items():
        for suffix, content in write(trace).items():
            path = folder / f"{file_stem(point)}{suffix}"
            write_bytes(path, content)
            yield path


def _judgement(measured: Run) -> Judgement:
    """The judgement that is in the directory; a new one where that cannot be used."""
    kept = kept_judgement(measured)
    if kept.judgement is not None:
        return kept.judgement
    _, _, judgement = Gate.again(measured.path, kept.asked).judge()
    return judgement
