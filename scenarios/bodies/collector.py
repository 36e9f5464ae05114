"""What is garbage and what is free, so that neither counts as kept by chance."""

import contextlib
import ctypes
import gc

_NEVER = 1_000_000
"""Collections of the second generation before one of all: more than any body has."""


def leave_imports_out() -> None:
    """Collections look at objects that are made from now on; what imports have made is no garbage.

    Looking through a million of them takes 0.2 s at the end of each body. The interpreter collects everything only when as
    much as a quarter of that is new, which no body reaches; without them it would be at every turn, and hide cycles that a
    user's process would have. So it is switched off: a body that wants it calls ``gc.collect``.
    """
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def return_free_pages() -> None:
    """Have malloc return what is free in the middle of its heap, too, which it keeps until it is asked (glibc's).

    An array that it puts into such a hole leaves it resident: in some runs beside other programs the buffer of 1 MiB that
    energies are summed in counted as kept when it had been let go. It takes 0.3 ms.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
