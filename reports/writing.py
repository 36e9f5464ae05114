"""The one writer of what a judgement leaves in a run directory: findings, JUnit, summary, and the page where there is one."""

from pathlib import Path

from harness.judge.files import FINDINGS_FILE, JUNIT_FILE, REPORT_FILE, SUMMARY_FILE, replace_judgement
from harness.judge.gate import Judgement, findings_text, junit_of, write_tables
from harness.judge.table import Run

from .markdown import summary_text


def write_outputs(run: Run, judgement: Judgement, *, page: bool = False) -> Path | None:
    """Replace everything that an earlier judgement left in the run directory; the path of the page, where there is one.

    findings.json, junit.xml and summary.md are always written; report.html and plots/ where ``page`` asks for them, and
    where the directory has them already: what it says has to be one verdict. All of them bear the judgement's id. The tables
    are of the run, not of a judgement. Raises RunDirectoryError where something cannot be written.
    """
    page = page or (run.path / REPORT_FILE).exists()
    contents = {
        FINDINGS_FILE: findings_text(run, judgement).encode(),
        JUNIT_FILE: junit_of(run, judgement).encode(),
        SUMMARY_FILE: summary_text(run, judgement, has_page=page).encode(),
    }
    if page:
        from .html import page_files  # matplotlib, which nothing else here needs

        contents |= page_files(run, judgement)
    write_tables(run, judgement)
    replace_judgement(run.path, contents)
    return run.path / REPORT_FILE if page else None
