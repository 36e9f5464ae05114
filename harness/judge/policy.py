"""gate.toml, checked: budgets, slopes and tolerances, each with its reason. A misspelt key is refused, never ignored."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from harness.errors import BytesError, PolicyError
from harness.judge.table import DECLARED, Declared
from harness.records import Point
from harness.units import format_bytes, parse_bytes

SCHEMA_VERSION = 1
"""Version of the policy file that this program reads."""

# A count and a declared name, in the singular or the plural.
_MULTIPLE = re.compile(rf"\s*(?P<count>\d+(?:\.\d+)?)\s+(?P<what>{'|'.join(DECLARED)})(?:e?s)?\s*")


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes, or a multiple of what the body declared."""

    text: str
    count: float
    of: str | None = None
    """None: ``count`` is bytes."""

    @classmethod
    def parse(cls, text: object) -> "Amount":
        """``"64 KiB"``, ``"4 batches"`` or ``"1 arrays"``. Raises ValueError for anything else."""
        if isinstance(text, Amount):
            return text
        if not isinstance(text, str):
            raise BytesError(f'{text!r} is not a text; write an amount with its unit, for example "64 KiB" or "4 batches"')
        multiple = _MULTIPLE.fullmatch(text)
        if multiple is None:
            return cls(text, parse_bytes(text))
        return cls(text, float(multiple["count"]), multiple["what"])

    def in_bytes(self, declared: Mapping[str, int]) -> float | None:
        """The amount in bytes; None when it is a multiple of something that was not declared."""
        if self.of is None:
            return self.count
        return None if self.of not in declared else self.count * declared[self.of]

    def in_words(self, declared: Mapping[str, int]) -> str:
        """The amount for people, with its bytes where it is a multiple: ``"4 batches (16.0 MiB)"``."""
        size = self.in_bytes(declared)
        if size is None:
            return self.text
        return format_bytes(size) if self.of is None else f"{self.text} ({format_bytes(size)})"


def _bytes_only(text: object) -> int:
    amount = Amount.parse(text)
    if amount.of is not None:
        raise BytesError(f'{amount.text!r} is a multiple; write bytes here, for example "1024 B"')
    return int(amount.count)


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

    def matches(self, point: Point) -> bool:
        """Whether the rule is about this point."""
        settings = {**point.fixed, **point.parameters}
        return point.scenario in self.scenarios and all(
            name in settings and settings[name] == value for name, value in self.where.items()
        )

    def phases_of(self, point: Point) -> tuple[str, ...]:
        """The phases of the point that the rule is about, in their order."""
        return tuple(phase for phase in point.phases if self.phases is None or phase in self.phases)


class _SweepRule(_Rule):
    over: Literal["image_count", "stack_size"]
    field: Literal["peak", "growth", "retained"] = "growth"

    @model_validator(mode="after")
    def _leave_the_sweep_free(self) -> "_SweepRule":
        if self.over in self.where:
            raise ValueError(f"where fixes {self.over}, which the rule sweeps over; leave it out of where")
        return self


class SlopeRule(_SweepRule):
    """[[slope]]: how much each further image or frame may cost."""

    at_most: AmountText
    """For each image or frame of the sweep; a regression is a slope whose 95 % interval lies above it."""
    resolve: AmountText
    """For each image or frame of the sweep, what the interval has to exclude; a run too noisy for that is incomplete."""
    only_if_swept: StrictBool = False
    """True: no finding where the sweep planned a single size, as with a scan that cannot be enlarged."""

    @model_validator(mode="after")
    def _resolve_above_limit(self) -> "SlopeRule":
        if self.resolve.of == self.at_most.of and self.resolve.count < self.at_most.count:
            raise ValueError(
                f"resolve ({self.resolve.text}) is below at_most ({self.at_most.text}); it has to be at least as large"
            )
        return self


class GrowthClassRule(_SweepRule):
    """[[growth_class]]: the worst shape that growth may have."""

    at_most: Literal["flat", "linear"]


class BudgetRule(_Rule):
    """[[budget]]: an amount that each run has to stay below, or to reach."""

    field: Literal["peak", "end", "growth", "retained"] = "growth"
    at_most: AmountText | None = None
    at_least: AmountText | None = None
    """Below it the meter has missed something: not frugal, but not seen."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> "BudgetRule":
        if self.at_most is None and self.at_least is None:
            raise ValueError("has neither at_most nor at_least; give one of them, or both")
        return self


class ArithmeticRule(_SweepRule):
    """[[arithmetic]]: a slope that has to be what the declared arrays add up to."""

    declared: Declared
    within_percent: Percent


class Tolerance(_Section):
    """[[tolerance]]: how far a meter may be from the baseline; beyond percent AND floor it is a finding."""

    meter: StrictStr
    percent: Percent
    floor: BytesText
    scenarios: Names | None = None
    """Given: it holds in these instead of the meter's general tolerance."""
    phases: Names | None = None
    """With ``scenarios``: only in these phases."""

    @model_validator(mode="after")
    def _phases_have_scenarios(self) -> "Tolerance":
        if self.phases is not None and self.scenarios is None:
            raise ValueError("names phases without scenarios; say in which scenarios they are")
        return self

    def covers(self, scenario: str, phase: str) -> bool:
        """Whether it is about this phase of this scenario."""
        return (self.scenarios is None or scenario in self.scenarios) and (self.phases is None or phase in self.phases)


class Policy(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: StrictInt
    slope: tuple[SlopeRule, ...] = ()
    growth_class: tuple[GrowthClassRule, ...] = ()
    budget: tuple[BudgetRule, ...] = ()
    arithmetic: tuple[ArithmeticRule, ...] = ()
    tolerance: tuple[Tolerance, ...] = ()

    def rules(self) -> Iterator[tuple[str, SlopeRule | GrowthClassRule | BudgetRule | ArithmeticRule]]:
        """Every rule with its name for people, such as ``slope rule 2``."""
        for section in ("slope", "growth_class", "budget", "arithmetic"):
            for number, rule in enumerate(getattr(self, section), start=1):
                yield f"{section} rule {number}", rule

    def gated_meters(self, point: Point, phase: str) -> tuple[str, ...]:
        """The meters that some rule or tolerance needs in this phase of this point."""
        ruled = [
            meter for _, rule in self.rules() if rule.matches(point) and phase in rule.phases_of(point) for meter in rule.meters
        ]
        return tuple(dict.fromkeys([*ruled, *(tolerance.meter for tolerance in self.tolerances(point.scenario, phase))]))

    def tolerances(self, scenario: str, phase: str) -> tuple[Tolerance, ...]:
        """The one tolerance of each meter that holds in this phase: its own, else the general one."""
        covering = [tolerance for tolerance in self.tolerance if tolerance.covers(scenario, phase)]
        general = {tolerance.meter: tolerance for tolerance in covering if tolerance.scenarios is None}
        own = {tolerance.meter: tolerance for tolerance in covering if tolerance.scenarios is not None}
        return tuple({**general, **own}.values())


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises PolicyError, one sentence for each mistake, when it is missing, not TOML, of an unknown version, has an
    unknown key (naming the nearest known one), a rule without ``because``, a limit that is no amount, or no rule.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {error.strerror}; name another with --policy") from error
    except ValueError as error:
        raise PolicyError(f"the policy {path} is not TOML: {error}") from error
    if found.get("schema_version") != SCHEMA_VERSION:
        raise PolicyError(
            f"the policy {path} has schema_version {found.get('schema_version')!r}; this program reads {SCHEMA_VERSION}"
        )
    try:
        policy = Policy.model_validate(found)
    except ValidationError as error:
        raise PolicyError("\n".join(f"{path}: {_sentence(detail)}" for detail in error.errors())) from error
    if not any(True for _ in policy.rules()) and not policy.tolerance:
        raise PolicyError(f"the policy {path} has no rule at all, so that every run would pass; write at least one")
    for number, tolerance in enumerate(policy.tolerance):
        twin = next((other for other in policy.tolerance[:number] if _clash(tolerance, other)), None)
        if twin is not None:
            raise PolicyError(f"{path}: two [[tolerance]] for {tolerance.meter}{_common_ground(tolerance, twin)}; keep one")
    return policy


def _clash(one: Tolerance, other: Tolerance) -> bool:
    """Whether both would be the tolerance of the same meter in the same phase."""
    if one.meter != other.meter or (one.scenarios is None) != (other.scenarios is None):
        return False
    return _share(one.scenarios, other.scenarios) and _share(one.phases, other.phases)


def _share(one: Names | None, other: Names | None) -> bool:
    return one is None or other is None or bool(set(one) & set(other))


def _common_ground(one: Tolerance, other: Tolerance) -> str:
    if one.scenarios is None or other.scenarios is None:
        return ""
    return f" in {', '.join(name for name in one.scenarios if name in other.scenarios)}"


def _sentence(detail: ErrorDetails) -> str:
    location = detail["loc"]
    key = str(location[2]) if len(location) > 2 else str(location[0])
    place = f"[[{location[0]}]] number {int(location[1]) + 1}" if len(location) > 1 else "the file"
    if detail["type"] == "extra_forbidden":
        return f"{place} has the unknown key {location[-1]!r}; {_nearest(str(location[-1]), _known_keys(location))}"
    if detail["type"] == "missing":
        return f"{place} lacks {key!r}" + ("; say where the limit comes from" if key == "because" else "")
    if key == "because":
        return f"{place} has an empty 'because'; say where the limit comes from"
    what = detail["msg"].removeprefix("Value error, ")
    return f"{place}: {key}: {what}" if len(location) != 2 else f"{place} {what}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    if len(location) == 1:
        return list(Policy.model_fields)
    (section, _) = get_args(Policy.model_fields[str(location[0])].annotation)
    keys: dict[str, Any] = section.model_fields
    return list(keys)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
