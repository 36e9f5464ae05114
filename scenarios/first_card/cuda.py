"""Memory of a card through CUDA's driver API and ctypes: known amounts, with no framework's pool in
between.

Function names and signatures are those of cuda.h (CUDA driver API: initialization, primary context,
memory management).
"""

import ctypes
from collections.abc import Callable

from harness.errors import DriverRefused

LIBRARY = "libcuda.so.1"
GRANULARITY_BYTES = 2 << 20
"""What the driver maps memory of a card by (CUDA driver API, cuMemGetAllocationGranularity: 2 MiB
on cards of today)."""
OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY, cuda.h."""

_POINTER = ctypes.c_uint64
_SIZE = ctypes.c_size_t
_SIGNATURES = {
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int),
    "cuCtxSetCurrent": (ctypes.c_void_p,),
    "cuCtxSynchronize": (),
    "cuMemAlloc_v2": (ctypes.POINTER(_POINTER), _SIZE),
    "cuMemFree_v2": (_POINTER,),
    "cuMemGetInfo_v2": (ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE)),
    "cuMemsetD8_v2": (_POINTER, ctypes.c_ubyte, _SIZE),
    "cuGetErrorName": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}


class DriverMemory:
    """The primary context of the first visible card, and what was taken in it."""

    def __init__(self) -> None:
        """Load the library, nothing else. Raises DriverRefused where there is none."""
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise DriverRefused(f"no CUDA driver here: {error}", code=0) from error
        for name, kinds in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = kinds, ctypes.c_int
        self._held: list[int] = []

    def open(self) -> None:
        """Make the primary context of device 0 and make it current. Raises DriverRefused."""
        self._call("cuInit", 0)
        device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def take(self, amount_bytes: int) -> None:
        """Allocate, and write the first of it. Raises DriverRefused with CUDA's code where it is
        refused.
        """
        pointer = _POINTER()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), amount_bytes)
        self._held.append(pointer.value)
        self._call("cuMemsetD8_v2", pointer, 1, min(amount_bytes, 1 << 20))
        self._call("cuCtxSynchronize")

    def free(self) -> None:
        """Give everything back. Raises DriverRefused."""
        while self._held:
            self._call("cuMemFree_v2", self._held.pop())

    def spike(self, amount_bytes: int, wait: Callable[[], None]) -> None:
        """Allocate, wait and free, with nothing else in between. Raises DriverRefused."""
        pointer = _POINTER()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), amount_bytes)
        wait()
        self._call("cuMemFree_v2", pointer)

    def amounts(self) -> dict[str, int]:
        """What CUDA says is free of the card, and its size, bytes. Raises DriverRefused."""
        free, total = _SIZE(), _SIZE()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return {"free_bytes": free.value, "total_bytes": total.value}

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            said = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(said))
            raise DriverRefused(
                f"{name}: {(said.value or b'no name').decode(errors='replace')} ({code})", code=code
            )
