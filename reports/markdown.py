"""summary.md: the verdict, the findings and the key numbers, for the summary of a build; the same words as the page."""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from harness.judge.files import write_text
from harness.judge.gate import Judgement
from harness.judge.table import Run
from reports.page import Page, make_page
from reports.tables import Table
from reports.words import count

SUMMARY_FILE = "summary.md"

MAX_FINDINGS = 50
"""Chosen: a step summary holds 1 MiB and a reader a page; the page has them all."""

# Punctuation that Markdown reads as markup anywhere, tables and mathematics included; "&" and "<" become entities, since
# HTML is let through as it is. The second: what it reads as markup at the start of a line.
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")
_LEADING = re.compile(r"^(\d*)([#=>]|[.)+-](?=[\s-]|$))")


def write_summary(run: Run, judgement: Judgement) -> Path:
    """Write summary.md into the run directory in one step; returns its path.

    Raises RunDirectoryError when it cannot be written.
    """
    path = run.path / SUMMARY_FILE
    write_text(path, render(make_page(run, judgement, ())))
    return path


def render(page: Page) -> str:
    """The summary as GitHub-flavoured Markdown; every text is escaped."""
    blocks = [
        f"## {escape(page.verdict_word)}",
        f"**{escape(page.sentence)}**",
        escape(f"Exit code {page.exit_code}. {page.tally} {page.outcomes}"),
        *_notes(page),
        *_findings(page),
        *_numbers(page),
        *_traces(page),
        "### How to reproduce",
        *_reproduce(page),
    ]
    return "\n\n".join(blocks) + "\n"


def escape(text: str) -> str:
    """A text as one line of Markdown that shows exactly its characters."""
    line = " ".join(text.split())
    return _LEADING.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", line)).replace("&", "&amp;").replace("<", "&lt;")


def _notes(page: Page) -> Iterator[str]:
    if page.notes:
        yield "### What this run cannot show"
        yield "\n".join(f"- {escape(note)}" for note in page.notes)


def _findings(page: Page) -> Iterator[str]:
    yield "### Findings"
    if not page.findings:
        yield "No finding: every check holds." if page.held else "No check applied, so nothing was found and nothing is promised."
        return
    rows = [(check.kind, check.rule, check.sentence, check.because) for check in page.findings[:MAX_FINDINGS]]
    yield _table(("kind", "rule", "what was found", "why this limit"), rows)
    more = len(page.findings) - MAX_FINDINGS
    if more > 0:
        yield f"{count(more, 'more finding')} {'is' if more == 1 else 'are'} in the page."


def _numbers(page: Page) -> Iterator[str]:
    yield "### Key numbers"
    compared = [tables.comparison for tables in page.scenarios if tables.comparison is not None]
    if not compared:
        yield "No point was planned, so there are no numbers."
    for table in compared:
        yield escape(table.caption)
        yield _of(table)
    if page.silent_meters:
        yield "\n".join(f"- {escape(sentence)}" for sentence in page.silent_meters)


def _traces(page: Page) -> Iterator[str]:
    """The points worth reading first; that there is no trace, and why, is among the notes."""
    if page.traced.points:
        yield "### What was alive at the peak"
        yield "\n".join(f"- {escape(f'{point.point}: {point.headline} {point.refusal}')}" for point in page.traced.points)


def _reproduce(page: Page) -> Iterator[str]:
    yield _code(page.command)
    yield f"Commit {escape(page.commit)}. Judge the same run again, on any machine, from its directory:"
    yield _code("python -m harness gate RUN")


def _of(table: Table) -> str:
    return _table(table.columns, table.rows, table.amounts)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], amounts: Collection[str] = ()) -> str:
    """A table whose amounts are flush right."""
    rule = ["---:" if column in amounts else "---" for column in columns]
    cells = [[escape(cell) for cell in row] for row in (columns, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))


def _code(text: str) -> str:
    """A code block with a fence that the text does not contain."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
