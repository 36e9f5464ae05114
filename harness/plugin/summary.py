"""What the end of a session says of its run directory."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.records import passed_over_in_words
from harness.run.ends import ends_of
from harness.run.manifest import has_ended, passed_over, plans_anything, sides_of
from harness.run.sides import THEN_FOLDER
from harness.run.traced import traces_in_words

if TYPE_CHECKING:
    from harness.plugin.ending import SessionEnd
    from harness.resuming import Resumption


def summary(directory: Path, shown: str, *, broken: str, resumed: "Resumption | None", end: "SessionEnd | None") -> Iterator[str]:
    """What was measured, where it is (``shown``), how to go on where it was broken off, and how to judge it.

    Raises RunDirectoryError or OSError where the directory cannot be read.
    """
    ends = ends_of(directory)
    if end is None and not ends and not plans_anything(directory):
        yield f"0 runs were selected, and {shown} holds an empty plan; --collect-only lists the points"
        return
    outcomes = Counter(str(end.outcome) for end in ends)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())) or "none"
    yield f"{len(ends)} {'run' if len(ends) == 1 else 'runs'} measured ({counted}) in {shown}"
    if why := passed_over(directory):
        yield passed_over_in_words(why)
    for reason, number in Counter(reason for end in ends for reason in end.left_out).items():
        yield f"{number} {'run' if number == 1 else 'runs'} went to another card, because {reason}"
    if (then := directory / THEN_FOLDER).exists():
        other = sides_of(directory)["against"]
        empty = f"; left empty there, as git leaves submodules: {', '.join(other['left_empty'])}" if other.get("left_empty") else ""
        yield f"{len(ends_of(then))} runs of {other['asked']} beside them in {shown}/{THEN_FOLDER}{empty}"
    yield from traces_in_words(directory)
    if resumed is not None:
        yield f"{len(resumed.measured)} of {resumed.run_count} runs were there already"
    if broken or not has_ended(directory):
        why = f"broken off ({broken})" if broken else "broken off"
        yield f"{why}; nothing finished is lost, go on with:  pytest ... --memory-resume{_before(shown)}{shown}"
    if end is None:
        yield f"judge them:  {_harness(Path.cwd())} gate {shown}"
        return
    yield from end.lines
    if end.findings:
        number = len(end.findings)
        yield f"{number} {'finding' if number == 1 else 'findings'}, so that this session fails:"
    yield from (found.sentence for found in end.findings)
    yield f"judge them again, or see the page:  {_harness(Path.cwd())} gate {shown} --page"


def _before(shown: str) -> str:
    """What stands between an option and a folder: after a space pytest takes one outside of the project for its tests."""
    return "=" if Path(shown).is_absolute() or shown.startswith("..") else " "


def _harness(root: Path) -> str:
    """How to start the command line here: -P keeps another package called harness out of its way."""
    other = root / "harness"
    return "python -P -m harness" if other.is_dir() and not (other / "measure" / "worker.py").exists() else "python -m harness"
