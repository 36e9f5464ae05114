"""Noise: what single repeats show is measured again, and half of all runs decide; every decision is
told.
"""

import json
from dataclasses import replace

import pytest

from harness.judge import ExitCode, FindingKind
from harness.judge.gate import findings_text, judge
from harness.judge.rules.evidence import decide
from harness.judge.rules.sentences import decision_in_words
from harness.judge.table import load_run
from harness.records import Outcome, to_json
from harness.remeasure import find_offenders
from harness.rundir.rows import TraceEnd
from harness.words import MIB

NAME = "arrays-lazy-image_count=500"
LAZY_ARRAYS = ["arrays-lazy-image_count=100", NAME, "arrays-lazy-image_count=1000"]


def own(verdict, rule):
    return [check for check in verdict.findings if check.rule == rule]


def plant_in(run, repeats, *, phase="release", extra=2 * MIB, meter="device_in_use", name=NAME):
    """Keep ``extra`` bytes in these repeats of one point."""
    run.plant(
        phase=phase,
        meter=meter,
        keep=True,
        extra=lambda point, repeat: extra if point.name == name and repeat in repeats else 0,
    )


def again(run, policy, baselines, **options):
    """What would be measured again."""
    return find_offenders(run, policy, judge(run, policy, baselines, **options).verdict).points


@pytest.mark.parametrize(
    ("votes", "stands"),
    [
        ([True, True, True, False, False], True),
        ([True, True, False, False, False], False),
        ([True, True, False, False], True),
    ],
    ids=["three of five", "two of five", "a tie is no pass"],
)
def test_half_of_the_runs_decide(votes, stands):
    """With their number, and how many were needed."""
    decision = decide([1.0 if vote else -1.0 for vote in votes], first=True, remeasured=True)
    words = decision_in_words(decision, "are over it")

    assert decision.stands is stands
    assert words.startswith(f"measured again, {sum(votes)} of {len(votes)} runs are over it; ")
    assert words.endswith("confirmed" if stands else "not confirmed, so it counts as noise")


@pytest.mark.parametrize("first", [True, False])
def test_without_further_repeats_the_rule_itself_decides(first):
    """And a quorum makes no finding where the rule made none."""
    assert decide([1, -1], first=first, remeasured=False).stands is first
    assert decide([1, 1], first=False, remeasured=True).stands is False


@pytest.mark.parametrize(
    ("excess", "noise"),
    [
        ([5, 5], False),
        ([5], True),
        ([160, 170], False),
        ([159, 169], True),
        ([1, -1], True),
        ([0, 0], True),
        ([1600, 1610, 1605], False),
    ],
    ids=["alike", "one run", "16 spreads", "less", "one of two", "at the limit", "three runs"],
)
def test_what_all_repeats_show_clearly_is_not_measured_again(excess, noise):
    """Alike to the byte, or 16 times further beyond the limit than they lie apart; one run alone
    shows nothing clearly.
    """
    assert decide(excess, first=True, remeasured=False).may_be_noise is noise
    assert decide(excess, first=False, remeasured=False).may_be_noise is False
    assert decide(excess, first=True, remeasured=True).may_be_noise is False


@pytest.mark.parametrize(("over", "broken"), [({1}, False), ({1, 3}, False), ({1, 3, 4}, True)])
def test_a_budget_that_single_repeats_break(synthetic_run, verdict_of, over, broken):
    """Of five runs three decide; the check that holds because of it says so, with all readings."""
    synthetic_run.further = {NAME: 3}
    plant_in(synthetic_run, over)
    verdict = verdict_of(synthetic_run)
    (check,) = [
        one
        for one in verdict.checks
        if one.rule == "budget" and one.point == NAME and one.phase == "release"
    ]

    assert (check.finding is FindingKind.REGRESSION) is broken
    assert (
        f"measured again, {len(over)} of 5 runs are over it; 3 are needed: "
        f"{'' if broken else 'not '}confirmed" in check.sentence
    )
    assert [one.amount_bytes for one in check.readings] == [
        2 * MIB * (repeat in over) for repeat in range(5)
    ]
    assert verdict.exit_code is (ExitCode.REGRESSION if broken else ExitCode.PASS)
    assert broken or verdict.sentence.endswith(
        "checks hold, 1 of them after a quorum of repeats overruled single ones."
    )


@pytest.mark.parametrize(("over", "broken"), [({0, 1}, False), ({0, 1, 2}, True)])
def test_a_slope_that_single_repeats_have(synthetic_run, verdict_of, over, broken):
    """Each repeat has a line of its own, and a vote; 20 KiB per image in two repeats of five do not
    confirm it.
    """
    synthetic_run.further = dict.fromkeys(LAZY_ARRAYS, 3)
    synthetic_run.plant(
        phase="epoch_1",
        meter="device_in_use",
        extra=lambda point, repeat: (
            20_480 * point.parameters["image_count"]
            if point.name in LAZY_ARRAYS and repeat in over
            else 0
        ),
    )
    checks = [
        one
        for one in verdict_of(synthetic_run).checks
        if one.rule == "slope" and one.scenario == "arrays"
    ]
    (check,) = [one for one in checks if one.subject == "arrays / lazy / epoch_1 / device in use"]

    assert (check.finding is FindingKind.REGRESSION) is broken
    assert len(check.readings) == 15


@pytest.mark.parametrize(("over", "broken"), [({0, 1}, False), ({0, 1, 4}, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_distance_that_single_repeats_have(synthetic_run, verdict_of, over, broken, sign):
    """The median of all runs is compared then; in both directions."""
    synthetic_run.further = {NAME: 3}
    synthetic_run.plant(
        phase="first_batch",
        meter="device_in_use",
        extra=lambda point, repeat: sign * 3 * MIB * (point.name == NAME and repeat in over),
    )
    kind = FindingKind.REGRESSION if sign > 0 else FindingKind.IMPROVEMENT
    found = [
        check
        for check in own(verdict_of(synthetic_run), "baseline")
        if check.subject.endswith("device in use / growth")
    ]

    assert [check.finding for check in found] == ([kind] if broken else [])
    assert all(
        "median of 5 runs" in check.sentence and "3 of 5 runs have" in check.sentence
        for check in found
    )


def test_further_repeats_alone_make_no_distance(synthetic_run, verdict_of):
    """What the planned repeats did not show is no finding of the baseline."""
    synthetic_run.further = {NAME: 3}
    plant_in(synthetic_run, {2, 3, 4}, phase="first_batch", extra=3 * MIB)

    assert not own(verdict_of(synthetic_run), "baseline")


@pytest.mark.parametrize(
    ("dead", "code"), [((1,), ExitCode.PASS), ((1, 2, 3), ExitCode.INCOMPLETE)]
)
def test_one_crash_of_five_is_overruled(synthetic_run, verdict_of, dead, code):
    """Three are not."""
    synthetic_run.further = {NAME: 3}
    for repeat in dead:
        synthetic_run.ends[NAME, repeat] = (Outcome.CRASHED, "killed by SIGBUS", "epoch_0")
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is code
    assert f"{len(dead)} of 5 runs ended other than ok" in " ".join(
        check.decision for check in verdict.checks
    )


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.SKIPPED])
def test_an_error_of_the_body_is_never_noise(synthetic_run, verdict_of, outcome):
    """Nor is what was never started."""
    synthetic_run.further = {NAME: 3}
    synthetic_run.ends[NAME, 1] = (outcome, "ValueError", "epoch_0")

    assert verdict_of(synthetic_run).exit_code is ExitCode.INCOMPLETE


@pytest.mark.parametrize(
    ("outcome", "cause", "code"),
    [
        (Outcome.HOST_OOM, "watchdog", ExitCode.REGRESSION),
        (Outcome.TIMED_OUT, "time-out", ExitCode.REGRESSION),
        (Outcome.HOST_OOM, "machine", ExitCode.INCOMPLETE),
    ],
)
def test_an_end_that_the_harness_made_is_never_noise(
    synthetic_run, policy, baselines, outcome, cause, code
):
    """One of five is enough, and measuring it again settles nothing; that of the machine blames
    nobody.
    """
    synthetic_run.ends[NAME, 1] = (outcome, "the harness killed it: over the limit", "epoch_0")
    synthetic_run.causes[NAME, 1] = cause
    verdict = judge(load_run(synthetic_run.write()), policy, baselines).verdict
    synthetic_run.further = {NAME: 3}
    after = judge(load_run(synthetic_run.write()), policy, baselines).verdict

    assert (verdict.exit_code, after.exit_code) == (code, code)
    assert not any(check.remeasure for check in verdict.findings)
    assert ("end what else fills its memory" in after.sentence) == (cause == "machine")
    assert "noise" not in after.sentence
    assert not after.overruled


# --- who is measured again ---


def test_only_the_points_of_findings_are_measured_again_and_once(synthetic_run, policy, baselines):
    """In the order of the plan, with the first sentence as the reason; after that a quorum has
    decided.
    """
    plant_in(synthetic_run, {1})
    run = load_run(synthetic_run.write())
    (found,) = again(run, policy, baselines)
    synthetic_run.further = {NAME: found.repeats}
    more = load_run(synthetic_run.write())

    assert (found.point, found.repeats) == (NAME, 3)
    assert found.row().to_json() == {
        "kind": "remeasure",
        "point": NAME,
        "repeats": 3,
        "reason": found.reason,
    }
    assert "with 2.0 MiB, limit 1.0 MiB" in found.reason
    assert again(more, policy, baselines) == ()


def test_what_is_alike_in_all_repeats_is_not_measured_again(synthetic_run, policy, baselines):
    """To the byte: that is no noise, and the finding stands."""
    plant_in(synthetic_run, {0, 1})
    run = load_run(synthetic_run.write())

    assert judge(run, policy, baselines).verdict.exit_code is ExitCode.REGRESSION
    assert again(run, policy, baselines) == ()


@pytest.mark.parametrize(("traced_s", "measured"), [(5.0, 6), (4.9, 5)])
def test_measuring_again_takes_no_longer_than_the_run_has(
    synthetic_run, policy, baselines, traced_s, measured
):
    """Six points that take 5 s, three times more each, against twice each and a trace: just as
    long, and a little too long.
    """
    synthetic_run.keep_points(lambda point: point.scenario == "arrays")
    for loader in ("eager", "lazy"):
        synthetic_run.plant(
            phase="release",
            meter="device_in_use",
            loader=loader,
            keep=True,
            extra=lambda point, repeat: 2 * MIB * repeat,
        )
    trace = TraceEnd(
        point="",
        outcome=Outcome.OK,
        cause="",
        reason="none",
        file=None,
        launcher="spawn",
        duration_s=traced_s,
    )
    ends = [
        {"kind": "traced", **to_json(replace(trace, point=point.name))}
        for point in synthetic_run.points
    ]
    run = load_run(synthetic_run.write([*synthetic_run.rows(), *ends]))
    found = find_offenders(run, policy, judge(run, policy, baselines, partial=True).verdict)

    assert len(found.points) == measured
    assert [check.point for check in found.left] == ["arrays-eager-image_count=1000"] * (
        6 - measured
    )


def test_a_slope_has_all_its_points_measured_again(synthetic_run, policy, baselines):
    """And a policy without [remeasure] has none."""
    synthetic_run.plant(
        phase="construct",
        meter="host_anon",
        extra=lambda point, repeat: (2048 + 512 * repeat) * point.parameters["image_count"],
    )
    synthetic_run.keep_points(lambda point: point.scenario == "arrays")
    run = load_run(synthetic_run.write())

    assert [one.point for one in again(run, policy, baselines, partial=True)] == LAZY_ARRAYS
    assert again(run, policy.model_copy(update={"remeasure": None}), baselines, partial=True) == ()


@pytest.mark.parametrize(
    ("outcome", "noise"),
    [
        (Outcome.DEVICE_OOM, True),
        (Outcome.CRASHED, True),
        (Outcome.ERROR, False),
        (Outcome.SKIPPED, False),
    ],
)
def test_ends_that_would_be_the_same_again_are_not_measured_again(
    synthetic_run, policy, baselines, outcome, noise
):
    """An exception of the body is no noise."""
    synthetic_run.ends[NAME, 0] = (outcome, "for a reason", "epoch_0")
    run = load_run(synthetic_run.write())

    assert [one.point for one in again(run, policy, baselines)] == ([NAME] if noise else [])


def test_what_is_missing_is_not_noise(synthetic_run, policy, baselines):
    """Rows that are lost, or a meter that cannot read, are for people to fix."""
    rows = [
        row
        for row in synthetic_run.without_meter("host_anon", "no /proc").rows()
        if row["point"] != NAME
    ]
    run = load_run(synthetic_run.write(rows))
    verdict = judge(run, policy, baselines).verdict

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert find_offenders(run, policy, verdict).points == ()


# --- rows of further repeats ---


def announced(rows, name=NAME):
    return [
        row
        for row in rows
        if row["kind"] == "remeasure" or (row["point"], row.get("repeat")) != (name, 4)
    ]


def test_further_repeats_without_an_announcement_are_refused(synthetic_run, verdict_of):
    """Else anybody could outvote a finding."""
    synthetic_run.further = {NAME: 3}
    rows = [row for row in synthetic_run.rows() if row["kind"] != "remeasure"]
    verdict = verdict_of(synthetic_run, rows=rows)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert f"repeat 2 of {NAME}, but 2 were planned, numbered from 0" in verdict.sentence


def test_an_announced_repeat_that_is_missing_is_incomplete(synthetic_run, verdict_of):
    """It is owed like a planned one."""
    synthetic_run.further = {NAME: 3}
    verdict = verdict_of(synthetic_run, rows=announced(synthetic_run.rows()))

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "arrays / lazy / image_count=500 / repeat 4: it was announced because of a finding "
        "and not measured" in verdict.sentence
    )


def test_an_announcement_may_stand_after_what_it_announces(synthetic_run):
    """Workers write side by side; two of them add up."""
    synthetic_run.further = {NAME: 2}
    rows = synthetic_run.rows()
    rows = [*rows[1:], {**rows[0], "repeats": 1}, {**rows[0], "repeats": 1}]
    run = load_run(synthetic_run.write(rows))

    assert run.problems == ()
    assert (run.repeats_of(NAME), run.repeats_of(LAZY_ARRAYS[0])) == (range(4), range(2))
    assert len(run.ends[run.ends["point"] == NAME]) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repeats": 0}, "announces 0 further repeats"),
        ({"repeats": 100}, ""),
        ({"repeats": 101}, "announces 101 further repeats"),
        ({"reason": " "}, "without a reason"),
        ({"point": "elsewhere"}, "neither planned nor announced"),
        ({"repeats": "3"}, "repeats"),
    ],
)
def test_an_announcement_is_checked(synthetic_run, change, words):
    """One to a hundred repeats, a planned point, a reason."""
    row = {"kind": "remeasure", "point": NAME, "repeats": 1, "reason": "a finding", **change}
    problems = " ".join(load_run(synthetic_run.write([*synthetic_run.rows(), row])).problems)

    assert (words in problems) if words else not problems


def test_every_reading_is_in_findings_json(synthetic_run, policy, baselines):
    """Point, repeat and bytes, beside the decision."""
    synthetic_run.further = {NAME: 3}
    plant_in(synthetic_run, {1})
    run = load_run(synthetic_run.write())
    document = json.loads(findings_text(run, judge(run, policy, baselines)))
    (check,) = [one for one in document["checks"] if one["decision"] and one["rule"] == "budget"]

    assert check["readings"][1] == {"point": NAME, "repeat": 1, "amount_bytes": 2 * MIB}
    assert len(check["readings"]) == 5
