"""One point measured on the card as every point is: leased, in a confined child, by all meters but
TensorFlow's own.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.meters import HOST_ANON, NVML_DEVICE_USED, NVML_PROCESS
from harness.records import Outcome, Point, Quality
from harness.run.launchers import SpawnLauncher
from harness.run.runner import METERS, ChildSettings, Runner
from harness.rundir.rows import PhaseRecord
from harness.words import GIB, MIB, format_bytes
from scenarios.first_card.bench import Bench
from scenarios.first_card.cuda import GRANULARITY_BYTES
from scenarios.first_card.holding import HOME
from scenarios.first_card.rows import Row, amount, expect, fact, unavailable

_AMOUNT_BYTES = 256 * MIB
_HOST_LIMITS_BYTES = (5 * GIB, 2 * GIB)
"""What a child of a sweep may hold of the host by default, and one of the doctor's
(harness/commands/doctor.py)."""
_TIMEOUT_S = 60.0
_PHASES = ("context", "take", "free")
_POINT = Point(
    scenario="first_card",
    body="scenarios.first_card.bodies:measure",
    parameters={"amount_bytes": _AMOUNT_BYTES},
    phases=_PHASES,
)


def runner(bench: Bench) -> Iterator[Row]:
    """A point of 256 MiB, measured as a sweep does: a CUDA context has to fit the limit of the
    child's host memory.
    """
    for limit_bytes in _HOST_LIMITS_BYTES:
        with tempfile.TemporaryDirectory(prefix="first-card-") as folder:
            yield from _measured(bench, Path(folder), limit_bytes)


def _measured(bench: Bench, folder: Path, limit_bytes: int) -> Iterator[Row]:
    (folder / "rows.jsonl").touch()
    (folder / "logs").mkdir()
    launcher = SpawnLauncher()
    measuring = Runner(
        run_directory=folder,
        device=bench.device,
        launcher=launcher,
        children=ChildSettings(
            root=HOME,
            workspace=folder,
            host_limit_bytes=limit_bytes,
            timeout_s=_TIMEOUT_S,
            meters=tuple(name for name in METERS if "tensorflow" not in name),
            prepare_device="scenarios.first_card.bodies:leave_the_device_alone",
        ),
        pauses_s=(),
        sampling=bench.sampling,
    )
    end = measuring.measure(_POINT, 0)  # its sampler is the bench's, and stays
    limit = format_bytes(limit_bytes)
    said = f"{end.outcome}{f' in {end.phase}' if end.phase else ''} {end.reason}".strip()
    yield expect(
        f"a point under a host limit of {limit}", "ends ok", said, holds=end.outcome is Outcome.OK
    )
    records = {record.phase: record for record in _records(folder / "rows.jsonl")}
    for phase, kept_bytes in (("take", _AMOUNT_BYTES), ("free", -_AMOUNT_BYTES)):
        for meter in (NVML_DEVICE_USED, NVML_PROCESS):
            yield _amount(f"{phase} under {limit}, {meter}", records, phase, meter, kept_bytes)
    yield _host(records, limit)


def _records(path: Path) -> Iterator[PhaseRecord]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["kind"] == "phase":
            yield PhaseRecord.from_json(row)


def _amount(
    what: str, records: dict[str, PhaseRecord], phase: str, meter: str, kept_bytes: int
) -> Row:
    if phase not in records:
        return unavailable(what, f"the phase {phase} was not finished")
    reading = next(reading for reading in records[phase].readings if reading.meter == meter)
    if reading.quality is Quality.UNAVAILABLE or reading.retained_bytes is None:
        return unavailable(what, reading.reason)
    slack = (
        {"above_bytes": GRANULARITY_BYTES} if kept_bytes > 0 else {"below_bytes": GRANULARITY_BYTES}
    )
    return amount(what, kept_bytes, reading.retained_bytes, why=reading.quality, **slack)


def _host(records: dict[str, PhaseRecord], limit: str) -> Row:
    """What a context costs of the host's memory, by the meter that the gate judges."""
    what = f"a context under {limit}, {HOST_ANON}"
    if "context" not in records:
        return unavailable(what, "the phase context was not finished")
    reading = next(reading for reading in records["context"].readings if reading.meter == HOST_ANON)
    if reading.growth_bytes is None:
        return unavailable(what, reading.reason)
    return fact(
        what,
        f"{reading.growth_bytes:,} B at its peak, {reading.retained_bytes:,} B kept",
        reading.quality,
    )
