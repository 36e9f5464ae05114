"""The first lines of the page: which code was measured on what and when, and the verdict as four
short answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.judge import Check
from harness.judge.causes import Cause
from harness.judge.gate import Judgement
from harness.records import is_pretended
from harness.rundir.manifest import Manifest
from harness.words import count, format_bytes

from .earlier import Earlier
from .view import RunView
from .words import time_taken

NOT_RECORDED = "not recorded"
_COMMIT_LETTERS = 12
"""Of a commit's name. Chosen: no repository needs more to tell commits apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing about the run."""

    name: str
    words: str
    address: str = ""
    """Where a link leads; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the page says before anything else."""

    badge: str
    """``"emulated"`` or ``"pretended"`` where no card was measured; else empty."""
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One line of the verdict: ``what``, ``where``, ``how much`` or ``since when``."""

    question: str
    words: str


def header_of(view: RunView, judgement: Judgement, earlier: Earlier) -> Header:
    """What run.json says of the run; what it does not say is "not recorded"."""
    manifest = view.run.manifest
    environment, code = manifest.environment, manifest.code
    of_revision = code is not None and bool(code.commit)
    commit = code.commit if code and of_revision else str(environment.get("git_commit") or "")
    subject = code.title if code and of_revision else environment.get("git_subject")
    address = _recorded(environment.get("ci_url"))
    return Header(
        badge=_badge(manifest),
        facts=(
            Fact(name="project", words=_recorded(manifest.project)),
            Fact(name="branch", words=_recorded(environment.get("git_branch"))),
            Fact(name="commit", words=_commit(commit, str(subject or ""), environment)),
            Fact(name="compared with", words=_compared(judgement, earlier)),
            Fact(name="device", words=_device(view)),
            Fact(name="measured", words=_when(manifest)),
            Fact(name="took", words=_took(manifest)),
            Fact(
                name="CI job",
                words=address,
                address=address if address.startswith(("https://", "http://")) else "",
            ),
        ),
    )


def _recorded(value: object) -> str:
    """What run.json has; git and others write why they do not know."""
    text = str(value or "")
    return NOT_RECORDED if not text or text.startswith("unavailable") else text


def _commit(commit: str, subject: str, environment: object) -> str:
    known = _recorded(commit)
    if known == NOT_RECORDED:
        return known
    dirty = isinstance(environment, dict) and environment.get("git_dirty") is True
    said = "" if _recorded(subject) == NOT_RECORDED else f" {subject}"
    return f"{known[:_COMMIT_LETTERS]}{said}{', with uncommitted changes' if dirty else ''}"


def _compared(judgement: Judgement, earlier: Earlier) -> str:
    if earlier.run is not None:
        return f"the code {earlier.words}" if earlier.words.startswith("at ") else earlier.words
    if earlier.words:
        return f"the baseline, {earlier.words}"
    return "another run, which cannot be read" if judgement.against else "no earlier run"


def _badge(manifest: Manifest) -> str:
    if is_pretended(manifest.device.name):
        return "pretended"
    return "emulated" if manifest.device.kind == "emulated" else ""


def _device(view: RunView) -> str:
    device = view.run.manifest.device
    size = format_bytes(view.picture.device_bytes or device.memory_bytes)
    if is_pretended(device.name):
        return f"{device.name}, {size}: TensorFlow's GPU device without a card"
    if device.kind == "emulated":
        return f"TensorFlow's GPU allocator on the CPU, {size}; no card was measured"
    return f"{device.name}, {size}"


def _when(manifest: Manifest) -> str:
    return manifest.started.replace("T", " ").removesuffix("+00:00") + (
        " UTC" if manifest.started.endswith("+00:00") else ""
    )


def _took(manifest: Manifest) -> str:
    if manifest.ended is None:
        return "no end was recorded"
    # empty where one was edited, or has no time zone
    return time_taken(manifest.started, manifest.ended) or NOT_RECORDED


def answers_of(
    judgement: Judgement, causes: Sequence[Cause], earlier: Earlier, *, peaks: str, scenarios: str
) -> tuple[Answer, ...]:
    """The verdict in four lines: of the first cause, or of what was measured where nothing is
    wrong. ``peaks`` and ``scenarios`` are these in words.
    """
    if causes:
        lines = list(_of_cause(causes[0], len(causes) - 1))
    elif judgement.verdict.findings:
        lines = list(_of_finding(judgement.verdict.findings[0]))
    else:
        lines = list(_of_pass(judgement, earlier, peaks=peaks, scenarios=scenarios))
    return tuple(Answer(question=question, words=words) for question, words in lines if words)


def _of_cause(cause: Cause, others: int) -> Iterator[tuple[str, str]]:
    more = f" ({count(others, 'more cause')} below)" if others else ""
    yield "What", f"{capitalized(cause)}{more}"
    yield "Where", cause.where
    yield "How much", cause.how_much
    yield "Since when", cause.since or "not known: nothing earlier was measured that shows it"


def capitalized(cause: Cause) -> str:
    """What went wrong, as the beginning of a line; names keep their letters."""
    first = cause.what.partition(" ")[0]
    named = {cause.loader, *cause.scenarios}
    return cause.what if first in named else f"{cause.what[:1].upper()}{cause.what[1:]}"


def _of_finding(finding: Check) -> Iterator[tuple[str, str]]:
    yield "What", finding.sentence
    yield "Where", finding.subject


def _of_pass(
    judgement: Judgement, earlier: Earlier, *, peaks: str, scenarios: str
) -> Iterator[tuple[str, str]]:
    sentence = judgement.verdict.sentence.removeprefix("Pass: ")
    yield "What", f"{sentence[:1].upper()}{sentence[1:]}"
    yield "Where", scenarios
    if judgement.verdict.checks:
        yield "How much", peaks
        yield "Since when", _compared(judgement, earlier)
