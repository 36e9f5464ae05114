"""What a policy can promise, rule by rule: which points, phases and meters, and the limit with its
reason.
"""

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    model_validator,
)

from harness.errors import BytesError
from harness.records import Point
from harness.rundir.rows import MOST_FURTHER_REPEATS
from harness.words import closest, format_bytes, parse_bytes

# An amount as the policy writes it: bytes, or a multiple of what the bodies declare by name,
# and bytes on top of it.


# A count and a declared name, in the singular or the plural.
_MULTIPLE = re.compile(r"\s*(?P<count>\d+(?:\.\d+)?)\s+(?P<what>[A-Za-z_]\w*)\s*")
# What reads like a unit of bytes is one, or a mistake that ``parse_bytes`` has a sentence for.
_LIKE_A_UNIT = re.compile(r"(?:[kmgtp]i?)?bs?|[kmgtp]|bytes?|bits?", re.IGNORECASE)
WELL_KNOWN = ("batch", "arrays", "image", "frame")
"""What the bodies of this project declare, among others; a misspelt one is reported before anything
is measured."""
# chosen: "bathces" is 0.86 like "batches"; a name of its own, "frames_kept", 0.71 like "frames"
_MISSPELT = 0.8


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes, or a multiple of what the body declared; and bytes on top of it."""

    text: str
    count: float
    of: str | None = None
    """A declared name, in the singular or the plural; None: ``count`` is bytes."""
    more_bytes: int = 0

    @classmethod
    def parse(cls, text: object) -> "Amount":
        """``"64 KiB"``, ``"4 batches"``, ``"1.5 Y_I"`` or ``"4 batches + 1 MiB"``. Raises
        BytesError for anything else.
        """
        if isinstance(text, Amount):
            return text
        if not isinstance(text, str):
            raise BytesError(
                f'{text!r} is not a text; write an amount with its unit, for example "64 '
                'KiB" or "4 batches"'
            )
        first, plus, more = text.partition("+")
        if plus:
            return dataclasses.replace(
                cls._parse_one(first.strip()), text=text, more_bytes=parse_bytes(more.strip())
            )
        return cls._parse_one(text)

    @classmethod
    def _parse_one(cls, text: str) -> "Amount":
        multiple = _MULTIPLE.fullmatch(text)
        if multiple is None or _LIKE_A_UNIT.fullmatch(multiple["what"]):
            return cls(text, parse_bytes(text))
        what = multiple["what"]
        known = [form for name in WELL_KNOWN for form in (name, _plural(name))]
        near = closest(what, known, cutoff=_MISSPELT)
        if near and what not in known:
            raise BytesError(
                f"{text!r} is neither bytes nor a multiple of what bodies declare; did you "
                f"mean {near!r}?"
            )
        return cls(text, float(multiple["count"]), what)

    def name_in(self, declared: Collection[str]) -> str | None:
        """Which of the declared names it is a multiple of; None where it is of none of them."""
        return (
            None
            if self.of is None
            else next((name for name in declared if self.of in (name, _plural(name))), None)
        )

    def in_bytes(self, declared: Mapping[str, int]) -> float | None:
        """The amount in bytes; None when it is a multiple of something that was not declared."""
        if self.of is None:
            return self.count + self.more_bytes
        name = self.name_in(declared)
        return None if name is None else self.count * declared[name] + self.more_bytes

    def in_words(self, declared: Mapping[str, int]) -> str:
        """The amount for people, with its bytes where it is a multiple or a sum: ``"4 batches (16.0
        MiB)"``.
        """
        size = self.in_bytes(declared)
        if size is None:
            return self.text
        return (
            format_bytes(size)
            if self.of is None and not self.more_bytes
            else f"{self.text} ({format_bytes(size)})"
        )

    def gap(self, declared: Collection[str]) -> str:
        """What to say where it is a multiple of something that was not declared."""
        known = sorted(declared)
        near = closest(str(self.of), known)
        hint = (
            f"did you mean {near}?"
            if near
            else f"it declared {', '.join(known) or 'nothing'}; fix the policy or the body"
        )
        return (
            f"the body did not declare {self.of!r}, which the limit {self.text!r} is a multiple "
            f"of: {hint}"
        )


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"


def _bytes_only(text: object) -> int:
    amount = Amount.parse(text)
    if amount.of is not None:
        raise BytesError(f'{amount.text!r} is a multiple; write bytes here, for example "1024 B"')
    return int(amount.count) + amount.more_bytes


AmountText = Annotated[Amount, BeforeValidator(Amount.parse)]
BytesText = Annotated[StrictInt, BeforeValidator(_bytes_only)]
Because = Annotated[StrictStr, StringConstraints(strip_whitespace=True, min_length=1)]
Percent = Annotated[StrictInt | StrictFloat, Field(ge=0, le=1000)]
Names = Annotated[tuple[StrictStr, ...], Field(min_length=1)]
Setting = StrictStr | StrictInt | StrictFloat | StrictBool


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    because: Because
    """Where the limit comes from."""


class _Rule(_Section):
    """What every rule selects: points by scenario and settings, then phases and meters."""

    scenarios: Names
    where: Mapping[StrictStr, Setting] = Field(default_factory=dict)
    """Parameters or fixed settings that a point must have."""
    phases: Names | None = None
    """None: every phase of the point."""
    meters: Names
    pool: Literal["reserved", "grown"] | None = None
    """Only where TensorFlow's pool was taken so (``PoolKind``); None: in either."""

    _grows: bool = PrivateAttr(default=False)
    """Whether the pool of the run that is judged grew on demand."""

    def for_run(self, *, grows: bool) -> Self:
        """The same rule, for a run whose pool grew on demand, or was reserved."""
        rule = self.model_copy()
        rule._grows = grows
        return rule

    def matches(self, point: Point) -> bool:
        """Whether the rule is about this point."""
        settings = {**point.fixed, **point.parameters}
        return (
            point.scenario in self.scenarios
            and all(
                name in settings and settings[name] == value for name, value in self.where.items()
            )
            and self.pool in (None, self._pool_of(point))
        )

    def _pool_of(self, point: Point) -> str:
        # A point with a device of its own has a limit, and a pool with a limit is reserved.
        return "grown" if self._grows and point.device_budget_bytes is None else "reserved"

    def phases_of(self, point: Point) -> tuple[str, ...]:
        """The phases of the point that the rule is about, in their order."""
        return tuple(phase for phase in point.phases if self.phases is None or phase in self.phases)


class _SweepRule(_Rule):
    over: Annotated[StrictStr, StringConstraints(min_length=1)]
    """Name of a parameter of the points that is a whole number; that some point has it is checked
    when a run is judged."""
    field: Literal["peak", "growth", "retained", "net_start", "net_end"] = "growth"

    @model_validator(mode="after")
    def _leave_the_sweep_free(self) -> "_SweepRule":
        if self.over in self.where:
            raise ValueError(
                f"where fixes {self.over}, which the rule sweeps over; leave it out of where"
            )
        return self


class SlopeRule(_SweepRule):
    """[[slope]]: how much each further image or frame may cost."""

    at_most: AmountText
    """For each image, frame or step of another parameter; a regression is a slope whose 95 %
    interval lies above it."""
    resolve: AmountText
    """As at_most, what the interval has to exclude; a run too noisy for that is incomplete."""
    only_if_swept: StrictBool = False
    """True: no finding where the sweep planned a single size, as with a scan that cannot be
    enlarged."""
    at_most_over_all: BytesText = 0
    """Added to at_most, divided by the sizes between the smallest and the largest: what a meter's
    amounts may differ by over all sizes without any reason."""
    resolve_over_all: BytesText = 0
    """The same of resolve."""
    without_device_pages: StrictBool = False
    """True: pages that the emulated device has touched are taken off what the host read."""

    @model_validator(mode="after")
    def _resolve_above_limit(self) -> "SlopeRule":
        if self.resolve.of == self.at_most.of and self.resolve.count < self.at_most.count:
            raise ValueError(
                f"resolve ({self.resolve.text}) is below at_most ({self.at_most.text}); it "
                "has to be at least as large"
            )
        return self


class GrowthClassRule(_SweepRule):
    """[[growth_class]]: the worst shape that growth may have."""

    at_most: Literal["flat", "linear"]
    only_if_swept: StrictBool = False
    """As of a slope."""


class BudgetRule(_Rule):
    """[[budget]]: an amount that each run has to stay below, or to reach."""

    field: Literal[
        "start", "peak", "end", "growth", "retained", "net_start", "net_peak", "net_end"
    ] = "growth"
    at_most: AmountText | None = None
    at_least: AmountText | None = None
    """Below it the meter has missed something: not frugal, but not seen."""
    without_device_pages: StrictBool = False
    """As of a slope."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> "BudgetRule":
        if self.at_most is None and self.at_least is None:
            raise ValueError("has neither at_most nor at_least; give one of them, or both")
        return self


class LeakRule(_Rule):
    """[[leak]]: how much one phase may have more than the one before it that did the same; the
    phases in their order.
    """

    field: Literal["peak", "end"]
    at_most: AmountText
    every_time: StrictBool = False
    """True: it is a leak where every step from phase to phase rises by more, in every repeat, and
    by more than the emulated device's pages explain; for meters that other things move as well.
    False: where any step does."""

    @model_validator(mode="after")
    def _has_two_phases(self) -> "LeakRule":
        if len(self.phases or ()) < 2:
            raise ValueError(
                "compares phases that do the same one after the other; name two or more, "
                'as ["epoch_0", "epoch_1"]'
            )
        return self


class ArithmeticRule(_SweepRule):
    """[[arithmetic]]: a slope that has to be what the declared arrays add up to."""

    declared: Annotated[StrictStr, StringConstraints(min_length=1)]
    """A name that the bodies declare an amount by."""
    within_percent: Percent


class Tolerance(_Section):
    """[[tolerance]]: how far a meter may be from the baseline; beyond percent AND floor it is a
    finding.
    """

    meter: StrictStr
    percent: Percent
    floor: BytesText
    fields: Annotated[
        tuple[Literal["growth", "retained", "net_start"], ...], Field(min_length=1)
    ] = ("growth", "retained")
    """The amounts that it is about. ``net_start`` is what there is when the phase begins, whichever
    phases brought it."""
    scenarios: Names | None = None
    """Given: it holds in these instead of the meter's general tolerance of the same fields."""
    phases: Names | None = None
    """With ``scenarios``: only in these phases."""

    @model_validator(mode="after")
    def _phases_have_scenarios(self) -> "Tolerance":
        if self.phases is not None and self.scenarios is None:
            raise ValueError("names phases without scenarios; say in which scenarios they are")
        return self

    def covers(self, scenario: str, phase: str) -> bool:
        """Whether it is about this phase of this scenario."""
        return (self.scenarios is None or scenario in self.scenarios) and (
            self.phases is None or phase in self.phases
        )


class Remeasure(_Section):
    """[remeasure]: how often the points of a finding that may be noise are measured again."""

    repeats: Annotated[StrictInt, Field(ge=1, le=MOST_FURTHER_REPEATS)]


AnyRule = SlopeRule | GrowthClassRule | BudgetRule | LeakRule | ArithmeticRule
