"""Asking the kernel for the frames of coming batches, so that a cold file is read while the present
batch is used.
"""

import os
import weakref

import numpy as np
import numpy.typing as npt

from ptycho.files import FileArray

AHEAD_BYTES = 32 << 20
"""How far ahead of the present batch frames are asked for. Measured on a disk of 1.5 GB/s: 16
frames of 64 KiB under way read as fast as 1,024 do, one at a time 2.3 times slower; 32 MiB leaves
room for a slower disk, and is page cache, not ours."""
_ADVICE_BYTES = 128 << 10
"""Linux cuts one POSIX_FADV_WILLNEED to the device's read-ahead, 128 KiB unless it was set
(mm/readahead.c, force_page_cache_ra); what is longer is asked for in pieces."""
_PROBED_FRAMES = 4
"""Chosen: frames of a batch that are looked at before any is asked for; in a warm file asking costs
and gains nothing."""


class ReadAhead:
    """Advice for one file; holds a descriptor of its own."""

    def __init__(self, file: FileArray) -> None:
        self._frame_bytes = int(np.prod(file.shape[1:])) * file.dtype.itemsize
        self._start_bytes = file.offset_bytes
        self._descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    @staticmethod
    def is_possible() -> bool:
        """Whether this system takes advice at all: macOS and Windows do not."""
        return hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT")

    def ask_for(self, frames: npt.NDArray[np.int64]) -> None:
        """Have the kernel read ``frames`` (any shape of frame numbers) unless they seem to be in
        memory already.
        """
        flat = frames.ravel()
        if all(
            self._is_cached(int(frame)) for frame in flat[:: max(1, len(flat) // _PROBED_FRAMES)]
        ):
            return
        wanted = np.unique(flat)
        starts = np.flatnonzero(np.diff(wanted, prepend=-2) != 1)
        for first, last in zip(
            wanted[starts].tolist(),
            wanted[np.append(starts[1:], len(wanted)) - 1].tolist(),
            strict=True,
        ):
            at_bytes, end_bytes = (
                self._start_bytes + frame * self._frame_bytes for frame in (first, last + 1)
            )
            for piece_bytes in range(at_bytes, end_bytes, _ADVICE_BYTES):
                length_bytes = min(_ADVICE_BYTES, end_bytes - piece_bytes)
                os.posix_fadvise(
                    self._descriptor, piece_bytes, length_bytes, os.POSIX_FADV_WILLNEED
                )

    def _is_cached(self, frame: int) -> bool:
        """Whether the middle of a frame can be read without waiting; False where the file system
        cannot tell.
        """
        middle_bytes = self._start_bytes + frame * self._frame_bytes + self._frame_bytes // 2
        try:
            return os.preadv(self._descriptor, [bytearray(1)], middle_bytes, os.RWF_NOWAIT) == 1
        except OSError:  # EAGAIN: not in memory. EOPNOTSUPP: unknown, and asking does no harm.
            return False
