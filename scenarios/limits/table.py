"""The limits of a policy as a page: a table for each scenario of the catalogue."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judge.limits import (
    Amount,
    AnyRule,
    ArithmeticRule,
    BudgetRule,
    GrowthClassRule,
    LeakRule,
    SlopeRule,
)
from harness.judge.policy import Policy
from harness.records import Point, unit_of
from harness.words import format_bytes
from scenarios.catalog import points

_FIELDS = {
    "start": "what there is when it begins",
    "peak": "its peak",
    "end": "what there is when it ends",
    "growth": "its peak, over its start",
    "retained": "its end, over its start",
    "net_start": "its start, over that of the run's first phase",
    "net_peak": "its peak, over the start of the run's first phase",
    "net_end": "its end, over the start of the run's first phase",
}
_HEADER = """\
# The limits that hold

Written by `python -m scenarios.limits --out docs/limits.md` out of scenarios/gate.toml, which has \
the reason of each; a test
compares this file with it. What costs less is not found. An amount is read in one phase of a run, \
by one meter (see
[how it works](how-it-works.md#the-meters)).

- **for each image, frame, rounds**: a slope. It is a regression when the whole 95 % interval lies \
above the limit; what the
  interval has to exclude for the run to be judged at all is in brackets. What is found for \
certain is the limit and the width
  of the interval, which is as wide as runs lie apart.
- **at most**, **at least**: of every single run.
- **over the phase before**: what a second epoch adds.
- **from the baseline**: a finding beyond the percentage **and** the amount, in both directions.

Of an emulated device or a card whose pool is reserved; a pool that grows on demand has the limits \
that say so.
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """One row: the same limit in one or more phases."""

    loader: str
    meter: str
    what: str
    limit: str


def page(policy: Policy) -> str:
    """The Markdown: a table for each scenario of the catalogue, in its order."""
    swept: dict[str, list[Point]] = {}
    for point in points():
        swept.setdefault(point.scenario, []).append(point)
    return _HEADER + "".join(
        f"\n{''.join(_section(policy, name, own))}" for name, own in swept.items()
    )


def _section(policy: Policy, scenario: str, own: Sequence[Point]) -> Iterator[str]:
    sizes = " and ".join(dict.fromkeys(_sizes_in_words(point) for point in own))
    yield (
        f"## {scenario}\n\n{sizes}\n\n| loader | phases | meter | what | limit "
        "|\n|---|---|---|---|---|\n"
    )
    rows: dict[Limit, dict[str, None]] = {}
    for phase, limit in _limits(policy, own):
        rows.setdefault(limit, {})[phase] = None
    every = tuple(dict.fromkeys(phase for point in own for phase in point.phases))
    for limit, phases in rows.items():
        where = "all" if set(phases) == set(every) else ", ".join(phases)
        yield f"| {limit.loader} | {where} | {limit.meter} | {limit.what} | {limit.limit} |\n"


def _limits(policy: Policy, own: Sequence[Point]) -> Iterator[tuple[str, Limit]]:
    """Every phase with every limit that holds in it, rule by rule."""
    for _, rule in policy.rules():
        matched = [
            point for point in own if rule.matches(point) or rule.for_run(grows=True).matches(point)
        ]
        loaders = (
            "all"
            if len(matched) == len(own)
            else ", ".join(
                dict.fromkeys(str(point.parameters.get("loader", "all")) for point in matched)
            )
        )
        for what, limit in _in_words(rule, _declared(matched[0])) if matched else ():
            for phase in dict.fromkeys(
                phase for point in matched for phase in _phases_of(rule, point)
            ):
                yield from (
                    (phase, Limit(loaders, meter, f"{what}{_pool(rule)}", limit))
                    for meter in rule.meters
                )
    for phase in dict.fromkeys(phase for point in own for phase in point.phases):
        for tolerance in policy.tolerances(own[0].scenario, phase):
            what = f"from the baseline: {'; '.join(_FIELDS[field] for field in tolerance.fields)}"
            yield (
                phase,
                Limit(
                    "all",
                    tolerance.meter,
                    what,
                    f"{tolerance.percent} % and {format_bytes(tolerance.floor)}",
                ),
            )


def _phases_of(rule: AnyRule, point: Point) -> tuple[str, ...]:
    """Of a leak the later phases alone: the first has nothing before it."""
    return rule.phases_of(point)[1:] if isinstance(rule, LeakRule) else rule.phases_of(point)


def _in_words(rule: AnyRule, declared: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """What the rule limits, and to how much."""
    if isinstance(rule, SlopeRule):
        limit = f"{_amount(rule.at_most, declared)} ({_amount(rule.resolve, declared)})"
        yield f"for each {unit_of(rule.over)}: {_FIELDS[rule.field]}", limit
    elif isinstance(rule, GrowthClassRule):
        yield f"over {rule.over}: {_FIELDS[rule.field]}", f"{rule.at_most} at the worst"
    elif isinstance(rule, ArithmeticRule):
        share = f"what {rule.declared} add up to, within {rule.within_percent} %"
        yield f"for each {unit_of(rule.over)}: {_FIELDS[rule.field]}", share
    elif isinstance(rule, LeakRule):
        yield f"over the phase before: {_FIELDS[rule.field]}", _amount(rule.at_most, declared)
    elif isinstance(rule, BudgetRule):
        if rule.at_most is not None:
            yield f"at most: {_FIELDS[rule.field]}", _amount(rule.at_most, declared)
        if rule.at_least is not None:
            yield f"at least: {_FIELDS[rule.field]}", _amount(rule.at_least, declared)


def _pool(rule: AnyRule) -> str:
    return "" if rule.pool is None else f" (pool {rule.pool})"


def _amount(amount: Amount, declared: Mapping[str, int]) -> str:
    size = amount.in_bytes(declared)
    if size is None:
        return amount.text
    return f"{round(size):,} B" if size < 64 * 1024 else format_bytes(size)


def _declared(point: Point) -> dict[str, int]:
    """What the bodies declare that limits are multiples of, as far as the point says: see
    ``scenarios.bodies.loading.declare``.
    """
    settings = {**point.fixed, **point.parameters}
    size, gridsize, batch_size = (
        settings.get(name) for name in ("frame_size", "gridsize", "batch_size")
    )
    if not (isinstance(size, int) and isinstance(gridsize, int) and isinstance(batch_size, int)):
        return {}
    image = size**2 * gridsize**2 * 4
    return {"frame": size**2 * 4, "image": image, "batch": image * batch_size}


def _sizes_in_words(point: Point) -> str:
    sizes = _declared(point)
    said = ", ".join(
        f"{name} {_amount(Amount.parse(f'{size} B'), {})}" for name, size in sizes.items()
    )
    return f"Here a {said}." if said else "Amounts are in the units that its bodies declare."
