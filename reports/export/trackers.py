"""A run for other people's trackers: tables, Bencher, github-action-benchmark, Prometheus, a badge.

Amounts are whole bytes. Where a phase was measured several times the value is the lower median, and
the least and the most go with it. What was not read, or too coarsely to be judged, is left out:
never 0.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median_low

from harness.judge import FINDINGS
from harness.judge.gate import Judgement
from harness.judge.table import Run
from harness.meters import GATED_METERS
from harness.records import Quality
from harness.words import count, plural

_FIELDS = ("peak", "growth", "retained")
_LONGEST_NAME = 1024
"""Characters that Bencher takes for a benchmark (bencher.dev/docs/reference/bencher-metric-format);
a measure may have 64, and ours are shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Amount:
    """One amount over all repeats, in bytes."""

    scenario: str
    point: str
    phase: str
    meter: str
    field: str
    quality: str
    amounts: tuple[int, ...]

    @property
    def value(self) -> int:
        return median_low(self.amounts)


def _amounts(run: Run, point: str) -> Iterator[_Amount]:
    """What the gated meters read in phases that were finished, in the order of the run."""
    found: dict[tuple[str, str, str, str, str], list[tuple[int, str]]] = {}
    for row in run.rows:
        reading = row.reading
        if reading is None or row.phase is None or not row.finished:
            continue
        if point not in ("", row.point.name) or reading.meter not in GATED_METERS:
            continue
        if reading.quality in (Quality.UNAVAILABLE, Quality.UNRESOLVED):
            continue
        place = (row.point.scenario, row.point.name, row.phase, reading.meter)
        for name in _FIELDS:
            amount = getattr(reading, f"{name}_bytes")
            if amount is not None:
                found.setdefault((*place, name), []).append((amount, str(reading.quality)))
    for (scenario, name, phase, meter, field), amounts in found.items():
        yield _Amount(
            scenario=scenario,
            point=name,
            phase=phase,
            meter=meter,
            field=field,
            quality=" and ".join(sorted({quality for _, quality in amounts})),
            amounts=tuple(amount for amount, _ in amounts),
        )


def csv(run: Run, judgement: Judgement, point: str) -> str:
    """Every reading of every repeat, with the columns of phases.csv."""
    del judgement
    table = run.phases if not point else run.phases[run.phases["point"] == point]
    return table.to_csv(index=False, lineterminator="\n")


def bmf(run: Run, judgement: Judgement, point: str) -> str:
    """Bencher Metric Format: benchmark -> measure -> value, with the least and the most."""
    del judgement
    found: dict[str, dict[str, dict[str, int]]] = {}
    for one in _amounts(run, point):
        benchmark = f"{one.point} / {one.phase}"[:_LONGEST_NAME]
        measure = f"{one.meter}_{one.field}".replace("_", "-")
        found.setdefault(benchmark, {})[measure] = {
            "value": one.value,
            "lower_value": min(one.amounts),
            "upper_value": max(one.amounts),
        }
    return _json(found)


def github_action_benchmark(run: Run, judgement: Judgement, point: str) -> str:
    """A list of peaks, each with name, unit, value, range and extra: the tool divides values of two
    commits, so amounts that may be 0 are left to the others.
    """
    del judgement
    commit = str(run.manifest.environment.get("git_commit") or "not recorded")
    return _json(
        [
            {
                "name": f"{one.point} / {one.phase} / {one.meter} peak",
                "unit": "B",
                "value": one.value,
                "range": f"{min(one.amounts)} to {max(one.amounts)}",
                "extra": f"{one.quality}, {count(len(one.amounts), 'run')}, commit {commit}",
            }
            for one in _amounts(run, point)
            if one.field == "peak"
        ]
    )


# OpenMetrics 1.0 (prometheus.io/docs/specs/om/open_metrics_spec): a family begins with its type,
# unit and help, and the text ends with # EOF.


_HELP = {
    "peak": "Most memory in a phase, by the meter.",
    "growth": "Peak of a phase over its start, by the meter.",
    "retained": "End of a phase over its start, by the meter.",
}


def openmetrics(run: Run, judgement: Judgement, point: str) -> str:
    """Gauges of amounts and findings."""
    return "\n".join([*_openmetrics(run, judgement, point), "# EOF"]) + "\n"


def _openmetrics(run: Run, judgement: Judgement, point: str) -> Iterator[str]:
    amounts = list(_amounts(run, point))
    for field in _FIELDS:
        name = f"memory_phase_{field}_bytes"
        yield f"# TYPE {name} gauge"
        yield f"# UNIT {name} bytes"
        yield f"# HELP {name} {_HELP[field]}"
        for one in amounts:
            if one.field == field:
                labels = {
                    "scenario": one.scenario,
                    "point": one.point,
                    "phase": one.phase,
                    "meter": one.meter,
                    "quality": one.quality,
                }
                yield f"{name}{_labels(labels)} {one.value}"

    kinds = Counter(str(check.finding) for check in judgement.verdict.findings)
    yield "# TYPE memory_gate_findings gauge"
    yield "# HELP memory_gate_findings Checks of the whole run that do not hold."
    yield from (
        f"memory_gate_findings{_labels({'kind': str(kind)})} {kinds[str(kind)]}"
        for kind in FINDINGS
    )
    yield "# TYPE memory_gate_exit_code gauge"
    yield "# HELP memory_gate_exit_code Exit code of the verdict on the whole run."
    yield f"memory_gate_exit_code {int(judgement.verdict.exit_code)}"


_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def _labels(labels: Mapping[str, str]) -> str:
    pairs = (f'{name}="{value.translate(_ESCAPED)}"' for name, value in labels.items())
    return f"{{{','.join(pairs)}}}"


# shields.io/badges/endpoint-badge: schemaVersion, label, message, color.


_COLOURS = {"pass": "brightgreen", "improvement": "blue", "moved": "blue", "no_baseline": "yellow"}
"""By the gravest finding; all others are red. Chosen."""


def badge(run: Run, judgement: Judgement, point: str) -> str:
    """The verdict in two words, and how many checks it is of, whatever the point."""
    del run, point
    verdict = judgement.verdict
    findings = verdict.findings
    checks = len(verdict.checks)
    kind = str(findings[0].finding) if findings else verdict.exit_code.name.lower()
    many = f"{len(findings):,} of {checks:,} {plural(checks, 'check')}" if findings else ""
    return _json(
        {
            "schemaVersion": 1,
            "label": "memory",
            "message": f"{kind.replace('_', ' ')}: {many or count(checks, 'check')}",
            "color": _COLOURS.get(kind, "red"),
        }
    )


def _json(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
