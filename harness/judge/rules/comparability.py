"""May the run be compared with the baseline at all, and its own runs with each other: device,
allocator, TensorFlow, isolation.
"""

from collections.abc import Iterator, Sequence

from harness.judge.acceptance import accept_words
from harness.judge.advice import stopped
from harness.judge.baseline import (
    Baseline,
    counter_of,
    file_name,
    key_in_words,
    launchers_of,
    sources_of,
)
from harness.judge.completeness import OF_THE_CARD
from harness.judge.nearest import Nearest, nearest_baselines
from harness.judge.rules.evidence import Evidence, meter_words
from harness.judge.verdict import Check, FindingKind
from harness.judge.versions import key_with_evidence

RULE = "comparability"

ISOLATED_METERS = frozenset({"host_rss"})
"""Meters whose amounts depend on how the child was started. Measured with the first batch of
arrays: resident memory grows by 14.4 MiB in a fork and by 7.1 MiB in a fresh interpreter, anonymous
memory by 4.1 MiB in both, the device's to the byte."""


def check_comparability(evidence: Evidence) -> Iterator[Check]:
    """No baseline for the run's key is one finding that says what the nearest one differs in;
    without tolerances, none.
    """
    if not evidence.policy.tolerance or not evidence.run.points:
        return
    if evidence.baseline is None:
        yield _no_baseline(evidence)
    elif evidence.against is None:
        key = key_with_evidence(evidence.baseline, evidence.run.manifest.comparability)
        yield Check(rule=RULE, subject="baseline", sentence=f"baseline: it is for {key}.")
    yield from _sources(evidence)
    yield from _isolation(evidence, evidence.baseline)


def accept_command(evidence: Evidence) -> str:
    """What to do once a run has been looked at."""
    if evidence.against is not None:
        return "measure both codes again, in one run"
    planned = {point.name for point in evidence.run.points}
    others = evidence.baseline is not None and not planned.issuperset(evidence.baseline.point)
    return accept_words(evidence.commands.accept(*(["--keep-others"] if others else [])))


def _no_baseline(evidence: Evidence) -> Check:
    key = evidence.run.manifest.comparability
    nearest = nearest_baselines(evidence.baselines_folder, key)
    sentence = (
        f"there is no baseline for {key_in_words(key)} "
        f"({evidence.baselines_folder / file_name(key)}){_nearest_in_words(nearest)}. To "
        f"do: look at the run, then {accept_command(evidence)}"
    )
    return Check(rule=RULE, subject="baseline", sentence=sentence, finding=FindingKind.NO_BASELINE)


def _nearest_in_words(nearest: Sequence[Nearest]) -> str:
    if not nearest:
        return "; the folder holds none at all"
    first = nearest[0]
    if first.differences:
        return (
            f"; the nearest, {first.path.name}, is not comparable: {'; '.join(first.differences)}"
        )
    return f"; {first.path.name} is for the same under another name: rename it back"


def _sources(evidence: Evidence) -> Iterator[Check]:
    """Counters of one meter that must not be compared: within the run, and with what was
    accepted.
    """
    gated = {tolerance.meter for tolerance in evidence.policy.tolerance}
    gated.update(meter for _, rule in evidence.policy.rules() for meter in rule.meters)
    by_meter: dict[str, set[str]] = {}
    for (point, meter), found in sources_of(evidence.run.phases).items():
        if meter in gated:
            sources = sorted({counter_of(source) for source in found})
            by_meter.setdefault(meter, set()).update(sources)
            accepted = None if evidence.baseline is None else evidence.baseline.point.get(point)
            then = (
                {
                    counter_of(own[meter].source or "")
                    for own in accepted.phase.values()
                    if meter in own
                }
                if accepted
                else set()
            )
            if len(sources) == 1 and then - {"", *sources}:
                was = ", ".join(sorted(then))
                words = (
                    f"{point}: {meter_words(meter)} was accepted from {was} and is read from "
                    f"{sources[0]}, which count differently"
                )
                yield _not_comparable(
                    point,
                    meter,
                    f"{words}. To do: {accept_command(evidence)}",
                    FindingKind.NO_BASELINE,
                )
    for meter, all_sources in by_meter.items():
        # of that one completeness says so, gated or not
        if len(all_sources) > 1 and meter != OF_THE_CARD:
            words = (
                f"{meter_words(meter)} was read from {' and '.join(sorted(all_sources))}, which "
                "count differently"
            )
            yield _not_comparable(
                "", meter, f"{words}. To do: measure again with one driver", FindingKind.INCOMPLETE
            )


def _isolation(evidence: Evidence, baseline: Baseline | None) -> Iterator[Check]:
    """Only where a gated meter depends on how children were started."""
    gated = {tolerance.meter for tolerance in evidence.policy.tolerance} & ISOLATED_METERS
    gated.update(
        meter
        for _, rule in evidence.policy.rules()
        for meter in rule.meters
        if meter in ISOLATED_METERS
    )
    now = launchers_of(evidence.run)
    for meter in sorted(gated):
        if ", " in now:
            words = (
                f"{meter_words(meter)} depends on how children start, and those of this run "
                f"were started by {now}"
            )
            yield _not_comparable(
                "",
                meter,
                f"{words}. To do: measure again with --memory-isolation spawn",
                FindingKind.INCOMPLETE,
            )
            continue
        then = {
            point.accepted.isolation
            for point in (baseline.point.values() if baseline else ())
            if any(meter in meters for meters in point.phase.values())
        }
        if then - {now}:
            words = (
                f"{meter_words(meter)} was accepted from children started by "
                f"{', '.join(sorted(then))}, and now by {now}"
            )
            yield _not_comparable(
                "", meter, f"{words}. To do: {accept_command(evidence)}", FindingKind.NO_BASELINE
            )


def _not_comparable(point: str, meter: str, sentence: str, finding: FindingKind) -> Check:
    subject = " / ".join(part for part in (point, meter_words(meter)) if part)
    return Check(
        rule=RULE,
        subject=subject,
        sentence=stopped(sentence),
        finding=finding,
        point=point,
        meter=meter,
    )
