"""Distance from the baseline, in both directions, and the precedence of the exit codes."""

from dataclasses import replace

import pytest

from harness.judge import ExitCode, FindingKind

MIB = 1024 * 1024


def image_count(point):
    return point.parameters["image_count"]


def kinds(verdict):
    return {check.finding for check in verdict.findings}


def rules(verdict):
    return {check.rule for check in verdict.findings}


def own(verdict, rule):
    return [check for check in verdict.findings if check.rule == rule]


def test_a_good_run_passes(synthetic_run, verdict_of):
    """Every rule has checks, and all of them hold."""
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.PASS
    assert {check.rule for check in verdict.checks} == {
        "coverage",
        "outcome",
        "comparability",
        "floor",
        "leak",
        "slope",
        "growth_class",
        "budget",
        "arithmetic",
        "baseline",
    }
    assert all(check.because for check in verdict.checks if check.limit is not None)
    assert all(
        check.bound in ("upper", "lower") for check in verdict.checks if check.limit is not None
    )
    assert all(check.limit >= 0 for check in verdict.checks if check.limit is not None)
    assert all(
        check.measured <= check.limit if check.bound == "upper" else check.measured >= check.limit
        for check in verdict.checks
        if check.limit is not None
    )


# --- baseline ---


@pytest.mark.parametrize(
    ("phases", "change_bytes", "kind"),
    [
        (("epoch_0", "epoch_1"), 167_772, None),
        (("epoch_0", "epoch_1"), 167_773, FindingKind.REGRESSION),
        (("epoch_0", "epoch_1"), -167_772, None),
        (("epoch_0", "epoch_1"), -167_773, FindingKind.IMPROVEMENT),
        (("open",), 65_536, None),
        (("open",), 65_537, FindingKind.REGRESSION),
    ],
)
def test_distance_from_the_baseline_has_two_sides(
    synthetic_run, verdict_of, phases, change_bytes, kind
):
    """2 % of 8 MiB are 167,772.16 B; of nothing they are nothing, and the floor of 64 KiB
    decides.
    """
    for phase in phases:
        synthetic_run.plant(
            phase=phase, meter="device_in_use", extra=lambda point, repeat: change_bytes
        )
    verdict = verdict_of(synthetic_run)

    assert kinds(verdict) == ({kind} if kind else set())
    assert rules(verdict) == ({"baseline"} if kind else set())


@pytest.mark.parametrize(
    ("change_bytes", "bound", "limit"),
    [
        (-167_773, "lower", 8_388_608 - 167_772.16),
        (-1, "lower", 8_388_608 - 167_772.16),
        (0, "upper", 8_388_608 + 167_772.16),
        (167_773, "upper", 8_388_608 + 167_772.16),
    ],
)
def test_the_limit_is_that_of_the_side_of_the_change(
    synthetic_run, verdict_of, change_bytes, bound, limit
):
    """What became less is held against the lower one, so that no improvement looks as if it were
    within a limit.
    """
    synthetic_run.plant(
        phase="epoch_0", meter="device_in_use", extra=lambda point, repeat: change_bytes
    )
    checks = [
        check
        for check in verdict_of(synthetic_run).checks
        if check.subject.endswith("stack_size=8192 / epoch_0 / device in use / growth")
        and "lazy" in check.subject
    ]

    assert {(check.bound, round(check.limit, 2)) for check in checks} == {(bound, limit)}


def test_where_less_than_nothing_would_be_allowed_there_is_no_lower_limit(
    synthetic_run, verdict_of
):
    """The eager loader's host memory of the first batch is far below its tolerance: 8 MiB against
    25 %, then 4 MiB against 3.
    """
    synthetic_run.plant(
        phase="first_batch", meter="host_anon", extra=lambda point, repeat: -9 * MIB, loader="lazy"
    )
    synthetic_run.amounts = _small_host(synthetic_run.amounts)
    checks = [
        check
        for check in verdict_of(synthetic_run).checks
        if check.rule == "baseline" and check.unit == "B"
    ]

    assert all(check.limit >= 0 for check in checks)


def _small_host(amounts):
    """The same, without anything on the host in the first batch."""

    def without(point, repeat, phase):
        found = dict(amounts(point, repeat, phase))
        edges = found["host_anon"]
        if phase == "first_batch":
            found["host_anon"] = replace(
                edges, peak=edges.start, end=edges.start, bound=edges.start
            )
        return found

    return without


def test_the_least_of_the_repeats_is_compared(synthetic_run, verdict_of):
    """One repeat that took 1 MiB more is noise."""
    synthetic_run.plant(
        phase="open", meter="device_in_use", extra=lambda point, repeat: MIB * repeat
    )

    assert not own(verdict_of(synthetic_run), "baseline")


def test_improvement_exits_with_5(synthetic_run, verdict_of):
    """Accept it, so that headroom does not grow unseen."""
    synthetic_run.plant(
        phase="first_batch", meter="device_in_use", extra=lambda point, repeat: -3 * MIB
    )
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.IMPROVEMENT
    assert "3.0 MiB less; if that is real, accept it" in verdict.sentence


def test_giving_back_less_of_less_is_no_regression(synthetic_run, verdict_of):
    """An eager loader that holds less is an improvement where it holds it, and nothing where it
    lets go.
    """
    synthetic_run.plant(
        phase="release",
        meter="device_in_use",
        loader="eager",
        extra=lambda point, repeat: MIB,
        keep=True,
    )
    found = [
        check
        for check in verdict_of(synthetic_run).findings
        if check.rule == "baseline" and "keeps" in check.sentence
    ]

    assert found == []


def test_no_baseline_for_the_key_is_one_finding(synthetic_run, verdict_of, baselines):
    """Exit 4, with the command to type."""
    synthetic_run.manifest["comparability"] = {
        "device": "another",
        "device_memory_bytes": 1,
        "allocator": "bfc",
    }
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.NO_BASELINE
    assert len(verdict.findings) == 1
    assert (
        f'python -m harness accept {synthetic_run.path} --baselines {baselines} --reason "..."'
        in verdict.sentence
    )


def test_another_batch_size_is_not_comparable(synthetic_run, verdict_of):
    """Names what differs, and judges everything else."""
    point = synthetic_run.points[0]
    synthetic_run.points[0] = replace(point, fixed={**point.fixed, "batch_size": 32})
    (finding,) = own(verdict_of(synthetic_run), "baseline")

    assert finding.finding is FindingKind.NO_BASELINE
    assert "batch_size was 64 and is 32" in finding.sentence


def test_a_point_that_the_baseline_does_not_have(synthetic_run, verdict_of):
    """Nothing was accepted of new points."""
    point = synthetic_run.points[9]
    added = replace(point, parameters={**point.parameters, "stack_size": 4096})
    synthetic_run.points = [*synthetic_run.points, added]
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.NO_BASELINE
    assert "the baseline does not have it" in verdict.sentence


# --- precedence ---


def test_precedence_of_the_exit_codes(synthetic_run, verdict_of):
    """Improvement, then no baseline over it, then incomplete, then regression over all."""
    codes = []
    synthetic_run.plant(
        phase="epoch_1", meter="device_in_use", extra=lambda point, repeat: -3 * MIB
    )
    codes.append(verdict_of(synthetic_run).exit_code)
    point = synthetic_run.points[0]
    synthetic_run.points[0] = replace(point, fixed={**point.fixed, "batch_size": 32})
    codes.append(verdict_of(synthetic_run).exit_code)
    synthetic_run.manifest["ended"] = None
    codes.append(verdict_of(synthetic_run).exit_code)
    synthetic_run.plant(
        phase="construct",
        meter="device_in_use",
        extra=lambda point, repeat: 65_536 * image_count(point),
    )
    codes.append(verdict_of(synthetic_run).exit_code)

    assert codes == [
        ExitCode.IMPROVEMENT,
        ExitCode.NO_BASELINE,
        ExitCode.INCOMPLETE,
        ExitCode.REGRESSION,
    ]
