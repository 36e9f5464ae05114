"""The child that holds memory on the card: ``python -m scenarios.first_card.holder UUID ADDRESS
MEMORY``.

One request a line, as JSON, and one answer each; it ends when its standard input does::

    {"open": true}                              make the context
    {"take": BYTES}, {"free": true}             hold, give back
    {"amounts": true}                           what its memory tells of itself
    {"phase": [REQUEST, ...], "rest_s": S}      do these in a phase of NvmlMeter; the readings
    {"spike": BYTES, "offset_s": S, "length_s": S}   one phase with one spike in it
    {"lease": [DEVICE, FOLDER]}                 hold the lease of the card
    {"refused": REASON}                         is the answer where it could not be done

The card is asked by the sampler alone, over the line that measured children use.
"""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.measure import MeterContext, SamplerLine
from harness.measure.card_meter import NvmlMeter
from harness.run.devices import Device, lease
from scenarios.first_card.cuda import DriverMemory
from scenarios.first_card.frameworks import Memory, memory_of

FROM_FRAMEWORKS = (RuntimeError, MemoryError, ValueError)
"""What the frameworks raise where the card refuses them (torch.OutOfMemoryError and XlaRuntimeError
are RuntimeErrors)."""


class Holder:
    """Does what it is asked."""

    def __init__(self, uuid: str, address: str, memory: Memory) -> None:
        self._uuid, self._address, self._memory = uuid, address, memory
        self._meter: NvmlMeter | None = None
        self._leases = contextlib.ExitStack()

    def answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to one request. Raises HarnessError where it cannot be done."""
        if "open" in request:
            self._memory.open()
        elif "take" in request:
            self._memory.take(int(request["take"]))
        elif "free" in request:
            self._memory.free()
        elif "amounts" in request:
            return self._memory.amounts()
        elif "phase" in request:
            return self._phase(request["phase"], float(request.get("rest_s", 0.0)))
        elif "spike" in request:
            return self._spike(
                int(request["spike"]), float(request["offset_s"]), float(request["length_s"])
            )
        else:
            device, folder = request["lease"]
            self._leases.enter_context(lease(Device(**device), Path(folder)))
        return {}

    def _phase(self, requests: list[Mapping[str, Any]], rest_s: float) -> Mapping[str, Any]:
        meter = self._opened()
        meter.begin()
        answers = [self.answer(request) for request in requests]
        time.sleep(rest_s)  # so that the sampler looks a few times while it is held
        return {
            "answers": answers,
            "readings": [dataclasses.asdict(reading) for reading in meter.end()],
        }

    def _spike(self, amount_bytes: int, offset_s: float, length_s: float) -> Mapping[str, Any]:
        memory = self._memory
        if not isinstance(memory, DriverMemory):
            raise TypeError("spikes are of the driver's own memory: a pool would keep them")
        times: list[float] = []

        def wait() -> None:
            times.append(time.monotonic())
            _wait_until(times[0] + length_s)
            times.append(time.monotonic())

        meter = self._opened()
        meter.begin()
        _wait_until(time.monotonic() + offset_s)
        memory.spike(amount_bytes, wait)
        return {
            "held_s": times[1] - times[0],
            "readings": [dataclasses.asdict(reading) for reading in meter.end()],
        }

    def _opened(self) -> NvmlMeter:
        if self._meter is None:
            line = SamplerLine.connect(self._address)
            context = MeterContext(device_name="GPU:0", device={"uuid": self._uuid}, sampler=line)
            self._meter = NvmlMeter(context)
            self._meter.open()
        return self._meter


def _wait_until(end_s: float) -> None:
    """Wait to the microsecond: a sleep would make each spike longer than it says."""
    while time.monotonic() < end_s:
        pass


def main() -> int:
    """Answer until standard input ends."""
    uuid, address, name = sys.argv[1:]
    # what a framework prints must not stand among the answers
    answers, sys.stdout = sys.stdout, sys.stderr
    holder: Holder | None = None
    for line in sys.stdin:
        try:
            if holder is None:
                holder = Holder(uuid, address, memory_of(name))
            answer = holder.answer(json.loads(line))
        except HarnessError as reason:
            answer = {"refused": str(reason), "code": getattr(reason, "code", None)}
        except FROM_FRAMEWORKS as error:
            answer = {
                "refused": f"{type(error).__name__}: {str(error).splitlines()[0]}",
                "code": None,
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
