"""Causes: what went wrong, told once. One kept tensor breaks many checks; here they are one cause
again, with the checks that follow from it.
"""

from dataclasses import dataclass
from enum import StrEnum

from harness.judge import Check, FindingKind


class CauseKind(StrEnum):
    """What sort of thing went wrong, the gravest first."""

    MEMORY = "memory"
    """More memory than a limit, the baseline or the other code allows."""
    DEATH = "death"
    """A run did not come to its end: out of memory, out of time, a signal, an exception."""
    MISSING = "missing"
    """Something was not measured, or cannot be compared."""
    IMPROVEMENT = "improvement"
    """Less memory than was accepted, beyond tolerance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliveTensors:
    """Equal tensors that were alive at the peak of the cause's phase, by the trace."""

    dtype: str
    shape: tuple[int, ...]
    operation: str
    """Where they were allocated, as TensorFlow's profiler names it."""
    count: int
    nbytes: int
    """Of all of them together."""
    declared: str = ""
    """As what multiple of a declared array: ``"1.00 x X"``; empty where it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something to type."""

    purpose: str
    """``"measure this point again"``."""
    line: str
    """The whole line, with the arguments that this run was judged with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing that went wrong, and the checks that follow from it."""

    id: str
    """Short, of letters and digits; the same in every run in which the same thing goes wrong."""
    kind: CauseKind
    finding: FindingKind
    """The gravest kind among its checks."""
    what: str
    """One short line: ``"the lazy container keeps the whole X"``."""
    where: str
    """One short line: ``"loading, arrays; first in construct"``."""
    how_much: str
    """One short line: ``"125.0 MiB at 2,000 images, 65,536 B for each; allowed 512 B"``."""
    since: str = ""
    """One short line, where it is known: ``"not at main (e4ecc0f)"``."""
    scenarios: tuple[str, ...] = ()
    loader: str = ""
    point: str = ""
    """Name of the point that shows it best; empty where there is none."""
    phase: str = ""
    """The earliest offending phase."""
    meter: str = ""
    checks: tuple[Check, ...]
    """What follows from it; the first says it best."""
    alive: tuple[AliveTensors, ...] = ()
    """The three largest things alive at the peak of ``phase`` in ``point``'s trace."""
    commands: tuple[Command, ...] = ()
    """What to type, the most useful first."""
    rule_place: str = ""
    """Where the broken rule stands: ``"scenarios/gate.toml:41"``."""
    rule_text: str = ""
    """The rule as its file has it; empty where it is of no file."""
    log_tail: tuple[str, ...] = ()
    """Of a death: the last lines of the child's log."""
