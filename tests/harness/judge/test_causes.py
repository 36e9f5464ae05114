"""Causes: what follows from one thing is one cause, two things are two, and no word says more than
the readings do.
"""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest

from harness.__main__ import main
from harness.judge import Check, FindingKind, RuleName
from harness.judge.advice import Commands
from harness.judge.baseline import load_against
from harness.judge.causes import CauseKind
from harness.judge.causes.telling import causes_of
from harness.judge.completeness import Traces, count_runs
from harness.judge.gate import findings_text, judge, kept_judgement
from harness.judge.policy import Policy, quote_rule
from harness.judge.rules.evidence import Evidence
from harness.judge.table import declared_by_point, load_run, readings_by_place
from harness.records import Outcome
from harness.rundir.traces import (
    Alive,
    Counts,
    Edges,
    OutOfMemory,
    Timeline,
    Trace,
    TracedPhase,
)
from reports.writing import write_outputs

KIB, MIB = 1024, 1024 * 1024
FRAME, IMAGE, BATCH = 16 * KIB, 64 * KIB, 4 * MIB
FEEDING = ("first_batch", "epoch_0", "epoch_1")
LAZY = "loading-lazy-image_count={}-stack_size=2048"
GATE = Path(__file__).parents[3] / "scenarios" / "gate.toml"
STORED = Path(__file__).parents[1] / "rundir" / "stored"


def each_image(amount):
    return lambda point, repeat: amount * point.parameters["image_count"]


def once(amount):
    return lambda point, repeat: amount


@pytest.fixture
def told(policy, baselines):
    """``told(run)``: the causes of a run; every finding is in exactly one of them."""

    def told(run, **arguments):
        judgement = judge(load_run(run.write()), policy, baselines, **arguments)
        explained = [id(check) for cause in judgement.causes for check in cause.checks]

        assert sorted(explained) == sorted(map(id, judgement.verdict.findings))
        return judgement.causes

    return told


def kept_from(run, edges, first, amount, *, loader="lazy"):
    """Each image takes ``amount`` more of the device from the phase ``first`` to the last."""
    base = run.amounts

    def amounts(point, repeat, name):
        found = dict(base(point, repeat, name))
        late = point.phases.index(name) - (
            point.phases.index(first) if first in point.phases else len(point.phases)
        )
        if point.parameters["loader"] == loader and late >= 0:
            more, was = amount * point.parameters["image_count"], found["device_in_use"]
            found["device_in_use"] = edges(
                was.start + more * (late > 0), was.peak + more, was.end + more
            )
        return found

    run.amounts = amounts
    return run


# What belongs together, and what does not.


def test_one_kept_tensor_is_one_cause(synthetic_run, told, edges):
    """Slopes, classes, budgets, distances, of all later phases and scenarios: one loader, the phase
    where it began, its bytes.
    """
    (cause,) = told(kept_from(synthetic_run, edges, "construct", IMAGE))
    rules = {check.rule for check in cause.checks}

    assert (cause.kind, cause.finding) == (CauseKind.MEMORY, FindingKind.REGRESSION)
    assert (cause.loader, cause.phase, cause.meter) == ("lazy", "construct", "device_in_use")
    assert cause.scenarios == ("loading", "arrays", "oom")
    assert len(cause.checks) > 20
    assert {RuleName.SLOPE, RuleName.BUDGET, RuleName.BASELINE} <= rules
    assert {"construct", "release"} <= {check.phase for check in cause.checks}
    assert cause.checks[0].rule == RuleName.SLOPE
    assert cause.point == LAZY.format(2000)
    assert cause.how_much == ("125.0 MiB at 2,000 images, 65,536 B for each image; allowed 512 B")


def test_the_host_side_of_the_same_phase_follows(synthetic_run, told):
    """Pages of the emulated device are host memory; they are no second cause."""
    for meter in ("device_in_use", "host_anon"):
        synthetic_run.plant(phase="construct", meter=meter, extra=each_image(IMAGE), keep=True)
    (cause,) = told(synthetic_run)

    assert cause.meter == "device_in_use"
    assert {check.meter for check in cause.checks} == {"device_in_use", "host_anon"}


def test_the_same_bytes_again_in_each_phase_are_one_cause(synthetic_run, told):
    """Notes that every phase makes of each image."""
    for phase in FEEDING:
        synthetic_run.plant(phase=phase, meter="host_anon", extra=each_image(3 * KIB), keep=True)
    (cause,) = told(synthetic_run)

    assert cause.phase == "first_batch"
    assert {check.phase for check in cause.checks} >= set(FEEDING)


@pytest.mark.parametrize(
    ("later", "number"),
    # beyond its limit of 512 B it is a quarter more, and 1 B above that
    [(FRAME, 1), (FRAME * 5 // 4 + 512, 1), (FRAME * 5 // 4 + 513, 2), (IMAGE, 2)],
)
def test_what_is_of_another_size_is_another_cause(synthetic_run, told, later, number):
    """At a quarter more it is the same again; beyond it, and at four times as much, it is not."""
    synthetic_run.plant(
        phase="construct", meter="device_in_use", extra=each_image(FRAME), keep=True
    ).plant(phase="epoch_0", meter="device_in_use", extra=each_image(later), keep=True)
    phases = {cause.phase for cause in told(synthetic_run)}

    assert phases == ({"construct"} if number == 1 else {"construct", "epoch_0"})


@pytest.mark.parametrize(
    ("meter", "later", "number"),
    [
        ("host_anon", IMAGE // 3, 1),
        # beyond its limit of 512 B it is a quarter more, and 1 B above that
        ("host_anon", IMAGE * 5 // 4 + 512, 1),
        ("host_anon", IMAGE * 5 // 4 + 513, 2),
        ("device_in_use", IMAGE // 3, 2),
    ],
)
def test_less_of_the_host_than_before_follows(synthetic_run, told, meter, later, number):
    """The heap is another one then; the device is exact, and less is another thing."""
    synthetic_run.plant(phase="construct", meter=meter, extra=each_image(IMAGE), keep=True).plant(
        phase="epoch_0", meter=meter, extra=each_image(later), keep=True
    )

    assert len(told(synthetic_run)) == number


def of_checks(run, *checks):
    """The causes of checks that are made up, of a run as it is."""
    evidence = Evidence(
        run=run,
        policy=Policy(schema_version=1),
        fits={},
        readings=readings_by_place(run),
        declared=declared_by_point(run),
        census=count_runs(run),
        baseline=None,
        against=None,
        baselines_folder=Path("none"),
        traces=dict,
        partial=False,
        commands=Commands.of(run.path, run.manifest),
    )
    return causes_of(checks, evidence)


def over_limit(point, phase, amount):
    return Check(
        rule=RuleName.BUDGET,
        subject=f"{point.name} / {phase}",
        sentence="too much",
        finding=FindingKind.REGRESSION,
        scenario=point.scenario,
        point=point.name,
        points=(point.name,),
        phase=phase,
        meter="device_in_use",
        field="growth",
        measured=float(amount),
        limit=1.0,
        bound="upper",
        unit="B",
    )


@pytest.mark.parametrize(("there", "number"), [(20 * MIB + 1, 1), (20 * MIB + 2, 2)])
def test_what_is_left_is_what_several_phases_have_kept(synthetic_run, there, number):
    """8 MiB of each of two, and a quarter more; beyond that something else is left."""
    run = load_run(synthetic_run.write())
    point = next(each for each in run.points if each.name == LAZY.format(500))
    kept = [over_limit(point, phase, 8 * MIB) for phase in ("construct", "epoch_0")]
    left = dataclasses.replace(over_limit(point, "release", there), field="net_start")

    assert len(of_checks(run, *kept, left)) == number


@pytest.mark.parametrize(("like", "number"), [("1.00 x batch", 1), ("", 2)])
def test_the_same_multiple_at_another_point_is_the_same(synthetic_run, like, number):
    """Amounts of two points say nothing of each other by themselves."""
    run = load_run(synthetic_run.write())
    first, second = (
        next(each for each in run.points if each.name == LAZY.format(count)) for count in (100, 500)
    )
    found = [
        dataclasses.replace(over_limit(point, phase, BATCH), like=like)
        for point, phase in ((first, "construct"), (second, "epoch_0"))
    ]

    assert len(of_checks(run, *found)) == number


@pytest.mark.parametrize(
    ("scenarios", "number"), [(("loading", "arrays"), 1), (("loading",), 2)], ids=["both", "one"]
)
def test_what_two_scenarios_show_in_one_phase_shows_in_ways_without_phases(
    synthetic_run, scenarios, number
):
    """Each phase is a whole way through the loader there; of one scenario alone nobody knows."""
    lazy = [point for point in synthetic_run.points if point.parameters["loader"] == "lazy"]
    way = dataclasses.replace(
        lazy[0], scenario="ways", phases=("counts", "release"), parameters={"loader": "lazy"}
    )
    synthetic_run.points = [*lazy, way]
    synthetic_run.amounts = lambda point, repeat, name: {}
    synthetic_run.declared = lambda point: {}
    run = load_run(synthetic_run.write())
    chosen = {point.scenario: point for point in lazy if point.scenario in scenarios}
    checks = [over_limit(point, "construct", 64 * MIB) for point in chosen.values()]

    assert len(of_checks(run, *checks, over_limit(way, "counts", MIB))) == number


@pytest.mark.parametrize(("kept", "number"), [(IMAGE, 1), (IMAGE // 2, 2)])
def test_what_is_kept_of_the_first_batch_and_then_of_every_one_is_one_cause(
    synthetic_run, told, edges, kept, number
):
    """A list of batches: one of them after the first, all of them after an epoch."""
    base = synthetic_run.amounts

    def amounts(point, repeat, name):
        found, was = dict(base(point, repeat, name)), base(point, repeat, name)["device_in_use"]
        images = point.parameters["image_count"]
        more = {"first_batch": BATCH, "epoch_0": kept * images}.get(name, 0)
        before = {"epoch_0": BATCH, "epoch_1": kept * images}.get(name, 0)
        if point.parameters["loader"] == "lazy":
            found["device_in_use"] = edges(
                was.start + before, was.peak + before + more, was.end + before + more
            )
        return found

    synthetic_run.amounts = amounts
    causes = told(synthetic_run)

    assert causes[0].phase == "first_batch"
    assert len(causes) == number


def test_two_loaders_are_two_causes(synthetic_run, told):
    """Each has code of its own."""
    for loader in ("lazy", "eager"):
        synthetic_run.plant(
            phase="open", meter="device_in_use", extra=once(16 * MIB), loader=loader, keep=True
        )

    assert {cause.loader for cause in told(synthetic_run)} == {"lazy", "eager"}


# Words, with readings for which another word would be false.


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (0, "takes as much as {}, and ends construct without it"),
        (IMAGE // 2, "takes as much as {}, and ends construct with 62.5 MiB more"),
        (IMAGE, "keeps as much as {}"),
    ],
    ids=["given back", "half of it kept", "kept"],
)
def test_what_became_of_it_is_read_off_the_end_of_the_phase(
    synthetic_run, told, edges, kept, words
):
    """The same growth each time."""
    base = synthetic_run.amounts

    def amounts(point, repeat, name):
        found = dict(base(point, repeat, name))
        if point.parameters["loader"] == "lazy" and name == "construct":
            count = point.parameters["image_count"]
            found["device_in_use"] = edges(0, IMAGE * count, kept * count)
        return found

    synthetic_run.amounts = amounts

    size = words.format("1.00 x image for each image on the device")

    assert told(synthetic_run)[0].what == f"the lazy loader {size}"


@pytest.mark.parametrize(
    ("keep", "words"), [(True, "keeps"), (False, "takes")], ids=["kept", "given back"]
)
def test_of_a_distance_it_is_kept_where_the_end_is_further_away_too(
    synthetic_run, told, keep, words
):
    """A batch more than was accepted, on the host."""
    synthetic_run.plant(phase="epoch_0", meter="host_anon", extra=once(8 * MIB), keep=keep)
    (cause,) = told(synthetic_run)

    assert cause.what.startswith(f"the lazy loader {words} ")
    assert "more on the host" in cause.what


def test_what_is_there_before_a_phase_is_not_blamed_on_it(synthetic_run, told, edges):
    """Allocated between two phases, it is in no phase's growth."""
    kept_from(synthetic_run, edges, "release", IMAGE)
    base = synthetic_run.amounts

    def amounts(point, repeat, name):
        found = dict(base(point, repeat, name))
        if name == "release" and point.parameters["loader"] == "lazy":
            more = IMAGE * point.parameters["image_count"]
            found["device_in_use"] = edges(more, more, more)
        return found

    synthetic_run.amounts = amounts
    cause = told(synthetic_run)[0]

    assert cause.what.endswith("on the device already when release begins")
    assert "; there when release begins" in cause.where


def test_amounts_that_read_alike_are_given_in_bytes(synthetic_run, told):
    """A limit of 1 MiB and 64 B more."""
    synthetic_run.plant(phase="construct", meter="device_in_use", extra=once(MIB + 64))
    cause = next(cause for cause in told(synthetic_run) if "budget" in cause.checks[0].rule)

    assert "1,048,640 B at" in cause.how_much
    assert cause.how_much.endswith("allowed 1,048,576 B")


# Deaths, and what was not measured.


def test_deaths_are_told_once_for_each_point(synthetic_run, told):
    """Two repeats of two points; with the end of a log, and how to read all of it."""
    for count in (500, 1000):
        for repeat in (0, 1):
            end = (Outcome.TIMED_OUT, "it took more than 9 s", "epoch_0")
            synthetic_run.ends[LAZY.format(count), repeat] = end
    logs = synthetic_run.path / "logs"
    logs.mkdir(parents=True)
    log = logs / f"{LAZY.format(500)}-repeat=0.log"
    log.write_text("".join(f"\x1b[31mline {n}\x1b[0m\n\n" for n in range(99)) + "\x00<end>\n")
    first, second = (cause for cause in told(synthetic_run) if cause.kind is CauseKind.DEATH)

    assert [first.point, second.point] == [LAZY.format(500), LAZY.format(1000)]
    assert first.what == "the lazy loader took longer than it may"
    assert first.how_much == "2 of 2 runs: it took more than 9 s"
    assert first.where == f"{LAZY.format(500)}; in epoch_0"
    assert len(first.log_tail) == 15
    assert first.log_tail[-2:] == ("line 98", "\ufffd<end>")
    assert shlex.split(first.commands[0].line) == ["cat", str(log)]
    assert second.log_tail == ()
    assert "cat" not in {shlex.split(each.line)[0] for each in second.commands}


@pytest.mark.parametrize(
    ("outcome", "kinds"),
    [
        (Outcome.DEVICE_OOM, [CauseKind.MEMORY]),
        (Outcome.TIMED_OUT, [CauseKind.MEMORY, CauseKind.DEATH]),
    ],
)
def test_out_of_memory_follows_from_what_takes_too_much(synthetic_run, told, edges, outcome, kinds):
    """In the same phase or a later one; another death does not."""
    kept_from(synthetic_run, edges, "construct", IMAGE)
    for repeat in (0, 1):
        synthetic_run.ends[LAZY.format(2000), repeat] = outcome, "refused", "epoch_0"

    causes = told(synthetic_run)

    assert [cause.kind for cause in causes] == kinds
    assert causes[0].how_much.endswith("; out of memory at 2,000 images") is (len(kinds) == 1)


def test_out_of_memory_beside_an_amount_that_does_not_grow_is_told_as_a_death(synthetic_run, told):
    """A budget of a batch is no reason why a larger scan died."""
    synthetic_run.plant(phase="construct", meter="device_in_use", extra=once(2 * MIB))
    for repeat in (0, 1):
        synthetic_run.ends[LAZY.format(2000), repeat] = Outcome.DEVICE_OOM, "refused", "epoch_0"
    deaths = [cause for cause in told(synthetic_run) if cause.kind is CauseKind.DEATH]

    assert [cause.point for cause in deaths] == [LAZY.format(2000)]


@pytest.mark.parametrize(
    ("more_in", "number"), [("construct", 1), ("epoch_1", 2)], ids=["before it", "after it"]
)
def test_less_after_more_is_no_cause_of_its_own(synthetic_run, told, more_in, number):
    """What was taken and given back is taken anew without being seen; less before it is
    something else.
    """
    synthetic_run.plant(phase=more_in, meter="host_anon", extra=once(64 * MIB), keep=True).plant(
        phase="first_batch", meter="device_in_use", extra=once(-BATCH)
    )

    assert len(told(synthetic_run)) == number


def test_without_a_baseline_there_is_one_cause(synthetic_run, told):
    """Whatever the number of points."""
    synthetic_run.manifest = {"comparability": {"device": "another"}}
    (cause,) = told(synthetic_run)

    assert (cause.kind, cause.finding) == (CauseKind.MISSING, FindingKind.NO_BASELINE)
    assert cause.what == "there is nothing accepted to compare with"
    assert [command.purpose for command in cause.commands] == ["accept it, where it is meant"]


def test_points_that_the_baseline_lacks_are_one_cause_with_a_count(synthetic_run, told):
    """Six that were not there when it was accepted."""
    synthetic_run.points = [
        dataclasses.replace(point, parameters={**point.parameters, "image_count": count})
        if point.scenario == "arrays" and (count := point.parameters["image_count"] + 8)
        else point
        for point in synthetic_run.points
    ]
    causes = told(synthetic_run, partial=True)
    (cause,) = [each for each in causes if each.finding is FindingKind.NO_BASELINE]

    assert cause.what == "6 points have no baseline"


def test_a_meter_that_reads_nowhere_is_one_cause(synthetic_run, told):
    """What needs it cannot be decided, and says so there."""
    (cause,) = told(synthetic_run.without_meter("host_anon", "no such file"))

    assert cause.kind is CauseKind.MISSING
    assert cause.what == "host anonymous memory could not be judged"
    assert len(cause.checks) > 3


def test_less_where_the_meter_sees_too_little_is_no_improvement_of_its_own(synthetic_run):
    """A floor that is not reached, and less than was accepted of the same."""
    run = load_run(synthetic_run.write())
    point = next(each for each in run.points if each.name == LAZY.format(500))
    floor = dataclasses.replace(
        over_limit(point, "epoch_0", 512),
        rule=RuleName.FLOOR,
        finding=FindingKind.INCOMPLETE,
        limit=float(BATCH),
        bound="lower",
    )
    less = dataclasses.replace(
        over_limit(point, "epoch_0", 512),
        rule=RuleName.BASELINE,
        finding=FindingKind.MOVED,
        limit=float(BATCH),
        bound="lower",
        earlier=float(2 * BATCH),
        earlier_from="accepted before",
    )
    (unseen,), (moved,) = of_checks(run, floor, less), of_checks(run, less)

    assert unseen.what == "device in use does not see what the lazy loader takes"
    assert len(unseen.checks) == 2
    assert moved.what == "the lazy loader has moved memory to where no limit counts it"


def test_improvements_are_one_cause_of_a_loader(synthetic_run, told):
    """Of all its points; and where nothing else is wrong they can be accepted."""
    synthetic_run.plant(phase="first_batch", meter="device_in_use", extra=once(-BATCH))
    (cause,) = told(synthetic_run)

    assert cause.kind is CauseKind.IMPROVEMENT
    assert (cause.loader, cause.phase) == ("lazy", "first_batch")
    assert cause.what == "the lazy loader takes less than was accepted"
    assert "at least 7.8 MiB expected" in cause.how_much


def test_a_pass_has_no_cause(synthetic_run, told):
    """Nothing is wrong."""
    assert told(synthetic_run) == ()


# Since when, why, and what to type.


def test_since_when_is_what_was_accepted(synthetic_run, told):
    """With the commit; where there was nothing of it, that it was not there."""
    synthetic_run.plant(phase="construct", meter="device_in_use", extra=once(8 * MIB), keep=True)
    (cause,) = told(synthetic_run)
    synthetic_run.plant(phase="construct", meter="device_in_use", extra=once(-8 * MIB), keep=True)
    (other,) = told(synthetic_run.plant(phase="epoch_0", meter="device_in_use", extra=once(BATCH)))

    assert cause.since.startswith("not when accepted 20")
    assert cause.since.endswith(" (commit 0123abc)")
    assert other.since.startswith("device in use, epoch_0: 8.0 MiB when accepted 20")


def test_the_other_code_is_named_where_two_are_compared(synthetic_run, policy, tmp_path):
    """Not the baseline."""
    run = dataclasses.replace(synthetic_run, path=tmp_path / "now").plant(
        phase="construct", meter="device_in_use", extra=once(8 * MIB), keep=True
    )
    synthetic_run.manifest = {"run_id": "earlier"}
    now, then = load_run(run.write()), synthetic_run.write()
    (cause,) = judge(
        now, policy, Path("none"), partial=True, against=load_against(now, then)
    ).causes

    assert cause.since == "not in run earlier"


def test_what_was_there_before_too_is_not_said_to_be_new(synthetic_run, policy, tmp_path, edges):
    """The device's limit was broken by the other code as well; what changed is the host."""
    run = dataclasses.replace(synthetic_run, path=tmp_path / "now")
    for each in (run, synthetic_run):
        each.plant(phase="construct", meter="device_in_use", extra=each_image(IMAGE), keep=True)
    run.plant(phase="construct", meter="host_anon", extra=once(64 * MIB), keep=True)
    synthetic_run.manifest = {"run_id": "earlier"}
    now, then = load_run(run.write()), synthetic_run.write()
    first = judge(now, policy, Path("none"), partial=True, against=load_against(now, then)).causes[
        0
    ]

    assert first.meter == "device_in_use"
    assert first.since.startswith("host anonymous memory, construct: ")


def test_the_rule_is_quoted_from_its_file(synthetic_run, told):
    """Where it stands, and as it stands there."""
    synthetic_run.plant(phase="construct", meter="device_in_use", extra=each_image(IMAGE))
    (cause,) = told(synthetic_run)
    place, _, line = cause.rule_place.rpartition(":")
    lines, quoted = GATE.read_text().splitlines(), cause.rule_text.splitlines()

    assert Path(place) == GATE
    assert lines[int(line) - 1 :][: len(quoted)] == quoted
    assert quoted[0] == "[[slope]]"
    assert quoted[-1].startswith("because = ")
    assert cause.checks[0].because in quoted[-1]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("[[slope]]\na = 1\n\n# next\n[[slope]]\nb = 2\n\n# end\n", ":5"),
        ("slope = [{a = 1}, {b = 2}]\n", None),
        ('[[slope]]\na = """\n[[slope]]\n"""\n', None),
        ("[[slope]\n", None),
        ("[[slope]]\na = 1\n", None),
    ],
    ids=["in order", "inline", "a header in a text", "not TOML", "one rule alone"],
)
def test_what_is_not_certainly_the_rule_is_not_quoted(tmp_path, text, quoted):
    """The second of a file."""
    policy = tmp_path / "of limits.toml"
    policy.write_text(text)
    found = quote_rule(f"slope rule 2 of {policy}")

    assert (found and found.place) == (quoted and f"{policy}{quoted}")
    assert found is None or found.text == "[[slope]]\nb = 2"


def test_a_run_that_breaks_a_limit_is_never_advised_to_be_accepted(synthetic_run, told):
    """Accept would refuse it."""
    causes = told(
        synthetic_run.plant(
            phase="construct", meter="device_in_use", extra=each_image(IMAGE)
        ).plant(phase="epoch_1", meter="host_anon", extra=once(64 * MIB), loader="eager")
    )

    assert len(causes) > 1
    assert not [each for cause in causes for each in cause.commands if "accept" in each.line]


def test_a_distance_alone_can_be_accepted_by_the_command(
    synthetic_run, policy, baselines, tmp_path, monkeypatch
):
    """As it stands, with the folder of this judgement; then the run passes."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(baselines, "my baselines")
    limits = tmp_path / "limits.toml"
    limits.write_text(
        'schema_version = 1\n[[tolerance]]\nmeter = "device_in_use"\npercent = 2\n'
        'floor = "64 KiB"\nbecause = "chosen for this test"\n'
    )
    run = synthetic_run.plant(phase="epoch_0", meter="device_in_use", extra=once(BATCH)).write()
    arguments = ["--policy", str(limits), "--baselines", str(folder)]
    codes = [main(["gate", str(run), *arguments])]
    (cause,) = json.loads((run / "findings.json").read_text())["causes"]
    (line,) = [each["line"] for each in cause["commands"] if "accept" in each["line"]]
    codes += [main(shlex.split(line)[3:]), main(["gate", str(run), *arguments])]

    assert codes == [1, 0, 0]


@pytest.mark.parametrize(
    ("command", "good", "searched"),
    [
        ("pytest scenarios -n 2 --memory-out run", "fedcba9", True),
        ("pytest scenarios", "0123abcd", False),
        ("python run.py", "fedcba9", False),
    ],
    ids=["another commit", "the same commit", "not by pytest"],
)
def test_a_commit_is_searched_for_where_an_earlier_one_is_known(
    synthetic_run, policy, tmp_path, command, good, searched
):
    """From the one that was accepted, with the arguments that it was measured by."""
    folder = tmp_path / "accepted here"
    synthetic_run.manifest = {"environment": {"git_commit": good, "git_dirty": False}}
    accepted = ["accept", str(synthetic_run.write()), "--reason", "x"]
    limits = tmp_path / "limits.toml"
    limits.write_text(
        'schema_version = 1\n[[tolerance]]\nmeter = "device_in_use"\npercent = 2\n'
        'floor = "64 KiB"\nbecause = "chosen for this test"\n'
    )
    options = ["--policy", str(limits), "--baselines", str(folder)]
    assert main([*accepted, *options]) == 0
    synthetic_run.manifest = {"command": command}
    synthetic_run.plant(phase="epoch_0", meter="device_in_use", extra=once(BATCH))
    assert main(["gate", str(synthetic_run.write()), *options]) == 1
    document = json.loads((synthetic_run.path / "findings.json").read_text())
    lines = [shlex.split(each["line"]) for each in document["causes"][0]["commands"]]
    found = [line for line in lines if "bisect" in line]

    assert found == (
        [
            [
                *("python", "-m", "harness", "bisect", "--policy", str(limits), good),
                *("--", "scenarios", "-n", "2"),
            ]
        ]
        if searched
        else []
    )


# The record.


def test_an_id_is_of_what_goes_wrong_and_not_of_how_much(synthetic_run, told):
    """Half as much is the same; another phase is not."""
    ids = []
    for phase, amount in (("construct", IMAGE), ("construct", IMAGE // 2), ("open", IMAGE)):
        run = dataclasses.replace(synthetic_run, path=synthetic_run.path / f"{phase}{amount}")
        run.plant(phase=phase, meter="device_in_use", extra=each_image(amount), keep=True)
        ids.append(told(run)[0].id)

    assert ids[0] == ids[1] != ids[2]
    assert all(each.isalnum() for each in ids)


def test_causes_are_kept_with_the_judgement(synthetic_run, policy, baselines):
    """Each check by its place; read back they are the same, and one that was edited is no longer of
    this judgement.
    """
    synthetic_run.plant(phase="construct", meter="device_in_use", extra=each_image(IMAGE))
    run = load_run(synthetic_run.write())
    judgement = judge(run, policy, baselines)
    write_outputs(run, judgement)
    path = run.path / "findings.json"
    document = json.loads(path.read_text())
    (cause,) = document["causes"]
    back = kept_judgement(run).judgement

    assert [document["checks"][place]["subject"] for place in cause["checks"]] == [
        check.subject for check in judgement.causes[0].checks
    ]
    assert back is not None
    assert back.causes == judgement.causes
    assert findings_text(run, back) == path.read_text()

    path.write_text(path.read_text().replace(cause["what"], "nothing is wrong"))
    assert kept_judgement(run).judgement is None


def test_what_was_alive_is_read_from_the_trace(tmp_path):
    """The three largest, as TensorFlow named them; of the largest point that was traced."""
    run = load_run(Path(shutil.copytree(STORED / "run", tmp_path / "run")))
    arguments = ["--policy", str(STORED / "policy.toml")]
    arguments += ["--baselines", str(STORED / "baselines")]
    assert main(["gate", str(run.path), "--partial", *arguments]) == 1
    (cause,) = kept_judgement(run).judgement.causes

    assert cause.point == LAZY.format(100)
    assert [(one.dtype, one.shape, one.nbytes, one.declared) for one in cause.alive] == [
        ("float32", (64, 64, 64, 4), BATCH, "1.00 x batch"),
        ("float32", (64, 1, 2, 4), 2048, ""),
        ("resource", (), 200, ""),
    ]
    assert cause.following == "2 more findings follow from it"
    assert cause.rule_place == f"{STORED / 'policy.toml'}:36"


def traced(name, *, phase_alive=(), refused_alive=None):
    """The trace of a point: what was alive at the peak of construct, and when memory ran out."""
    edges = Edges(start_bytes=0, peak_bytes=MIB, end_bytes=0)
    phase = TracedPhase(
        phase="construct",
        index=1,
        finished=True,
        **dict.fromkeys(("start_ns", "peak_ns", "end_ns"), 0),
        requested=edges,
        allocator=edges,
        alive=tuple(phase_alive),
    )
    refused = refused_alive and OutOfMemory(
        phase="construct",
        shape="[1]",
        dtype="float32",
        like="",
        **dict.fromkeys(("asked_bytes", "requested_bytes", "allocator_bytes"), MIB),
        alive=tuple(refused_alive),
    )
    return Trace(
        schema_version=1,
        point=name,
        device="",
        allocator="",
        tensorflow="",
        limit_bytes=None,
        base_bytes=0,
        declared={},
        phases=(phase,),
        timeline=Timeline.of([], [], []),
        counts=Counts.none(),
        out_of_memory=refused,
    )


def tensor(op, total):
    return Alive(
        op=op,
        shape="[4]",
        dtype="float32",
        region="output",
        like="",
        each_bytes=total // 2,
        count=2,
    )


def test_of_a_death_it_is_what_was_alive_when_memory_ran_out(synthetic_run, told, monkeypatch):
    """Not at the peak of the phase; the largest first, and no more than three."""
    name = LAZY.format(2000)
    sizes = {"a": 2, "b": 8, "c": 6, "d": 4}
    trace = traced(
        name,
        phase_alive=[tensor("peak", 64)],
        refused_alive=[tensor(op, size) for op, size in sizes.items()],
    )
    found = Traces({name: trace}, {})
    monkeypatch.setattr("harness.judge.gate.read_traces", lambda run: found)
    for repeat in (0, 1):
        synthetic_run.ends[name, repeat] = Outcome.DEVICE_OOM, "refused", "construct"
    (death,) = (cause for cause in told(synthetic_run) if cause.kind is CauseKind.DEATH)

    assert [(one.operation, one.count, one.nbytes, one.shape) for one in death.alive] == [
        ("b", 2, 8, (4,)),
        ("c", 2, 6, (4,)),
        ("d", 2, 4, (4,)),
    ]


def test_the_largest_point_that_was_traced_shows_it_best(synthetic_run, told, monkeypatch):
    """Its tensors can be named; of the host's memory there is no trace."""
    name = LAZY.format(500)
    found = Traces({name: traced(name, phase_alive=[tensor("kept", 64)])}, {})
    monkeypatch.setattr("harness.judge.gate.read_traces", lambda run: found)
    on_host = dataclasses.replace(synthetic_run, path=synthetic_run.path / "host")
    synthetic_run.plant(phase="construct", meter="device_in_use", extra=each_image(IMAGE))
    on_host.plant(phase="construct", meter="host_anon", extra=each_image(IMAGE))
    (device,), (host,) = told(synthetic_run), told(on_host)

    assert (device.point, [one.operation for one in device.alive]) == (name, ["kept"])
    assert (host.point, host.alive) == (LAZY.format(2000), ())
