"""What the gate said about one sweep, as far as it is compared: exit code, findings, and what a
quorum overruled.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from harness.judge import ExitCode, FindingKind
from scenarios.detector.bugs.registry import Plant


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One finding."""

    kind: str
    rule: str
    subject: str
    phase: str
    meter: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldCause:
    """One cause, as far as it names what was planted."""

    kind: str
    loader: str
    phase: str
    what: str
    checks: int
    """How many findings it explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The gate's word about one run directory."""

    exit_code: int
    findings: tuple[Found, ...]
    causes: tuple[ToldCause, ...] = ()
    """What the findings come from, the gravest first."""
    overruled: tuple[str, ...] = ()
    """Sentences of checks that hold because a quorum of repeats did not confirm single ones."""
    remeasured: int = 0
    """Points that were measured again."""

    @property
    def verdict(self) -> tuple[int, frozenset[tuple[str, str]]]:
        """What has to be the same however a sweep was run."""
        return self.exit_code, frozenset((found.rule, found.subject) for found in self.findings)

    def tells(self, plant: Plant) -> bool:
        """Whether the gate did not pass, and one of its findings is what the plant is.

        That there is no slope, because runs have died, is no answer; that less than a floor or a
        declared amount was seen is one.
        """
        wanted = plant.expected
        if wanted is None:
            return self.exit_code != ExitCode.PASS
        answers = [
            found
            for found in self.findings
            if found.kind != FindingKind.INCOMPLETE or found.rule != "slope"
        ]
        said = any(wanted.matches(found.rule, found.phase, found.meter) for found in answers)
        return said and self.exit_code != ExitCode.PASS

    def names(self, plant: Plant) -> bool:
        """Whether the first cause names the loader and the phase that the plant is in, where that
        is one alone.
        """
        first = next(iter(self.causes), None)
        return (
            first is not None and first.loader == plant.loader and plant.begins in ("", first.phase)
        )

    def sentence_about(self, plant: Plant | None) -> str:
        """The finding that is what the plant is, else the first one; empty where there is none."""
        wanted = None if plant is None else plant.expected
        telling = [
            found
            for found in self.findings
            if wanted and wanted.matches(found.rule, found.phase, found.meter)
        ]
        return next((found.sentence for found in (*telling, *self.findings)), "")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            **asdict(self),
            "findings": [asdict(found) for found in self.findings],
            "causes": [asdict(cause) for cause in self.causes],
            "overruled": list(self.overruled),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_json`` wrote."""
        return cls(
            exit_code=values["exit_code"],
            findings=tuple(Found(**found) for found in values["findings"]),
            causes=tuple(ToldCause(**cause) for cause in values.get("causes", ())),
            overruled=tuple(values["overruled"]),
            remeasured=values["remeasured"],
        )


def seen_in(run_directory: Path, exit_code: int) -> Seen:
    """What the gate wrote into ``run_directory`` when it ended with ``exit_code``. Raises OSError
    where it wrote nothing.
    """
    document = json.loads((run_directory / "findings.json").read_bytes())
    rows = (run_directory / "rows.jsonl").read_text(encoding="utf-8")
    return Seen(
        exit_code=exit_code,
        findings=tuple(
            Found(
                kind=found["finding"],
                rule=found["rule"],
                subject=found["subject"],
                phase=found["phase"],
                meter=found["meter"],
                sentence=found["sentence"],
            )
            for found in document["findings"]
        ),
        causes=tuple(
            ToldCause(
                **{name: cause[name] for name in ("kind", "loader", "phase", "what")},
                checks=len(cause["checks"]),
            )
            for cause in document["causes"]
        ),
        overruled=tuple(
            check["sentence"]
            for check in document["checks"]
            if check["decision"] and not check["finding"] and not check["better"]
        ),
        remeasured=sum(
            json.loads(line).get("kind") == "remeasure" for line in rows.splitlines() if line
        ),
    )
