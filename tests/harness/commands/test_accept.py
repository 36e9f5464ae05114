"""Which runs may become a baseline, and what accepting them changes."""

import pytest

from harness.commands.accept import accept
from harness.errors import BaselineError
from harness.judge.baseline_file import find
from harness.judge.table import load_run
from harness.words import MIB

LARGEST_LAZY = "loading-lazy-image_count=2000-stack_size=2048"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "baselines"


@pytest.fixture
def accepting(policy, folder):
    """Write and accept a synthetic run; the lines that are printed."""

    def run(synthetic_run, **options):
        return accept(load_run(synthetic_run.write()), policy, folder, reason="chosen", **options)

    return run


def test_accepting_prints_old_and_new(synthetic_run, accepting, folder):
    """First everything is new; again nothing; then the one amount that changed, in both forms."""
    first, again = accepting(synthetic_run), accepting(synthetic_run)
    synthetic_run.plant(
        phase="epoch_0",
        meter="device_in_use",
        extra=lambda point, repeat: MIB if point.name == LARGEST_LAZY else 0,
    )
    changed = accepting(synthetic_run)

    assert changed[1].startswith(
        "history: only the present acceptance is known, because git says: not a git repository"
    )
    assert first[0] == "loading-eager-image_count=100-stack_size=2048: none -> 12 phases and meters"
    assert again[0] == "nothing changed"
    assert changed == (
        (
            f"{LARGEST_LAZY} / epoch_0 / device_in_use growth: 8.0 MiB (8,388,608 B) -> 9.0 MiB "
            "(9,437,184 B)"
        ),
        changed[1],
        f"baseline: {next(folder.iterdir())}",
    )


def test_a_run_that_breaks_a_limit_is_refused(synthetic_run, accepting, folder):
    """A limit is mended or changed with its reason, not accepted away."""
    synthetic_run.plant(
        phase="construct",
        meter="device_in_use",
        extra=lambda point, repeat: 65_536 * point.parameters["image_count"],
    )
    with pytest.raises(
        BaselineError,
        match=r"cannot become a baseline: loading / lazy / construct / device in use: grows by "
        r"65,536",
    ):
        accepting(synthetic_run)

    assert not folder.exists()


@pytest.mark.parametrize(("spread_bytes", "accepted"), [(3 * MIB, True), (3 * MIB + 1, False)])
def test_repeats_may_differ_by_the_tolerance_and_no_more(
    synthetic_run, accepting, folder, spread_bytes, accepted
):
    """Host memory of the arrays' release: the floor of the tolerance is 3 MiB."""
    synthetic_run.plant(
        phase="release",
        meter="host_anon",
        extra=lambda point, repeat: (
            spread_bytes * repeat if point.name == "arrays-lazy-image_count=500" else 0
        ),
    )
    if not accepted:
        with pytest.raises(
            BaselineError,
            match=r"its repeats differ by 3\.0 MiB, tolerance 3\.0 MiB; measure again",
        ):
            accepting(synthetic_run)
        return

    assert accepting(synthetic_run)


def test_accepted_points_are_not_lost_unasked(synthetic_run, accepting, folder):
    """A run of a selection replaces what it measured only on purpose."""
    accepting(synthetic_run)
    key = load_run(synthetic_run.path).manifest.comparability
    everything = set(find(folder, key).point)
    synthetic_run.keep_points(lambda point: "oom" not in point.name)
    with pytest.raises(
        BaselineError, match=r"did not measure 2 of 18 points .* --keep-others or --forget-others"
    ):
        accepting(synthetic_run)

    assert set(find(folder, key).point) == everything


@pytest.mark.parametrize(("others", "count"), [("keep", 18), ("forget", 16)])
def test_other_points_are_kept_or_forgotten_as_asked(
    synthetic_run, accepting, folder, others, count
):
    """Both are printed."""
    accepting(synthetic_run)
    synthetic_run.keep_points(lambda point: "oom" not in point.name)
    lines = accepting(synthetic_run, others=others)

    assert len(find(folder, load_run(synthetic_run.path).manifest.comparability).point) == count
    assert any(line.endswith("-> none") for line in lines) == (others == "forget")
