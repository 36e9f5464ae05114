"""Planted bugs on the card that this process sees: ``python -m scenarios.card.planted OUT``, a line
for each that is missed.

A process of its own, because the driver of a pretended card has to be there when a process starts.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scenarios.detector.bugs.registry import CARD_PLANTS, plant_named
from scenarios.detector.sweeps import Detector

KINDS = (
    "full_tensor_kept",
    "full_tensor_freed",
    "coordinates_above_the_bar",
    "full_array_kept",
    *(plant.name for plant in CARD_PLANTS),
)
"""Kept on the device, transient there, a slope just above the bar, kept on the host; then what only
a card shows."""
WORKERS = 2
"""As many as there are cards."""
_REPEATS = 1
"""Of each point. Chosen: what a bug adds is more than runs differ by, and a kind that is missed for
want of repeats fails here."""


_LEFT_OUT = ("image_count=2000", "stack_size=8192")
"""Three sizes are what a slope needs."""


def main(out: str) -> int:
    """Plant each kind, print what is missed; the number of those."""
    root = Path.cwd()
    detector = Detector(Path(out), root, committed=root / "scenarios" / "baselines")

    def missed(name: str) -> str:
        plant = plant_named(name)
        seen = detector.planted(plant, name, _REPEATS, _LEFT_OUT)
        return (
            ""
            if seen.tells(plant)
            else f"{name}: exit code {seen.exit_code}; {seen.sentence_about(plant) or 'no finding'}"
        )

    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            missed_kinds = [said for said in pool.map(missed, KINDS) if said]
    finally:
        detector.close()
    for said in missed_kinds:
        print(said)  # noqa: T201 - what the process is for
    return len(missed_kinds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
