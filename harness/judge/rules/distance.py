"""How far is the run from the accepted baseline? Two-sided: headroom must not grow unseen
either.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median_high, median_low

from harness.judge.advice import stopped
from harness.judge.attribution import as_multiple
from harness.judge.baseline import BaselinePoint, Recorded, launchers_of
from harness.judge.limits import Tolerance
from harness.judge.rules.comparability import accept_command
from harness.judge.rules.evidence import (
    Evidence,
    decide,
    point_place,
    runs_in_words,
    seen,
)
from harness.judge.rules.sentences import amount_in_words
from harness.judge.verdict import Bound, Check, FindingKind
from harness.meters import HOST_ANON, HOST_MAPPED, HOST_RSS, meter_words
from harness.records import Point
from harness.units import format_bytes

# Less by one meter and not by another that counts the same bytes: they were moved, and nothing
# became better.


_COUNTED_AS_WELL: Mapping[str, str] = {HOST_ANON: HOST_RSS}
"""The meter that holds every byte of another one and more: less of these has to show there as
well."""
_ELSEWHERE: Mapping[str, str] = {HOST_ANON: HOST_MAPPED}
"""The rest of it, which has no limit: pages of files, which the kernel can drop."""
_LEAST_SHARE = 0.5
"""Chosen: what became less is gone where half of it at least is gone from the other meter, whose
readings are coarser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What another meter says of bytes that became less."""

    words: str
    """A clause that begins with ``but``."""
    known: bool
    """Whether the other meter was compared; else it is only possible that the bytes are there
    now."""


def moved(
    evidence: Evidence,
    point: Point,
    phase: str,
    meter: str,
    field: str,
    less_bytes: float,
    accepted: BaselinePoint,
) -> Moved | None:
    """Whether bytes that a meter has less of are counted by another one still; None where they are
    gone, or no meter tells.
    """
    changes = dict(_changes(evidence, point, phase, meter, field, accepted))
    whole, rest = (
        changes.get(_COUNTED_AS_WELL.get(meter, "")),
        changes.get(_ELSEWHERE.get(meter, "")),
    )
    if whole is not None or rest is not None:
        # The sum alone is coarse; where what it is made of is known as well, that has to have
        # risen.
        is_whole = whole is None or whole[1] > -_LEAST_SHARE * less_bytes
        if not is_whole or (rest is not None and rest[1] < _LEAST_SHARE * less_bytes):
            return None
        told = "; ".join(
            f"{meter_words(name)} {amount_in_words(field, now)}, {_change(by)}"
            for name, (now, by) in changes.items()
        )
        return Moved(
            words=f"but {told}: the bytes were moved to where no limit counts them", known=True
        )
    elsewhere = _ELSEWHERE.get(meter, "")
    now = _least(evidence, point, phase, elsewhere, field)
    if now is None or now < _LEAST_SHARE * less_bytes:
        return None
    words = (
        f"but {meter_words(elsewhere)}, which no limit counts and the baseline does not have, "
        f"{amount_in_words(field, now)} there"
    )
    return Moved(words=f"{words}: whether the bytes were moved to them is unknown", known=False)


def _changes(
    evidence: Evidence, point: Point, phase: str, meter: str, field: str, accepted: BaselinePoint
) -> Iterator[tuple[str, tuple[int, int]]]:
    """What the other meters have now, and by how much that is more than before, as far as both can
    be compared.
    """
    # Resident memory depends on how a child was started (comparability.ISOLATED_METERS).
    if accepted.accepted.isolation != launchers_of(evidence.run):
        return
    for other in (_COUNTED_AS_WELL.get(meter, ""), _ELSEWHERE.get(meter, "")):
        now = _least(evidence, point, phase, other, field)
        recorded = accepted.phase.get(phase, {}).get(other)
        then = getattr(recorded, f"{field}_bytes", None)
        if now is not None and then is not None:
            yield other, (now, now - then)


def _least(evidence: Evidence, point: Point, phase: str, meter: str, field: str) -> int | None:
    return min(evidence.readings.get((point.name, phase, meter, field), {}).values(), default=None)


def _change(by_bytes: int) -> str:
    if by_bytes == 0:
        return "as before"
    return f"{format_bytes(abs(by_bytes))} {'more' if by_bytes > 0 else 'less'} than before"


RULE = "baseline"


def check_baseline(evidence: Evidence) -> Iterator[Check]:
    """The smallest repeat of every growth and retained amount against the baseline's, beyond
    percent AND floor.

    Of points that were measured again, at least half of all repeats have to be beyond them. Without
    tolerances in the policy there is nothing to compare, and no check; without a baseline,
    comparability says so.
    """
    if not evidence.policy.tolerance or not evidence.run.points:
        return
    if evidence.baseline is None:
        return
    for point in evidence.run.points:
        accepted = evidence.baseline.point.get(point.name)
        different = "" if accepted is None else accepted.differs_from(point)
        if accepted is None and evidence.against is not None:
            continue  # the rule about the other side says why it has none
        if accepted is None:
            yield _not_comparable(
                point, f"the baseline does not have it; {accept_command(evidence)}"
            )
        elif different:
            yield _not_comparable(
                point,
                f"it is not comparable with the baseline: {different}; {accept_command(evidence)}",
            )
        else:
            yield from _check_point(evidence, point, accepted)


def _not_comparable(point: Point, sentence: str, phase: str = "", meter: str = "") -> Check:
    subject = point_place(
        point, *([phase] if phase else []), *([meter_words(meter)] if meter else [])
    )
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
            for field in tolerance.fields:
                readings = evidence.readings.get((point.name, phase, tolerance.meter, field))
                if not readings:
                    continue
                if recorded is None or getattr(recorded, f"{field}_bytes") is None:
                    yield _no_amount(evidence, point, phase, tolerance.meter, recorded)
                    break  # said once for all fields
                yield _check_amount(
                    evidence, point, phase, tolerance, field, readings, recorded, accepted
                )


def _no_amount(
    evidence: Evidence, point: Point, phase: str, meter: str, recorded: Recorded | None
) -> Check:
    if evidence.against is None:
        lacks = (
            "has no amount for it"
            if recorded is None
            else "was accepted before it kept what there is when a phase begins"
        )
        return _not_comparable(
            point, f"the baseline {lacks}; {accept_command(evidence)}", phase, meter
        )
    absent = _not_comparable(
        point, f"{evidence.against.words} it was not read; {accept_command(evidence)}", phase, meter
    )
    return dataclasses.replace(absent, finding=FindingKind.INCOMPLETE)


def _check_amount(
    evidence: Evidence,
    point: Point,
    phase: str,
    tolerance: Tolerance,
    field: str,
    readings: Mapping[int, int],
    recorded: Recorded,
    accepted: BaselinePoint,
) -> Check:
    meter, acceptance = tolerance.meter, accepted.accepted
    # What a phase gives back mirrors what others took, and is judged there: giving back less of
    # less is no regression.
    taken = {repeat: max(amount, 0) for repeat, amount in readings.items()}
    amounts = tuple(taken.values())
    earlier_bytes = max(getattr(recorded, f"{field}_bytes"), 0)
    allowed_bytes = max(earlier_bytes * tolerance.percent / 100, tolerance.floor)
    least_bytes = min(
        [
            amount
            for repeat, amount in taken.items()
            if repeat < evidence.run.first_repeats_of(point.name)
        ]
        or amounts
    )
    worse = least_bytes >= earlier_bytes
    distance = [(amount - earlier_bytes) * (1 if worse else -1) for amount in amounts]
    decision = decide(
        [bytes_away - allowed_bytes for bytes_away in distance],
        first=abs(least_bytes - earlier_bytes) > allowed_bytes,
        remeasured=evidence.was_remeasured(point.name),
        shown=f"have {'more' if worse else 'less'} than the tolerance allows",
    )
    which, shown_bytes = "least", least_bytes
    if decision.words:
        # The middle one, on the side that half of the runs decide for.
        which, shown_bytes = "median", (median_high if worse else median_low)(amounts)
    change_bytes = shown_bytes - earlier_bytes
    place = point_place(point, phase, meter_words(meter))
    against = evidence.against
    earlier = f"baseline {format_bytes(earlier_bytes)} ({acceptance.in_words})"
    if against is not None:
        earlier = f"{against.words} {format_bytes(earlier_bytes)}"
    found = (
        f"{amount_in_words(field, shown_bytes)}, {earlier}, "
        f"tolerance {format_bytes(allowed_bytes)} ({which} of {runs_in_words(amounts)})"
    )
    # The limit on the side of the change; where less than nothing would be allowed there is none on
    # that side.
    upper = change_bytes >= 0 or earlier_bytes < allowed_bytes
    bound: Bound = "upper" if upper else "lower"
    limit = earlier_bytes + allowed_bytes if upper else earlier_bytes - allowed_bytes
    words = f"; {decision.words}" if decision.words else ""
    finding, sentence = None, f"{found}{words}."
    other = None
    if decision.stands and not worse:
        other = moved(evidence, point, phase, meter, field, -change_bytes, accepted)
    elsewhere = "" if other is None else f", {other.words}"
    if decision.stands and worse:
        like = as_multiple(
            change_bytes,
            {name: float(amount) for name, amount in evidence.declared_by(point).items()},
        )
        finding = FindingKind.REGRESSION
        changed_in = (
            f"in the phases before {phase}, or between them,"
            if field == "net_start"
            else f"in {phase}"
        )
        to_do = (
            f"find what changed {changed_in} since then; if it is meant, {accept_command(evidence)}"
        )
        if against is not None:
            to_do = (
                f"{against.to_do} for what {phase} does now; if it is meant, say so where the "
                "change is reviewed"
            )
        sentence = (
            f"{found}: {format_bytes(change_bytes)} "
            f"more{f', as large as {like}' if like else ''}{words}. To do: {to_do}"
        )
    elif decision.stands and against is not None:
        # The next comparison starts from here whatever anybody does, so that no headroom grows
        # unseen.
        sentence = f"{found}: {format_bytes(-change_bytes)} less{elsewhere}{words}."
    elif decision.stands:
        finding = FindingKind.IMPROVEMENT if other is None or not other.known else FindingKind.MOVED
        kept = "if that is real, accept it, so that it is kept"
        to_do = accept_command(evidence)
        if other is not None:
            kept = (
                f"find what {phase} does instead (reads through a map of a file, say) before "
                "you accept it as what it takes"
            )
            to_do = f"if it is meant, {to_do}"
        sentence = (
            f"{found}: {format_bytes(-change_bytes)} less{elsewhere}{words}; {kept}. To do: {to_do}"
        )
    return Check(
        rule=RULE,
        subject=f"{place} / {field}",
        sentence=stopped(f"{place}: {sentence}"),
        finding=finding,
        scenario=point.scenario,
        point=point.name,
        phase=phase,
        meter=meter,
        measured=float(shown_bytes),
        limit=limit,
        bound=bound,
        earlier=float(earlier_bytes),
        earlier_from=acceptance.in_words if against is None else against.words,
        unit="B",
        because=tolerance.because,
        points=(point.name,),
        readings=seen(point, readings),
        decision=decision.words,
        better=decision.stands and finding is None,
        remeasure=finding is not None and decision.may_be_noise,
    )
