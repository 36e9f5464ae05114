"""The control file of the stub driver: what it answers, what it refuses, and what it was asked.

The file is one ``Control`` structure (layout.py), mapped by the test, by every child and by the
library at once; a value that is set here is the library's next answer.
"""

import contextlib
import ctypes
import fcntl
import itertools
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.pretended.layout import (
    MAGIC,
    MOST_CALLS,
    MOST_SPIKES,
    Control,
    Device,
    Function,
    Instance,
    Process,
    Spike,
)

VARIABLE = "NVML_STUB_CONTROL"
"""Names the control file to the library; without it there is no driver."""

ALL_ONES = (1 << 64) - 1
"""NVML_VALUE_NOT_AVAILABLE as an unsigned 64-bit amount."""
COMPUTE, GRAPHICS, MPS = 0, 1, 2
OFF, ON, ABSENT = 0, 1, 2
"""States of MIG and of accounting."""

NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND, INSUFFICIENT_SIZE = 3, 4, 6, 7
DRIVER_NOT_LOADED, FUNCTION_NOT_FOUND, GPU_IS_LOST, LIB_RM_VERSION_MISMATCH, UNKNOWN = (
    9,
    13,
    15,
    18,
    999,
)
"""nvmlReturn_t, nvml.h."""


class StubControl:
    """The mapped control file. ``create`` makes an empty one (no devices), ``open`` joins one that
    exists.
    """

    def __init__(self, path: Path, functions: Sequence[str]) -> None:
        self.path = path
        self.functions = {name: index for index, name in enumerate(functions)}
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ctypes.sizeof(Control))
        self.state = Control.from_buffer(self._memory)
        """The structure itself, for what has no method here."""

    @classmethod
    def create(cls, path: Path, functions: Sequence[str]) -> "StubControl":
        """An empty file for a library with these functions, in the order of their numbers.

        One that is there is replaced: processes that have it mapped keep it, and would die if it
        were cut short.
        """
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        with unfinished.open("wb") as file:
            file.truncate(ctypes.sizeof(Control))
        unfinished.replace(path)
        path.with_suffix(".functions").write_text("\n".join(functions))
        control = cls(path, functions)
        control.state.driver_version = b"575.57.08"
        control.state.library_version = b"13.575.57.08"
        control.state.cuda_version = 13000
        control.state.magic = MAGIC
        return control

    @classmethod
    def open(cls, path: str | Path | None = None) -> "StubControl":
        """The file at ``path``, or the one that this process's driver answers from."""
        found = Path(path or os.environ[VARIABLE])
        return cls(found, found.with_suffix(".functions").read_text().split())

    def add_device(
        self, uuid: str = "", *, name: str = "NVIDIA Stub A100", total_bytes: int, **fields: int
    ) -> Device:
        """One more card; ``fields`` are those of ``Device``. Setting fields of what is returned
        changes the answers.
        """
        index = self.state.device_count
        device: Device = self.state.devices[index]
        device.uuid = (uuid or f"GPU-{index:08x}-0000-4000-8000-000000000000").encode()
        device.name = name.encode()
        device.bus_id = f"00000000:{index + 1:02X}:00.0".encode()
        device.total_bytes = total_bytes
        device.mig = ABSENT
        device.compute_capability = 80
        for field, value in fields.items():
            setattr(device, field, value)
        self.state.device_count = index + 1
        return device

    def add_instance(
        self,
        device: Device,
        uuid: str = "",
        *,
        name: str = "",
        total_bytes: int,
        used_bytes: int = 0,
    ) -> Instance:
        """One more MIG device of a card, which is in MIG mode from now on."""
        index = device.instance_count
        instance: Instance = device.instances[index]
        instance.uuid = (
            uuid or f"MIG-{index:08x}-0000-5000-8000-{device.uuid.decode()[4:12]:0>12}"
        ).encode()
        instance.name = (name or f"{device.name.decode()} MIG 1g.5gb").encode()
        instance.gpu_instance, instance.compute_instance = 7 + index, 0
        instance.total_bytes, instance.used_bytes = total_bytes, used_bytes
        device.instance_count = index + 1
        device.mig = ON
        return instance

    def add_process(
        self, device: Device, pid: int, used_bytes: int, *, name: str = "", **fields: int
    ) -> Process:
        """One more process on the card; ``fields`` are those of ``Process`` (kind, instance,
        running, accounted_bytes).
        """
        with self._alone():
            index = device.process_count
            process: Process = device.processes[index]
            process.pid, process.used_bytes, process.running, process.kind, process.instance = (
                pid,
                used_bytes,
                1,
                COMPUTE,
                0,
            )
            process.name = name.encode()
            for field, value in fields.items():
                setattr(process, field, value)
            device.process_count = index + 1
        return process

    def script_spikes(
        self, device: Device, spikes: Iterable[tuple[int, int, int]], *, origin_ns: int = 0
    ) -> None:
        """Spikes (start_ns, length_ns, extra_bytes), in order and apart; they run from
        ``origin_ns`` (``start_spikes``).
        """
        device.spike_origin_ns = 0
        end_ns = 0
        for index, (start_ns, length_ns, extra_bytes) in enumerate(spikes):
            if start_ns < end_ns or index >= MOST_SPIKES:
                raise ValueError(
                    f"spike {index} begins before the last one has ended, or is one too many"
                )
            device.spikes[index] = Spike(start_ns, length_ns, extra_bytes)
            device.spike_count = index + 1
            end_ns = start_ns + length_ns
        device.spike_origin_ns = origin_ns

    def start_spikes(self, device: Device, *, delay_ns: int = 0) -> int:
        """Have the script begin ``delay_ns`` from now; gives its origin, ns of CLOCK_MONOTONIC."""
        device.spike_origin_ns = origin_ns = time.monotonic_ns() + delay_ns
        return origin_ns

    def fail(self, function: str, code: int, *, times: int = ALL_ONES) -> None:
        """Have ``function`` answer ``code`` the next ``times`` times."""
        state = self._function(function)
        state.faults_left = times
        state.fault = code

    def heal(self, function: str) -> None:
        """Have ``function`` answer as it should, at once."""
        state = self._function(function)
        state.fault = state.faults_left = state.delay_us = 0

    def delay(self, function: str, delay_us: int) -> None:
        """Have every call of ``function`` take ``delay_us`` longer."""
        self._function(function).delay_us = delay_us

    def calls(self, function: str) -> int:
        """How often ``function`` was called, by all processes together."""
        return int(self._function(function).calls)

    def busy_ns(self, function: str) -> int:
        """Time spent in ``function``, by all processes together."""
        return int(self._function(function).busy_ns)

    def call_times_ns(self, function: str) -> list[int]:
        """When it was called, CLOCK_MONOTONIC; the first ``MOST_CALLS`` calls of all functions
        together are kept.
        """
        number = self.functions[function]
        kept = itertools.islice(self.state.calls, min(self.state.call_count, MOST_CALLS))
        return sorted(call.at_ns for call in kept if call.function == number and call.at_ns)

    def forget_calls(self) -> None:
        """Set all counters to 0."""
        for function in self.state.functions:
            function.calls = function.busy_ns = function.last_ns = 0
        for call in itertools.islice(self.state.calls, min(self.state.call_count, MOST_CALLS)):
            call.at_ns = 0
        self.state.call_count = 0

    def environment(self, library: Path) -> dict[str, str]:
        """What a child needs to find ``library`` when it asks for libnvidia-ml.so.1, and the
        library this file.
        """
        behind = os.environ.get("LD_LIBRARY_PATH")
        path = str(library.parent) if not behind else f"{library.parent}:{behind}"
        return {"LD_LIBRARY_PATH": path, VARIABLE: str(self.path)}

    def close(self) -> None:
        """Let go of the mapping, once nobody holds a device of it; the file stays."""
        del self.state
        # a test still holds a structure: its end will unmap it
        with contextlib.suppress(BufferError):
            self._memory.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """While no process of the pretended CUDA driver takes a place in the list."""
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _function(self, name: str) -> Function:
        function: Function = self.state.functions[self.functions[name]]
        return function
