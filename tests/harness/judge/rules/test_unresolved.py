"""What an interval that is too wide is answered with: sizes and a ``resolve`` that the same runs
would do for.
"""

import re

import pytest

from harness.judge import FindingKind
from harness.judge.gate import judge
from harness.judge.policy import parse_policy
from harness.judge.table import load_run
from harness.records import Point

COUNTS = (128, 256, 512)
KIB = 1024


@pytest.fixture
def judged(synthetic_run, edges, tmp_path):
    """``judged(counts, more_repeats, **rule)``: findings of a body that keeps nothing, whose runs
    differ by 1 MiB at any size.
    """

    def judged(counts=COUNTS, more_repeats=0, **rule):
        synthetic_run.points = [
            Point(
                scenario="own",
                body="own:body",
                parameters={"image_count": count},
                fixed={},
                phases=("use",),
            )
            for count in counts
        ]
        synthetic_run.further = (
            {point.name: more_repeats for point in synthetic_run.points} if more_repeats else {}
        )
        synthetic_run.declared = lambda _: {}

        def readings(point, repeat, phase):
            grown = 1024 * KIB * ((counts.index(point.parameters["image_count"]) + repeat) % 2)
            return {"device_in_use": edges(0, grown, 0), "host_anon": edges(0, grown, 0)}

        synthetic_run.amounts = readings
        run = load_run(synthetic_run.write())
        given = {
            "scenarios": ["own"],
            "meters": ["host_anon"],
            "because": "chosen",
            "over": "image_count",
            "at_most": "1 KiB",
        }
        policy = parse_policy(
            {"schema_version": 1, "slope": [{**given, "resolve": "1 KiB", **rule}]}, "own.toml"
        )
        return [
            check
            for check in judge(run, policy, tmp_path / "none", partial=True).verdict.findings
            if check.rule == "slope"
        ]

    return judged


def resolve_of(sentence):
    return int(re.search(r'resolve = "(\d+) KiB", which these runs exclude', sentence)[1])


@pytest.mark.parametrize("over_all", ["0 B", "128 KiB"])
def test_the_resolve_that_is_named_is_the_least_that_passes(judged, over_all):
    """And 1 KiB less does not."""
    (finding,) = judged(resolve_over_all=over_all)
    kib = resolve_of(finding.sentence)

    assert finding.finding is FindingKind.INCOMPLETE
    assert judged(resolve=f"{kib} KiB", resolve_over_all=over_all) == []
    assert len(judged(resolve=f"{kib - 1} KiB", resolve_over_all=over_all)) == 1


@pytest.mark.parametrize("over_all", ["0 B", "128 KiB"])
def test_the_largest_size_that_is_named_is_enough_where_runs_differ_as_much(judged, over_all):
    """All sizes wider apart by as much; at nine tenths of it the runs do not tell."""
    (finding,) = judged(resolve_over_all=over_all)
    largest = int(
        re.search(r"up to about ([\d,]+) images, where none keeps anything", finding.sentence)[
            1
        ].replace(",", "")
    )

    def wider(to):
        return tuple(128 + round((count - 128) * (to - 128) / (512 - 128)) for count in COUNTS)

    assert largest > 512
    assert judged(wider(largest), resolve_over_all=over_all) == []
    assert len(judged(wider(largest * 9 // 10), resolve_over_all=over_all)) == 1


def test_what_was_measured_again_already_is_not_advised(judged):
    """Three further repeats of each were taken."""
    (first,) = judged()
    (again,) = judged(more_repeats=3)

    assert (
        "To do: measure again with more repeats or on a quieter machine, or measure larger "
        "sizes (up to" in first.sentence
    )
    assert "To do: measure larger sizes (up to" in again.sentence
    assert "quieter" not in again.sentence


def test_a_rule_that_leaves_all_to_the_span_names_no_size(judged):
    """Nothing for each image is excluded at any size, however large."""
    (finding,) = judged(at_most="0 B", resolve="0 B")

    assert "measure larger sizes, or, if that much may stay open" in finding.sentence
