"""Less by one meter is no improvement where the one that counts the same bytes has as many as
before.
"""

import pytest

from harness.commands.accept import accept
from harness.judge import ExitCode, FindingKind
from harness.judge.gate import judge
from harness.judge.policy import parse_policy
from harness.judge.table import load_run
from harness.records import Point
from harness.words import MIB

POLICY = {
    "schema_version": 1,
    "tolerance": [
        {"meter": "host_anon", "percent": 2, "floor": "512 KiB", "because": "chosen"},
        {
            "meter": "host_rss",
            "percent": 1000,
            "floor": "1 GiB",
            "because": "chosen: recorded and never judged",
        },
        {
            "meter": "host_mapped",
            "percent": 1000,
            "floor": "1 GiB",
            "because": "chosen: recorded and never judged",
        },
    ],
}


def write(synthetic_run, edges, **meters):
    """A run of one point whose only phase grows by these bytes, by meter, and keeps them."""
    synthetic_run.points = [
        Point(scenario="own", body="own:body", parameters={}, fixed={}, phases=("use",))
    ]
    synthetic_run.declared = lambda _: {}
    synthetic_run.amounts = lambda point, repeat, phase: {
        meter: edges(100 * MIB, 100 * MIB + more, 100 * MIB + more)
        for meter, more in meters.items()
    }
    return load_run(synthetic_run.write())


@pytest.fixture
def verdict_after(synthetic_run, edges, tmp_path):
    """The verdict of a run with these amounts against an accepted one; ``recorded`` meters are in
    the baseline.
    """

    def verdict_after(before, now, recorded=("host_anon", "host_rss", "host_mapped")):
        policy = parse_policy(
            {
                **POLICY,
                "tolerance": [one for one in POLICY["tolerance"] if one["meter"] in recorded],
            },
            "own.toml",
        )
        accept(
            write(synthetic_run, edges, **before),
            policy,
            tmp_path / "baselines",
            reason="the first truth",
        )
        return judge(write(synthetic_run, edges, **now), policy, tmp_path / "baselines").verdict

    return verdict_after


def test_bytes_that_moved_to_a_mapped_file_are_no_improvement(verdict_after):
    """A buffer of 8 MiB is gone, and the process maps 40 MiB more: said before anybody is asked to
    accept it.
    """
    verdict = verdict_after(
        {"host_anon": 10 * MIB, "host_rss": 13 * MIB, "host_mapped": 3 * MIB},
        {"host_anon": 2 * MIB, "host_rss": 45 * MIB, "host_mapped": 43 * MIB},
    )
    first = verdict.findings[0]

    assert verdict.exit_code is ExitCode.IMPROVEMENT
    assert {check.finding for check in verdict.findings} == {FindingKind.MOVED}
    assert verdict.sentence.startswith(
        "Moved: own / use / host anonymous memory: grows by 2.0 MiB, baseline 10.0 MiB"
    )
    assert (
        "8.0 MiB less, but host resident memory grows by 45.0 MiB, 32.0 MiB more than before"
        in first.sentence
    )
    assert (
        "; host memory of mapped files grows by 43.0 MiB, 40.0 MiB more than before: the "
        "bytes were moved" in first.sentence
    )
    assert "if that is real, accept it" not in first.sentence
    assert "To do: if it is meant, accept it with" in first.sentence
    assert (first.bound, first.measured) == ("lower", 2 * MIB)


@pytest.mark.parametrize(
    ("rss_less", "kind"), [(4 * MIB, FindingKind.IMPROVEMENT), (4 * MIB - 1, FindingKind.MOVED)]
)
def test_what_is_gone_from_both_meters_is_an_improvement(verdict_after, rss_less, kind):
    """Half of it at least, and one byte less."""
    verdict = verdict_after(
        {"host_anon": 10 * MIB, "host_rss": 13 * MIB},
        {"host_anon": 2 * MIB, "host_rss": 13 * MIB - rss_less},
        recorded=("host_anon", "host_rss"),
    )

    assert {check.finding for check in verdict.findings} == {kind}
    assert ("but" in verdict.sentence) is (kind is FindingKind.MOVED)


@pytest.mark.parametrize(
    ("mapped_more", "kind"), [(4 * MIB, FindingKind.MOVED), (4 * MIB - 1, FindingKind.IMPROVEMENT)]
)
def test_a_sum_that_did_not_fall_is_no_evidence_without_what_rose(verdict_after, mapped_more, kind):
    """Resident memory differs from machine to machine; pages of files have to have taken half of
    the bytes at least.
    """
    verdict = verdict_after(
        {"host_anon": 10 * MIB, "host_rss": 13 * MIB, "host_mapped": 3 * MIB},
        {"host_anon": 2 * MIB, "host_rss": 13 * MIB, "host_mapped": 3 * MIB + mapped_more},
    )

    assert {check.finding for check in verdict.findings} == {kind}


def test_what_every_accepted_run_records_is_enough(verdict_after):
    """No tolerance of the policy names the other meters; of these, what is mapped is in every
    baseline.
    """
    verdict = verdict_after(
        {"host_anon": 10 * MIB, "host_rss": 13 * MIB, "host_mapped": 3 * MIB},
        {"host_anon": 2 * MIB, "host_rss": 45 * MIB, "host_mapped": 43 * MIB},
        recorded=("host_anon",),
    )

    assert {check.finding for check in verdict.findings} == {FindingKind.MOVED}


@pytest.mark.parametrize(("mapped", "is_said"), [(4 * MIB, True), (4 * MIB - 1, False)])
def test_where_the_baseline_has_the_one_meter_alone_what_is_mapped_now_is_said(
    verdict_after, mapped, is_said
):
    """Whether the bytes are there now is unknown, and said so; with less than half of them there,
    they cannot be.
    """
    verdict = verdict_after(
        {"host_anon": 10 * MIB},
        {"host_anon": 2 * MIB, "host_mapped": mapped},
        recorded=("host_anon",),
    )

    assert {check.finding for check in verdict.findings} == {FindingKind.IMPROVEMENT}
    assert ("whether the bytes were moved to them is unknown" in verdict.sentence) is is_said
    assert ("if that is real, accept it" in verdict.sentence) is not is_said


def test_without_another_meter_an_improvement_is_one(verdict_after):
    """Nothing is guessed."""
    verdict = verdict_after(
        {"host_anon": 10 * MIB}, {"host_anon": 2 * MIB}, recorded=("host_anon",)
    )

    assert verdict.exit_code is ExitCode.IMPROVEMENT
    assert "8.0 MiB less; if that is real, accept it" in verdict.sentence
