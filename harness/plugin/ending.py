"""The end of a session with markers, in the process that the user started: all points are judged together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError
from harness.plugin.session import RunSession
from harness.plugin.text_table import text_table

if TYPE_CHECKING:
    from harness.judge.gate import Judgement
    from harness.judge.table import Run

MOST_ROWS = 40
"""Of the table of points on the terminal. Chosen: a screen; phases.csv in the run directory has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnd:
    """What was found when all points were there."""

    findings: tuple[str, ...]
    """A sentence for everything that does not hold and that no test has failed with; not empty means exit code 1."""
    lines: tuple[str, ...]
    """What the section "memory" says of the judgement."""


def end_session(session: RunSession, *, stopped: bool, show: Callable[[str], None]) -> SessionEnd:
    """Judge the run directory, measure offenders against rules over several points again, and write what was found.

    ``stopped``: the session was ended before its last test (-x), so that nothing more is to be measured.
    """
    from harness.judge.gate import write_judgement
    from harness.plugin.judging import judge_session

    try:
        partial, policy, judged = _of_run(session)
        if not judged:
            return SessionEnd(findings=(), lines=())
        run, judgement = judge_session(session.directory, partial=partial)
        if not stopped and _remeasure(session, run, judgement, show):
            run, judgement = judge_session(session.directory, partial=partial)
        write_judgement(run, judgement)
    except HarnessError as error:
        return SessionEnd(findings=(f"could not be judged: {error}",), lines=())
    return _told(session, run, judgement, partial=partial, has_limits=policy)
