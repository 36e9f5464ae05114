"""Children of one runner on the first card that this process's driver has, as JSON:
children_on_card.py FOLDER ISOLATION N.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from harness.records import Point
from harness.run.cards import choose_device
from harness.run.revisions import Code
from harness.run.runner import ChildSettings, opened_runner
from harness.rundir.manifest import start_run
from harness.rundir.rows import PhaseRecord
from harness.words import GIB, MIB

ROOT = Path(__file__).resolve().parents[3]
POINT = Point(
    scenario="multiply",
    body="tests.harness.run.children:multiply",
    parameters={},
    phases=("multiply",),
)


def main(folder: Path, isolation: str, children: int) -> dict[str, object]:
    """How the children ended, what they computed, and how often each set of readings was made."""
    device = choose_device("gpu").with_budget(256 * MIB)
    run, inputs = folder / "run", folder / "inputs"
    inputs.mkdir(parents=True)
    start_run(
        run, points=[POINT], repeats=children, device=device, command="test", root=ROOT, settings={}
    )
    with opened_runner(
        run_directory=run,
        device=device,
        children=ChildSettings(
            root=ROOT,
            workspace=inputs,
            code=Code(),
            host_limit_bytes=5 * GIB,
            timeout_s=120.0,
        ),
        isolation=isolation,
        preload=(),
    ) as runner:
        ends = [runner.measure(POINT, repeat) for repeat in range(children)]
    rows = [json.loads(line) for line in (run / "rows.jsonl").read_text().splitlines()]
    readings = [PhaseRecord.from_json(row).readings for row in rows if row["kind"] == "phase"]
    exact = {"device_in_use", "nvml_process", "nvml_device_used"}
    amounts = Counter(
        json.dumps(
            {
                reading.meter: [reading.start_bytes, reading.peak_bytes, reading.end_bytes]
                for reading in one
                if reading.meter in exact
            }
        )
        for one in readings
    )
    return {
        "outcomes": Counter(str(end.outcome) for end in ends),
        "reasons": sorted({end.reason for end in ends}),
        "answers": Counter((inputs / "answers").read_text().split()),
        "amounts": amounts,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
