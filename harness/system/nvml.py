"""NVIDIA's driver through NVML (pynvml): its cards, their memory, and who computes on them.

Every refusal becomes one sentence that a user understands (``DriverRefused``), also what NVML
answers with "not available"; NVML's own words follow in brackets. What the driver does not say is
never 0. Exercised against a library built from NVML's header (harness/pretended), beside pynvml,
gpustat and nvitop, and by scenarios.first_card on an H100 and an H200 (driver 580.159.04): memory
and processes; accounting, MIG and MPS have met no real card.
"""

import contextlib
import ctypes
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import pynvml

from harness.errors import DriverRefused
from harness.words import format_bytes

ALL_ONES = (1 << 64) - 1
"""NVML's "not available" for an unsigned 64-bit amount (nvml.h, NVML_VALUE_NOT_AVAILABLE); pynvml
hands it on as a number."""
MEMORY_V2 = "memory v2"
"""Without what the driver and the card keep for themselves."""
MEMORY_V1 = "memory v1"
"""With it (nvml.h, nvmlMemory_t.used: "sum of reserved and allocated"): some hundred MiB more,
never compared with v2."""

_WORDS = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "no NVIDIA driver is installed here: libnvidia-ml.so.1 was not found"
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is installed but not loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "the NVIDIA driver was updated, but the kernel still runs the old one; reboot"
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "this user may not ask the driver that; a card in MIG mode answers only the users of its "
        "instances"
    ),
    pynvml.NVML_ERROR_NOT_SUPPORTED: "the driver does not report that for this device",
    pynvml.NVML_ERROR_NOT_FOUND: "the driver knows nothing by that name here",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "this driver is too old to be asked that",
    pynvml.NVML_ERROR_GPU_IS_LOST: "the card has fallen off the bus or hangs; reset it or reboot",
    pynvml.NVML_ERROR_RESET_REQUIRED: "the card waits for a reset",
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: "a card's power cable is not properly attached",
    pynvml.NVML_ERROR_UNKNOWN: "the driver failed twice without saying why",
}
_PASSING = (pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
"""Asked once more: UNKNOWN is "an internal driver error" that need not come again; a list of
processes may have grown between being measured and being filled (nvml.h,
nvmlDeviceGetComputeRunningProcesses)."""
_OLDER = (pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH)
"""What a driver says to a version that it does not have: of the function, or of the structure that
is filled."""
# What a kernel calls itself under WSL, whose driver lists no processes (proc_sys_kernel(5);
# learn.microsoft.com, WSL).
_KERNEL = Path("/proc/sys/kernel/osrelease")
_WSL = "microsoft"


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One look at a device's memory."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    """What nobody has taken, neither a process nor the driver for itself."""


class CardProcess(NamedTuple):
    """A process that computes on the device. ``used_bytes`` is None where the driver does not
    report it.
    """

    pid: int
    used_bytes: int | None

    def in_words(self, name: str) -> str:
        """As in ``"4711 (python3, 120.0 MiB)"``."""
        held = "unknown bytes" if self.used_bytes is None else format_bytes(self.used_bytes)
        return f"{self.pid} ({name}, {held})"


@contextlib.contextmanager
def library() -> Iterator[None]:
    """Have NVML initialised in the block. Raises DriverRefused where there is none."""
    start()
    try:
        yield
    finally:
        stop()


def start() -> None:
    """Initialise NVML, which counts its users. Raises DriverRefused where there is none."""
    try:
        ask(pynvml.nvmlInit)
    except DriverRefused as refusal:
        if refusal.code != pynvml.NVML_ERROR_NOT_FOUND:
            raise
        # Here it is about no name: nothing was asked for by one yet.
        raise DriverRefused(
            "the NVIDIA driver found no card here (NVML: Not Found)", code=refusal.code
        ) from refusal


def stop() -> None:
    """Let go of NVML, which counts its users; also where it fails now."""
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()


def ask(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - pynvml is untyped
    """What a function of pynvml answers. Raises DriverRefused, with NVML's code, where it does
    not.
    """
    try:
        try:
            return function(*arguments, **keywords)
        except pynvml.NVMLError as error:
            if error.value not in _PASSING:
                raise
            return function(*arguments, **keywords)
    except pynvml.NVMLError as error:
        words = _WORDS.get(error.value)
        raise DriverRefused(
            f"{words} (NVML: {error})" if words else f"NVML: {error}", code=error.value
        ) from error
    except (
        pynvml.NVMLLibraryMismatchError
    ) as error:  # no NVMLError, although it means FUNCTION_NOT_FOUND
        code = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        raise DriverRefused(f"{_WORDS[code]} (pynvml: library mismatch)", code=code) from error


def newest(*functions: Callable[..., Any]) -> Callable[..., Any]:
    """A function that asks the first of ``functions`` that the driver has; they are the versions of
    one, newest first.
    """

    def answer(*arguments: Any) -> Any:  # noqa: ANN401 - pynvml is untyped
        for function in functions[:-1]:
            try:
                return ask(function, *arguments)
            except DriverRefused as refusal:
                if refusal.code not in _OLDER:
                    raise
        return ask(functions[-1], *arguments)

    return answer


_COMPUTE_LISTS = (
    # A client of MPS is in a list of its own (nvml.h).
    newest(
        pynvml.nvmlDeviceGetComputeRunningProcesses_v3,
        pynvml.nvmlDeviceGetComputeRunningProcesses_v2,
    ),
    newest(
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v2,
    ),
)


def memory_source(handle: Any) -> str:  # noqa: ANN401 - pynvml is untyped
    """``MEMORY_V2``, or ``MEMORY_V1`` where the driver has no second version of the query. Raises
    DriverRefused.
    """
    try:
        memory(handle, MEMORY_V2)
    except DriverRefused as refusal:
        if refusal.code in _OLDER:
            return MEMORY_V1
        raise
    return MEMORY_V2


def memory(handle: Any, source: str) -> DeviceMemory:  # noqa: ANN401 - pynvml is untyped
    """The memory of a card or MIG instance, by the query ``source``. Raises DriverRefused, also for
    "not available".
    """
    try:
        found = ask(
            pynvml.nvmlDeviceGetMemoryInfo,
            handle,
            version=pynvml.nvmlMemory_v2 if source == MEMORY_V2 else None,
        )
    except DriverRefused as refusal:
        if refusal.code == pynvml.NVML_ERROR_NOT_SUPPORTED:
            raise DriverRefused(
                "the device has no memory of its own that the driver could report, for example "
                "because it shares the host's (NVML: Not Supported); host_anon shows what is used",
                code=refusal.code,
            ) from refusal
        raise
    total_bytes, used_bytes, free_bytes = int(found.total), int(found.used), int(found.free)
    if ALL_ONES in (total_bytes, used_bytes, free_bytes):
        _not_available("the memory in use")
    return DeviceMemory(total_bytes, used_bytes, free_bytes)


def _not_available(what: str) -> NoReturn:
    raise DriverRefused(
        f"the driver answers 'not available' for {what} (NVML: all ones)",
        code=pynvml.NVML_ERROR_NO_DATA,
    )


def cards() -> Iterator[Any]:
    """Handles of all cards, in NVML's order, which is not CUDA's. Raises DriverRefused."""
    for index in range(int(ask(pynvml.nvmlDeviceGetCount))):
        yield ask(pynvml.nvmlDeviceGetHandleByIndex, index)


def in_mig_mode(card: Any) -> bool:  # noqa: ANN401 - pynvml is untyped
    """Whether the card is divided into instances; a card that has no such mode is not."""
    try:
        current, _ = ask(pynvml.nvmlDeviceGetMigMode, card)
    except DriverRefused as refusal:
        if refusal.code in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return False
        raise
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def instances(card: Any) -> Iterator[Any]:  # noqa: ANN401 - pynvml is untyped
    """Handles of the MIG devices of a card in MIG mode, in their order. Raises DriverRefused."""
    for index in range(int(ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, card))):
        try:
            yield ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, index)
        except DriverRefused as refusal:
            if refusal.code != pynvml.NVML_ERROR_NOT_FOUND:  # places of instances that do not exist
                raise


def version() -> str:
    """The driver's own version, as ``"575.57.08"``. Raises DriverRefused."""
    return str(ask(pynvml.nvmlSystemGetDriverVersion))


def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA that the driver supports, as (12, 9); None where it does not say."""
    try:
        found = int(ask(pynvml.nvmlSystemGetCudaDriverVersion))
    except DriverRefused:
        return None
    return found // 1000, found % 1000 // 10  # nvml.h, NVML_CUDA_DRIVER_VERSION_MAJOR


def capability_major(card: Any) -> int | None:  # noqa: ANN401 - pynvml is untyped
    """Major number of the compute capability of a card; None where the driver does not say."""
    try:
        return int(ask(pynvml.nvmlDeviceGetCudaComputeCapability, card)[0])
    except DriverRefused:
        return None


def uuid_of(handle: Any) -> str:  # noqa: ANN401 - pynvml is untyped
    """The UUID of a card (GPU-...) or MIG device (MIG-...). Raises DriverRefused."""
    return str(ask(pynvml.nvmlDeviceGetUUID, handle))


def name_of(handle: Any) -> str:  # noqa: ANN401 - pynvml is untyped
    """The name of a card or MIG device; bytes that are no UTF-8 are shown as U+FFFD. Raises
    DriverRefused.
    """
    # pynvml decodes it strictly; what it wraps (functools.wraps) gives the bytes.
    name = ask(pynvml.nvmlDeviceGetName.__wrapped__, handle)
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def find(uuid: str) -> tuple[Any, Any]:
    """Handle of the card or instance, and that of the instance's card (None of a card's). Raises
    DriverRefused.
    """
    if not uuid.startswith("MIG-"):
        return ask(pynvml.nvmlDeviceGetHandleByUUID, uuid), None
    for card in cards():
        for instance in instances(card) if in_mig_mode(card) else ():
            if uuid_of(instance) == uuid:
                return instance, card
    raise DriverRefused(
        f"no card here has a MIG instance {uuid}; nvidia-smi -L lists them",
        code=pynvml.NVML_ERROR_NOT_FOUND,
    )


def listed_processes(handle: Any, parent: Any) -> list[CardProcess]:  # noqa: ANN401 - pynvml is untyped
    """The processes that compute on a device, by process id. Raises DriverRefused."""
    # In both lists a process holds the same memory; it is not counted twice.
    found = {
        process.pid: CardProcess(process.pid, amount(process.usedGpuMemory))
        for process in compute_processes(handle, parent)
    }
    return [found[pid] for pid in sorted(found)]


def compute_processes(handle: Any, parent: Any) -> Iterator[Any]:  # noqa: ANN401 - pynvml is untyped
    """NVML's records of the processes that compute on the device, those of MPS too, each maybe
    twice. Raises DriverRefused.
    """
    for answer in _COMPUTE_LISTS:
        try:
            yield from answer(handle)
        except DriverRefused as refusal:
            if refusal.code not in (
                pynvml.NVML_ERROR_NOT_SUPPORTED,
                pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            ):
                raise
            if answer is not _COMPUTE_LISTS[0]:
                continue  # no MPS here
            if parent is None:
                raise
            # Under vGPU the list of an instance is not supported (nvml.h); that of the card says
            # whose is whose.
            yield from _of_instance(handle, answer(parent))


def _of_instance(instance: Any, listed: Iterable[Any]) -> Iterator[Any]:  # noqa: ANN401 - pynvml is untyped
    wanted = (
        ask(pynvml.nvmlDeviceGetGpuInstanceId, instance),
        ask(pynvml.nvmlDeviceGetComputeInstanceId, instance),
    )
    return (
        process
        for process in listed
        if (process.gpuInstanceId, process.computeInstanceId) == wanted
    )


def amount(value: int | None) -> int | None:
    """An amount of NVML's; None for its "not available"."""
    return None if value is None or int(value) == ALL_ONES else int(value)


def process_name(pid: int) -> str:
    """What a process of this machine calls itself, as far as that is known."""
    try:
        return str(ask(pynvml.nvmlSystemGetProcessName, pid))
    except (
        DriverRefused,
        UnicodeDecodeError,
    ):  # pynvml decodes whatever bytes a process calls itself by
        try:
            return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
        except OSError:
            return "name unknown"


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who else computes on the device."""

    others: tuple[CardProcess, ...] = ()
    names: tuple[str, ...] = ()
    """One for each of the others."""
    unknown: str = ""
    """Why it is unknown whether there are others; empty when it is known."""

    def __str__(self) -> str:
        """As in ``"4711 (python3, 120.0 MiB)"``; empty when there is nobody, or when
        that is unknown.
        """
        return ", ".join(map(CardProcess.in_words, self.others, self.names))


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

        Raises DriverRefused: no driver, no such device, or its memory cannot be asked for.
        """
        start()
        try:
            handle, parent = find(uuid)
            card = cls(handle, parent, memory_source(handle))
            card.used_bytes()
        except DriverRefused:
            stop()
            raise
        return card

    def used_bytes(self) -> int:
        """Bytes in use on the device by all processes, by the query that ``source`` names. Raises
        DriverRefused.
        """
        return memory(self._handle, self.source).used_bytes

    def quick(self) -> Callable[[], int | None]:
        """A function that asks what ``used_bytes`` asks at a fifth of its cost; None whenever it
        gets no answer.

        For the sampler, which asks 500 times a second: pynvml builds a structure and looks the
        function up each time.
        """
        versioned = self.source == MEMORY_V2
        answer = pynvml.c_nvmlMemory_v2_t() if versioned else pynvml.c_nvmlMemory_t()
        if versioned:
            answer.version = pynvml.nvmlMemory_v2
        ask = getattr(
            pynvml.nvmlLib, "nvmlDeviceGetMemoryInfo_v2" if versioned else "nvmlDeviceGetMemoryInfo"
        )
        handle, where, success = self._handle, ctypes.byref(answer), pynvml.NVML_SUCCESS

        def used_bytes() -> int | None:
            status = ask(handle, where)
            used: int = answer.used
            return None if status != success or used == ALL_ONES else used

        return used_bytes

    def processes(self) -> list[CardProcess]:
        """The processes that compute here, by process id; of an instance, its own. Takes
        milliseconds under a lock.

        In a container the ids are the host's. Programs that only draw are left out: a desktop is
        always there. Raises DriverRefused where the driver lists none, on purpose or by its
        nature.
        """
        try:
            return listed_processes(self._handle, self._parent)
        except DriverRefused as refusal:
            raise DriverRefused(f"its processes: {refusal}", code=refusal.code) from refusal

    def accounting_peak_bytes(self, pid: int) -> int:
        """The most that ``pid`` ever held on the card, alive or ended: the only peak that the
        driver itself keeps.

        Raises DriverRefused unless an administrator has switched accounting on, and the process
        has been seen by it.
        """
        try:
            mode = ask(pynvml.nvmlDeviceGetAccountingMode, self._handle)
            if mode == pynvml.NVML_FEATURE_ENABLED:
                stats = ask(pynvml.nvmlDeviceGetAccountingStats, self._handle, pid)
                return int(stats.maxMemoryUsage)
        except DriverRefused as refusal:
            if refusal.code != pynvml.NVML_ERROR_NOT_FOUND:
                raise DriverRefused(f"accounting: {refusal}", code=refusal.code) from refusal
            raise DriverRefused(
                f"accounting is on, but knows no process {pid} (in a container it has the host's "
                "ids)",
                code=refusal.code,
            ) from refusal
        except TypeError as error:
            # pynvml 13 writes None over "not available" in a C structure, which takes numbers only.
            raise DriverRefused(
                f"accounting is on, but does not report the memory of process {pid}"
            ) from error
        raise DriverRefused(
            "accounting is off on this card; an administrator can switch it on: nvidia-smi -am 1"
        )

    def neighbours(self, ours: Collection[int]) -> Neighbours:
        """Who computes here besides ``ours``, which must hold memory on the device already, and
        what they have started.

        Where none of ours is listed, nothing is known of the others either: ``unknown`` has the
        reason.
        """
        try:
            found = self.processes()
        except DriverRefused as reason:
            return Neighbours(unknown=str(reason))
        return neighbours_among(found, ours)

    def close(self) -> None:
        """Let go of the library."""
        stop()


def neighbours_among(found: Sequence[CardProcess], ours: Collection[int]) -> Neighbours:
    """``Card.neighbours``, of a list that was asked for already."""
    if not any(process.pid in ours for process in found):
        return Neighbours(unknown=_why_not_listed(found))
    others = tuple(
        process
        for process in found
        if process.pid not in ours and not _is_started_by(process.pid, ours)
    )
    return Neighbours(others=others, names=tuple(process_name(process.pid) for process in others))


def process_bytes(found: Iterable[CardProcess], pid: int) -> int:
    """What ``pid`` holds on the device. Raises DriverRefused where the driver does not say."""
    listed = list(found)
    process = next((process for process in listed if process.pid == pid), None)
    if process is None:
        raise DriverRefused(_why_not_listed(listed))
    if process.used_bytes is None:
        raise DriverRefused(
            "the driver lists this process, but not what it holds (WSL, or a desktop driver model)"
        )
    return process.used_bytes


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
