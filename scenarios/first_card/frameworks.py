"""Memory of a card through a framework's own pool: what users' programs do, where such a framework
is installed.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from harness.errors import DriverRefused
from scenarios.first_card.cuda import DriverMemory

DRIVER = "driver"
FRAMEWORKS = ("torch", "cupy", "jax")


class Memory(Protocol):
    """What a holder needs of the memory of its card."""

    def open(self) -> None:
        """Make the context."""

    def take(self, amount_bytes: int) -> None:
        """Hold so many bytes more."""

    def free(self) -> None:
        """Give everything back, the pool too where it can be."""

    def amounts(self) -> dict[str, int]:
        """Bytes that it tells of itself, by name."""


def installed(name: str) -> bool:
    """Whether a framework is there; it is not imported."""
    return find_spec(name) is not None


def memory_of(name: str) -> Memory:
    """The memory of the driver or of a framework, not opened yet. Raises DriverRefused where it
    cannot be loaded.
    """
    kinds: dict[str, type[Memory]] = {
        DRIVER: DriverMemory,
        "torch": TorchMemory,
        "cupy": CupyMemory,
        "jax": JaxMemory,
    }
    return kinds[name]()


def _load(name: str) -> Any:  # noqa: ANN401 - frameworks are not installed where types are checked
    try:
        return import_module(name)
    except (ImportError, OSError) as error:
        raise DriverRefused(f"{name} cannot be imported: {error}", code=0) from error


class TorchMemory:
    """PyTorch's caching allocator (torch.cuda: memory_allocated, memory_reserved)."""

    def __init__(self) -> None:
        self._torch = _load("torch")
        self._held: list[Any] = []

    def open(self) -> None:
        """Its context, with nothing allocated."""
        self._torch.cuda.init()
        self._torch.cuda.synchronize()

    def take(self, amount_bytes: int) -> None:
        """A tensor of bytes."""
        self._held.append(self._torch.empty(amount_bytes, dtype=self._torch.uint8, device="cuda"))
        self._torch.cuda.synchronize()

    def free(self) -> None:
        """All tensors, then the pool's unused blocks."""
        self._held.clear()
        self._torch.cuda.empty_cache()

    def amounts(self) -> dict[str, int]:
        """Tensors and pool."""
        cuda = self._torch.cuda
        return {
            "in_use_bytes": int(cuda.memory_allocated()),
            "pool_bytes": int(cuda.memory_reserved()),
        }


class CupyMemory:
    """CuPy's memory pool (cupy.cuda.MemoryPool: used_bytes, total_bytes)."""

    def __init__(self) -> None:
        self._cupy = _load("cupy")
        self._held: list[Any] = []

    def open(self) -> None:
        """Its context, with nothing allocated."""
        self._cupy.cuda.Device(0).use()
        self._cupy.cuda.runtime.free(0)

    def take(self, amount_bytes: int) -> None:
        """An array of bytes."""
        self._held.append(self._cupy.empty(amount_bytes, dtype="uint8"))

    def free(self) -> None:
        """All arrays, then the pool's unused blocks."""
        self._held.clear()
        self._cupy.get_default_memory_pool().free_all_blocks()

    def amounts(self) -> dict[str, int]:
        """Arrays and pool."""
        pool = self._cupy.get_default_memory_pool()
        return {"in_use_bytes": int(pool.used_bytes()), "pool_bytes": int(pool.total_bytes())}


class JaxMemory:
    """XLA's BFC allocator, grown on demand: a sister of TensorFlow's, of the same origin
    (xla/tsl/framework/bfc_allocator).
    """

    def __init__(self) -> None:
        self._jax = _load("jax")
        self._numpy = _load("numpy")
        self._held: list[Any] = []

    def open(self) -> None:
        """Its context. XLA_PYTHON_CLIENT_PREALLOCATE=false must be set, or three quarters of the
        card are taken.
        """
        self._device = self._jax.devices("gpu")[0]

    def take(self, amount_bytes: int) -> None:
        """An array of bytes, copied from the host, so that nothing is compiled."""
        array = self._jax.device_put(
            self._numpy.zeros(amount_bytes, self._numpy.uint8), self._device
        )
        self._held.append(array.block_until_ready())

    def free(self) -> None:
        """All arrays; the pool stays."""
        self._held.clear()

    def amounts(self) -> dict[str, int]:
        """Arrays and pool, as BFC counts them."""
        found = self._device.memory_stats() or {}
        return {
            "in_use_bytes": int(found.get("bytes_in_use", 0)),
            "pool_bytes": int(found.get("pool_bytes", 0)),
        }
