"""Less by one meter and not by another that counts the same bytes: they were moved, and nothing
became better.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.judge.baseline import BaselinePoint, launchers_of
from harness.judge.rules.evidence import Evidence, meter_words
from harness.judge.rules.sentences import amount_in_words
from harness.records import Point
from harness.units import format_bytes

_COUNTED_AS_WELL: Mapping[str, str] = {"host_anon": "host_rss"}
"""The meter that holds every byte of another one and more: less of these has to show there as
well."""
_ELSEWHERE: Mapping[str, str] = {"host_anon": "host_mapped"}
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
