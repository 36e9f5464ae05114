"""The control file of the stub driver: what it answers, what it refuses, and what it was asked.

The file is one ``Control`` structure, mapped by the test, by every child and by the
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
from typing import Any

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

# Layout of the control file: one ``Control`` structure, shared by tests, children and both stubs
# of the driver. The structures below are the only description of it; the C declarations are
# printed from them (``c_declarations``) when the libraries are built.


MAGIC = 0x4E564D4C_53545542
MOST_DEVICES = 8
MOST_PROCESSES = 64
MOST_INSTANCES = 8
MOST_SPIKES = 2048
MOST_FUNCTIONS = 640
MOST_CALLS = 1 << 16
"""Of all functions together: so many calls are kept with their time, the rest is only counted."""

_U64 = ctypes.c_uint64


class Process(ctypes.Structure):
    """One process with a context on the device."""

    _fields_ = (
        ("pid", _U64),
        ("used_bytes", _U64),
        ("kind", _U64),
        ("instance", _U64),  # 0: none, else 1 + its index
        ("running", _U64),
        ("accounted_bytes", _U64),  # maxMemoryUsage; 0: not accounted
        ("name", ctypes.c_char * 128),
        # 1: kept by the pretended CUDA driver; part of what the card has in use, gone with its
        # process
        ("arena", _U64),
        # of such a process, field 22 of /proc/PID/stat: a later process of the same number is
        # another
        ("start_ticks", _U64),
    )


class Instance(ctypes.Structure):
    """One MIG device: a compute instance in a GPU instance of its own."""

    _fields_ = (
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
        ("gpu_instance", _U64),
        ("compute_instance", _U64),
        ("total_bytes", _U64),
        ("reserved_bytes", _U64),
        ("used_bytes", _U64),
    )


class Spike(ctypes.Structure):
    """So many bytes more in use, from ``start_ns`` after the origin, for ``length_ns``."""

    _fields_ = (("start_ns", _U64), ("length_ns", _U64), ("extra_bytes", _U64))


class Device(ctypes.Structure):
    """One card. Version 2 of the memory query tells ``used_bytes``, version 1 ``used_bytes +
    reserved_bytes``.
    """

    _fields_ = (
        ("uuid", ctypes.c_char * 96),
        ("name", ctypes.c_char * 96),
        ("bus_id", ctypes.c_char * 32),
        ("total_bytes", _U64),
        ("reserved_bytes", _U64),
        ("used_bytes", _U64),
        ("context_bytes", _U64),  # what a context of CUDA takes of the card
        ("compute_capability", _U64),  # 80: 8.0
        # every call about the device answers GPU_IS_LOST, CUDA's DEVICE_UNAVAILABLE
        ("lost", _U64),
        ("unified", _U64),  # no memory of its own: memory queries answer NOT_SUPPORTED
        ("mig", _U64),
        ("unprivileged", _U64),  # a card in MIG mode answers NO_PERMISSION, its instances do not
        ("accounting", _U64),
        ("instance_count", _U64),
        ("process_count", _U64),
        ("spike_origin_ns", _U64),  # of CLOCK_MONOTONIC; 0: no spikes yet
        ("spike_count", _U64),
        ("instances", Instance * MOST_INSTANCES),
        ("processes", Process * MOST_PROCESSES),
        ("spikes", Spike * MOST_SPIKES),
    )


class Function(ctypes.Structure):
    """One function of the library: how it fails, and how often it was called."""

    _fields_ = (
        ("fault", _U64),  # nvmlReturn_t; 0: none
        ("faults_left", _U64),
        ("delay_us", _U64),
        ("calls", _U64),
        ("busy_ns", _U64),
        ("last_ns", _U64),
    )


class Call(ctypes.Structure):
    """One call, at ``at_ns`` of CLOCK_MONOTONIC; a row that nobody wrote has ``at_ns`` 0."""

    _fields_ = (("at_ns", _U64), ("function", _U64))


class Control(ctypes.Structure):
    """All of the file."""

    _fields_ = (
        ("magic", _U64),
        ("driver_version", ctypes.c_char * 80),
        ("library_version", ctypes.c_char * 80),
        ("cuda_version", _U64),  # 13000: 13.0
        ("cuda_init_fault", _U64),  # CUresult of cuInit; 0: none
        ("device_count", _U64),
        ("call_count", _U64),
        ("devices", Device * MOST_DEVICES),
        ("functions", Function * MOST_FUNCTIONS),
        ("calls", Call * MOST_CALLS),
    )


def c_declarations() -> str:
    """The structures as C; every field is 8 bytes wide or a multiple of it, so that both sides
    agree without padding.
    """
    lines = ["#pragma once", "#include <stdint.h>", f"#define STUB_MAGIC {MAGIC:#x}ull"]
    lines += [
        f"#define {name} {value}" for name, value in globals().items() if name.startswith("MOST_")
    ]
    for structure in (Process, Instance, Spike, Device, Function, Call, Control):
        lines.append("typedef struct {")
        fields: Sequence[tuple[str, Any]] = structure._fields_
        for name, kind in fields:
            length = f"[{kind._length_}]" if issubclass(kind, ctypes.Array) else ""
            element = kind._type_ if issubclass(kind, ctypes.Array) else kind
            word = {_U64: "uint64_t", ctypes.c_char: "char"}.get(
                element, element.__name__.lower() + "_state"
            )
            lines.append(f"    {word} {name}{length};")
        lines.append(f"}} {structure.__name__.lower()}_state;")
        lines.append(
            f"_Static_assert(sizeof({structure.__name__.lower()}_state) == "
            f'{ctypes.sizeof(structure)}, "layout");'
        )
    return "\n".join(lines) + "\n"


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
