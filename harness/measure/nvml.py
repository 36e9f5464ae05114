"""One card, or one MIG instance, as NVIDIA's driver sees it: bytes in use, who uses them, and what
accounting knows.

Whatever the driver does not tell is MeterUnavailable with the reason in words, never 0. Exercised
against a library built from NVML's header (harness/pretended), beside pynvml, gpustat and nvitop,
and by scenarios.first_card on an H100 and an H200; accounting, MIG and MPS have met no real card.
"""

import ctypes
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import pynvml

from harness.errors import DriverRefused, MeterUnavailable
from harness.system import nvml as driver
from harness.units import format_bytes

# What a kernel calls itself under WSL, whose driver lists no processes (proc_sys_kernel(5);
# learn.microsoft.com, WSL).
_KERNEL = Path("/proc/sys/kernel/osrelease")
_WSL = "microsoft"


class CardProcess(NamedTuple):
    """A process that computes on the device. ``used_bytes`` is None where the driver does not tell
    it.
    """

    pid: int
    used_bytes: int | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who else computes on the device."""

    others: tuple[CardProcess, ...] = ()
    names: tuple[str, ...] = ()
    """One for each of the others."""
    unknown: str = ""
    """Why it cannot be told whether there are others; empty when it can."""

    def __str__(self) -> str:
        """As in ``"4711 (python3, 120.0 MiB)"``; empty when there is nobody, or it cannot be
        told.
        """
        return ", ".join(map(_in_words, self.others, self.names))


def _in_words(process: CardProcess, name: str) -> str:
    held = "unknown bytes" if process.used_bytes is None else format_bytes(process.used_bytes)
    return f"{process.pid} ({name}, {held})"


class Card:
    """An open card or MIG instance. ``used_bytes`` is quick; the rest belongs to the edges of
    phases.
    """

    def __init__(self, handle: Any, parent: Any, source: str) -> None:  # noqa: ANN401 - pynvml is untyped
        self._handle = handle
        self._parent = parent
        """The card of an instance; None for a whole card."""
        self.source = source
        """``"memory v2"`` or ``"memory v1"``, settled once: the two must not be compared."""

    @classmethod
    def open(cls, uuid: str) -> Self:
        """The card ``GPU-...``, or the instance ``MIG-...`` found through its card.

        Raises MeterUnavailable: no driver, no such device, or its memory cannot be asked for.
        """
        try:
            driver.start()
        except DriverRefused as refusal:
            raise MeterUnavailable(str(refusal)) from refusal
        try:
            handle, parent = driver.find(uuid)
            card = cls(handle, parent, driver.memory_source(handle))
            card.used_bytes()
        except (DriverRefused, MeterUnavailable) as refusal:
            driver.stop()
            raise MeterUnavailable(str(refusal)) from refusal
        return card

    def used_bytes(self) -> int:
        """Bytes in use on the device by whomever, by the query that ``source`` names. Raises
        MeterUnavailable.
        """
        try:
            return driver.memory(self._handle, self.source).used_bytes
        except DriverRefused as refusal:
            raise MeterUnavailable(str(refusal)) from refusal

    def quick(self) -> Callable[[], int | None]:
        """A function that asks what ``used_bytes`` asks at a fifth of its cost; None whenever it
        gets no answer.

        For the sampler, which asks 500 times a second: pynvml builds a structure and looks the
        function up each time.
        """
        versioned = self.source == driver.MEMORY_V2
        answer = pynvml.c_nvmlMemory_v2_t() if versioned else pynvml.c_nvmlMemory_t()
        if versioned:
            answer.version = pynvml.nvmlMemory_v2
        ask = getattr(
            pynvml.nvmlLib, "nvmlDeviceGetMemoryInfo_v2" if versioned else "nvmlDeviceGetMemoryInfo"
        )
        handle, where = self._handle, ctypes.byref(answer)

        def used_bytes() -> int | None:
            if ask(handle, where) != pynvml.NVML_SUCCESS or answer.used == driver.ALL_ONES:
                return None
            return int(answer.used)

        return used_bytes

    def processes(self) -> list[CardProcess]:
        """The processes that compute here, by process id; of an instance, its own. Takes
        milliseconds under a lock.

        In a container the ids are the host's. Programs that only draw are left out: a desktop is
        always there. Raises MeterUnavailable where the driver lists none, on purpose or by its
        nature.
        """
        try:
            # In both lists a process holds the same memory; it is not counted twice.
            found = {
                process.pid: CardProcess(process.pid, driver.amount(process.usedGpuMemory))
                for process in driver.compute_processes(self._handle, self._parent)
            }
        except DriverRefused as refusal:
            raise MeterUnavailable(f"its processes: {refusal}") from refusal
        return [found[pid] for pid in sorted(found)]

    def accounting_peak_bytes(self, pid: int) -> int:
        """The most that ``pid`` ever held on the card, alive or ended: the only peak that the
        driver itself keeps.

        Raises MeterUnavailable unless an administrator has switched accounting on, and the process
        has been seen by it.
        """
        try:
            if (
                driver.ask(pynvml.nvmlDeviceGetAccountingMode, self._handle)
                != pynvml.NVML_FEATURE_ENABLED
            ):
                raise MeterUnavailable(
                    "accounting is off on this card; an administrator can switch it on: "
                    "nvidia-smi -am 1"
                )
            peak_bytes = int(
                driver.ask(pynvml.nvmlDeviceGetAccountingStats, self._handle, pid).maxMemoryUsage
            )
        except DriverRefused as refusal:
            if refusal.code == pynvml.NVML_ERROR_NOT_FOUND:
                raise MeterUnavailable(
                    f"accounting is on, but knows no process {pid} (in a container it has "
                    "the host's ids)"
                ) from refusal
            raise MeterUnavailable(f"accounting: {refusal}") from refusal
        except TypeError as error:
            # pynvml 13 writes None over "not available" in a C structure, which takes numbers only.
            raise MeterUnavailable(
                f"accounting is on, but does not tell the memory of process {pid}"
            ) from error
        return peak_bytes

    def neighbours(self, ours: Collection[int]) -> Neighbours:
        """Who computes here besides ``ours``, which must hold memory on the device already, and
        what they have started.

        Where none of ours is listed, nothing can be said of the others either: ``unknown`` has the
        reason.
        """
        try:
            found = self.processes()
        except MeterUnavailable as reason:
            return Neighbours(unknown=str(reason))
        return neighbours_among(found, ours)

    def close(self) -> None:
        """Let go of the library."""
        driver.stop()


def neighbours_among(found: Sequence[CardProcess], ours: Collection[int]) -> Neighbours:
    """``Card.neighbours``, of a list that was asked for already."""
    if not any(process.pid in ours for process in found):
        return Neighbours(unknown=_why_not_listed(found))
    others = tuple(
        process
        for process in found
        if process.pid not in ours and not _is_started_by(process.pid, ours)
    )
    return Neighbours(
        others=others, names=tuple(driver.process_name(process.pid) for process in others)
    )


def process_bytes(found: Iterable[CardProcess], pid: int) -> int:
    """What ``pid`` holds on the device. Raises MeterUnavailable where the driver does not say."""
    listed = list(found)
    own = next((process for process in listed if process.pid == pid), None)
    if own is None:
        raise MeterUnavailable(_why_not_listed(listed))
    if own.used_bytes is None:
        raise MeterUnavailable(
            "the driver lists this process, but not what it holds (WSL, or a desktop driver model)"
        )
    return own.used_bytes


def _why_not_listed(listed: Sequence[CardProcess]) -> str:
    if listed:
        return (
            f"this process is not among the {len(listed)} that the driver lists, although "
            "it uses the device: in a container the driver has the host's process ids"
        )
    if _under_wsl():
        return "under WSL the driver lists no processes"
    return (
        "the driver lists no process on this device, although this one uses it (a container "
        "without the host's process ids)"
    )


def _under_wsl() -> bool:
    try:
        return _WSL in _KERNEL.read_text().lower()
    except OSError:
        return False


def _is_started_by(pid: int, ours: Collection[int]) -> bool:
    """Whether it is in the session of one of ours: each measured child leads one (setsid(2))."""
    try:
        return os.getsid(pid) in ours
    except OSError:  # gone, or not for this user to ask
        return False
