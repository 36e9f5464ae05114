"""Was everything seen that was planned: a gate that saw nothing fails."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.judge.acceptance import accept_words
from harness.judge.advice import LESS_ON_PURPOSE, stopped
from harness.judge.completeness import missing_from_point, missing_from_run
from harness.judge.rules.evidence import (
    Evidence,
    limit_place,
    marker_of,
    meter_words,
    point_place,
    text_in_words,
)
from harness.judge.verdict import Check, FindingKind
from harness.records import LARGEST_GAP_SHARE, LEAST_SAMPLES, Point, Quality
from harness.words import nearest

RULE = "coverage"


def check_coverage(evidence: Evidence) -> Iterator[Check]:
    """The run has a plan and an end, every run its end and phases, every gated meter its readings,
    every rule a subject.
    """
    yield from _run_checks(evidence)
    for point in evidence.run.points:
        for repeat in evidence.run.repeats_of(point.name):
            yield _point_check(evidence, point, repeat)
    yield from _meter_checks(evidence)
    yield from _rule_checks(evidence)
    yield from _baseline_checks(evidence)


def _run_checks(evidence: Evidence) -> Iterator[Check]:
    missing = list(missing_from_run(evidence.run, evidence.commands))
    for sentence in missing:
        yield Check(rule=RULE, subject="run", sentence=sentence, finding=FindingKind.INCOMPLETE)
    if not missing:
        count = len(evidence.run.points)
        planned = f"{count} {'point was' if count == 1 else 'points were'} planned"
        yield Check(
            rule=RULE,
            subject="run",
            sentence=f"{planned}, the run has an end, and every row is usable.",
        )


def _point_check(evidence: Evidence, point: Point, repeat: int) -> Check:
    subject = point_place(point, f"repeat {repeat}")
    missing = list(missing_from_point(evidence.census, point, repeat, evidence.commands))
    sentence = "; ".join(missing) if missing else "it has an end, and every phase that it owes."
    return Check(
        rule=RULE,
        subject=subject,
        sentence=f"{subject}: {sentence}",
        finding=FindingKind.INCOMPLETE if missing else None,
        scenario=point.scenario,
        point=point.name,
    )


def _meter_checks(evidence: Evidence) -> Iterator[Check]:
    """One check for each scenario and gated meter: a meter that is absent is absent everywhere, and
    is said once.
    """
    wanted: dict[tuple[str, str], list[tuple[Point, str]]] = {}
    for point in evidence.run.points:
        for phase in point.phases:
            for meter in evidence.policy.gated_meters(point, phase):
                wanted.setdefault((point.scenario, meter), []).append((point, phase))
    finished = evidence.run.phases[evidence.run.phases["finished"]]
    rows = {
        (row["point"], row["repeat"], row["phase"], row["meter"]): row
        for row in finished.to_dict("records")
    }
    for (scenario, meter), places in wanted.items():
        seen = [
            (point, repeat, phase)
            for point, phase in places
            for repeat in evidence.run.repeats_of(point.name)
            if phase in evidence.census.finished.get((point.name, repeat), ())
        ]
        reasons = [
            (point, phase, _unreadable(rows.get((point.name, repeat, phase, meter))))
            for point, repeat, phase in seen
        ]
        gaps = [
            f"{point_place(point, phase)}: {reason}" for point, phase, reason in reasons if reason
        ]
        if seen:  # else no run finished a phase: coverage of the points, or their outcome, says why
            known = sorted(finished["meter"].dropna().unique())
            yield _meter_check(
                scenario, meter, len(seen), gaps, known=known, doctor=evidence.commands.doctor()
            )


def _unreadable(row: Mapping[Any, Any] | None) -> str:
    """Why a gated reading cannot be judged; empty when it can."""
    if row is None:
        return "no reading of it at all"
    if row["quality"] == Quality.UNAVAILABLE:
        return f"unavailable: {row['reason'] or 'no reason given'}"
    if row["quality"] == Quality.UNRESOLVED:
        return f"unresolved: {row['reason'] or 'no reason given'}"
    # the meter has looked at this itself; a row made by hand has no meter
    if row["quality"] == Quality.SAMPLED:
        samples, gap_s, duration_s = row["samples"], row["largest_gap_s"], row["duration_s"]
        few = not isinstance(samples, int) or samples < LEAST_SAMPLES
        # "not <=" so that a gap that was never recorded, NaN, is no pass.
        if few or not gap_s <= LARGEST_GAP_SHARE * duration_s:
            return (
                f"sampled too coarsely to judge ({samples} samples, largest gap {gap_s} s of "
                f"{duration_s:.3f} s)"
            )
    return ""


def _meter_check(
    scenario: str, meter: str, seen: int, gaps: list[str], *, known: Sequence[str], doctor: str
) -> Check:
    subject = f"{scenario} / {meter_words(meter)}"
    sentence = f"it was read in all {seen} phases."
    if gaps:
        missing = f"it could not be judged in {len(gaps)} of {seen} phases; first {gaps[0]}"
        # Either the name is misspelt, or the meter of that name could not read.
        sentence = f"{missing}. To do: run: {doctor}"
        if known and meter not in known:
            sentence = f"{missing}. To do: name a meter that reads here: {nearest(meter, known)}"
    finding = FindingKind.INCOMPLETE if gaps else None
    return Check(
        rule=RULE,
        subject=subject,
        sentence=f"{subject}: {sentence}",
        finding=finding,
        scenario=scenario,
        meter=meter,
    )


def _rule_checks(evidence: Evidence) -> Iterator[Check]:
    """A rule that no point or no phase answers to would hold for ever."""
    said: set[str] = set()
    for name, rule in evidence.policy.rules():
        points = [point for point in evidence.run.points if rule.matches(point)]
        if not points and not evidence.partial and evidence.run.points:
            where = "".join(
                f", {key} {text_in_words(str(value))}" for key, value in rule.where.items()
            )
            planned = {point.scenario for point in evidence.run.points}
            what = (
                "this run planned no point of "
                f"{' or '.join(rule.scenarios)}{where}{_meant(rule.scenarios, planned)}"
            )
            more = evidence.or_less(rule.because)
            yield from _once(said, evidence, name, rule.because, f"{what}; correct the rule{more}")
        known = {phase for point in points for phase in point.phases}
        strangers = [phase for phase in rule.phases or () if points and phase not in known]
        if strangers and not evidence.partial:
            near = (
                nearest(strangers[0], sorted(known)) if known else "their runs entered none at all"
            )
            what = f"no point that it is about has a phase {strangers[0]}; {near}"
            yield from _once(said, evidence, name, rule.because, what)
    if not evidence.partial and evidence.run.points:
        yield from _tolerance_checks(evidence)


def _tolerance_checks(evidence: Evidence) -> Iterator[Check]:
    """A tolerance for a scenario or a phase that there is not leaves the general one in force,
    unseen.
    """
    phases: dict[str, set[str]] = {}
    for point in evidence.run.points:
        phases.setdefault(point.scenario, set()).update(point.phases)
    for number, tolerance in enumerate(evidence.policy.tolerance, start=1):
        for scenario in tolerance.scenarios or ():
            known = phases.get(scenario, set())
            strangers = [phase for phase in tolerance.phases or () if phase not in known]
            if not known or strangers:
                missing = (
                    f"the phase {strangers[0]} in {scenario}" if known else f"point of {scenario}"
                )
                what = f"this run planned no {missing}"
                yield _unanswered(
                    f"tolerance {number} of {evidence.policy.source}",
                    f"{what}; correct the tolerance{evidence.or_less()}",
                )


def _meant(scenarios: Iterable[str], planned: Iterable[str]) -> str:
    """What a scenario that is not planned may be called now."""
    known = sorted(planned)
    near = next(
        (
            match
            for name in scenarios
            if name not in known
            for match in difflib.get_close_matches(name, known, n=1)
        ),
        "",
    )
    return f" (it planned {near}; was the scenario renamed?)" if near else ""


def _unanswered(place: str, sentence: str) -> Check:
    return Check(
        rule=RULE,
        subject=place,
        sentence=f"{place}: {stopped(sentence)}",
        finding=FindingKind.INCOMPLETE,
    )


def _once(
    said: set[str], evidence: Evidence, name: str, because: str, sentence: str
) -> Iterator[Check]:
    """The check; one for a marker's rule and for that of the host beside it, which has the same
    mistake.
    """
    place = limit_place(evidence.policy, name, because)
    whose = f"{marker_of(because) or place}: {sentence}"
    if whose not in said:
        said.add(whose)
        yield _unanswered(marker_of(because) or place, sentence)


def _baseline_checks(evidence: Evidence) -> Iterator[Check]:
    """What the baseline knows has to be measured again, or a deleted point would pass for a good
    one.
    """
    if (
        evidence.baseline is None
        or evidence.against is not None
        or evidence.partial
        or not evidence.policy.tolerance
    ):
        return
    planned = {point.name: point for point in evidence.run.points}
    strangers = [name for name in planned if name not in evidence.baseline.point]
    for name, accepted in evidence.baseline.point.items():
        point = planned.get(name)
        if point is None:
            yield _lost_point(evidence, name, strangers)
            continue
        lost = [phase for phase in accepted.phase if phase not in point.phases]
        if lost:
            subject = point_place(point)
            renamed = [phase for phase in point.phases if phase not in accepted.phase]
            hint = _renamed(lost[0], renamed)
            sentence = (
                f"{subject}: the baseline has its phase {lost[0]}, but it is no longer "
                f"measured{hint}; measure it, or accept a run"
            )
            yield Check(
                rule=RULE,
                subject=subject,
                sentence=sentence,
                finding=FindingKind.INCOMPLETE,
                scenario=point.scenario,
                point=name,
                phase=lost[0],
            )


def _lost_point(evidence: Evidence, name: str, strangers: list[str]) -> Check:
    gone = accept_words(evidence.commands.accept("--forget-others"))
    sentence = (
        f"{name}: the baseline has this point, but the run did not plan "
        f"it{_renamed(name, strangers)}; measure it, or {LESS_ON_PURPOSE}, or, where the "
        f"point is gone for good, {gone}"
    )
    return Check(
        rule=RULE, subject=name, sentence=sentence, finding=FindingKind.INCOMPLETE, point=name
    )


def _renamed(lost: str, strangers: Iterable[str]) -> str:
    """What it may be called now: the nearest of the names that the baseline does not have."""
    near = difflib.get_close_matches(lost, list(strangers), n=1)
    return f" (was it renamed to {near[0]}, which the baseline does not have?)" if near else ""
