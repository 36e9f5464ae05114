"""Findings over several points as failed tests of junit.xml: they belong to no single test of the
session.
"""

from collections.abc import Iterable

import pytest

from harness.plugin.ending import Found

_WRITER = "LogXML"
"""pytest's plug-in that writes junit.xml (_pytest.junitxml); it has no public name, but its hooks
are those of all plug-ins."""


def tell_junit(config: pytest.Config, findings: Iterable[Found]) -> None:
    """Add a failed test ``memory / SUBJECT`` for each finding, before the file is written; nothing
    where none is written.

    Findings that a test has failed with are in its own entry: its message, and its properties
    ``memory_finding``.
    """
    for writer in config.pluginmanager.get_plugins():
        if type(writer).__name__ == _WRITER:
            for found in findings:
                for report in _reports(found):
                    writer.pytest_runtest_logreport(report)


def _reports(found: Found) -> Iterable[pytest.TestReport]:
    """The three reports that a test has."""
    for when in ("setup", "call", "teardown"):
        yield pytest.TestReport(
            nodeid=f"memory::{found.subject}",
            location=("memory", None, found.subject),
            keywords={},
            outcome="failed" if when == "call" else "passed",
            longrepr=found.sentence if when == "call" else None,
            when=when,
        )
