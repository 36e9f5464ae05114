"""How often something was looked at."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """How often something was looked at, the start of the phase included."""

    started_s: float
    samples: int = 1
    largest_gap_s: float = 0.0
    last_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.last_s = self.started_s

    def count(self, now_s: float) -> None:
        """One more look, at ``now_s`` of the monotonic clock."""
        self.samples += 1
        gap_s = now_s - self.last_s
        self.largest_gap_s = max(self.largest_gap_s, gap_s)
        self.last_s = now_s

    @property
    def duration_s(self) -> float:
        """From the first look to the last."""
        return self.last_s - self.started_s

    @property
    def rate_hz(self) -> float:
        """Looks a second."""
        return self.samples / self.duration_s if self.duration_s > 0 else 0.0
