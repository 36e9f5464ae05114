"""What every step works with: the card, the sampler, and holders on it."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml

from harness.errors import HarnessError
from harness.run.devices import Device
from harness.run.launchers import Sampling
from harness.system import nvml as driver
from harness.system.nvml import Card
from scenarios.first_card.frameworks import DRIVER
from scenarios.first_card.holding import Holding


@dataclass(frozen=True, slots=True)
class Bench:
    """One card, alone even where it has equals, so that a second process has to ask for the same
    one.
    """

    device: Device
    card: Card
    """Open in this process, which never makes a context of its own."""
    handle: Any
    """Of pynvml, for the questions that our meters do not ask."""
    sampling: Sampling
    spike_count: int

    def holder(self, memory: str = DRIVER, **environment: str) -> Holding:
        """A holder on the card and on nothing else. Raises HarnessError where there is no
        sampler.
        """
        address, reason = self.sampling.address()
        if not address:
            raise HarnessError(reason)
        return Holding(
            self.device.uuid or "", address, {**self.device.environment(), **environment}, memory
        )


@contextmanager
def open_bench(device: Device, spike_count: int) -> Iterator[Bench]:
    """The bench of the first of the equal cards. Raises MeterUnavailable where the driver does not
    open it.
    """
    alone = dataclasses.replace(device, equals=())
    uuid = alone.uuid or ""
    with ExitStack() as stack:
        card = Card.open(uuid)
        stack.callback(card.close)
        handle = driver.ask(pynvml.nvmlDeviceGetHandleByUUID, uuid)
        sampling = Sampling()
        stack.callback(sampling.close)
        yield Bench(alone, card, handle, sampling, spike_count)
