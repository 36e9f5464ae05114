"""summary.md: the verdict, its causes and what moved, for the reviewer of a pull request; the same
words as the page.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from textwrap import indent

from harness.judge.causes import Cause, Command
from harness.judge.gate import Judgement
from harness.words import count

from .page import BETTER, OVERRULED, Page, make_page
from .tables import Table
from .view import RunView

MOST_CHARACTERS = 60_000
"""A comment of GitHub holds 65,536 characters, a step summary 1 MiB, and a reader less than either;
the page has it all."""
MAX_CAUSES = 20
"""Causes that are shown in full, each with a count of what follows from it. Chosen: a reader reads
no more."""
_LONGEST = 2_000
"""Characters of one sentence. Chosen: five lines; the last words of a child may be longer."""

_HEADINGS: Mapping[str, str] = {
    OVERRULED: "Measured again, and not confirmed by most of the runs",
    BETTER: "Better than before, beyond tolerance",
}
"""What notes that begin so stand under."""

# Punctuation that Markdown reads as markup anywhere, tables and mathematics included; "&" and "<"
# become entities, since HTML is let through as it is. What would become a link or call somebody is
# written as an entity too. The last one: what is markup at the start of a line.
_MARKUP = re.compile(r"([\\`*_\[\]|~$])")
_LINKS = re.compile(r"@|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LEADING = re.compile(r"^(\d*)([#=>]|[.)+-](?=[\s-]|$))")


def summary_text(view: RunView, judgement: Judgement, *, has_page: bool) -> str:
    """The text of summary.md; ``has_page`` tells whether the run directory holds the page that it
    refers to.
    """
    return _render(make_page(view, judgement, has_page=has_page), judgement)


def _render(page: Page, judgement: Judgement) -> str:
    """The summary as GitHub-flavoured Markdown, of MOST_CHARACTERS at most; every text is
    escaped.
    """
    first = (
        f"## {escape(page.verdict_word)}",
        f"**{_sentence(_headline(page, judgement))}**",
        escape(f"Exit code {page.exit_code}. {page.tally} {page.outcomes}"),
    )
    # In the order of what a reviewer can least do without; what there is no room for is left to the
    # page.
    rest = (
        *_causes(page, judgement.causes),
        *_decided(page),
        *_moves(page),
        *_notes(page),
        *_reproduce(page),
        *_traces(page),
        *_numbers(page),
    )
    last = f"Judgement {page.judgement} of run {escape(page.run_id)}."
    room = MOST_CHARACTERS - sum(len(block) + 2 for block in (*first, last))
    return "\n\n".join((*first, *_that_fit(rest, room, page), last)) + "\n"


def _headline(page: Page, judgement: Judgement) -> str:
    """The first cause, and how many others there are; without one the verdict's own sentence."""
    if not judgement.causes:
        return page.sentence
    first, *others = judgement.causes
    more = f"{count(len(others), 'more cause')} below." if others else ""
    against = judgement.against and f"{judgement.against[0].upper()}{judgement.against[1:]}."
    return " ".join(part for part in (first.sentence, more, against) if part)


def _that_fit(blocks: Sequence[str], room: int, page: Page) -> Iterator[str]:
    """The blocks that there is room for, and a sentence where there are others."""
    more = (
        "There is more than fits here: the page of the run, report.html, has all of "
        f"it{_how_to_get(page)}."
    )
    left = room - len(more) - 2
    whole = True
    for block in blocks:
        fits = len(block) + 2 <= left
        whole = whole and fits
        if fits:
            left -= len(block) + 2
            yield block
    if not whole:
        yield more


def escape(text: str) -> str:
    """A text as one line of Markdown that shows exactly its characters."""
    line = " ".join(text.split())
    escaped = (
        _LEADING.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", line))
        .replace("&", "&amp;")
        .replace("<", "&lt;")
    )
    return _LINKS.sub(lambda found: f"&#{ord(found.group())};", escaped)


def _sentence(text: str) -> str:
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} [...]")


def _causes(page: Page, causes: Sequence[Cause]) -> Iterator[str]:
    """A numbered list, the gravest first."""
    yield "### Causes"
    if not causes:
        yield (
            "No finding: every check holds."
            if page.held
            else "No check applied, so nothing was found and nothing is promised."
        )
        return
    shown = causes[:MAX_CAUSES]
    yield from (_cause(number, cause) for number, cause in enumerate(shown, start=1))
    more = len(causes) - len(shown)
    if more > 0:
        yield f"{count(more, 'more cause is', 'more causes are')} in the page{_how_to_get(page)}."


def _cause(number: int, cause: Cause) -> str:
    """One item: what, where, how much, since when; the check that says it best, and what to
    type.
    """
    first = cause.checks[0]
    kind = str(cause.finding).replace("_", " ")
    lines = {
        "Where": cause.where,
        "How much": cause.how_much,
        "Since when": cause.since,
        "What shows it": first.sentence,
        "Why this limit": _with_place(first.because, cause.rule_place),
        "Alive at that peak": "; ".join(tensors.words for tensors in cause.alive),
        "Besides": cause.following,
    }
    text = [f"{number}. **{escape(kind)}**: {_sentence(cause.what)}"]
    text += [f"   - {name}: {_sentence(said)}" for name, said in lines.items() if said]
    blocks = [*map(_typed, cause.commands), "\n".join(cause.log_tail)]
    return "\n\n".join(
        ["\n".join(text), *(indent(_code(block), "   ") for block in blocks if block)]
    )


def _with_place(because: str, place: str) -> str:
    return f"{because} ({place})" if because and place else because


def _typed(command: Command) -> str:
    return f"# {command.purpose}\n{command.line}"


def _decided(page: Page) -> Iterator[str]:
    """What is neither a finding nor something that the run cannot show, each kind below a heading
    of its own.
    """
    for prefix, heading in _HEADINGS.items():
        shown = [note.removeprefix(prefix) for note in page.notes if note.startswith(prefix)]
        if shown:
            yield f"### {heading}"
            yield "\n".join(f"- {_sentence(sentence)}" for sentence in shown[:MAX_CAUSES])
        if len(shown) > MAX_CAUSES:
            yield f"{len(shown) - MAX_CAUSES:,} more in the page{_how_to_get(page)}."


def _moves(page: Page) -> Iterator[str]:
    yield "### What moved"
    yield escape(page.comparison.sentence)
    if page.comparison.moves is not None:
        yield f"{escape(page.comparison.moves.caption)}:\n\n{_of(page.comparison.moves)}"


def _notes(page: Page) -> Iterator[str]:
    notes = [note for note in page.notes if not note.startswith(tuple(_HEADINGS))]
    if notes:
        yield "### What this run cannot show"
        yield "\n".join(f"- {_sentence(note)}" for note in notes)


def _numbers(page: Page) -> Iterator[str]:
    """Folded: what each phase takes, which a reviewer looks up rather than reads."""
    compared = [tables.comparison for tables in page.scenarios if tables.comparison is not None]
    if not compared:
        yield "No point was planned, so there are no numbers."
    for table in compared:
        yield f"<details><summary>{escape(table.caption)}</summary>\n\n{_of(table)}\n\n</details>"
    if page.silent_meters:
        yield "\n".join(f"- {escape(sentence)}" for sentence in page.silent_meters)


def _traces(page: Page) -> Iterator[str]:
    """The points worth reading first; that there is no trace, and why, is among the notes."""
    if page.traced.points:
        yield "### What was alive at the peak"
        yield "\n".join(
            f"- {escape(f'{point.point}: {point.headline} {point.refusal}')}"
            for point in page.traced.points
        )


def _reproduce(page: Page) -> Iterator[str]:
    yield "### How to reproduce"
    yield _code(page.reproduce)
    yield f"Commit {escape(page.commit)}. Judge the same run again:"
    yield _code(page.judge_again)


def _how_to_get(page: Page) -> str:
    """The command that writes the page, where there is none."""
    return "" if page.has_page else escape(f" (to write it: {page.make_again})")


def _of(table: Table) -> str:
    return _table(table.columns, table.rows, table.amounts)


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], amounts: Collection[str] = ()
) -> str:
    """A table whose amounts are flush right."""
    rule = ["---:" if column in amounts else "---" for column in columns]
    cells = [[escape(cell) for cell in row] for row in (columns, *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (cells[0], rule, *cells[1:]))


def _code(text: str) -> str:
    """A code block with a fence that the text does not contain."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
