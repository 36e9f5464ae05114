"""What is there when a phase begins, whichever phases brought it: against the baseline, by slope
and by budget.
"""

import re

import pytest

from harness.commands.accept import accept
from harness.errors import BaselineError, PolicyError
from harness.judge import ExitCode, FindingKind
from harness.judge.baseline_file import file_name, read
from harness.judge.gate import judge
from harness.judge.policy import parse_policy
from harness.judge.table import load_run
from harness.words import KIB, MIB
from tests.harness.conftest import Edges, good_amounts

NAME = "loading-lazy-image_count=500-stack_size=2048"


def kept_in(phases, *, loader="lazy", meter="host_anon"):
    """Amounts of a run that keeps ``phases[name]`` bytes of each of these phases, and has them in
    all later ones.
    """

    def amounts(point, repeat, name):
        found = dict(good_amounts(point, repeat, name))
        if point.parameters["loader"] != loader:
            return found
        before = sum(
            size
            for phase, size in phases.items()
            if point.phases.index(phase) < point.phases.index(name)
        )
        after, edges = before + phases.get(name, 0), found[meter]
        found[meter] = Edges(
            edges.start + before,
            edges.peak + after,
            edges.end + after,
            edges.bound and edges.bound + after,
        )
        return found

    return amounts


def at_release(verdict):
    return [
        check
        for check in verdict.findings
        if check.rule == "baseline" and check.subject.endswith("/ net_start")
    ]


@pytest.fixture
def run(synthetic_run):
    """Only the scenarios whose first phase is open."""
    return synthetic_run.keep_points(lambda point: point.scenario == "loading")


@pytest.mark.parametrize(
    ("phases", "found"),
    [
        ({"first_batch": MIB, "epoch_0": MIB}, False),
        ({"first_batch": MIB, "epoch_0": MIB + 1}, True),
        (
            {
                "open": 400 * KIB,
                "construct": 400 * KIB,
                "first_batch": 700 * KIB,
                "epoch_0": 700 * KIB,
            },
            True,
        ),
    ],
)
def test_what_several_phases_keep_is_found_by_its_sum(run, verdict_of, phases, found):
    """2 MiB, the tolerance of the host in loading; each phase stays below its own."""
    run.amounts = kept_in(phases)
    verdict = verdict_of(run, partial=True)

    assert {check.rule for check in verdict.findings} == ({"baseline"} if found else set())
    assert bool(at_release(verdict)) is found
    assert all(
        check.phase == "release" and check.finding is FindingKind.REGRESSION
        for check in at_release(verdict)
    )


def test_the_sentence_says_where_to_look(run, verdict_of):
    """Not in the phase, which only begins with it."""
    run.amounts = kept_in({"first_batch": 2 * MIB, "epoch_0": 2 * MIB})
    said = at_release(verdict_of(run, partial=True))[0].sentence

    assert "begins, over what there was before the run's first phase, with" in said
    assert "4.0 MiB more" in said
    assert "in the phases before release" in said


def test_a_baseline_that_is_older_is_not_comparable(run, policy, baselines, tmp_path):
    """It never kept the amount: exit code 4, and what to do, once for each point and meter."""
    for path in baselines.iterdir():
        text = re.sub(
            r", net_start_bytes = [\d_]+, net_start_spread_bytes = [\d_]+", "", path.read_text()
        )
        assert "net_start" not in text
        (tmp_path / path.name).write_text(text)
    verdict = judge(load_run(run.write()), policy, tmp_path, partial=True).verdict

    assert verdict.exit_code is ExitCode.NO_BASELINE
    assert len(verdict.findings) == 2 * len(run.points)
    assert all(
        "was accepted before it kept what there is when a phase begins; accept it" in one.sentence
        for one in verdict.findings
    )


def test_what_there_was_is_accepted_and_read_again(run, policy, tmp_path):
    """The least of the repeats, and how far they spread."""
    run.amounts = kept_in({"epoch_0": 300 * KIB})
    accept(load_run(run.write()), policy, tmp_path, reason="as it is")
    point = read(tmp_path / file_name(run.run_json()["comparability"])).point[NAME]

    assert point.phase["open"]["host_anon"].net_start_bytes == 0
    assert point.phase["release"]["host_anon"].net_start_bytes == 300 * KIB
    assert point.phase["release"]["host_anon"].net_start_spread_bytes == 0


def test_repeats_that_begin_too_far_apart_are_no_baseline(run, policy, tmp_path):
    """A second repeat that has 2 MiB and a byte more when release begins, of which no phase kept
    more than its tolerance.
    """
    apart = kept_in({"first_batch": MIB, "epoch_0": MIB + 1})
    run.amounts = lambda point, repeat, name: (apart if repeat else good_amounts)(
        point, repeat, name
    )

    with pytest.raises(
        BaselineError,
        match=r"release / host_anon: its repeats differ by 2\.0 MiB when it begins, tolerance "
        r"2\.0 MiB",
    ):
        accept(load_run(run.write()), policy, tmp_path, reason="too soon")


@pytest.mark.parametrize(("field", "phase"), [("net_start", "release"), ("net_end", "epoch_0")])
@pytest.mark.parametrize("over_bytes", [0, 1])
def test_a_slope_on_what_is_there(run, tmp_path, field, phase, over_bytes):
    """At the limit, and a byte past it."""
    rule = {
        "scenarios": ["loading"],
        "where": {"loader": "lazy"},
        "phases": [phase],
        "meters": ["host_anon"],
        "over": "image_count",
    }
    text = {
        **rule,
        "field": field,
        "at_most": "100 B",
        "resolve": "1 KiB",
        "because": "of this test",
    }
    policy = parse_policy({"schema_version": 1, "slope": [text]}, "p.toml")
    base = run.amounts

    def amounts(point, repeat, name):
        return kept_in({"construct": (100 + over_bytes) * point.parameters["image_count"]})(
            point, repeat, name
        )

    run.amounts = amounts
    verdict = judge(load_run(run.write()), policy, tmp_path, partial=True).verdict

    assert base is good_amounts
    assert bool(verdict.findings) is bool(over_bytes)
    for check in verdict.findings:
        assert (
            "over what there was before the run's first phase, rises by 101 B per image, limit 100"
            in check.sentence
        )


@pytest.mark.parametrize(
    ("fields", "refused"),
    [(None, True), (["growth"], True), (["net_start", "growth"], True), (["net_start"], False)],
)
def test_two_tolerances_share_no_field(fields, refused):
    """The one without fields is about growth and retained."""
    first = {"meter": "host_anon", "percent": 1, "floor": "1 MiB", "because": "one"}
    second = {**first, **({} if fields is None else {"fields": fields})}
    found = {"schema_version": 1, "tolerance": [first, second]}

    if refused:
        with pytest.raises(PolicyError, match=r"two \[\[tolerance\]\]"):
            parse_policy(found, "p.toml")
    else:
        assert len(parse_policy(found, "p.toml").tolerances("loading", "release")) == 2
