"""Rows that say beforehand what will be measured beyond the plan; without them its rows are refused
by the judge.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import RunDirectoryError
from harness.locking import ONE_THREAD
from harness.names import one_line
from harness.records import ROWS_FILE, Point, append_row, open_rows, to_json


def announce_point(
    run_directory: Path, point: Point, *, test: str = "", repeats: int | None = None
) -> None:
    """Say that ``point``, which run.json need not plan, will be measured in all its repeats; before
    its first child.

    ``test`` names the test that measures it, one of those that ``start_run`` was told of;
    ``repeats`` is how often (None: as often as run.json says of all). The same point may be
    announced more than once, as long as it is the same. Raises RunDirectoryError when the row
    cannot be written.
    """
    row = {
        "kind": "point",
        "point": point.name,
        "record": to_json(point),
        "test": test,
        "repeats": repeats,
    }
    write_row(run_directory, row)


def park_points(run_directory: Path, *, test: str, points: Sequence[str], reason: str) -> None:
    """Say that ``test`` was skipped, or expected to fail: what is found about its points fails
    nobody.

    Raises RunDirectoryError when the row cannot be written.
    """
    write_row(
        run_directory,
        {"kind": "parked", "test": test, "points": list(points), "reason": one_line(reason)},
    )


def write_row(run_directory: Path, row: Mapping[str, Any]) -> None:
    """Append one row about a point or a test to rows.jsonl. Raises RunDirectoryError when it cannot
    be written.
    """
    rows = run_directory / ROWS_FILE
    try:
        with ONE_THREAD:
            descriptor = open_rows(rows)
            try:
                append_row(descriptor, row)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise RunDirectoryError(
            f"the {row['kind']} of {row.get('point') or row['test']} cannot be written to "
            f"{rows}: {error.strerror}"
        ) from error
