"""What a run is compared with, for pictures and cards: how far each run of it rose, out of the
baseline or the run of the other code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from harness.errors import HarnessError
from harness.judge import value_digest
from harness.judge.baseline import Baseline, load_against
from harness.judge.baseline_file import holding
from harness.judge.gate import Judgement
from harness.judge.table import Run
from harness.meters import DEVICE_IN_USE, HOST_ANON

_METERS = (DEVICE_IN_USE, HOST_ANON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The other side of the comparison; empty where there is none, or where it is no longer what
    the run was judged by.
    """

    words: str = ""
    """``"at main (e4ecc0f)"``, ``"accepted 2026-11-24 from run s2, and 2 other acceptances"``."""
    rises: Mapping[tuple[str, str], int] = field(default_factory=lambda: MappingProxyType({}))
    """By point and meter, how far a run rose above where its first phase began, in bytes."""
    run: Run | None = None
    """Its run directory; None for a baseline."""


NOTHING_EARLIER = Earlier()


def earlier_of(run: Run, judgement: Judgement) -> Earlier:
    """What the judgement compares the run with, read again from where it lies.

    A baseline that has changed since is left out: the page must not show what nobody judged by.
    """
    try:
        against = load_against(run, judgement.asked.against)
        if against is not None:
            return Earlier(words=against.words, rises=_rises(against.baseline), run=against.run)
        baseline = holding(judgement.asked.baselines, run.manifest.comparability)
    except HarnessError:
        return NOTHING_EARLIER
    if baseline is None or not _is_that_of(judgement, baseline):
        return NOTHING_EARLIER
    return Earlier(words=_accepted(run, baseline), rises=_rises(baseline))


def _is_that_of(judgement: Judgement, baseline: Baseline) -> bool:
    return judgement.sources.get("baseline") == value_digest(baseline.model_dump(mode="json"))


def _accepted(run: Run, baseline: Baseline) -> str:
    mine = [baseline.point[point.name] for point in run.points if point.name in baseline.point]
    found = list(dict.fromkeys(point.accepted.in_words for point in mine))
    if not found:
        return ""
    others = len(found) - 1
    more = f", and {others:,} other {'acceptance' if others == 1 else 'acceptances'}"
    return f"{found[0]}{more if others else ''}"


def _rises(baseline: Baseline) -> dict[tuple[str, str], int]:
    """The highest of what each phase began with and grew by; none where a phase does not say what
    it began with, as files of the first version do not.
    """
    found = {}
    for name, point in baseline.point.items():
        for meter in _METERS:
            recorded = [meters[meter] for meters in point.phase.values() if meter in meters]
            peaks = [
                each.net_start_bytes + each.growth_bytes
                for each in recorded
                if each.net_start_bytes is not None
            ]
            if peaks and len(peaks) == len(recorded):
                found[name, meter] = max(peaks)
    return found
