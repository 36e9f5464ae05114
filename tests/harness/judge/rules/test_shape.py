"""Slopes, classes of growth and arithmetic, at the limit and one byte past it, under the project's
own policy.
"""

import numpy as np
import pytest

from harness.judge import ExitCode, FindingKind
from harness.judge.gate import judge
from harness.judge.table import load_run

MIB = 1024 * 1024


def image_count(point):
    return point.parameters["image_count"]


def kinds(verdict):
    return {check.finding for check in verdict.findings}


def rules(verdict):
    return {check.rule for check in verdict.findings}


def own(verdict, rule):
    return [check for check in verdict.findings if check.rule == rule]


# --- slopes ---


@pytest.mark.parametrize(("slope", "broken"), [(512, False), (513, True)])
@pytest.mark.parametrize("meter", ["device_in_use", "host_anon"])
def test_slope_at_the_limit_and_one_byte_past_it(synthetic_run, verdict_of, slope, broken, meter):
    """512 B per image hold, 513 do not, on the device and in the host's memory."""
    synthetic_run.plant(
        phase="epoch_1", meter=meter, extra=lambda point, repeat: slope * image_count(point)
    )

    assert bool(own(verdict_of(synthetic_run), "slope")) is broken


def test_a_planted_tensor_is_one_sentence_with_all_that_matters(synthetic_run, verdict_of, policy):
    """Scenario, loader, phase, meter, slope and limit, first of all findings."""
    synthetic_run.plant(
        phase="construct",
        meter="device_in_use",
        extra=lambda point, repeat: 65_536 * image_count(point),
        keep=True,
    )
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.REGRESSION
    assert verdict.findings[0].sentence == (
        "loading / lazy / construct / device in use: grows by 65,536 B per image, limit "
        "512 (95 % interval 65,536 to 65,536; 4 sizes, 8 runs); as large as 1.00 x image. "
        "At 2,000 images that is 125.0 MiB at its peak; when the phase ends it is 125.0 "
        "MiB more than when it began. To do: find what construct makes for each image; the "
        f"limit is slope rule 1 of {policy.source}."
    )
    assert (verdict.findings[0].measured, verdict.findings[0].limit, verdict.findings[0].unit) == (
        65_536,
        512,
        "B/image",
    )


@pytest.mark.parametrize("meter", ["device_in_use", "host_anon"])
def test_a_temporary_that_is_freed_again_is_seen(synthetic_run, verdict_of, meter):
    """Only the peak of construct shows it; the sentence says that it ends as it began."""
    synthetic_run.plant(
        phase="construct", meter=meter, extra=lambda point, repeat: 65_536 * image_count(point)
    )
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.REGRESSION
    assert (
        "at its peak; when the phase ends it is as much as when it began. "
        in own(verdict, "slope")[0].sentence
    )


@pytest.mark.parametrize(("slope", "broken"), [(204, False), (205, True)])
def test_slope_over_the_stack(synthetic_run, verdict_of, slope, broken):
    """A stack read whole has no slope in images; it shows between the two stack sizes."""
    synthetic_run.plant(
        phase="open",
        meter="host_anon",
        extra=lambda point, repeat: slope * (point.parameters.get("stack_size") or 0),
    )
    findings = own(verdict_of(synthetic_run), "slope")

    assert bool(findings) is broken
    assert all(
        "loading / lazy / stack_size / open / host anonymous memory" in check.sentence
        for check in findings
    )


def noise(sd_mib, seed):
    """Bytes that differ from run to run; never so low that the peak would fall below its start."""
    draws = np.random.default_rng(seed)
    return lambda point, repeat: max(0, int(draws.normal(1, sd_mib) * MIB))


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_the_host_raises_no_alarm(synthetic_run, verdict_of, seed):
    """Runs that differ by 1 MiB (standard deviation) have no slope, and are resolved."""
    synthetic_run.plant(phase="epoch_0", meter="host_anon", extra=noise(1, seed))

    assert verdict_of(synthetic_run).exit_code is ExitCode.PASS


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slope", [4_096, 65_536])
def test_noise_of_the_host_hides_no_regression(synthetic_run, verdict_of, seed, slope):
    """4,096 B per image stand out of runs that differ by 1 MiB; a whole image all the more."""
    synthetic_run.plant(phase="epoch_0", meter="host_anon", extra=noise(1, seed))
    synthetic_run.plant(
        phase="epoch_0", meter="host_anon", extra=lambda point, repeat: slope * image_count(point)
    )

    assert "loading / lazy / epoch_0 / host anonymous memory" in {
        check.subject for check in own(verdict_of(synthetic_run), "slope")
    }


def test_too_noisy_to_tell_is_incomplete(synthetic_run, verdict_of):
    """Runs 40 MiB apart exclude nothing; that is no pass."""
    synthetic_run.plant(
        phase="epoch_0", meter="host_anon", extra=lambda point, repeat: 40 * MIB * repeat
    )
    findings = own(verdict_of(synthetic_run), "slope")

    assert {check.finding for check in findings} == {FindingKind.INCOMPLETE}
    assert "measure again with more repeats" in findings[0].sentence


def test_two_sizes_are_not_enough_for_a_slope(synthetic_run, verdict_of):
    """Three image counts are needed; with fewer the run is incomplete, unless less was measured on
    purpose.
    """
    synthetic_run.keep_points(
        lambda point: image_count(point) in (100, 2000) or point.scenario != "loading"
    )

    assert ("slope", FindingKind.INCOMPLETE) in {
        (check.rule, check.finding) for check in verdict_of(synthetic_run).findings
    }
    assert not own(verdict_of(synthetic_run, partial=True), "slope")


def test_a_single_size_is_not_enough_for_a_slope(synthetic_run, verdict_of):
    """There is not even a series; a stack that was not enlarged is let through, as its rule
    says.
    """
    synthetic_run.keep_points(
        lambda point: image_count(point) == 500 and point.parameters.get("stack_size") != 8192
    )
    subjects = {check.subject for check in own(verdict_of(synthetic_run), "slope")}

    assert subjects == {
        f"{scenario} / {loader} / image_count"
        for scenario in ("loading", "arrays")
        for loader in ("eager", "lazy")
    }
    assert not own(verdict_of(synthetic_run, partial=True), "slope")


# --- classes of growth and arithmetic ---


def test_superlinear_growth_of_the_eager_loader(synthetic_run, verdict_of):
    """A quadratic temporary of grouping."""
    synthetic_run.plant(
        phase="construct",
        meter="device_in_use",
        loader="eager",
        extra=lambda point, repeat: 500 * image_count(point) ** 2,
    )
    (finding,) = own(verdict_of(synthetic_run), "growth_class")

    assert finding.finding is FindingKind.REGRESSION
    assert "growth over image_count is superlinear (" in finding.sentence
    assert "), allowed is linear" in finding.sentence


def flat(policy, over):
    """The policy, and that the lazy loader's growth is flat."""
    rule = policy.growth_class[0].model_copy(
        update={
            "where": {"loader": "lazy"},
            "over": over,
            "at_most": "flat",
            "phases": ("open",),
            "only_if_swept": True,
        }
    )
    return policy.model_copy(update={"growth_class": (rule,)})


@pytest.mark.parametrize(("over", "slope"), [("image_count", 1024), ("stack_size", 1024)])
@pytest.mark.parametrize("more", [0, 1])
def test_flat_growth_over_images_and_over_the_stack(
    synthetic_run, policy, baselines, over, slope, more
):
    """1,024 B for each are flat, one more is not; two stack sizes tell that much, though not the
    shape.
    """
    synthetic_run.plant(
        phase="open",
        meter="device_in_use",
        extra=lambda point, repeat: (slope + more) * (point.parameters.get(over) or 0),
    )
    run = load_run(synthetic_run.write())
    findings = own(judge(run, flat(policy, over), baselines).verdict, "growth_class")
    shape = "linear" if over == "image_count" else "not flat"

    assert [check.finding for check in findings] == [FindingKind.REGRESSION] * more
    assert all(f"growth over {over} is {shape} (1,025 B" in one.sentence for one in findings)


@pytest.mark.parametrize(
    ("percent", "kind"),
    [(0.25, None), (0.26, FindingKind.REGRESSION), (-0.25, None), (-0.26, FindingKind.INCOMPLETE)],
)
def test_arithmetic_of_the_eager_loader(synthetic_run, verdict_of, percent, kind):
    """A quarter of a percent more or less holds; beyond, more is held than the arrays, or not all
    of them was seen.
    """
    synthetic_run.plant(
        phase="construct",
        meter="device_in_use",
        loader="eager",
        extra=lambda point, repeat: round(327_680 * percent / 100 * image_count(point)),
        keep=True,
    )

    # Of loading and of arrays.
    assert [check.finding for check in own(verdict_of(synthetic_run), "arithmetic")] == (
        [kind] * 2 if kind else []
    )


def test_arithmetic_without_a_declaration_is_incomplete(synthetic_run, verdict_of):
    """What was never said cannot be compared; neither can limits in batches or frames."""
    rows = [row for row in synthetic_run.rows() if row["kind"] != "declared"]
    verdict = verdict_of(synthetic_run, rows=rows)

    assert kinds(verdict) == {FindingKind.INCOMPLETE}
    assert rules(verdict) == {"arithmetic", "budget", "floor", "slope"}
