"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(target: Path, *, mode: int) -> Iterator[IO[bytes]]:
    """A new file that takes the place of ``target`` when the block ends well and leaves nothing
    when it does not.

    Its permissions are ``mode`` without those that the umask takes away. Raises OSError.
    """
    # Not tempfile: its files are for their owner alone, and the umask cannot be read without
    # setting it.
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
