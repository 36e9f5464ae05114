"""The plot of a cause: the amount that it is about over the sizes, with its limit, what it was
before, and a ring where it breaks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.judge import Check, RuleName
from harness.judge.causes import Cause
from harness.judge.gate import Judgement
from harness.records import NAMED_STEPS, Point, is_size

from .curves import METERS, Amounts, Curve, Panel, allowed_of, broken_sizes, least_of
from .view import RunView
from .words import plain

_COMPARING = (RuleName.BASELINE, RuleName.AGAINST)


def cause_panel(view: RunView, judgement: Judgement, cause: Cause, name: str) -> Panel | None:
    """The amount that a cause is about, over the sizes; None where it is about none, or one size.

    The first check with a slope is drawn, else the first with an amount and others like it at other
    sizes.
    """
    points = {point.name: point for point in view.plan.points}
    for check in cause.checks:
        alike = _alike(check, judgement, points)
        over = _over(check, alike, points)
        if not over:
            continue
        read = {point: amount for each in alike for point, amount in least_of(each).items()}
        sizes = {point: int(str(points[point].parameters[over])) for point in read}
        if len(set(sizes.values())) < 2:
            continue
        limits = sorted(
            (sizes[point], limit)
            for each in alike
            if each.bound == "upper" and each.limit is not None
            for point, limit in allowed_of(each, sizes)
        )
        curve = Curve(
            series=cause.loader or check.scenario,
            amounts=tuple(sorted((sizes[point], float(amount)) for point, amount in read.items())),
            earlier=tuple(sorted(_before(check, judgement, sizes, read))),
            limits=tuple(limits),
            broken=frozenset(broken_sizes(alike, sizes)),
            unit=NAMED_STEPS.get(over, over),
        )
        word = METERS.get(check.meter, plain(check.meter))
        where = f"{check.scenario}, {plain(check.phase)}" if check.phase else check.scenario
        return Panel(
            name=name,
            scenario=check.scenario,
            meter=check.meter,
            title=f"{where}: {word}",
            over=over,
            quantity=_quantity(check),
            curves=(_at_most_one_each(curve),),
        )
    return None


def _at_most_one_each(curve: Curve) -> Curve:
    """Of several points of one size the one that has most: other parameters may differ."""

    def most(amounts: Amounts) -> Amounts:
        return tuple(dict(sorted(amounts)).items())

    return replace(curve, amounts=most(curve.amounts), earlier=most(curve.earlier))


def _alike(check: Check, judgement: Judgement, points: Mapping[str, Point]) -> list[Check]:
    """A slope alone; of amounts those of all sizes that are held against the same limit."""
    if check.unit != "B" or check.point not in points:
        return [check]
    return [
        other
        for other in judgement.verdict.checks
        if (other.rule, other.scenario, other.phase, other.meter, other.bound, other.unit)
        == (check.rule, check.scenario, check.phase, check.meter, check.bound, check.unit)
        and other.point in points
        and _without_sizes(other) == _without_sizes(check)
        and _texts(points[other.point]) == _texts(points[check.point])
    ]


def _without_sizes(check: Check) -> tuple[str, ...]:
    return tuple(part for part in check.subject.split(" / ") if "=" not in part)


def _texts(point: Point) -> list[tuple[str, object]]:
    return [(name, value) for name, value in point.parameters.items() if not is_size(value)]


def _over(check: Check, alike: Sequence[Check], points: Mapping[str, Point]) -> str:
    """The parameter that the points differ in."""
    if check.unit not in ("", "B"):
        unit = check.unit.removeprefix("B/")
        return next((over for over, step in NAMED_STEPS.items() if step == unit), unit)
    mine = [points[other.point] for other in alike if other.point in points]
    varied = {
        name: len({point.parameters.get(name) for point in mine})
        for point in mine
        for name, value in point.parameters.items()
        if is_size(value)
    }
    most = max(varied, key=lambda name: varied[name], default="")
    return most if varied.get(most, 0) > 1 else ""


def _before(
    check: Check,
    judgement: Judgement,
    sizes: Mapping[str, int],
    read: Mapping[str, int],
) -> Iterator[tuple[int, float]]:
    """The earlier amounts of the same field: of the checks that compare, those that have measured
    what was read.
    """
    fields: dict[str, dict[str, Check]] = {}
    for other in judgement.verdict.checks:
        if (
            other.rule in _COMPARING
            and (other.scenario, other.phase, other.meter)
            == (check.scenario, check.phase, check.meter)
            and other.earlier is not None
            and other.point in sizes
        ):
            fields.setdefault(other.subject.rpartition(" / ")[2], {})[other.point] = other
    for found in fields.values():
        if all(each.measured == read[point] for point, each in found.items()):
            yield from ((sizes[point], each.earlier or 0.0) for point, each in found.items())
            return


def _quantity(check: Check) -> str:
    """What the sentence of the check calls the amount."""
    said = check.sentence.removeprefix(check.subject).lstrip(": ")
    for begin, words in (
        ("grows by", "growth"),
        ("keeps", "retained"),
        ("its peak", "peak"),
        ("peaks", "peak"),
        ("begins", "what it begins with"),
        ("what there is when it begins", "what it begins with"),
        ("what it begins with", "what it begins with"),
        ("ends", "what it ends with"),
        ("what it ends with", "what it ends with"),
    ):
        if said.startswith(begin):
            return words
    return "amount"
