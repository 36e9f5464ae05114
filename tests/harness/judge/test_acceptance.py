"""One baseline for several versions of TensorFlow: what it takes to hold for another one, and what
is said of it.
"""

import pytest

from harness.__main__ import main
from harness.commands.accept import accept, accept_as_same
from harness.errors import BaselineError
from harness.judge import ExitCode
from harness.judge.baseline_file import find, holding, read
from harness.judge.gate import judge
from harness.judge.table import load_run
from harness.words import KIB

POINT = "loading-lazy-image_count=2000-stack_size=2048"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "baselines"


@pytest.fixture
def measured(synthetic_run):
    """A run of the default sweep with a version of TensorFlow; ``more_bytes`` at the peak of one
    epoch.
    """
    run_json, amounts = synthetic_run.run_json(), synthetic_run.amounts

    def measured(version, *, more_bytes=0, **key):
        synthetic_run.amounts = amounts
        synthetic_run.manifest = {
            "comparability": {**run_json["comparability"], "tensorflow": version, **key}
        }
        synthetic_run.plant(
            phase="epoch_0",
            meter="device_in_use",
            extra=lambda point, _: more_bytes if point.name == POINT else 0,
        )
        return load_run(synthetic_run.write())

    return measured


@pytest.fixture
def accepted(measured, policy, folder):
    """The baseline of 2.21 is accepted; the folder."""
    accept(measured("2.21"), policy, folder, reason="the first truth")
    return folder


def same(run, policy, folder, *, reason="measured alike", as_version="2.21"):
    return accept_as_same(run, policy, folder, as_version=as_version, reason=reason)


# 2 % of two batches of 4 MiB, which is more than the floor of 64 KiB.
@pytest.mark.parametrize(
    ("more_bytes", "holds"), [(167_772, True), (167_773, False), (-167_773, False)]
)
def test_it_holds_for_a_version_that_is_within_every_tolerance(
    measured, policy, accepted, more_bytes, holds
):
    """One byte past the tolerance it does not, in either direction, and nothing is written."""
    before = next(accepted.iterdir()).read_bytes()
    run = measured("2.20", more_bytes=more_bytes)
    if not holds:
        with pytest.raises(
            BaselineError,
            match=r"the baseline of TensorFlow 2\.21 does not hold for 2\.20 .*: .*epoch_0",
        ):
            same(run, policy, accepted)
        assert next(accepted.iterdir()).read_bytes() == before
        return
    lines = same(run, policy, accepted)
    verdict = judge(run, policy, accepted).verdict

    assert lines == (
        "TensorFlow 2.20: within every tolerance of what 2.21 takes",
        f"baseline: {next(accepted.iterdir())}",
    )
    assert verdict.exit_code is ExitCode.PASS
    assert any(
        check.sentence.endswith(
            "tensorflow 2.21, and holds for TensorFlow 2.20 too (shown "
            f"{read(next(accepted.iterdir())).also['2.20'].date} by run 20260101T000000Z-1)."
        )
        for check in verdict.checks
    )


def test_its_amounts_decide_for_the_other_version_too(measured, policy, accepted):
    """What grows later with 2.20 is a regression there."""
    same(measured("2.20"), policy, accepted)

    assert (
        judge(measured("2.20", more_bytes=1024 * KIB), policy, accepted).verdict.exit_code
        is ExitCode.REGRESSION
    )


@pytest.mark.parametrize(
    ("version", "key"),
    [("2.19", {}), ("2.20", {"device": "emulated, 1.0 GiB"}), ("2.20", {"scan": "x"})],
)
def test_it_holds_for_nothing_else(measured, policy, accepted, version, key):
    """Another version, device or scan has no baseline."""
    same(measured("2.20"), policy, accepted)

    assert (
        judge(measured(version, **key), policy, accepted).verdict.exit_code is ExitCode.NO_BASELINE
    )


def test_versions_are_kept_where_amounts_are_accepted_again(measured, policy, accepted):
    """They are held against the new amounts from then on."""
    same(measured("2.20"), policy, accepted)
    same(measured("2.19"), policy, accepted)
    run = measured("2.21", more_bytes=1024 * KIB)
    accept(run, policy, accepted, reason="more is right")
    baseline = find(accepted, run.manifest.comparability)

    assert list(baseline.also) == ["2.19", "2.20"]
    assert (baseline.also["2.20"].reason, baseline.also["2.20"].run) == (
        "measured alike",
        "20260101T000000Z-1",
    )
    assert judge(measured("2.20"), policy, accepted).verdict.exit_code is ExitCode.IMPROVEMENT


def test_a_baseline_of_its_own_comes_first(measured, policy, accepted):
    """It is found under its own name, and then nothing can be noted in the other."""
    same(measured("2.20"), policy, accepted)
    run = measured("2.20", more_bytes=1024 * KIB)
    accept(run, policy, accepted, reason="it takes more there")

    assert holding(accepted, run.manifest.comparability).key["tensorflow"] == "2.20"
    assert judge(run, policy, accepted).verdict.exit_code is ExitCode.PASS
    with pytest.raises(
        BaselineError,
        match=r"TensorFlow 2\.20 has a baseline of its own, .*; delete that first, or leave out",
    ):
        same(run, policy, accepted)


def test_of_two_that_hold_the_highest_version_is_taken(measured, policy, accepted):
    """2.21 before 2.9."""
    accept(measured("2.9"), policy, accepted, reason="old")
    same(measured("2.8"), policy, accepted)
    same(measured("2.8"), policy, accepted, as_version="2.9")

    assert holding(accepted, measured("2.8").manifest.comparability).key["tensorflow"] == "2.21"


def test_a_reason_and_a_baseline_are_needed(measured, policy, accepted):
    """Each refusal is one sentence."""
    with pytest.raises(BaselineError, match="a baseline needs a reason"):
        same(measured("2.20"), policy, accepted, reason=" ")
    with pytest.raises(
        BaselineError,
        match=r"has no baseline for .*tensorflow 2\.18; accept a run of TensorFlow 2\.18 first",
    ):
        same(measured("2.20"), policy, accepted, as_version="2.18")
    with pytest.raises(BaselineError, match=r"TensorFlow 2\.21 has a baseline of its own"):
        same(measured("2.21"), policy, accepted)


def test_an_incomplete_run_shows_nothing(synthetic_run, measured, policy, accepted):
    """A version is not known by half of the points."""
    synthetic_run.keep_points(lambda point: point.name != POINT)
    with pytest.raises(BaselineError, match=r"does not hold for 2\.20"):
        same(measured("2.20"), policy, accepted)


def test_damaged_files_beside_it_change_nothing(measured, policy, accepted):
    """A baseline that cannot be read holds for nothing."""
    same(measured("2.20"), policy, accepted)
    (accepted / "broken.toml").write_text("[[[")

    assert judge(measured("2.20"), policy, accepted).verdict.exit_code is ExitCode.PASS


def test_the_command_line_asks_for_it(measured, accepted, capsys, tmp_path):
    """``accept RUN --same-as 2.21``; amounts are left as they were."""
    before = find(accepted, measured("2.21").manifest.comparability)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        'schema_version = 1\n[[tolerance]]\nmeter = "device_in_use"\npercent = 2\nfloor = '
        '"64 KiB"\nbecause = "chosen"\n'
    )
    folders = ["--baselines", str(accepted), "--policy", str(policy)]
    code = main(
        ["accept", str(measured("2.20").path), *folders, "--reason", "alike", "--same-as", "2.21"]
    )

    assert (code, capsys.readouterr().err) == (0, "")
    assert read(next(accepted.iterdir())).point == before.point
    assert list(read(next(accepted.iterdir())).also) == ["2.20"]
