"""What came out: detection and false alarms with their intervals, misses with their sentences, and
the tables of the page.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.words import format_bytes
from scenarios.detector.bugs.registry import PLANTS, Per, Plant, Reach
from scenarios.detector.ledger import CLEAN, Sweep
from scenarios.detector.rates import Rate

MOST_CAUSES = 3
"""Chosen: what somebody who gets a red page by mail reads."""
_METERS = {DEVICE_IN_USE: "device", HOST_ANON: "host"}


@dataclass(frozen=True, slots=True)
class Result:
    """All sweeps of one run of the detector, and how they are counted."""

    sweeps: tuple[Sweep, ...]
    plants: tuple[Plant, ...] = PLANTS

    def of(self, plant: Plant) -> tuple[Sweep, ...]:
        """The sweeps with ``plant`` in them."""
        return tuple(sweep for sweep in self.sweeps if sweep.kind == plant.name)

    def is_found(self, plant: Plant) -> bool:
        """Whether every sweep with it was reported for what it is."""
        own = self.of(plant)
        return bool(own) and all(
            sweep.seen is not None and sweep.seen.tells(plant) for sweep in own
        )

    def tried(self, reach: Reach) -> tuple[Plant, ...]:
        """The plants of that reach that were measured."""
        return tuple(plant for plant in self.plants if plant.reach is reach and self.of(plant))

    def detection(self, reach: Reach = Reach.ABOVE) -> Rate:
        """How many kinds were found, in all ways of running a sweep."""
        tried = self.tried(reach)
        return Rate(sum(map(self.is_found, tried)), len(tried))

    @property
    def clean(self) -> tuple[Sweep, ...]:
        """The sweeps with nothing planted."""
        return tuple(sweep for sweep in self.sweeps if sweep.kind == CLEAN)

    @property
    def false_alarms(self) -> Rate:
        """Clean sweeps that the gate did not pass."""
        return Rate(sum(_alarms(sweep) for sweep in self.clean), len(self.clean))

    def false_alarms_of(self, chosen: str) -> Rate:
        """The same of the sweeps over these points."""
        own = [sweep for sweep in self.clean if sweep.chosen == chosen]
        return Rate(sum(map(_alarms, own)), len(own))

    @property
    def differing(self) -> tuple[tuple[str, str], ...]:
        """Kinds (or clean sweeps) whose verdict depends on how they were run: name, and what
        differs.
        """
        return tuple(_differing(self.sweeps))

    @property
    def misses(self) -> tuple[tuple[Plant, str, str], ...]:
        """Plants above the bar that were not found: the plant, the mode, and what the gate said
        instead.
        """
        return tuple(
            (plant, sweep.mode, _said(sweep, plant))
            for plant in self.tried(Reach.ABOVE)
            for sweep in self.of(plant)
            if sweep.seen is None or not sweep.seen.tells(plant)
        )

    @property
    def alarms(self) -> tuple[tuple[Sweep, str], ...]:
        """Clean sweeps that did not pass, with the first finding."""
        return tuple((sweep, _said(sweep, None)) for sweep in self.clean if _alarms(sweep))

    @property
    def cause_counts(self) -> tuple[int, ...]:
        """Of every sweep with a planted regression above the bar, how many causes were told."""
        return tuple(
            len(sweep.seen.causes)
            for plant in self.tried(Reach.ABOVE)
            for sweep in self.of(plant)
            if sweep.seen is not None
        )

    @property
    def unnamed(self) -> tuple[tuple[Plant, str, str], ...]:
        """Plants above the bar that the first cause does not name: the plant, the mode, and the
        first cause.
        """
        return tuple(
            (plant, sweep.mode, _first_cause(sweep))
            for plant in self.tried(Reach.ABOVE)
            for sweep in self.of(plant)
            if sweep.seen is None or not sweep.seen.names(plant)
        )

    @property
    def named(self) -> Rate:
        """How many kinds the first cause names, in all ways of running a sweep."""
        tried = self.tried(Reach.ABOVE)
        odd = {plant.name for plant, *_ in self.unnamed}
        return Rate(sum(plant.name not in odd for plant in tried), len(tried))

    @property
    def bars(self) -> tuple[tuple[str, bool], ...]:
        """What is promised, and whether it was kept by what was measured."""
        return (
            ("every planted regression above the bar is found", not self.misses),
            ("no clean run is refused", not self.alarms),
            ("the same verdict in every mode", not self.differing),
            (
                f"a planted regression is one cause (median), never more than {MOST_CAUSES}",
                not self.cause_counts
                or (median(self.cause_counts) <= 1 and max(self.cause_counts) <= MOST_CAUSES),
            ),
            ("the first cause names its loader and its phase", not self.unnamed),
        )

    @property
    def holds(self) -> bool:
        """Whether all bars were kept, by at least one sweep."""
        return bool(self.sweeps) and all(kept for _, kept in self.bars)

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "bars": [{"bar": bar, "kept": kept} for bar, kept in self.bars],
            "detection": {str(reach): _rate_json(self.detection(reach)) for reach in Reach},
            "false_alarms": _rate_json(self.false_alarms),
            "false_alarms_by_points": {
                name: _rate_json(self.false_alarms_of(name)) for name in _choices(self.clean)
            },
            "overruled_clean_sweeps": sum(
                bool(sweep.seen and sweep.seen.overruled) for sweep in self.clean
            ),
            "remeasured_clean_sweeps": sum(
                bool(sweep.seen and sweep.seen.remeasured) for sweep in self.clean
            ),
            "misses": [
                {"plant": plant.name, "mode": mode, "said": said}
                for plant, mode, said in self.misses
            ],
            "alarms": [
                {"points": sweep.chosen, "number": sweep.number, "said": said}
                for sweep, said in self.alarms
            ],
            "causes": {
                "of_each_sweep": list(self.cause_counts),
                "named": _rate_json(self.named),
                "unnamed": [
                    {"plant": plant.name, "mode": mode, "first": first}
                    for plant, mode, first in self.unnamed
                ],
            },
            "differing": [{"kind": kind, "what": what} for kind, what in self.differing],
            "plants": [self._plant_json(plant) for plant in self.plants if self.of(plant)],
        }

    def _plant_json(self, plant: Plant) -> dict[str, Any]:
        return {
            "name": plant.name,
            "bug": plant.bug,
            "cost": cost_in_words(plant),
            "reach": str(plant.reach),
            "points": plant.points,
            "found": self.is_found(plant),
            "seen": {
                sweep.mode: None if sweep.seen is None else sweep.seen.to_json()
                for sweep in self.of(plant)
            },
        }

    def figures(self, command: str) -> str:
        """The rates as a Markdown table."""
        above, below = self.detection(), self.detection(Reach.BELOW)
        overruled = sum(bool(sweep.seen and sweep.seen.overruled) for sweep in self.clean)
        rows = [
            (
                "kinds of planted regressions above the bar that are found, in every mode",
                above.in_words,
            ),
            ("kinds below the bar that are found all the same", below.in_words),
            ("kinds above the bar whose first cause names loader and phase", self.named.in_words),
            ("causes that one is told as: median, most", _causes_in_words(self.cause_counts)),
            *(
                (
                    f"clean sweeps of *{chosen}* that are refused",
                    self.false_alarms_of(chosen).in_words,
                )
                for chosen in _choices(self.clean)
            ),
            (
                "clean sweeps that passed because a quorum overruled single runs",
                f"{overruled} of {len(self.clean)}",
            ),
            (
                "kinds whose verdict differs between modes",
                f"{len(self.differing)} of {len({s.kind for s in self.sweeps})}",
            ),
        ]
        lines = [
            f"| `{command}` | measured (95 % interval) |",
            "|---|---|",
            *(f"| {what} | {value} |" for what, value in rows),
        ]
        return "\n".join(lines) + "\n"

    def table(self) -> str:
        """Every plant as a row of Markdown, by reach."""
        lines = ["| planted | cost | found by | causes |", "|---|---|---|---|"]
        for reach in Reach:
            tried = self.tried(reach)
            if tried:
                lines.append(f"| **{reach}** | | | |")
            lines += [
                f"| `{plant.name}`: {plant.bug} | {cost_in_words(plant)} | "
                f"{self._found_by(plant)} | {self._causes_of(plant)} |"
                for plant in tried
            ]
        return "\n".join(lines) + "\n"

    def _causes_of(self, plant: Plant) -> str:
        """How many, in the modes, and whether the first is the plant."""
        own = [sweep for sweep in self.of(plant) if sweep.seen is not None]
        counts = sorted({len(sweep.seen.causes) for sweep in own if sweep.seen is not None})
        number = " to ".join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]]))) or "none"
        odd = next((first for each, _, first in self.unnamed if each is plant), "")
        return f"{number}; first {odd}" if odd else number

    def _found_by(self, plant: Plant) -> str:
        own = self.of(plant)
        seen = next((sweep.seen for sweep in own if sweep.seen is not None), None)
        if seen is None or not seen.findings:
            return "not found"
        wanted = plant.expected
        matching = [
            found
            for found in seen.findings
            if wanted and wanted.matches(found.rule, found.phase, found.meter)
        ]
        best = (matching or list(seen.findings))[0]
        where = ", ".join(filter(None, [best.phase, _METERS.get(best.meter, best.meter)]))
        others = len({(found.rule, found.phase, found.meter) for found in seen.findings}) - 1
        more = f" and {others} more" if others else ""
        return (
            f"{best.rule} ({where}){more}, exit "
            f"{seen.exit_code}{'' if self.is_found(plant) else '; not in every mode'}"
        )


def _causes_in_words(counts: Sequence[int]) -> str:
    return f"{median(counts):g}, {max(counts)}" if counts else "nothing was measured"


def _first_cause(sweep: Sweep) -> str:
    if sweep.seen is None:
        return sweep.failure
    first = next(iter(sweep.seen.causes), None)
    return "no cause" if first is None else f"{first.phase}: {first.what}"


def cost_in_words(plant: Plant) -> str:
    """As in ``"65,536 B per image"``."""
    amount = (
        format_bytes(plant.cost_bytes)
        if abs(plant.cost_bytes) >= 1 << 20
        else f"{plant.cost_bytes:,} B"
    )
    return amount if plant.per is Per.ONCE else f"{amount} per {plant.per}"


def _alarms(sweep: Sweep) -> bool:
    return sweep.seen is None or sweep.seen.exit_code != 0


def _said(sweep: Sweep, plant: Plant | None) -> str:
    if sweep.seen is None:
        return sweep.failure
    return sweep.seen.sentence_about(plant) or f"exit code {sweep.seen.exit_code}, no finding"


def _choices(sweeps: Iterable[Sweep]) -> list[str]:
    return list(dict.fromkeys(sweep.chosen for sweep in sweeps))


def _differing(sweeps: Sequence[Sweep]) -> Iterator[tuple[str, str]]:
    by_name: dict[str, list[Sweep]] = {}
    for sweep in sweeps:
        by_name.setdefault(sweep.name, []).append(sweep)
    for name, own in by_name.items():
        verdicts = {sweep.mode: None if sweep.seen is None else sweep.seen.verdict for sweep in own}
        first, *others = verdicts.values()
        if all(verdict == first and verdict is not None for verdict in others):
            continue
        codes = ", ".join(
            f"{mode} {'no verdict' if verdict is None else verdict[0]}"
            for mode, verdict in verdicts.items()
        )
        sets = [verdict[1] for verdict in verdicts.values() if verdict is not None]
        odd = sorted(set().union(*sets) - frozenset.intersection(*sets)) if sets else []
        more = "".join(f"; not in all: {rule} of {subject}" for rule, subject in odd[:3])
        yield name, f"exit codes {codes}{more}"


def _rate_json(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"count": rate.count, "total": rate.total, "low": low, "high": high}
