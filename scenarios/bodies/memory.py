"""What a body is given to mark its phases with: the part of the harness that bodies know, by shape
alone.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class Memory(Protocol):
    """Measures the phases of one run."""

    workspace: Path
    """Folder where the scenario's preparation put the input files."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Measure the block as the phase ``name``."""

    def declare(self, **amounts_bytes: int) -> None:
        """Say what the body's arrays add up to, in bytes."""
