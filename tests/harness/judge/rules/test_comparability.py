"""What may be compared: the key of the baseline, counters of a meter, and isolation where it
matters.
"""

import pytest

from harness.commands.accept import accept
from harness.judge import ExitCode
from harness.judge.gate import judge
from harness.judge.limits import Tolerance
from harness.judge.rules.comparability import ISOLATED_METERS
from harness.judge.table import load_run
from harness.words import MIB

KEY = {
    "device": "emulated",
    "device_memory_bytes": 4096 * MIB,
    "allocator": "bfc",
    "tensorflow": "2.21",
    "scan": "simulated, seed 0",
}


def own(verdict):
    return [check for check in verdict.findings if check.rule == "comparability"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("device", "NVIDIA A100, 80.0 GiB", "device was emulated and is NVIDIA A100, 80.0 GiB"),
        ("allocator", "cuda_malloc_async", "allocator was bfc and is cuda_malloc_async"),
        ("tensorflow", "2.22", "tensorflow was 2.21 and is 2.22"),
    ],
)
def test_a_baseline_for_something_else_is_named_with_what_it_differs_in(
    synthetic_run, verdict_of, name, value, words
):
    """One finding, exit 4; nothing is compared."""
    synthetic_run.manifest["comparability"] = {**KEY, name: value}
    verdict = verdict_of(synthetic_run)

    assert verdict.exit_code is ExitCode.NO_BASELINE
    assert [check.rule for check in verdict.findings] == ["comparability"]
    assert (
        f"is not comparable: {words}. To do: look at the run, then accept it with: python "
        "-m harness accept" in verdict.sentence
    )


def test_an_empty_folder_has_none_at_all(synthetic_run, policy, tmp_path):
    """And says so."""
    verdict = judge(load_run(synthetic_run.write()), policy, tmp_path / "nowhere").verdict

    assert verdict.exit_code is ExitCode.NO_BASELINE
    assert "the folder holds none at all" in verdict.sentence


def test_a_damaged_file_of_another_key_does_not_stand_in_the_way(synthetic_run, policy, tmp_path):
    """It is nobody's baseline here."""
    (tmp_path / "other.toml").write_text("[[[")

    assert (
        judge(load_run(synthetic_run.write()), policy, tmp_path).verdict.exit_code
        is ExitCode.NO_BASELINE
    )


def with_host_rss(policy):
    tolerance = Tolerance(meter="host_rss", percent=50, floor="8 MiB", because="chosen")
    return policy.model_copy(update={"tolerance": (*policy.tolerance, tolerance)})


def host_rss_of(run, launcher):
    """Rows with resident memory as large as anonymous memory, from children started by
    ``launcher(repeat)``.
    """
    base = run.amounts
    run.amounts = lambda point, repeat, phase: {
        **(found := dict(base(point, repeat, phase))),
        "host_rss": found["host_anon"],
    }
    rows = run.rows()
    for row in rows:
        if row["kind"] == "end":
            row["launcher"] = launcher(row["repeat"])
    return rows


@pytest.mark.parametrize(
    ("now", "code"), [("zygote", ExitCode.PASS), ("spawn", ExitCode.NO_BASELINE)]
)
def test_isolation_matters_where_a_gated_meter_depends_on_it(
    synthetic_run, policy, tmp_path, now, code
):
    """Resident memory of a fork is compared with that of a fork."""
    assert "host_rss" in ISOLATED_METERS
    gating = with_host_rss(policy)
    accept(
        load_run(synthetic_run.write(host_rss_of(synthetic_run, lambda repeat: "zygote"))),
        gating,
        tmp_path,
        reason="chosen",
    )
    verdict = judge(
        load_run(synthetic_run.write(host_rss_of(synthetic_run, lambda repeat: now))),
        gating,
        tmp_path,
    ).verdict

    assert verdict.exit_code is code
    assert (
        code is ExitCode.PASS
        or "was accepted from children started by zygote, and now by spawn" in verdict.sentence
    )


def test_isolation_does_not_matter_to_the_others(synthetic_run, verdict_of):
    """The baseline is of spawned children; anonymous memory is the same in a fork."""
    rows = synthetic_run.rows()
    for row in rows:
        if row["kind"] == "end":
            row["launcher"] = "zygote"

    assert verdict_of(synthetic_run, rows=rows).exit_code is ExitCode.PASS


def test_runs_started_in_two_ways_are_not_compared_with_each_other(synthetic_run, policy, tmp_path):
    """A fallback in the middle of a sweep."""
    rows = host_rss_of(synthetic_run, lambda repeat: ("zygote", "spawn")[repeat])
    verdict = judge(load_run(synthetic_run.write(rows)), with_host_rss(policy), tmp_path).verdict

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "host resident memory depends on how children start, and those of this run were "
        "started by spawn, zygote" in verdict.sentence
    )


def sourced(run, source):
    rows = run.rows()
    for row in rows:
        if row["kind"] == "phase":
            row["readings"][0]["source"] = source(row["repeat"])
    return rows


def test_counters_that_count_differently_are_not_compared(synthetic_run, policy, tmp_path):
    """Neither with the baseline, nor within a run; the baseline keeps which one it was."""
    accept(
        load_run(synthetic_run.write(sourced(synthetic_run, lambda repeat: "memory v2"))),
        policy,
        tmp_path,
        reason="chosen",
    )
    same, other, both = (
        judge(
            load_run(synthetic_run.write(sourced(synthetic_run, source))), policy, tmp_path
        ).verdict
        for source in (
            lambda repeat: "memory v2",
            lambda repeat: "memory v1",
            lambda repeat: f"memory v{repeat + 1}",
        )
    )

    assert same.exit_code is ExitCode.PASS
    assert other.exit_code is ExitCode.NO_BASELINE
    assert "was accepted from memory v2 and is read from memory v1" in other.sentence
    assert both.exit_code is ExitCode.INCOMPLETE
    assert "was read from memory v1 and memory v2" in both.sentence


def test_a_machine_with_more_processors_has_the_same_counters(synthetic_run, policy, tmp_path):
    """The kernel's counters lag further there, which widens the upper bound and changes nothing
    that is compared.
    """
    verdicts = []
    for lag in ("496.0 KiB", "1.9 MiB"):
        rows = sourced(
            synthetic_run,
            lambda repeat, lag=lag: f"VmHWM in windows; the kernel's counters to {lag}",
        )
        run = load_run(synthetic_run.write(rows))
        if not verdicts:
            accept(run, policy, tmp_path, reason="chosen")
        verdicts.append(judge(run, policy, tmp_path).verdict)

    assert [verdict.exit_code for verdict in verdicts] == [ExitCode.PASS, ExitCode.PASS]


def test_a_device_that_was_not_alone_is_not_judged(synthetic_run, verdict_of):
    """Its readings count what others held."""
    rows = synthetic_run.rows()
    rows[2]["readings"][0]["contended"] = "python (pid 4242) held 1.0 GiB"
    verdict = verdict_of(synthetic_run, rows=rows)

    assert verdict.exit_code is ExitCode.INCOMPLETE
    assert (
        "another process used the device, on the last attempt too: python (pid 4242) held 1.0 GiB"
        in verdict.sentence
    )
