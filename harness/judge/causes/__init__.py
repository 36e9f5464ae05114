"""Causes: what went wrong, told once. One kept tensor breaks many checks; here they are one cause
again, with the checks that follow from it.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.judge import Check, FindingKind
from harness.words import count, plural, tensors_in_words


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
    """As what multiple of a declared array each is: ``"1.00 x X"``; empty where it is none."""

    @property
    def words(self) -> str:
        """As the sentences of checks have them: ``"8 x Fill (1024, 1024) float32, 32.0 MiB"``."""
        return tensors_in_words(
            op=self.operation,
            shape=",".join(map(str, self.shape)),
            dtype=self.dtype,
            count=self.count,
            total_bytes=self.nbytes,
            like=self.declared,
        )


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

    @property
    def following(self) -> str:
        """``"21 more findings follow from it"``; empty where there is one alone."""
        others = len(self.checks) - 1
        verb = ("follow", "follows") if self.kind is CauseKind.MEMORY else ("belong", "belongs")
        link = "from" if self.kind is CauseKind.MEMORY else "to"
        return (
            f"{count(others, 'more finding')} {plural(others, verb[1], verb[0])} {link} it"
            if others
            else ""
        )

    @property
    def sentence(self) -> str:
        """What, where, how much and since when, as one sentence."""
        # A name of the user's keeps its letters.
        what = re.sub("^the ", "The ", f"{self.what} ({self.where})")
        amounts = "; ".join(part for part in (self.how_much, self.since) if part)
        return f"{what}: {amounts.rstrip('.')}." if amounts else f"{what}."


def causes_to_json(causes: Sequence[Cause], checks: Sequence[Check]) -> list[dict[str, Any]]:
    """As findings.json has them: each check by its place among ``checks``; in words as well, for
    readers without this program.
    """
    places = {id(check): place for place, check in enumerate(checks)}
    return [
        {
            **dataclasses.asdict(dataclasses.replace(cause, checks=())),
            "checks": [places[id(check)] for check in cause.checks],
            "told": cause.sentence,
            "following": cause.following,
        }
        for cause in causes
    ]


def causes_from_json(
    found: Sequence[Mapping[str, Any]], checks: Sequence[Check]
) -> tuple[Cause, ...]:
    """What ``causes_to_json`` wrote. Raises KeyError, TypeError, ValueError or IndexError where it
    is damaged.
    """
    texts = ("scenarios", "log_tail")
    return tuple(
        Cause(
            **{
                **{field.name: cause[field.name] for field in dataclasses.fields(Cause)},
                **{name: tuple(cause[name]) for name in texts},
                "kind": CauseKind(cause["kind"]),
                "finding": FindingKind(cause["finding"]),
                "checks": tuple(checks[place] for place in cause["checks"]),
                "alive": tuple(
                    AliveTensors(**{**one, "shape": tuple(one["shape"])}) for one in cause["alive"]
                ),
                "commands": tuple(Command(**one) for one in cause["commands"]),
            }
        )
        for cause in found
    )
