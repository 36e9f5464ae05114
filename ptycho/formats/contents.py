"""What a format hands over: the arrays of one scan file under the names of the contract, frames not yet read."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class FileArray:
    """Where the raw bytes of a C-ordered array lie in a file."""

    path: Path
    offset_bytes: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def map(self) -> npt.NDArray[Any]:
        """The array as a read-only memory map; no page is read yet."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset_bytes, shape=self.shape)


@dataclass(frozen=True, slots=True)
class Contents:
    """One scan file, opened: nothing has been checked against the physics yet."""

    frames_key: str
    """The key that the frames were found under, for messages."""
    frames: FileArray
    small: Mapping[str, npt.NDArray[Any]]
    """The other arrays of the contract that the file has, whole: xcoords, ycoords, probeGuess, objectGuess."""
    keys: tuple[str, ...]
    """Everything that is in the file, used or not."""
    notes: tuple[str, ...]
    """What was assumed or done on the way, one sentence each."""


class ReadScan(Protocol):
    """One file format."""

    def __call__(self, path: Path, *, cache_dir: Path | None) -> Contents:
        """Open ``path``; raises ScanError or ScanFileError with one sentence that names file and key."""
