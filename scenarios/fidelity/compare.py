"""Runs of the same points on different devices -> one row for each amount, with its difference from the emulated device."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError
from harness.judge.manifest import Manifest
from harness.judge.table import Run, amounts_by_place, declared_by_point
from harness.judge.traces import ALLOCATOR_METER, Trace, read_traces
from harness.records import Point
from scenarios.fidelity.explain import Part, Traced, explain

FIELDS = ("growth", "retained")
_PRETENDED = "Pretended"
"""How the name of a pretended card begins."""


class Kind(StrEnum):
    """What a run was measured on."""

    EMULATED = "emulated"
    PRETENDED = "pretended"
    REAL = "real"


CARDS = (Kind.PRETENDED, Kind.REAL)


@dataclass(frozen=True, slots=True)
class Side:
    """One run, with what is asked of it."""

    kind: Kind
    run: Run
    amounts: Mapping[tuple[str, str, str, str], tuple[int, ...]]
    declared: Mapping[str, Mapping[str, int]]
    traces: Mapping[str, Trace]

    @classmethod
    def of(cls, run: Run) -> "Side":
        """A run as one side."""
        amounts, declared = amounts_by_place(run.phases), declared_by_point(run.phases)
        return cls(kind_of(run.manifest), run, amounts, declared, read_traces(run).found)

    def least(self, point: str, phase: str, field: str) -> int | None:
        """The smallest of the repeats, bytes; None where no repeat finished the phase with a reading."""
        found = self.amounts.get((point, phase, ALLOCATOR_METER, field))
        return min(found) if found else None

    def traced(self, point: str, phase: str) -> Traced | None:
        """The phase in the point's trace, where there is one."""
        trace = self.traces.get(point)
        found = next((found for found in trace.phases if found.phase == phase), None) if trace else None
        return Traced(found, trace.base_bytes) if trace and found else None

    def ended(self, point: str) -> str:
        """Why there is no amount: how the point ended, or that it was not measured."""
        ends = self.run.ends[self.run.ends["point"] == point]
        if ends.empty:
            return "not measured"
        outcome, phase = ends.iloc[0]["outcome"], ends.iloc[0]["phase"]
        return str(outcome) if not isinstance(phase, str) else f"{outcome} in {phase}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A card beside the emulated device: card less emulated, and what it is made of."""

    amount_bytes: int
    parts: tuple[Part, ...]

    @property
    def unexplained_bytes(self) -> int:
        """What no part explains."""
        return self.amount_bytes - sum(part.amount_bytes for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One amount of one phase on all devices; None where there is none, with the reason."""

    scenario: str
    point: str
    phase: str
    field: str
    amounts: Mapping[Kind, int | None]
    reasons: Mapping[Kind, str]
    differences: Mapping[Kind, Difference]


def kind_of(manifest: Manifest) -> Kind:
    """What a run was measured on, by its run.json."""
    if manifest.device.kind == "emulated":
        return Kind.EMULATED
    return Kind.PRETENDED if manifest.device.name.startswith(_PRETENDED) else Kind.REAL


def sides_of(runs: Sequence[Run]) -> dict[Kind, Side]:
    """The runs by what they were measured on. Raises UsageError without an emulated one, or with two of a kind."""
    sides: dict[Kind, Side] = {}
    for run in runs:
        side = Side.of(run)
        if side.kind in sides:
            raise UsageError(
                f"{sides[side.kind].run.path} and {run.path} were both measured on {_AN[side.kind]} "
                f"({run.manifest.device.name}); give one run of each"
            )
        sides[side.kind] = side
    if Kind.EMULATED not in sides:
        raise UsageError("no run on the emulated device was given, which the others are compared with; measure one: --device cpu")
    return {kind: sides[kind] for kind in Kind if kind in sides}


_AN = {Kind.EMULATED: "the emulated device", Kind.PRETENDED: "a pretended card", Kind.REAL: "a real card"}


def rows_of(sides: Mapping[Kind, Side]) -> tuple[Row, ...]:
    """Every amount of every point that any of the runs has planned, in the order of the first run that has."""
    points = {point.name: point for side in sides.values() for point in side.run.points}
    return tuple(row for point in points.values() for row in _of_point(point, sides))


def _of_point(point: Point, sides: Mapping[Kind, Side]) -> Iterator[Row]:
    for phase in point.phases:
        for field in FIELDS:
            amounts = {kind: side.least(point.name, phase, field) for kind, side in sides.items()}
            yield Row(
                scenario=point.scenario,
                point=point.name,
                phase=phase,
                field=field,
                amounts=amounts,
                reasons={kind: sides[kind].ended(point.name) for kind, amount in amounts.items() if amount is None},
                differences=_differences(point.name, phase, field, sides, amounts),
            )


def _differences(
    point: str, phase: str, field: str, sides: Mapping[Kind, Side], amounts: Mapping[Kind, int | None]
) -> dict[Kind, Difference]:
    emulated, found = amounts[Kind.EMULATED], {}
    for kind in CARDS:
        amount = amounts.get(kind)
        if amount is None or emulated is None:
            continue
        declared = sides[kind].declared.get(point, {})
        here, there = sides[Kind.EMULATED].traced(point, phase), sides[kind].traced(point, phase)
        parts = explain(amount - emulated, field, declared, here, there)
        found[kind] = Difference(amount_bytes=amount - emulated, parts=parts)
    return found
