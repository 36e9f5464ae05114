"""How far is the run from the accepted baseline? Two-sided: headroom must not grow unseen either."""

from collections.abc import Iterator

from harness.judge.baseline import BaselinePoint, Recorded, file_name, key_in_words
from harness.judge.policy import Tolerance
from harness.judge.rules.evidence import Evidence, meter_words, point_place, repeats_in_words
from harness.judge.verdict import Check, FindingKind
from harness.records import Point
from harness.units import format_bytes

RULE = "baseline"
_NOUNS = {"growth": "grows by", "retained": "keeps"}


def check_baseline(evidence: Evidence) -> Iterator[Check]:
    """The smallest repeat of every growth and retained amount against the baseline's, beyond percent AND floor.

    Without tolerances in the policy there is nothing to compare, and no check.
    """
    if not evidence.policy.tolerance or not evidence.run.points:
        return
    if evidence.baseline is None:
        yield _no_baseline(evidence)
        return
    for point in evidence.run.points:
        accepted = evidence.baseline.point.get(point.name)
        different = "" if accepted is None else accepted.differs_from(point)
        if accepted is None:
            yield _not_comparable(point, f"the baseline does not have it; {_accept(evidence)}")
        elif different:
            yield _not_comparable(point, f"it is not comparable with the baseline: {different}; {_accept(evidence)}")
        else:
            yield from _check_point(evidence, point, accepted)


def _no_baseline(evidence: Evidence) -> Check:
    key = evidence.run.manifest.comparability
    sentence = (
        f"there is none for {key_in_words(key)} ({evidence.baselines_folder / file_name(key)}); "
        f"look at the run, then {_accept(evidence)}"
    )
    return Check(rule=RULE, subject="baseline", sentence=sentence, finding=FindingKind.NO_BASELINE)


def _accept(evidence: Evidence) -> str:
    return f'accept it with: python -m harness accept {evidence.run.path} --reason "..."'


def _not_comparable(point: Point, sentence: str, phase: str = "", meter: str = "") -> Check:
    subject = point_place(point, *([phase] if phase else []), *([meter_words(meter)] if meter else []))
    return Check(
        rule=RULE,
        subject=subject,
        sentence=f"{subject}: {sentence}",
        finding=FindingKind.NO_BASELINE,
        scenario=point.scenario,
        point=point.name,
        phase=phase,
        meter=meter,
    )


def _check_point(evidence: Evidence, point: Point, accepted: BaselinePoint) -> Iterator[Check]:
    for phase in point.phases:
        for tolerance in evidence.policy.tolerances(point.scenario, phase):
            recorded = accepted.phase.get(phase, {}).get(tolerance.meter)
            for field in ("growth", "retained"):
                amounts = evidence.amounts.get((point.name, phase, tolerance.meter, field))
                if amounts and recorded is not None:
                    yield _check_amount(point, phase, tolerance, field, amounts, recorded)
            measured = (point.name, phase, tolerance.meter, "growth") in evidence.amounts
            if measured and recorded is None:
                gap = f"the baseline has no amount for it; {_accept(evidence)}"
                yield _not_comparable(point, gap, phase, tolerance.meter)


def _check_amount(
    point: Point, phase: str, tolerance: Tolerance, field: str, amounts: tuple[int, ...], recorded: Recorded
) -> Check:
    meter = tolerance.meter
    # What a phase gives back mirrors what others took, and is judged there: giving back less of less is no regression.
    earlier_bytes, smallest_bytes = max(getattr(recorded, f"{field}_bytes"), 0), max(min(amounts), 0)
    allowed_bytes = max(earlier_bytes * tolerance.percent / 100, tolerance.floor)
    change_bytes = smallest_bytes - earlier_bytes
    place = point_place(point, phase, meter_words(meter))
    found = (
        f"{_NOUNS[field]} {format_bytes(smallest_bytes)}, baseline {format_bytes(earlier_bytes)}, "
        f"tolerance {format_bytes(allowed_bytes)} (least of {repeats_in_words(amounts)})"
    )
    finding, sentence = None, f"{found}."
    if change_bytes > allowed_bytes:
        finding, sentence = FindingKind.REGRESSION, f"{found}: {format_bytes(change_bytes)} more."
    elif -change_bytes > allowed_bytes:
        kept = "if that is real, accept it, so that it is kept"
        finding, sentence = FindingKind.IMPROVEMENT, f"{found}: {format_bytes(-change_bytes)} less; {kept}."
    return Check(
        rule=RULE,
        subject=f"{place} / {field}",
        sentence=f"{place}: {sentence}",
        finding=finding,
        scenario=point.scenario,
        point=point.name,
        phase=phase,
        meter=meter,
        measured=float(smallest_bytes),
        limit=earlier_bytes + allowed_bytes if change_bytes >= 0 else earlier_bytes - allowed_bytes,
        unit="B",
        because=tolerance.because,
    )
