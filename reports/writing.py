"""The one writer of what a judgement leaves in a run directory: findings, JUnit, summary, and the
page where there is one.

On its own because it is the door: the harness reaches the pages through it, and it loads matplotlib
only where a page is asked for.
"""

from collections.abc import Sequence
from pathlib import Path

from harness.errors import PageError, RunDirectoryError
from harness.judge.gate import Judgement, findings_text, junit_of, write_tables
from harness.judge.table import Run
from harness.system import (
    FINDINGS_FILE,
    JUNIT_FILE,
    REPORT_FILE,
    SUMMARY_FILE,
    replace_judgement,
)

from .markdown import summary_text
from .view import RunView


def write_outputs(
    run: Run, judgement: Judgement, *, page: bool = False, earlier_runs: Sequence[Path] = ()
) -> Path | None:
    """Replace everything that an earlier judgement left in the run directory; the path of the page,
    where there is one.

    findings.json, junit.xml and summary.md are always written; report.html and plots/ where
    ``page`` asks for them, and where the directory has them already: what it says has to be one
    verdict. All of them bear the judgement's id. The tables are of the run, not of a judgement.
    ``earlier_runs`` are folders of runs that the page shows the history of amounts with.
    Raises RunDirectoryError where something cannot be written, and PageError where the page cannot
    be drawn: then all else is written, and no page stays, because an earlier one is of another
    judgement.
    """
    page = page or (run.path / REPORT_FILE).exists()
    view = RunView(run)
    pages, why_not = _drawn(view, judgement, earlier_runs) if page else ({}, "")
    page = bool(pages)
    write_tables(run, judgement)
    replace_judgement(run.path, {**_texts(view, judgement, has_page=page), **pages})
    if why_not:
        raise PageError(f"the page could not be drawn: {why_not}")
    return run.path / REPORT_FILE if page else None


def write_into(folder: Path, run: Run, judgement: Judgement) -> Path:
    """The page, findings, JUnit and summary of a judgement that is not the run's own, in a folder
    beside it; the path of the page.

    Raises RunDirectoryError where the folder cannot be written, PageError where the page cannot be
    drawn; then nothing is written.
    """
    view = RunView(run)
    pages, why_not = _drawn(view, judgement, ())
    if why_not:
        raise PageError(f"the page could not be drawn: {why_not}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunDirectoryError(f"{folder} cannot be made: {error.strerror}") from error
    replace_judgement(folder, {**_texts(view, judgement, has_page=True), **pages})
    return folder / REPORT_FILE


def _texts(view: RunView, judgement: Judgement, *, has_page: bool) -> dict[str, bytes]:
    """Everything but the page."""
    run = view.run
    return {
        FINDINGS_FILE: findings_text(run, judgement).encode(),
        JUNIT_FILE: junit_of(run, judgement).encode(),
        SUMMARY_FILE: summary_text(view, judgement, has_page=has_page).encode(),
    }


def _drawn(
    view: RunView, judgement: Judgement, earlier_runs: Sequence[Path]
) -> tuple[dict[str, bytes], str]:
    """The files of the page; where it cannot be drawn none, and why. No picture is worth the
    verdict that it shows.
    """
    try:
        from .html import page_files  # matplotlib, which nothing else here needs

        return page_files(view, judgement, earlier_runs=earlier_runs), ""
    except Exception as error:  # noqa: BLE001 - a library that draws may raise anything
        return {}, f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": .")
