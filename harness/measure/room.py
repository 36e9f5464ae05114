"""How much room was left when a body was refused memory: on its device, and in its process."""

import re
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATA_SEGMENT = re.compile(r"^VmData:\s+(\d+) kB$", re.MULTILINE)
_KIB = 1024  # /proc prints kibibytes and calls them kB (proc(5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What was left when a body was refused memory."""

    limit_bytes: int
    """Size of the device."""
    in_use_bytes: int
    """Held on the device after the error: no more than at the refusal."""
    peak_bytes: int
    """Most held on the device since the phase began: no less than at the refusal."""
    data_bytes: int | None
    """Data segment of this process; None where the kernel does not tell."""
    data_limit_bytes: int
    """Its RLIMIT_DATA."""


def look_for_room(device: Mapping[str, Any]) -> Room | None:
    """What is left on the leased device and in this process; None where TensorFlow does not tell,
    or there is no limit.
    """
    tensorflow, limit_bytes = sys.modules.get("tensorflow"), device["limit_bytes"]
    if tensorflow is None or limit_bytes is None:
        return None
    try:
        held = tensorflow.config.experimental.get_memory_info(
            "CPU:0" if device["kind"] == "emulated" else "GPU:0"
        )
        status = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace")
    except (ValueError, OSError):
        return None
    data = _DATA_SEGMENT.search(status)
    return Room(
        limit_bytes=limit_bytes,
        in_use_bytes=int(held["current"]),
        peak_bytes=int(held["peak"]),
        data_bytes=None if data is None else int(data[1]) * _KIB,
        data_limit_bytes=resource.getrlimit(resource.RLIMIT_DATA)[0],
    )
