"""gate.toml, checked: budgets, slopes and tolerances, each with its reason. A misspelt key is refused, never ignored."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
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
from harness.judge.amount import Amount
from harness.judge.rows import MOST_FURTHER_REPEATS
from harness.records import Point

SCHEMA_VERSION = 1
"""Version of the policy file that this program reads."""


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
    only_if_swept: StrictBool = False
    """As of a slope."""


class BudgetRule(_Rule):
    """[[budget]]: an amount that each run has to stay below, or to reach."""

    field: Literal["start", "peak", "end", "growth", "retained", "net_peak", "net_end"] = "growth"
    at_most: AmountText | None = None
    at_least: AmountText | None = None
    """Below it the meter has missed something: not frugal, but not seen."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> "BudgetRule":
        if self.at_most is None and self.at_least is None:
            raise ValueError("has neither at_most nor at_least; give one of them, or both")
        return self


class LeakRule(_Rule):
    """[[leak]]: how much one phase may have more than the one before it that did the same; the phases in their order."""

    field: Literal["peak", "end"]
    at_most: AmountText

    @model_validator(mode="after")
    def _has_two_phases(self) -> "LeakRule":
        if len(self.phases or ()) < 2:
            raise ValueError('compares phases that do the same one after the other; name two or more, as ["epoch_0", "epoch_1"]')
        return self


class ArithmeticRule(_SweepRule):
    """[[arithmetic]]: a slope that has to be what the declared arrays add up to."""

    declared: Annotated[StrictStr, StringConstraints(min_length=1)]
    """A name that the bodies declare an amount by."""
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


class Remeasure(_Section):
    """[remeasure]: how often the points of a finding that may be noise are measured again."""

    repeats: Annotated[StrictInt, Field(ge=1, le=MOST_FURTHER_REPEATS)]


AnyRule = SlopeRule | GrowthClassRule | BudgetRule | LeakRule | ArithmeticRule


class Policy(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: StrictInt
    slope: tuple[SlopeRule, ...] = ()
    growth_class: tuple[GrowthClassRule, ...] = ()
    budget: tuple[BudgetRule, ...] = ()
    leak: tuple[LeakRule, ...] = ()
    arithmetic: tuple[ArithmeticRule, ...] = ()
    tolerance: tuple[Tolerance, ...] = ()
    remeasure: Remeasure | None = None
    """None: nothing is measured again, and every finding stands as it is."""

    def rules(self) -> Iterator[tuple[str, AnyRule]]:
        """Every rule with its name for people, such as ``slope rule 2``: the second [[slope]] of the file."""
        for section in ("slope", "growth_class", "budget", "leak", "arithmetic"):
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
    key = next((str(part) for part in location[1:] if not isinstance(part, int)), str(location[0]))
    place = "the file" if len(location) == 1 else f"[{location[0]}]"
    if len(location) > 1 and isinstance(location[1], int):
        place = f"[[{location[0]}]] number {location[1] + 1}"
    if detail["type"] == "extra_forbidden":
        return f"{place} has the unknown key {location[-1]!r}; {_nearest(str(location[-1]), _known_keys(location))}"
    if detail["type"] == "missing":
        return f"{place} lacks {key!r}" + ("; say where the limit comes from" if key == "because" else "")
    if key == "because":
        return f"{place} has an empty 'because'; say where the limit comes from"
    what = detail["msg"].removeprefix("Value error, ")
    whole_section = isinstance(location[-1], int) and len(location) == 2
    return f"{place} {what}" if whole_section else f"{place}: {key}: {what}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    if len(location) == 1:
        return list(Policy.model_fields)
    (section, *_) = get_args(Policy.model_fields[str(location[0])].annotation)  # of tuple[Rule, ...] and of Section | None
    keys: dict[str, Any] = section.model_fields
    return list(keys)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
