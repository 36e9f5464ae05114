"""What is garbage and what is free, so that neither counts as kept by chance."""

import contextlib
import ctypes
import gc
import sys

_NEVER = 1_000_000
"""Collections of the second generation before one of all: more than any body has."""


def leave_imports_out() -> None:
    """Collections look at objects that are made from now on; what imports have made is no garbage.

    Looking through a million of them takes 0.2 s at the end of each body. The interpreter collects
    everything only when as much as a quarter of that is new, which no body reaches; without them it
    would be at every turn, and hide cycles that a user's process would have. So it is switched off:
    a body that wants it calls ``gc.collect``.
    """
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


def return_free_pages() -> None:
    """Have libhdf5 and malloc return what is free, which both keep until they are asked.

    Of malloc's heap (glibc's) it is pages in the middle: an array that is put into such a hole
    leaves it resident, so that in some runs beside other programs the buffer of 1 MiB that energies
    are summed in counted as kept when it had been let go. It takes 0.3 ms. libhdf5 keeps the
    buffers of chunks in lists by size (H5FL), up to 2 MiB more or less by the order in which
    threads read (measured in 10 runs of ``feeds``; 60 KiB in 9 of 10 with their lists emptied).
    """
    hdf5 = sys.modules.get("h5py.h5")
    if hdf5 is not None:
        # not found through the module that is linked with it
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(hdf5.__file__).H5garbage_collect()
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
