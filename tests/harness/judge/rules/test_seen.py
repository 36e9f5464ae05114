"""Budgets, outcomes and coverage under the project's own policy: what was seen, what was not, and
what is too much.
"""

from dataclasses import replace

import pytest

from harness.errors import BaselineError
from harness.judge import ExitCode, FindingKind
from harness.judge.baseline import from_run
from harness.judge.gate import judge
from harness.judge.table import load_run
from harness.records import Outcome

KIB, MIB = 1024, 1024 * 1024
BATCH_BYTES = 4 * MIB


def own(verdict, rule):
    return [check for check in verdict.findings if check.rule == rule]


# --- budgets ---


@pytest.mark.parametrize(
    ("excess_bytes", "broken"), [(2 * BATCH_BYTES, False), (2 * BATCH_BYTES + 1, True)]
)
def test_an_epoch_may_peak_at_four_batches(synthetic_run, verdict_of, excess_bytes, broken):
    """The good run peaks at two; two more are the limit. One repeat over it is enough."""
    synthetic_run.plant(
        phase="epoch_0", meter="device_in_use", extra=lambda point, repeat: excess_bytes * repeat
    )
    findings = own(verdict_of(synthetic_run), "budget")

    assert bool(findings) is broken
    assert all(
        check.finding is FindingKind.REGRESSION and "limit 4 batches (16.0 MiB)" in check.sentence
        for check in findings
    )


@pytest.mark.parametrize(
    ("missing_bytes", "broken"), [(BATCH_BYTES, False), (BATCH_BYTES + 1, True)]
)
def test_an_epoch_under_one_batch_was_not_seen(synthetic_run, verdict_of, missing_bytes, broken):
    """Not frugal, but aliased: incomplete, in every repeat that shows it."""
    synthetic_run.plant(
        phase="epoch_1", meter="device_in_use", extra=lambda point, repeat: -missing_bytes * repeat
    )
    findings = own(verdict_of(synthetic_run), "floor")

    assert bool(findings) is broken
    assert all(
        check.finding is FindingKind.INCOMPLETE and "did not see" in check.sentence
        for check in findings
    )


@pytest.mark.parametrize(("held_bytes", "broken"), [(MIB, False), (MIB + 1, True)])
def test_what_may_be_left_after_release(synthetic_run, verdict_of, held_bytes, broken):
    """1 MiB of constants, for either loader."""
    synthetic_run.plant(
        phase="release",
        meter="device_in_use",
        loader="eager",
        extra=lambda point, repeat: held_bytes,
        keep=True,
    )

    assert bool(own(verdict_of(synthetic_run), "budget")) is broken


def raised(run, base_bytes):
    """The run on top of what was there before its first phase, which every reading of the device
    has beneath it.
    """
    good = run.amounts

    def amounts(point, repeat, phase):
        found = dict(good(point, repeat, phase))
        device = found["device_in_use"]
        found["device_in_use"] = replace(
            device,
            start=device.start + base_bytes,
            peak=device.peak + base_bytes,
            end=device.end + base_bytes,
        )
        return found

    run.amounts = amounts
    return run


@pytest.mark.parametrize(("base_bytes", "broken"), [(2304 * KIB, False), (2304 * KIB + 1, True)])
def test_what_was_there_before_the_first_phase_is_taken_off_and_limited(
    synthetic_run, verdict_of, base_bytes, broken
):
    """No budget of a peak or an end is met or missed by it; but a body may not hide anything
    there.
    """
    findings = own(verdict_of(raised(synthetic_run, base_bytes)), "budget")

    assert bool(findings) is broken
    assert all(
        "begins with 2.3 MiB, limit 2.2 MiB" in check.sentence and "1 B over it" in check.sentence
        for check in findings
    )


# --- outcomes ---


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.DEVICE_OOM, FindingKind.REGRESSION),
        (Outcome.HOST_OOM, FindingKind.REGRESSION),
        (Outcome.TIMED_OUT, FindingKind.REGRESSION),
        (Outcome.CRASHED, FindingKind.INCOMPLETE),
        (Outcome.ERROR, FindingKind.INCOMPLETE),
        (Outcome.SKIPPED, FindingKind.INCOMPLETE),
    ],
)
def test_an_unexpected_end_is_named_with_phase_and_reason(synthetic_run, verdict_of, outcome, kind):
    """Out of memory and time are regressions; a run that could not be measured is incomplete. The
    others are judged.
    """
    point = synthetic_run.points[5]
    synthetic_run.ends[point.name, 0] = (outcome, "for a reason", "epoch_0")
    (finding,) = own(verdict_of(synthetic_run), "outcome")

    untraced = (
        "; what was alive is unknown, as no run was traced (leave out --memory-no-trace to "
        "trace one)"
    )

    assert finding.finding is kind
    assert finding.sentence.startswith(
        f"loading / lazy / image_count=500 / stack_size=2048 / repeat 0: ended {outcome} in "
        "phase epoch_0 instead of ok: for a "
        f"reason{untraced if outcome is Outcome.DEVICE_OOM else ''}. To do: "
    )


@pytest.mark.parametrize(
    "cause", ["watchdog", "machine", "refused", "limit", "bad_alloc", "kernel"]
)
def test_the_host_budget_is_advised_only_where_it_has_ended_the_run(
    synthetic_run, verdict_of, cause
):
    """Where the system refused memory, more of a budget changes nothing."""
    point = synthetic_run.points[5]
    synthetic_run.ends[point.name, 0] = (Outcome.HOST_OOM, "for a reason", "epoch_0")
    synthetic_run.causes[point.name, 0] = cause
    (finding,) = own(verdict_of(synthetic_run), "outcome")

    assert ("or raise --memory-host-budget on purpose" in finding.sentence) == (cause == "watchdog")


@pytest.mark.parametrize("outcome", [Outcome.DEVICE_OOM, Outcome.HOST_OOM, Outcome.TIMED_OUT])
def test_where_nothing_earlier_exists_a_death_is_no_regression(
    synthetic_run, policy, tmp_path, outcome
):
    """It failed, with the same exit code: nothing says that it was ever better."""
    point = synthetic_run.points[5]
    synthetic_run.keep_points(lambda other: other is point)
    synthetic_run.ends[point.name, 0] = (outcome, "for a reason", "epoch_0")
    verdict = judge(
        load_run(synthetic_run.write()), policy, tmp_path / "none", partial=True
    ).verdict

    assert verdict.exit_code is ExitCode.REGRESSION
    assert verdict.findings[0].finding is FindingKind.FAILED
    assert verdict.sentence.startswith(
        f"Failed: loading / lazy / image_count=500 / stack_size=2048 / repeat 0: ended {outcome}"
    )


def test_one_killed_child_costs_its_own_run_alone(synthetic_run, verdict_of):
    """The other repeat and all other points are judged as ever."""
    point = synthetic_run.points[5]
    synthetic_run.ends[point.name, 0] = (Outcome.CRASHED, "killed by SIGKILL", "construct")
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert [(check.rule, check.point) for check in verdict.findings] == [("outcome", point.name)]


@pytest.mark.parametrize(
    ("budget_mib", "kind"),
    [(256, FindingKind.INCOMPLETE), (644, FindingKind.IMPROVEMENT)],
    ids=["above its budget", "within"],
)
def test_an_expected_out_of_memory_that_did_not_happen(synthetic_run, verdict_of, budget_mib, kind):
    """The eager loader peaks at 633 MiB: within its budget it has improved, beyond it the budget
    did not bind.
    """
    position = next(
        i for i, point in enumerate(synthetic_run.points) if point.expected is Outcome.DEVICE_OOM
    )
    point = synthetic_run.points[position]
    synthetic_run.points[position] = replace(point, device_budget_bytes=budget_mib * MIB)
    for repeat in range(2):
        synthetic_run.ends[point.name, repeat] = (Outcome.OK, "", None)

    assert {check.finding for check in own(verdict_of(synthetic_run), "outcome")} == {kind}


# --- coverage ---


def test_deleting_a_points_rows_is_incomplete(synthetic_run, verdict_of):
    """Exit 3, and the sentence names the point."""
    name = synthetic_run.points[5].name
    rows = [row for row in synthetic_run.rows() if row["point"] != name]
    verdict = verdict_of(synthetic_run, rows=rows)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert {check.point for check in own(verdict, "coverage")} == {name}
    assert "no end of it was recorded" in verdict.sentence


@pytest.mark.parametrize(
    "position", [5, -2], ids=["a point that is ok", "a point that runs out of memory"]
)
def test_deleting_a_phase_is_incomplete(synthetic_run, verdict_of, position):
    """The end alone is not enough, also before the phase that a run died in."""
    name = synthetic_run.points[position].name
    rows = [
        row
        for row in synthetic_run.rows()
        if (row["point"], row.get("phase"), row["kind"]) != (name, "open", "phase")
    ]
    verdict = verdict_of(synthetic_run, rows=rows)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert "open was not measured to the end" in verdict.findings[0].sentence


def test_deleting_a_repeat_is_incomplete(synthetic_run, verdict_of):
    """Planned twice, measured once."""
    rows = [
        row
        for row in synthetic_run.rows()
        if (row["point"], row["repeat"]) != (synthetic_run.points[0].name, 1)
    ]

    assert verdict_of(synthetic_run, rows=rows).exit_code is ExitCode.INCOMPLETE


def test_no_rows_and_no_points_are_incomplete(synthetic_run, verdict_of):
    """A gate that saw nothing fails."""
    assert verdict_of(synthetic_run, rows=[]).exit_code is ExitCode.INCOMPLETE
    synthetic_run.points = []
    verdict = verdict_of(synthetic_run, rows=[])

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert "planned no point at all" in verdict.sentence


@pytest.mark.parametrize("meter", ["device_in_use", "host_anon"])
def test_an_unavailable_gated_meter_is_incomplete_with_its_reason(synthetic_run, verdict_of, meter):
    """Said once for each scenario."""
    verdict = verdict_of(synthetic_run.without_meter(meter, "this kernel has none"))
    findings = [check for check in own(verdict, "coverage") if check.meter == meter]

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert {check.scenario for check in findings} == {"loading", "arrays", "oom"}
    assert all("unavailable: this kernel has none" in check.sentence for check in findings)


def test_an_unavailable_meter_that_is_not_gated_is_no_finding(synthetic_run, verdict_of):
    """NVML is reported beside the others."""
    assert (
        verdict_of(synthetic_run.without_meter("host_mapped", "not read")).exit_code
        is ExitCode.PASS
    )


@pytest.mark.parametrize(
    ("samples", "gap_s", "broken"),
    [(5, 0.125, False), (4, 0.125, True), (5, 0.126, True), (None, None, True)],
)
def test_a_coarsely_sampled_peak_is_not_judged(synthetic_run, verdict_of, samples, gap_s, broken):
    """Five samples and a gap of a quarter of the phase (0.5 s) are enough; less, and unknown, are
    not.
    """
    rows = synthetic_run.rows()
    for row in rows:
        if row["kind"] == "phase":
            row["readings"][0].update(quality="sampled", samples=samples, largest_gap_s=gap_s)

    assert bool(own(verdict_of(synthetic_run, rows=rows), "coverage")) is broken


def test_an_unresolved_gated_meter_is_incomplete_with_its_reason_however_good_its_numbers(
    synthetic_run, verdict_of
):
    """The meter itself has said that it cannot tell the peak."""
    rows = synthetic_run.rows()
    for row in rows:
        if row["kind"] == "phase":
            row["readings"][0].update(
                quality="unresolved",
                samples=500,
                largest_gap_s=0.002,
                reason="the sampler was lost",
            )
    verdict = verdict_of(synthetic_run, rows=rows)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert any(
        "unresolved: the sampler was lost" in check.sentence for check in own(verdict, "coverage")
    )


def test_a_run_without_an_end_is_incomplete(synthetic_run, verdict_of):
    """Broken off, or still going."""
    synthetic_run.manifest["ended"] = None

    assert verdict_of(synthetic_run).exit_code is ExitCode.INCOMPLETE


def test_a_damaged_line_is_incomplete(synthetic_run, verdict_of):
    """Also where the rest of the run would do."""
    rows = [*synthetic_run.rows(), {"kind": "gossip"}]

    assert verdict_of(synthetic_run, rows=rows).exit_code is ExitCode.INCOMPLETE


def test_points_of_the_baseline_have_to_be_measured_again(synthetic_run, verdict_of):
    """Dropping a point from the catalogue is not green; measuring less on purpose is."""
    synthetic_run.keep_points(lambda point: point.scenario != "oom")

    assert verdict_of(synthetic_run).exit_code is ExitCode.INCOMPLETE
    assert verdict_of(synthetic_run, partial=True).exit_code is ExitCode.PASS


def test_a_phase_of_the_baseline_has_to_be_measured_again(synthetic_run, verdict_of):
    """So has every phase that a rule names."""
    changed = [replace(point, phases=point.phases[:-1]) for point in synthetic_run.points]
    synthetic_run.points = changed
    sentences = " ".join(check.sentence for check in own(verdict_of(synthetic_run), "coverage"))

    assert "the baseline has its phase release" in sentences
    assert "no point that it is about has a phase release" in sentences


def test_a_rule_without_a_point_is_incomplete(synthetic_run, verdict_of, policy):
    """Without the eager points its rules hold nothing; measuring only lazy on purpose is fine."""
    synthetic_run.keep_points(lambda point: point.parameters["loader"] == "lazy")
    sentences = [check.sentence for check in own(verdict_of(synthetic_run), "coverage")]

    told = (
        f"arithmetic rule 1 of {policy.source}: this run planned no point of loading or arrays, "
        "loader eager"
    )

    assert any(text.startswith(told) for text in sentences)
    assert verdict_of(synthetic_run, partial=True).exit_code is ExitCode.PASS


@pytest.mark.parametrize(
    ("scenarios", "phases", "missing"),
    [
        (("epoch",), None, "point of epoch"),
        (("loading",), ("epoch_9",), "the phase epoch_9 in loading"),
    ],
)
def test_a_tolerance_for_what_is_not_there_is_incomplete(
    policy, baselines, synthetic_run, scenarios, phases, missing
):
    """Else the general one would hold in its place, unseen; a run that measures less on purpose
    may.
    """
    stranger = policy.tolerance[0].model_copy(update={"scenarios": scenarios, "phases": phases})
    changed = policy.model_copy(update={"tolerance": (*policy.tolerance, stranger)})
    run = load_run(synthetic_run.write())
    whole, partial = (
        judge(run, changed, baselines, partial=partial).verdict for partial in (False, True)
    )

    assert whole.exit_code == 3
    assert (
        f"tolerance {len(changed.tolerance)} of {policy.source}: this run planned no {missing}"
        in whole.findings[0].sentence
    )
    assert partial.exit_code == 0


# --- neighbours ---


def test_a_run_that_was_not_alone_is_incomplete_and_names_who_it_was(synthetic_run, verdict_of):
    """One phase of one repeat is enough; it is said once for the run, and such a run is no
    baseline.
    """
    who = "4711 (python3, 120.0 MiB)"
    rows = synthetic_run.rows()
    disturbed = [
        row
        for row in rows
        if row["kind"] == "phase" and row["repeat"] == 1 and row["phase"] in ("epoch_0", "epoch_1")
    ]
    for row in disturbed[:2]:
        row["readings"][0]["contended"] = who
    findings = own(verdict_of(synthetic_run, rows=rows), "coverage")

    assert [check.finding for check in findings] == [FindingKind.INCOMPLETE]
    assert (
        f"repeat 1: another process used the device, on the last attempt too: {who}; "
        "measure again" in findings[0].sentence
    )
    with pytest.raises(BaselineError, match="4711"):
        from_run(load_run(synthetic_run.path), reason="a neighbour", accepted="2026-01-01")


def test_a_run_read_by_both_of_the_drivers_queries_is_incomplete(synthetic_run, verdict_of):
    """Version 1 counts what the driver keeps for itself; one run has one of them."""
    rows = synthetic_run.rows()
    phases = [row for row in rows if row["kind"] == "phase"]
    for number, row in enumerate(phases):
        source = "memory v1" if number == 0 else "memory v2"
        row["readings"] = [
            *row["readings"],
            {**row["readings"][0], "meter": "nvml_device_used", "source": source},
        ]
    findings = own(verdict_of(synthetic_run, rows=rows), "coverage")
    phases[0]["readings"][-1]["source"] = "memory v2"

    assert [
        "nvml_device_used was read by memory v1 and by memory v2" in check.sentence
        for check in findings
    ] == [True]
    assert own(verdict_of(synthetic_run, rows=rows), "coverage") == []
