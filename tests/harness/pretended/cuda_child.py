"""A process that calls the pretended CUDA driver and NVML, one call a line of standard input:
[name, argument, ...].
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import pynvml


class Calls:
    """The calls; CUDA's are answered with its codes (0: success), amounts are bytes."""

    def __init__(self) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.context = ctypes.c_void_p()

    def init(self) -> int:
        return int(self.cuda.cuInit(0))

    def version(self) -> list[int]:
        version = ctypes.c_int()
        return [self.cuda.cuDriverGetVersion(ctypes.byref(version)), version.value]

    def cards(self) -> list[list[Any]]:
        """Of each visible one: name, UUID's bytes as hex, total bytes."""
        count = ctypes.c_int()
        self.cuda.cuDeviceGetCount(ctypes.byref(count))
        found = []
        for ordinal in range(count.value):
            name, uuid, total = (
                ctypes.create_string_buffer(96),
                ctypes.create_string_buffer(16),
                ctypes.c_size_t(),
            )
            self.cuda.cuDeviceGetName(name, 96, ordinal)
            self.cuda.cuDeviceGetUuid(uuid, ordinal)
            self.cuda.cuDeviceTotalMem_v2(ctypes.byref(total), ordinal)
            found.append([name.value.decode(), uuid.raw.hex(), total.value])
        return found

    def open(self, ordinal: int) -> int:
        code = int(self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(self.context), ordinal))
        return code or int(self.cuda.cuCtxSetCurrent(self.context))

    def take(self, size: int) -> list[int]:
        """Code and address."""
        pointer = ctypes.c_uint64()
        code = self.cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size))
        return [code, pointer.value]

    def give(self, pointer: int) -> int:
        return int(self.cuda.cuMemFree_v2(ctypes.c_uint64(pointer)))

    def touch(self, pointer: int, size: int) -> int:
        return int(self.cuda.cuMemsetD8_v2(ctypes.c_uint64(pointer), 7, ctypes.c_size_t(size)))

    def usage(self) -> list[int]:
        """Code, free and total bytes."""
        left, total = ctypes.c_size_t(), ctypes.c_size_t()
        code = self.cuda.cuMemGetInfo_v2(ctypes.byref(left), ctypes.byref(total))
        return [code, left.value, total.value]

    def host(self) -> dict[str, int]:
        return host_meters()

    def init_in_fork(self) -> int:
        """The code that a process gets which was forked from this one."""
        child = os.fork()
        if not child:
            os._exit(self.init())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def visits(self, count: int, size: int) -> list[int]:
        """So many processes, one after the other, that each hold ``size`` on the first card; their
        exit codes.
        """
        codes = []
        for _ in range(count):
            child = os.fork()
            if not child:
                os._exit(self.init() or self.open(0) or self.take(size)[0])
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return codes

    def nvml(self, uuid: str) -> dict[str, Any]:
        return nvml(uuid)

    def accounting(self, uuid: str, pid: int) -> list[int]:
        return accounting(uuid, pid)


def host_meters() -> dict[str, int]:
    """RssAnon, RssFile and RssShmem of this process, bytes."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "RssShmem")}


def nvml(uuid: str) -> dict[str, Any]:
    """What NVML says of a card or an instance: used bytes, processes, capability; or an error's
    number.
    """
    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return {
            "used": pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2).used,
            "processes": {
                str(one.pid): one.usedGpuMemory
                for one in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            },
            "capability": pynvml.nvmlDeviceGetCudaComputeCapability(handle),
        }
    except pynvml.NVMLError as error:
        return {"error": error.value}
    finally:
        pynvml.nvmlShutdown()


def accounting(uuid: str, pid: int) -> list[int]:
    """Most bytes that a process had, and whether it runs."""
    pynvml.nvmlInit()
    stats = pynvml.nvmlDeviceGetAccountingStats(pynvml.nvmlDeviceGetHandleByUUID(uuid), pid)
    pynvml.nvmlShutdown()
    return [stats.maxMemoryUsage, stats.isRunning]


if __name__ == "__main__":
    calls = Calls()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(getattr(calls, name)(*arguments)) + "\n")
        sys.stdout.flush()
