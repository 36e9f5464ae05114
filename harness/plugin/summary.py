"""What the end of a session says of its run directory."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.judge.advice import Asked, Commands
from harness.records import passed_over_in_words
from harness.run.ends import ends_of
from harness.run.sides import THEN_FOLDER
from harness.rundir.manifest import has_ended, left_out, passed_over, plans_anything, sides_of
from harness.rundir.traces import traces_in_words

if TYPE_CHECKING:
    from harness.plugin.ending import SessionEnd
    from harness.rundir.resume import Resumption


def summary(
    directory: Path,
    shown: str,
    *,
    broken: str,
    resumed: "Resumption | None",
    end: "SessionEnd | None",
    resuming: str,
) -> Iterator[str]:
    """What was measured, where it is (``shown``), how to go on where it was broken off
    (``resuming``), and how to judge it.

    Raises RunDirectoryError or OSError where the directory cannot be read.
    """
    ends = ends_of(directory)
    if end is None and not ends and not plans_anything(directory):
        yield (
            f"0 runs were selected, and {shown} holds an empty plan; --collect-only lists the "
            "points"
        )
        return
    outcomes = Counter(str(end.outcome) for end in ends)
    counted = (
        ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items())) or "none"
    )
    yield f"{len(ends)} {'run' if len(ends) == 1 else 'runs'} measured ({counted}) in {shown}"
    if why := passed_over(directory):
        yield passed_over_in_words(why)
    for reason, number in Counter(reason for end in ends for reason in end.left_out).items():
        yield f"{number} {'run' if number == 1 else 'runs'} went to another card, because {reason}"
    if (then := directory / THEN_FOLDER).exists():
        other = sides_of(directory)["against"]
        empty = (
            f"; left empty there, as git leaves submodules: {', '.join(other['left_empty'])}"
            if other.get("left_empty")
            else ""
        )
        yield (
            f"{len(ends_of(then))} runs of {other['asked']} beside them in "
            f"{shown}/{THEN_FOLDER}{empty}"
        )
    yield from traces_in_words(directory)
    if resumed is not None:
        yield f"{len(resumed.measured)} of {resumed.run_count} runs were there already"
    if broken or not has_ended(directory):
        why = f"broken off ({broken})" if broken else "broken off"
        yield f"{why}; nothing finished is lost, go on with:  {resuming}"
    if end is None:
        # Less was selected on purpose, which the gate would have to be told.
        yield (
            "judge them:  "
            f"{Commands(run=Path(shown), asked=Asked(partial=left_out(directory) > 0)).gate()}"
        )
        return
    yield from end.lines
    if end.findings:
        number = len(end.findings)
        yield f"{number} {'finding' if number == 1 else 'findings'}, so that this session fails:"
    yield from (found.sentence for found in end.findings)
    if end.judge_again:
        yield f"judge them again, or see the page:  {end.judge_again}"
