"""Rises from phase to phase: any step, or the least of all, without what the emulated device's
pages explain.
"""

from types import SimpleNamespace

import pytest

from harness.judge.limits import LeakRule
from harness.judge.rules.evidence import judged_together, least_rises
from harness.records import Point

PHASES = ("construct", "epoch_0", "epoch_1", "epoch_2")
POINT = Point(scenario="load", body="b:b", parameters={}, phases=PHASES)


def rule(**changes):
    given = {
        "because": "a test",
        "scenarios": ["load"],
        "phases": PHASES[1:],
        "meters": ["host_anon"],
        "field": "end",
        "at_most": "1 B",
    }
    return LeakRule.model_validate({**given, **changes})


def evidence(ends, peaks=(0, 0, 0, 0), kind="emulated"):
    """What one repeat read: where its phases ended on the host, and the highest marks of its
    device.
    """
    readings = {
        ("load", phase, "host_anon", "end"): {0: end}
        for phase, end in zip(PHASES, ends, strict=True)
    }
    readings |= {
        ("load", phase, "device_in_use", "peak"): {0: peak}
        for phase, peak in zip(PHASES, peaks, strict=True)
    }
    return SimpleNamespace(
        readings=readings,
        run=SimpleNamespace(manifest=SimpleNamespace(device=SimpleNamespace(kind=kind))),
    )


def test_each_step_is_judged_alone_or_all_of_them_together():
    """By the rule's own word."""
    assert judged_together(rule(), POINT) == [[("epoch_0", "epoch_1")], [("epoch_1", "epoch_2")]]
    assert judged_together(rule(every_time=True), POINT) == [
        [("epoch_0", "epoch_1"), ("epoch_1", "epoch_2")]
    ]


@pytest.mark.parametrize(
    ("ends", "least"), [((0, 5, 9, 12), 3), ((0, 5, 9, 9), 0), ((0, 5, 4, 9), -1)]
)
def test_of_all_steps_the_least_one_counts(ends, least):
    """What one epoch keeps and the next does not is no leak."""
    (steps,) = judged_together(rule(every_time=True), POINT)

    assert least_rises(evidence(ends), POINT, "host_anon", rule(every_time=True), steps) == {
        0: least
    }


@pytest.mark.parametrize(("kind", "least"), [("emulated", 1), ("card", 4)])
def test_pages_that_the_emulated_device_has_touched_are_none_of_the_hosts(kind, least):
    """Its highest mark rose by 3 with the second epoch; a card's memory is not the host's."""
    (steps,) = judged_together(rule(every_time=True), POINT)
    found = evidence((0, 5, 9, 13), peaks=(1, 7, 10, 4), kind=kind)

    assert least_rises(found, POINT, "host_anon", rule(every_time=True), steps) == {0: least}


def test_a_repeat_that_lacks_a_phase_has_no_rise():
    """It is for coverage to say."""
    found = evidence((0, 5, 9, 12))
    del found.readings["load", "epoch_2", "host_anon", "end"]
    (steps,) = judged_together(rule(every_time=True), POINT)

    assert least_rises(found, POINT, "host_anon", rule(every_time=True), steps) == {}
