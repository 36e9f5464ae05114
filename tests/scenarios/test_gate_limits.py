"""The project's limits on what the other ways in and out, and single frames, may cost on the host
for each image.
"""

import pytest

from harness.judge.gate import judge
from harness.judge.policy import read_policy
from harness.judge.table import load_run
from scenarios.catalog import points
from scenarios.limits.table import page
from tests.harness.conftest import KIB, MIB, Edges, SyntheticRun


def findings_of(project_root, tmp_path, *, scenario, phase, meter, each):
    """Sentences of the slope rules on a run that takes ``each`` bytes per image more in one phase,
    and nothing else.
    """

    def amounts(point, repeat, name):
        more = each * point.parameters["image_count"] * (name == phase)
        return {
            one: Edges(200 * MIB, 200 * MIB + more * (one == meter), 200 * MIB)
            for one in ("device_in_use", "host_anon", "host_rss")
        }

    chosen = [
        point
        for point in points()
        if point.scenario == scenario and point.parameters["loader"] == "lazy"
    ]
    run = load_run(SyntheticRun(tmp_path / f"{each} B", points=chosen, amounts=amounts).write())
    verdict = judge(
        run, read_policy(project_root / "scenarios" / "gate.toml"), tmp_path, partial=True
    ).verdict
    return [check.sentence for check in verdict.findings if check.rule == "slope"]


@pytest.mark.parametrize(
    ("scenario", "phase", "meter", "limit"),
    [
        ("feeds", "construct", "host_anon", 1 * KIB),
        ("feeds", "epoch_defaults", "host_anon", 2 * KIB),
        ("feeds", "epoch_defaults", "device_in_use", 2 * KIB),
        ("feeds", "epoch_targets", "host_anon", 1 * KIB),
        ("training", "construct", "host_anon", 1 * KIB),
        ("inference", "open", "host_anon", 1 * KIB),
    ],
)
def test_a_byte_more_than_the_limit_for_each_image_is_found(
    project_root, tmp_path, scenario, phase, meter, limit
):
    """At the limit nothing is said; a byte beyond it, the phase and the amount are."""
    where = {"scenario": scenario, "phase": phase, "meter": meter}

    assert findings_of(project_root, tmp_path, **where, each=limit) == []
    found = findings_of(project_root, tmp_path, **where, each=limit + 1)
    assert found
    assert all(
        f"/ {phase} /" in said and f"grows by {limit + 1:,} B per image, limit {limit:,}" in said
        for said in found
    )


def kept(project_root, tmp_path, *, scenario, meter, since, per_size, over="image_count"):
    """Sentences of the slope rules on a run that keeps ``per_size`` bytes for each of ``over`` from
    the phase ``since`` on.
    """

    def amounts(point, repeat, name):
        names = list(point.phases)
        more = per_size * {**point.fixed, **point.parameters}[over]
        begins, ends = (more * (names.index(name) + later > names.index(since)) for later in (0, 1))
        edges = Edges(200 * MIB + begins, 200 * MIB + ends, 200 * MIB + ends)
        flat = Edges(200 * MIB, 200 * MIB, 200 * MIB)
        return {
            one: edges if one == meter else flat
            for one in ("device_in_use", "host_anon", "host_rss")
        }

    chosen = [
        point
        for point in points()
        if point.scenario == scenario and point.parameters["loader"] == "lazy"
    ]
    run = load_run(SyntheticRun(tmp_path / f"{per_size} B", points=chosen, amounts=amounts).write())
    verdict = judge(
        run, read_policy(project_root / "scenarios" / "gate.toml"), tmp_path, partial=True
    ).verdict
    return [check.sentence for check in verdict.findings if check.rule == "slope"]


@pytest.mark.parametrize(
    ("scenario", "since", "meter", "over", "limit"),
    [
        ("feeds", "construct", "host_anon", "image_count", 512),
        ("feeds", "epoch_defaults", "host_anon", "stack_size", 192),
        ("feeds", "epoch_targets", "device_in_use", "image_count", 512),
        ("training", "train_0", "host_anon", "image_count", 1 * KIB),
        ("training", "construct", "host_anon", "image_count", 512),
        ("inference", "predict_0", "host_anon", "image_count", 1 * KIB),
        ("loading", "first_batch", "host_anon", "image_count", 512),
        ("arrays", "construct", "device_in_use", "image_count", 512),
        ("lifetimes", "dropped", "host_anon", "rounds", 96 * KIB),
        ("lifetimes", "raised", "device_in_use", "rounds", 1 * KIB),
    ],
)
def test_what_is_kept_is_found_a_byte_past_the_limit(
    project_root, tmp_path, scenario, since, meter, over, limit
):
    """At the limit nothing is said; a byte past it, what is there afterwards is."""
    where = {"scenario": scenario, "since": since, "meter": meter, "over": over}

    assert kept(project_root, tmp_path, **where, per_size=limit) == []
    assert kept(project_root, tmp_path, **where, per_size=limit + 1)


def test_the_page_of_limits_is_that_of_the_policy(project_root):
    """docs/limits.md is what ``python -m scenarios.limits`` prints."""
    printed = page(read_policy(project_root / "scenarios" / "gate.toml"))

    assert (project_root / "docs" / "limits.md").read_text(encoding="utf-8") == printed


def kept_of_frames(project_root, tmp_path, *, scenario, phase, meter, each):
    """Sentences of the slope rules on a run whose phase ends with ``each`` bytes for each frame
    more than it began with.
    """

    def amounts(point, repeat, name):
        more = each * point.parameters["stack_size"] * (name == phase)
        own = {one: more * (one == meter) for one in ("device_in_use", "host_anon")}
        return {
            one: Edges(200 * MIB, 200 * MIB + kept, 200 * MIB + kept) for one, kept in own.items()
        }

    chosen = [point for point in points() if point.scenario == scenario]
    declared = {"frame": 16 * KIB, "image": 64 * KIB, "batch": 1 * MIB}
    made = SyntheticRun(
        tmp_path / f"{each} B", points=chosen, amounts=amounts, declared=lambda point: declared
    )
    run = load_run(made.write())
    verdict = judge(
        run, read_policy(project_root / "scenarios" / "gate.toml"), tmp_path, partial=True
    ).verdict
    return [check.sentence for check in verdict.findings if check.rule == "slope"]


@pytest.mark.parametrize(
    ("scenario", "phase", "meter", "limit"),
    [
        ("formats", "counts", "host_anon", 200),
        ("formats", "cxi", "host_anon", 384),
        ("scripts", "saved", "host_anon", 200),
        ("settings", "singles", "host_anon", 200),
        ("formats", "tables", "device_in_use", 32),
        ("scripts", "truth", "device_in_use", 32),
        ("settings", "ahead", "device_in_use", 32),
    ],
)
def test_a_byte_more_than_the_limit_for_each_frame_is_found(
    project_root, tmp_path, scenario, phase, meter, limit
):
    """In each way that is measured: at the limit nothing is said; a byte beyond it, the phase and
    the amount are.
    """
    where = {"scenario": scenario, "phase": phase, "meter": meter}

    assert kept_of_frames(project_root, tmp_path, **where, each=limit) == []
    found = kept_of_frames(project_root, tmp_path, **where, each=limit + 1)
    assert any(
        f"/ {phase} /" in said and f"keeps {limit + 1:,} B per frame, limit {limit:,}" in said
        for said in found
    ), found
