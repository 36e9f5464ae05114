"""NVIDIA's driver through NVML (pynvml): what finding cards and measuring on them share.

Every refusal becomes one sentence that a user understands (``DriverRefused``); NVML's own words
follow in brackets. Exercised against a library built from NVML's header, and by
scenarios.first_card on an H100 and an H200 (driver 580.159.04): memory and processes; accounting,
MIG and MPS have met no real card.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pynvml

from harness.errors import DriverRefused

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
        "this user may not ask that of the driver; a card in MIG mode tells its instances' users "
        "only"
    ),
    pynvml.NVML_ERROR_NOT_SUPPORTED: "the driver cannot tell that on this device",
    pynvml.NVML_ERROR_NOT_FOUND: "the driver knows nothing of that name here",
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


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """One look at a device's memory."""

    total_bytes: int
    used_bytes: int
    free_bytes: int
    """What nobody has taken, neither a process nor the driver for itself."""


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
    """One user less; a library that fails now is let go all the same."""
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
                "the device has no memory of its own that the driver could tell of, as "
                "where it shares the host's (NVML: Not Supported); host_anon sees what is "
                "used",
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
    """The newest CUDA that the driver supports, as (12, 9); None where it does not tell."""
    try:
        found = int(ask(pynvml.nvmlSystemGetCudaDriverVersion))
    except DriverRefused:
        return None
    return found // 1000, found % 1000 // 10  # nvml.h, NVML_CUDA_DRIVER_VERSION_MAJOR


def capability_major(card: Any) -> int | None:  # noqa: ANN401 - pynvml is untyped
    """Major number of the compute capability of a card; None where the driver does not tell."""
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
    own = (
        ask(pynvml.nvmlDeviceGetGpuInstanceId, instance),
        ask(pynvml.nvmlDeviceGetComputeInstanceId, instance),
    )
    return (
        process for process in listed if (process.gpuInstanceId, process.computeInstanceId) == own
    )


def amount(value: int | None) -> int | None:
    """An amount of NVML's; None for its "not available"."""
    return None if value is None or int(value) == ALL_ONES else int(value)


def process_name(pid: int) -> str:
    """What a process of this machine calls itself, as far as anyone tells."""
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
