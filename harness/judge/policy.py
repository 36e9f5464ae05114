"""A policy, checked: budgets, slopes and tolerances, each with its reason. A misspelt key is
refused, never ignored.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, PrivateAttr, StrictInt, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import PolicyError
from harness.judge.limits import (
    AnyRule,
    ArithmeticRule,
    BudgetRule,
    GrowthClassRule,
    LeakRule,
    Names,
    Remeasure,
    SlopeRule,
    Tolerance,
)
from harness.records import Point
from harness.rundir.manifest import Manifest
from harness.words import nearest, nearest_path

SCHEMA_VERSION = 1
"""Version of the policy that this program reads."""
DEFAULT_POLICY = Path("scenarios/gate.toml")
"""Where a project keeps its own, seen from the folder that the gate is started in."""
RUNS_OWN = "the run's own policy (in run.json)"
"""What sentences call a policy that the run brings along."""
NO_POLICY = "no policy, because there is none"
"""What sentences call the policy of a run that nothing promises anything of."""
MARKER = "marker of "
"""How the reason of a rule begins that a test's marker has given; the test's name follows."""

_SECTIONS: Mapping[str, type[AnyRule]] = {
    "slope": SlopeRule,
    "growth_class": GrowthClassRule,
    "budget": BudgetRule,
    "leak": LeakRule,
    "arithmetic": ArithmeticRule,
}


def is_swept(section: str) -> bool:
    """Whether the rules of a section are over a parameter."""
    return "over" in _SECTIONS[section].model_fields


class Policy(BaseModel):
    """One policy file."""

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

    _source: str = PrivateAttr("the policy")
    _about_the_run: tuple[tuple[str, AnyRule], ...] | None = PrivateAttr(None)
    """Every rule, by its name, that may be about the run that is judged; None before a run is
    known."""

    @property
    def source(self) -> str:
        """Where it was read from, as sentences call it: a file, or the run itself."""
        return self._source

    def called(self, source: str) -> "Policy":
        """The same policy under another name."""
        policy = self.model_copy()
        policy._source = source
        return policy

    def for_run(self, points: Iterable[Point], *, grows: bool) -> "Policy":
        """The same policy for a run with these points: rules about another pool than it has, or any
        of them has, fall away.
        """
        own = {
            section: tuple(rule.for_run(grows=grows) for rule in getattr(self, section))
            for section in _SECTIONS
        }
        policy = self.model_copy(update=own)
        judged = tuple(points)
        policy._about_the_run = tuple(
            (name, rule)
            for name, rule in policy._all_rules()
            if rule.pool in (None, "grown" if grows else "reserved")
            or any(rule.matches(point) for point in judged)
        )
        return policy

    @property
    def promises(self) -> bool:
        """Whether it has any rule or tolerance at all, also one that is not about the run that is
        judged.
        """
        return bool(self.tolerance) or any(getattr(self, section) for section in _SECTIONS)

    def rules(self) -> Iterator[tuple[str, AnyRule]]:
        """Every rule with its name for people, such as ``slope rule 2``: the second [[slope]] of
        the file.
        """
        return iter(self._all_rules() if self._about_the_run is None else self._about_the_run)

    def _all_rules(self) -> tuple[tuple[str, AnyRule], ...]:
        return tuple(
            (f"{section} rule {number}", rule)
            for section in _SECTIONS
            for number, rule in enumerate(getattr(self, section), start=1)
        )

    def gated_meters(self, point: Point, phase: str) -> tuple[str, ...]:
        """The meters that some rule or tolerance needs in this phase of this point."""
        ruled = [
            meter
            for _, rule in self.rules()
            if rule.matches(point) and phase in rule.phases_of(point)
            for meter in rule.meters
        ]
        return tuple(
            dict.fromkeys(
                [*ruled, *(tolerance.meter for tolerance in self.tolerances(point.scenario, phase))]
            )
        )

    def tolerances(self, scenario: str, phase: str) -> tuple[Tolerance, ...]:
        """The tolerances that hold in this phase, each with the fields that it decides: the phase's
        own go before general ones.
        """
        covering = [tolerance for tolerance in self.tolerance if tolerance.covers(scenario, phase)]
        covering.sort(key=lambda tolerance: tolerance.scenarios is not None)
        deciding = {
            (tolerance.meter, field): number
            for number, tolerance in enumerate(covering)
            for field in tolerance.fields
        }
        fields = {
            number: tuple(
                field for field in tolerance.fields if deciding[tolerance.meter, field] == number
            )
            for number, tolerance in enumerate(covering)
        }
        return tuple(
            tolerance.model_copy(update={"fields": fields[number]})
            for number, tolerance in enumerate(covering)
            if fields[number]
        )


def choose_policy(path: Path | None, manifest: Manifest) -> Policy:
    """The policy to judge a run by: the file that is named, else what the run brings along, else
    the project's own.

    Where there is none, it is empty: how the runs ended, and whether all was measured, is judged in
    any case. A run that compares two codes needs none: there are tolerances for that
    (``judge.against``). Tests that measure for themselves are not judged by the project's own,
    unless that has rules about their points. Raises PolicyError as ``read_policy`` does, and where
    the run's own would excuse points that the project's is about.
    """
    if path is not None:
        return read_policy(path)
    if manifest.policy is not None:
        return _unless_it_excuses(parse_policy(manifest.policy, RUNS_OWN), manifest)
    if DEFAULT_POLICY.exists():
        project = read_policy(DEFAULT_POLICY)
        ruled = any(
            rule.matches(point) for _, rule in project.rules() for point in manifest.planned
        )
        if ruled or not manifest.settings.get("judged_by_pytest", False):
            return project
    source = NO_POLICY if manifest.code is None else "the default tolerances of a comparison"
    return Policy(schema_version=SCHEMA_VERSION).called(source)


def _unless_it_excuses(own: Policy, manifest: Manifest) -> Policy:
    """The run's own policy; one marked test among the project's sweep must not put all of its
    limits out of force.
    """
    if not DEFAULT_POLICY.exists():
        return own
    ruled = [rule for _, rule in read_policy(DEFAULT_POLICY).rules()]
    promised = [rule for _, rule in own.rules()]
    excused = [
        point.name
        for point in manifest.planned
        if any(rule.matches(point) for rule in ruled)
        and not any(rule.matches(point) for rule in promised)
    ]
    if excused:
        raise PolicyError(
            f"{RUNS_OWN} comes from tests with markers and says nothing about "
            f"{len(excused)} points that {DEFAULT_POLICY} has rules for, first "
            f"{excused[0]}; name the one to judge by with --policy, or measure marked tests "
            "in a run of their own"
        )
    return own


def read_policy(path: Path) -> Policy:
    """Read a policy file. Raises PolicyError when it is missing or not TOML, and as
    ``parse_policy`` does.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = nearest_path(path) if not path.exists() else "name another with --policy"
        raise PolicyError(f"the policy {path} cannot be read: {error.strerror}; {near}") from error
    except ValueError as error:
        raise PolicyError(f"the policy {path} is not TOML: {error}") from error
    return parse_policy(found, str(path))


def parse_policy(found: Mapping[str, Any], source: str) -> Policy:
    """A policy from its keys and values; ``source`` is what to call the place that they come from.

    Raises PolicyError, one sentence for each mistake, when it is of an unknown version, has an
    unknown key (naming the nearest known one), a rule without ``because``, a limit that is no
    amount, or no rule.
    """
    if "schema_version" not in found:
        raise PolicyError(
            f"the policy {source} has no version; write schema_version = {SCHEMA_VERSION} "
            "before its rules"
        )
    if found["schema_version"] != SCHEMA_VERSION:
        raise PolicyError(
            f"the policy {source} has schema_version {found.get('schema_version')!r}; this "
            f"program reads {SCHEMA_VERSION}"
        )
    try:
        policy = Policy.model_validate(found)
    except ValidationError as error:
        raise PolicyError(
            "\n".join(f"{source}: {_sentence(detail)}" for detail in error.errors())
        ) from error
    if not any(True for _ in policy.rules()) and not policy.tolerance:
        raise PolicyError(
            f"the policy {source} has no rule at all, so that every run would pass; write "
            "at least one"
        )
    for number, tolerance in enumerate(policy.tolerance):
        twin = next(
            (other for other in policy.tolerance[:number] if _clash(tolerance, other)), None
        )
        if twin is not None:
            raise PolicyError(
                f"{source}: two [[tolerance]] for "
                f"{tolerance.meter}{_common_ground(tolerance, twin)}; keep one"
            )
    return policy.called(source)


_PLACE = re.compile(r"(?P<section>\w+)(?: rule)? (?P<number>\d+) of (?P<source>.+)")
"""How sentences name a rule: ``"slope rule 2 of scenarios/gate.toml"``."""


@dataclass(frozen=True, slots=True)
class Quoted:
    """A rule as its file has it."""

    place: str
    """``"scenarios/gate.toml:41"``."""
    text: str


def quote_rule(limit_place: str) -> Quoted | None:
    """The rule that a sentence names as ``"slope rule 2 of scenarios/gate.toml"``; None where it is
    of no file, or the file is another one by now.
    """
    named = _PLACE.fullmatch(limit_place)
    if named is None:
        return None
    section, number, source = named["section"], int(named["number"]), named["source"]
    try:
        text = Path(source).read_text(encoding="utf-8")
        rules = tomllib.loads(text).get(section)
    except (OSError, ValueError):
        return None
    lines = text.splitlines()
    header = re.compile(rf"\s*\[\[\s*{section}\s*\]\]\s*(#.*)?")
    begins = [place for place, line in enumerate(lines) if header.fullmatch(line)]
    # Written in another way (an inline array), or its header stands in a text as well.
    if not isinstance(rules, list) or len(begins) != len(rules) or not 0 < number <= len(begins):
        return None
    begin = begins[number - 1]
    return Quoted(f"{source}:{begin + 1}", "\n".join(_section(lines[begin:])))


def _section(lines: Sequence[str]) -> list[str]:
    """From its header up to the next one, without what stands between the two."""
    end = next((n for n, line in enumerate(lines) if n and line.lstrip().startswith("[")), None)
    own = list(lines[:end])
    while own and (not own[-1].strip() or own[-1].lstrip().startswith("#")):
        own.pop()
    return own


def _clash(one: Tolerance, other: Tolerance) -> bool:
    """Whether both would be the tolerance of the same amount in the same phase."""
    return (
        one.meter == other.meter
        and bool(set(one.fields) & set(other.fields))
        and (one.scenarios is None) == (other.scenarios is None)
        and _share(one.scenarios, other.scenarios)
        and _share(one.phases, other.phases)
    )


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
        return (
            f"{place} has the unknown key {location[-1]!r}; "
            f"{nearest(str(location[-1]), _known_keys(location))}"
        )
    if detail["type"] == "missing":
        return f"{place} lacks {key!r}" + (
            "; say where the limit comes from" if key == "because" else ""
        )
    if key == "because":
        return f"{place} has an empty 'because'; say where the limit comes from"
    if detail["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return (
            f"{place}: {key}: {detail['input']!r} cannot be chosen; "
            f"{nearest(str(detail['input']), choices)}"
        )
    what = detail["msg"].removeprefix("Value error, ")
    whole_section = isinstance(location[-1], int) and len(location) == 2
    return f"{place} {what}" if whole_section else f"{place}: {key}: {what}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    if len(location) == 1:
        return list(Policy.model_fields)
    # of tuple[Rule, ...] and of Section | None
    (section, *_) = get_args(Policy.model_fields[str(location[0])].annotation)
    keys: dict[str, Any] = section.model_fields
    return list(keys)
