"""Writing into a run directory: a reader sees the old file or the new one, never half of one."""

import os
import tempfile
from pathlib import Path

from harness.errors import RunDirectoryError

# Readable by everybody, as files are that open() makes; mkstemp alone would give the owner's only.
_MODE = 0o644


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` in UTF-8, in one step. Raises RunDirectoryError when it cannot be written."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content``, in one step. Raises RunDirectoryError when it cannot be written."""
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error}") from error
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        unfinished.chmod(_MODE)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise RunDirectoryError(f"{path} cannot be written: {error}") from error
