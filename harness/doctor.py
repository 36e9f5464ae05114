"""What works here and why the rest does not: allocate known amounts in a child and compare what each meter read."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.judge.table import load_run
from harness.records import Outcome, Point, RunEnd
from harness.run.devices import Device
from harness.run.isolation import SpawnLauncher
from harness.run.manifest import end_run, start_run
from harness.run.runner import Runner
from harness.units import GIB, MIB, format_bytes

KNOWN_BYTES = 32 * MIB
"""What the self-check allocates. Chosen: far above the start-up of either runtime, far below the smallest machine."""
_HOST_LIMIT_BYTES = 2 * GIB  # chosen: many times what TensorFlow's import and the known arrays take
_TIMEOUT_S = 120.0
# Which phase of the self-check each meter must find the known amount in.
_FINDS = {
    "device_in_use": "device",
    "nvml_device_used": "device",
    "nvml_process": "device",
    "host_anon": "host",
    "host_rss": "host",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterCheck:
    """What one meter was asked to find, and what it found."""

    meter: str
    quality: str
    asked_bytes: int
    read_bytes: int | None
    reason: str

    @property
    def sentence(self) -> str:
        """The finding for people."""
        if self.read_bytes is None:
            return f"unavailable, because {self.reason}"
        error_bytes = self.read_bytes - self.asked_bytes
        return f"asked for {format_bytes(self.asked_bytes)}, read {format_bytes(self.read_bytes)}, error {error_bytes:+,} B"


def check_meters(device: Device, root: Path) -> tuple[RunEnd, list[MeterCheck]]:
    """Run the self-check on ``device`` in a child; gives how it ended and one check for each meter."""
    name = "CPU:0" if device.kind == "emulated" else "GPU:0"
    point = Point(
        scenario="selfcheck",
        body="harness.measure.selfcheck:measure",
        parameters={},
        fixed={"device_name": name, "known_bytes": KNOWN_BYTES},
        phases=("device", "device_release", "host", "host_release"),
    )
    with tempfile.TemporaryDirectory(prefix="memory-doctor-") as folder:
        run_directory = Path(folder) / "run"
        start_run(run_directory, points=[point], repeats=1, device=device, command="doctor", root=root, settings={})
        runner = Runner(
            run_directory=run_directory,
            device=device,
            launcher=SpawnLauncher(),
            preparer=SpawnLauncher(),
            root=root,
            workspace=Path(folder),
            host_limit_bytes=_HOST_LIMIT_BYTES,
            timeout_s=_TIMEOUT_S,
        )
        end = runner.measure(point, 0)
        end_run(run_directory)
        phases = load_run(run_directory).phases
    checks = []
    for meter, phase in _FINDS.items():
        rows = phases[(phases["meter"] == meter) & (phases["phase"] == phase)]
        checks += [_check(meter, row) for row in rows.to_dict("records")]
    return end, checks if end.outcome is Outcome.OK else []


def _check(meter: str, row: dict[object, object]) -> MeterCheck:
    unavailable = row["quality"] == "unavailable"
    return MeterCheck(
        meter=meter,
        quality=str(row["quality"]),
        asked_bytes=KNOWN_BYTES,
        read_bytes=None if unavailable else int(str(row["growth_bytes"])),
        reason=str(row["reason"]) if unavailable else "",
    )
