"""Layout of the control file: one ``Control`` structure, shared by tests, children and both stubs
of the driver.

The structures below are the only description of it; the C declarations are printed from them
(``c_declarations``) when the libraries are built.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

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
