"""Tests that are skipped, or expected to fail: noted in the run directory, so that the gate treats
them as pytest does.
"""

import pytest

from harness.errors import RunDirectoryError
from harness.plugin.fixtures import MEASURED
from harness.plugin.marks import WANTED
from harness.plugin.options import is_dry
from harness.plugin.session import SESSION
from harness.run.announcing import park_points


def note_parked(item: pytest.Item, report: pytest.TestReport) -> None:
    """Write down that nothing which is found about the test's points fails anybody, if that is what
    its report says.

    An expected failure that is strict and did not come is a failure of pytest's, and parks nothing.
    """
    wanted, session = item.stash.get(WANTED, None), item.config.stash[SESSION]
    expected = getattr(report, "wasxfail", None)
    if (
        wanted is None
        or is_dry(item.config)
        or not session.is_there
        or (expected is None and not report.skipped)
    ):
        return
    if wanted.point is None and session.patterns:
        return  # none of its points may have been chosen
    points = {
        *item.stash.get(MEASURED, []),
        *([wanted.point.name] if wanted.point is not None else []),
    }
    if expected is None:
        reason = f"skipped: {_why_skipped(report)}"
    else:
        how = "xfail" if report.skipped else "its test passed although it is expected to fail"
        reason = f"{how}: {expected or 'without a reason'}"
    try:
        park_points(session.directory, test=item.nodeid, points=sorted(points), reason=reason)
    except RunDirectoryError as error:
        session.broken = str(error)


def _why_skipped(report: pytest.TestReport) -> str:
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return why.removeprefix("Skipped: ").strip() or "without a reason"
