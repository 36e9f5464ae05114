"""Rules over whatever a foreign sweep varies: any parameter that is a whole number, and a sentence
where it is none.
"""

import pytest

from harness.judge import ExitCode
from harness.judge.gate import judge
from harness.judge.growth import fit_run, fits_table
from harness.judge.policy import parse_policy
from harness.judge.table import load_run
from harness.records import Point, sizes_in_words

PER_STEP = 2048


def policy(over="batch_size", **changes):
    rule = {
        "scenarios": ["feed"],
        "meters": ["device_in_use"],
        "over": over,
        "at_most": "1024 B",
        "resolve": "4 KiB",
        "because": "marker of tests/test_feed.py::test_epoch",
    }
    return parse_policy({"schema_version": 1, "slope": [rule | changes]}, "limits.toml")


@pytest.fixture
def swept(synthetic_run, edges):
    """A sweep over batch_size, of which each step costs 2,048 B; no loader and no images."""
    synthetic_run.points = [
        Point(
            scenario="feed",
            body="b:b",
            parameters={"kind": "plain", "batch_size": size},
            fixed={"seed": 3},
            phases=("epoch",),
        )
        for size in (16, 32, 64)
    ]
    synthetic_run.declared = lambda point: {}
    synthetic_run.amounts = lambda point, repeat, phase: {
        "device_in_use": edges(0, PER_STEP * point.parameters.get("batch_size", 1), 0)
    }
    return synthetic_run


def judged(run, chosen, baselines, **options):
    return judge(load_run(run.write()), chosen, baselines, **options).verdict


def test_the_unit_is_the_parameters_own_name(swept, baselines):
    """With the marker that has the limit, and no word of images."""
    verdict = judged(swept, policy(), baselines)
    (finding,) = verdict.findings

    assert verdict.exit_code is ExitCode.REGRESSION
    assert (finding.measured, finding.unit) == (PER_STEP, "B/batch_size")
    assert finding.sentence == (
        "feed / plain / batch_size / epoch / device in use: grows by 2,048 B per "
        "batch_size, limit 1,024 (95 % interval 2,048 to 2,048; 3 sizes, 6 runs). At "
        "batch_size 64 that is 128.0 KiB at its peak; when the phase ends it is as much as "
        "when it began. To do: find what epoch makes for each step of batch_size; the "
        "limit is the marker of tests/test_feed.py::test_epoch."
    )


def test_every_whole_number_is_fitted(swept):
    """And has a column of its own in the table."""
    fits = fits_table(fit_run(load_run(swept.write())))

    assert set(fits["over"]) == {"batch_size"}
    assert set(fits[fits["field"] == "growth"]["slope_bytes_per_batch_size"]) == {PER_STEP}
    assert fits["slope_bytes_per_image"].isna().all()


@pytest.mark.parametrize(
    ("over", "words"),
    [
        (
            "batchsize",
            "no point that the rule is about has such a parameter; did you mean 'batch_size'?",
        ),
        ("quanta", "no point that the rule is about has such a parameter; known are batch_size"),
        ("kind", "its values are no whole numbers ('plain')"),
        ("seed", "it is a fixed setting of feed and the same in every point"),
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_a_parameter_that_no_point_has_is_incomplete(swept, baselines, over, words, partial):
    """A rule that can never apply would hold for ever; also where less was measured on purpose."""
    verdict = judged(swept, policy(over=over, only_if_swept=True), baselines, partial=partial)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert words in verdict.sentence


def test_one_value_of_it_shows_no_slope(swept, baselines):
    """All points share it: incomplete, and the value is told."""
    swept.points = swept.points[:1]
    verdict = judged(swept, policy(), baselines)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "only batch_size 16 was measured, and a slope needs 3 different values" in verdict.sentence
    )


def test_two_values_of_it_show_no_slope(swept, baselines):
    """A third one could bend the line."""
    swept.points = swept.points[:2]
    verdict = judged(swept, policy(), baselines)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "it needs 3 different values, 2 were planned and 2 could be read. To do: measure "
        "more values" in verdict.sentence
    )


@pytest.mark.parametrize("partial", [False, True])
def test_rules_that_all_stand_aside_are_no_pass(swept, baselines, partial):
    """only_if_swept excuses a rule; a policy of nothing else has held nothing against a limit."""
    swept.points = swept.points[:1]
    verdict = judged(swept, policy(only_if_swept=True), baselines, partial=partial)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "no rule of limits.toml applies to what was measured, so nothing was held against a limit"
        in verdict.sentence
    )


def test_sizes_are_told_in_the_words_of_the_field():
    """Images and frames are counted; other parameters are called by their names."""
    assert sizes_in_words("image_count", 100, 2000) == "100 to 2,000 images"
    assert sizes_in_words("stack_size", 1) == "1 frame"
    assert sizes_in_words("batch_size", 8, 64) == "batch_size 8 to 64"
