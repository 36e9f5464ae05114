"""What a scenario is: one way of using a loader, and the phases it is measured in."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness.records import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One way of using a loader, and the phases it is measured in."""

    name: str
    body: str
    prepare: str | None
    phases: tuple[str, ...]
    device_budget_bytes: int | None = None
    expected: Mapping[str, Outcome]
    """The outcome of each loader."""
