"""Runs of the same points on different devices -> one row for each amount, with its difference from
the emulated device.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError
from harness.judge.completeness import read_traces
from harness.judge.table import Run, amounts_by_place, declared_by_point
from harness.meters import DEVICE_IN_USE
from harness.records import Point
from harness.rundir.manifest import Manifest
from harness.rundir.traces import Trace
from scenarios.fidelity.explain import Amounts, Part, explain

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
        amounts, declared = amounts_by_place(run), declared_by_point(run)
        return cls(kind_of(run.manifest), run, amounts, declared, read_traces(run).found)

    def least(self, point: str, phase: str, field: str) -> int | None:
        """The smallest of the repeats, bytes; None where no repeat finished the phase with a
        reading.
        """
        found = self.amounts.get((point, phase, DEVICE_IN_USE, field))
        return min(found) if found else None

    def amounts_of(
        self, point: str, phase: str, field: str, before: Sequence[str]
    ) -> Amounts | None:
        """What is compared, and what explains it; ``before`` are the phases before this one. None
        without an amount.
        """
        repeats_bytes = self.amounts.get((point, phase, DEVICE_IN_USE, field))
        if not repeats_bytes:
            return None
        trace = self.traces.get(point)
        traced = (
            next((found for found in trace.phases if found.phase == phase), None) if trace else None
        )
        kept_bytes = sum(self.least(point, earlier, "retained") or 0 for earlier in before)
        return Amounts(repeats_bytes, kept_bytes, trace, traced)

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
        return self.amount_bytes - sum(part.amount_bytes for part in self.parts if part.explains)


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
    """The runs by what they were measured on. Raises UsageError without an emulated one, or with
    two of a kind.
    """
    sides: dict[Kind, Side] = {}
    for run in runs:
        side = Side.of(run)
        if side.kind in sides:
            raise UsageError(
                f"{sides[side.kind].run.path} and {run.path} were both measured on "
                f"{_AN[side.kind]} ({run.manifest.device.name}); give one run of each"
            )
        sides[side.kind] = side
    if Kind.EMULATED not in sides:
        raise UsageError(
            "no run on the emulated device was given, which the others are compared with; "
            "measure one: --device cpu"
        )
    return {kind: sides[kind] for kind in Kind if kind in sides}


_AN = {
    Kind.EMULATED: "the emulated device",
    Kind.PRETENDED: "a pretended card",
    Kind.REAL: "a real card",
}


def rows_of(sides: Mapping[Kind, Side]) -> tuple[Row, ...]:
    """Every amount of every point that any of the runs has planned, in the order of the first run
    that has.
    """
    points = {point.name: point for side in sides.values() for point in side.run.points}
    return tuple(row for point in points.values() for row in _of_point(point, sides))


def _of_point(point: Point, sides: Mapping[Kind, Side]) -> Iterator[Row]:
    for number, phase in enumerate(point.phases):
        for field in FIELDS:
            found = {
                kind: side.amounts_of(point.name, phase, field, point.phases[:number])
                for kind, side in sides.items()
            }
            yield Row(
                scenario=point.scenario,
                point=point.name,
                phase=phase,
                field=field,
                amounts={
                    kind: amounts.least_bytes if amounts else None
                    for kind, amounts in found.items()
                },
                reasons={
                    kind: sides[kind].ended(point.name)
                    for kind, amounts in found.items()
                    if amounts is None
                },
                differences=_differences(
                    field, sides[Kind.EMULATED].declared.get(point.name, {}), found
                ),
            )


def _differences(
    field: str, declared: Mapping[str, int], found: Mapping[Kind, Amounts | None]
) -> dict[Kind, Difference]:
    emulated, differences = found[Kind.EMULATED], {}
    for kind in CARDS:
        card = found.get(kind)
        if card is not None and emulated is not None:
            parts = explain(field, declared, emulated, card)
            differences[kind] = Difference(
                amount_bytes=card.least_bytes - emulated.least_bytes, parts=parts
            )
    return differences
