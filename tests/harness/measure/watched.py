"""A bare child under the sampler: run as ``python -m tests.harness.measure.watched ADDRESS FUNCTION
ARGUMENTS``.

Prints one JSON line for each phase: the readings of the host's meter, and what the child knows to
be true of it.
"""

import dataclasses
import json
import mmap
import os
import signal
import sys
import tempfile

from harness.measure import MeterContext, SamplerLine
from harness.measure.host_meter import HostMeter
from harness.system.proc import ProcCounters

EMULATED = {"kind": "emulated", "uuid": None}
MIB = 1024 * 1024


def main(address, function, *arguments):
    context = MeterContext(
        device_name="CPU:0", device=EMULATED, sampler=SamplerLine.connect(address)
    )
    meter = HostMeter(context)
    meter.open()
    globals()[function](meter, *map(int, arguments))


def write(line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def say(readings, **truth):
    write({"readings": [dataclasses.asdict(reading) for reading in readings], **truth})


def spike(amount_bytes, flags):
    """Map, touch, and unmap at once; what was private and shared memory at the top."""
    with mmap.mmap(-1, amount_bytes, flags=flags | mmap.MAP_ANONYMOUS) as pages:
        for offset in range(0, amount_bytes, mmap.PAGESIZE):
            pages[offset] = 1
        return OWN.full_read().anon_bytes


def beside_a_mapped_file(meter, amount_bytes, file_bytes, flags, phases):
    """A spike half-way through reading a file through a mapping, phase after phase."""
    spike(amount_bytes, flags)  # what the interpreter itself needs for it is there from now on
    with tempfile.TemporaryFile() as file:
        file.truncate(file_bytes)
        for _ in range(phases):
            with mmap.mmap(file.fileno(), file_bytes, prot=mmap.PROT_READ) as mapped:
                meter.begin()
                for offset in range(0, file_bytes // 2, mmap.PAGESIZE):
                    mapped[offset]
                top_bytes = spike(amount_bytes, flags)
                for offset in range(file_bytes // 2, file_bytes, mmap.PAGESIZE):
                    mapped[offset]
                say(meter.end(), top_bytes=top_bytes)


def one_phase(meter):
    meter.begin()
    say(meter.end(), pid=os.getpid())


def die_in_a_phase(meter):
    meter.begin()
    os.kill(os.getpid(), signal.SIGKILL)


def wait_in_a_phase(meter):
    """A phase that ends when standard input says so, and one more."""
    meter.begin()
    write({"begun": os.getpid()})
    sys.stdin.readline()
    say(meter.end())
    meter.begin()
    say(meter.end())


def find_no_device(device):
    """For a runner: nothing to prepare."""
    return "CPU:0"


def hold(memory, parameters):
    """For a runner: known bytes, held and let go."""
    with memory.phase("hold"):
        held = bytearray(parameters["amount_bytes"])
    with memory.phase("release"):
        del held


OWN = ProcCounters()

if __name__ == "__main__":
    main(*sys.argv[1:])
