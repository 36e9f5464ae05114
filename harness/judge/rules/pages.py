"""The host's readings without the pages of the emulated device, which stay with the process once
they were touched.

Of what a phase begins with and peaks at, that is what the device's highest mark rose by from the
first phase's start until this phase began; of what it ends with, until it ended. So a phase's
growth is as it was read: it has at most the device's own.
"""

from collections.abc import Mapping
from dataclasses import replace

from harness.judge.growth import Fit, GrowthLimits, fit_series
from harness.judge.rules.evidence import TRACED_METER, Evidence
from harness.judge.table import Place
from harness.records import Point

HOST_METER = "host_anon"
_UNTIL_IT_BEGAN = ("start", "peak", "net_start", "net_peak")
_UNTIL_IT_ENDED = ("end", "net_end")
_WITHIN = "retained"
FIELDS = (*_UNTIL_IT_BEGAN, *_UNTIL_IT_ENDED, _WITHIN)


def without_pages(evidence: Evidence) -> Evidence:
    """The same evidence; on an emulated device, what the host read is without the device's pages,
    and so are its fits.
    """
    if evidence.run.manifest.device.kind != "emulated":
        return evidence
    points = {point.name: point for point in evidence.run.points}
    readings = {
        place: _without(evidence, points[place[0]], place, found)
        for place, found in evidence.readings.items()
    }
    fits = {
        key: _refitted(fit, readings) if _has_pages(fit.meter, fit.field) else fit
        for key, fit in evidence.fits.items()
    }
    return replace(evidence, readings=readings, fits=fits)


def highest_marks(evidence: Evidence, point: Point, phase: str, *, at_end: bool) -> dict[int, int]:
    """By repeat: the most that was in use on the device until the phase began, or ended; at least
    what the run began with.
    """
    place = point.phases.index(phase)
    marks = [_device(evidence, point, point.phases[0], "start")]
    marks += [_device(evidence, point, each, "peak") for each in point.phases[: place + at_end]]
    repeats = {repeat for each in marks for repeat in each}
    return {repeat: max(each[repeat] for each in marks if repeat in each) for repeat in repeats}


def _without(
    evidence: Evidence, point: Point, place: Place, found: Mapping[int, int]
) -> Mapping[int, int]:
    _, phase, meter, field = place
    if not _has_pages(meter, field) or phase not in point.phases:
        return found
    first = _device(evidence, point, point.phases[0], "start")
    began = highest_marks(evidence, point, phase, at_end=False)
    ended = highest_marks(evidence, point, phase, at_end=True)
    since, until = (
        (began if field == _WITHIN else first),
        (began if field in _UNTIL_IT_BEGAN else ended),
    )
    # What the device read of a repeat that lacks a reading is unknown: then nothing is taken off.
    return {
        repeat: amount - (until[repeat] - since[repeat] if repeat in first else 0)
        for repeat, amount in found.items()
    }


def _refitted(fit: Fit, readings: Mapping[Place, Mapping[int, int]]) -> Fit:
    amounts = {place: tuple(found.values()) for place, found in readings.items()}
    found = fit_series(fit.series, fit.phase, fit.meter, fit.field, amounts, {}, GrowthLimits())
    return fit if found is None else replace(found, quality=fit.quality)


def _has_pages(meter: str, field: str) -> bool:
    return meter == HOST_METER and field in FIELDS


def _device(evidence: Evidence, point: Point, phase: str, field: str) -> Mapping[int, int]:
    return evidence.readings.get((point.name, phase, TRACED_METER, field), {})
