"""Rules about a pool that was reserved, or that grew on demand: which apply to a run, and what its
findings say.
"""

import dataclasses

import pytest

from harness.errors import PolicyError
from harness.judge import FindingKind
from harness.judge.policy import parse_policy
from tests.harness.conftest import ARRAYS_BYTES_PER_IMAGE, MIB, SyntheticRun, images

QUANTUM = "The pool grew on demand, where a tensor may count as up to twice its bytes"


def of_pool(run: SyntheticRun, pool: str) -> SyntheticRun:
    run.manifest = {"device": {**run.run_json()["device"], "pool": pool}}
    return run


def arithmetic_findings(verdict):
    return [check for check in verdict.findings if check.rule == "arithmetic"]


def with_more_arrays(run, percent):
    return run.plant(
        phase="construct",
        meter="device_in_use",
        loader="eager",
        keep=True,
        extra=lambda point, repeat: ARRAYS_BYTES_PER_IMAGE * images(point) * percent // 100,
    )


@pytest.mark.parametrize(
    ("pool", "percent", "kinds"),
    [
        ("reserved", 1, {FindingKind.REGRESSION}),
        ("driver", 1, {FindingKind.REGRESSION}),
        ("grown", 4, set()),
        ("grown", 6, {FindingKind.REGRESSION}),
    ],
)
def test_arrays_are_held_to_the_byte_where_the_pool_is_reserved_to_a_quarter_image_where_it_grew(
    verdict_of, synthetic_run, pool, percent, kinds
):
    """By the project's own policy; a pool of the CUDA driver's is held to the byte as well."""
    verdict = verdict_of(with_more_arrays(of_pool(synthetic_run, pool), percent))

    assert {check.finding for check in arithmetic_findings(verdict)} == kinds


def test_rules_of_the_other_pool_are_no_gap(verdict_of, synthetic_run):
    """A rule that no point answers to is incomplete, but not one about a pool that the run does not
    have.
    """
    assert verdict_of(of_pool(synthetic_run, "reserved")).findings == ()
    grown = verdict_of(of_pool(SyntheticRun(synthetic_run.path.parent / "grown"), "grown"))

    assert grown.findings == ()
    assert any(check.rule == "arithmetic" for check in grown.checks)


def test_a_finding_about_live_tensors_says_how_coarse_they_are(verdict_of, synthetic_run):
    """Where the pool grew, and where it is about them; a finding about host memory is as it was."""
    for meter in ("device_in_use", "host_anon"):
        synthetic_run.plant(phase="epoch_1", meter=meter, extra=lambda point, repeat: 64 * MIB)
    verdict = verdict_of(of_pool(synthetic_run, "grown"))
    told = {check.meter: QUANTUM in check.sentence for check in verdict.findings if check.meter}

    assert told == {"device_in_use": True, "host_anon": False}
    assert verdict.sentence


def test_without_growth_no_finding_speaks_of_it(verdict_of, synthetic_run):
    """Its readings are exact."""
    run = synthetic_run.plant(
        phase="epoch_1", meter="device_in_use", extra=lambda point, repeat: 64 * MIB
    )
    verdict = verdict_of(of_pool(run, "reserved"))

    assert verdict.findings
    assert not any(QUANTUM in check.sentence for check in verdict.findings)


def rule(pool):
    budget = {
        "scenarios": ["loading"],
        "meters": ["device_in_use"],
        "at_most": "1 MiB",
        "because": "b",
        "pool": pool,
    }
    return {"schema_version": 1, "budget": [budget, {**budget, "pool": "reserved"}]}


def test_a_point_with_a_budget_of_its_own_is_reserved_in_a_run_that_grows(synthetic_run):
    """As the points of oom; the names of the rules stay those of the file."""
    points = synthetic_run.points
    budgeted = [
        dataclasses.replace(point, scenario="loading", device_budget_bytes=256 * MIB)
        for point in points[:1]
    ]
    policy = parse_policy(rule("grown"), "p")
    alone, mixed = (
        policy.for_run(points[1:2], grows=True),
        policy.for_run([*points[1:2], *budgeted], grows=True),
    )

    assert [name for name, _ in alone.rules()] == ["budget rule 1"]
    assert [name for name, _ in mixed.rules()] == ["budget rule 1", "budget rule 2"]
    assert [one.matches(budgeted[0]) for _, one in mixed.rules()] == [False, True]
    assert [name for name, _ in policy.for_run(points, grows=False).rules()] == ["budget rule 2"]


def test_a_pool_that_there_is_not_is_a_mistake():
    """With what it can be."""
    with pytest.raises(PolicyError, match="pool: 'growing' cannot be chosen"):
        parse_policy(rule("growing"), "p")
