"""A run directory that is read on, point by point, while it is measured into."""

import json
import subprocess
import sys

from harness.judge.gate import judge
from harness.judge.policy import parse_policy
from harness.judge.table import RunReader, load_run
from harness.rundir import reading
from harness.rundir.rows import append_line, open_rows

BUDGET = {
    "schema_version": 1,
    "budget": [
        {
            "because": "a test",
            "scenarios": ["loading", "arrays"],
            "meters": ["device_in_use"],
            "phases": ["construct"],
            "at_most": "1 KiB",
        }
    ],
}


def append(run, rows):
    descriptor = open_rows(run.path / "rows.jsonl")
    for row in rows:
        append_line(descriptor, json.dumps(row))


def announcement(point, size):
    record = {"scenario": point.scenario, "body": point.body, "parameters": {"size": size}}
    record |= {"fixed": {}, "phases": list(point.phases)}
    return {"kind": "point", "point": f"{point.scenario}-size={size}", "record": record}


def test_every_row_is_parsed_once_however_many_points_are_judged(synthetic_run, monkeypatch):
    """400 points that are judged one after the other, each as soon as its rows are there: as many
    lines are parsed as the file has.
    """
    (point, *_) = synthetic_run.points
    template = [row for row in synthetic_run.rows() if row.get("point") == point.name]
    path, parsed, parse = synthetic_run.write([]), [], reading._parse
    monkeypatch.setattr(reading, "_parse", lambda line: parsed.append(line) or parse(line))
    reader, written = RunReader(path), 0

    for size in range(400):
        announced = announcement(point, size)
        rows = [announced, *(row | {"point": announced["point"]} for row in template)]
        append(synthetic_run, rows)
        written += len(rows)
        run = reader.point(announced["point"])
        assert {row.run[0] for row in run.rows} == {announced["point"]}
        assert len(run.run_ends) == 2

    assert len(parsed) == written


def test_one_point_is_judged_as_in_the_complete_run(synthetic_run, tmp_path):
    """The findings about a point are the same, sentence by sentence."""
    policy = parse_policy(BUDGET, "the test")
    reader = RunReader(synthetic_run.write())
    complete = judge(load_run(synthetic_run.path), policy, tmp_path, partial=True).verdict
    assert complete.findings

    for point in synthetic_run.points:
        alone = judge(reader.point(point.name), policy, tmp_path, partial=True).verdict

        assert [check.sentence for check in alone.findings if check.point == point.name] == [
            check.sentence for check in complete.findings if check.point == point.name
        ]


def test_a_point_grows_with_its_rows(synthetic_run):
    """What was written since the last look is there at the next one."""
    (point, *_) = synthetic_run.points
    rows = [row for row in synthetic_run.rows() if row.get("point") == point.name]
    reader = RunReader(synthetic_run.write([]))
    assert reader.point(point.name).rows == ()

    append(synthetic_run, rows)

    assert len(reader.point(point.name).rows) == len(point.phases) * 2 * 4


def test_a_row_may_come_before_the_one_that_announces_its_point(synthetic_run):
    """Workers write side by side; the row is used once the announcement is there."""
    (point, *_) = synthetic_run.points
    announced = announcement(point, 1)
    rows = [row for row in synthetic_run.rows() if row.get("point") == point.name]
    reader = RunReader(synthetic_run.write([]))

    append(synthetic_run, [row | {"point": announced["point"]} for row in rows])
    reader.point(point.name)
    append(synthetic_run, [announced])

    assert len(reader.point(announced["point"]).run_ends) == 2


def test_half_a_line_is_read_when_it_is_complete(synthetic_run):
    """Another process may be in the middle of a row, where the file system has no locks."""
    (point, *_) = synthetic_run.points
    rows = [row for row in synthetic_run.rows() if row.get("point") == point.name]
    reader = RunReader(synthetic_run.write([]))
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()

    with (synthetic_run.path / "rows.jsonl").open("ab") as file:
        file.write(text[:-20])
        file.flush()
        before = len(reader.point(point.name).run_ends)
        file.write(text[-20:])

    assert (before, len(reader.point(point.name).run_ends)) == (1, 2)


def test_a_judge_needs_no_pandas(synthetic_run, tmp_path):
    """Its tables are for people; a plugin that judges a point starts without them."""
    path = synthetic_run.write()
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from harness.judge.gate import judge\n"
        "from harness.judge.policy import parse_policy\n"
        "from harness.judge.table import load_run\n"
        f"judgement = judge(load_run(Path({str(path)!r})), parse_policy({BUDGET!r}, 'a test'),"
        f" Path({str(tmp_path)!r}), partial=True)\n"
        "assert judgement.verdict.findings\n"
        "sys.exit('pandas' in sys.modules)\n"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
