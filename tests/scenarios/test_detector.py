"""The detector without children: its registry, its statistics, its ledger, and how it counts what
the gate said.
"""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.judge.policy import read_policy
from scenarios.catalog import SCENARIOS, points
from scenarios.detector.__main__ import main
from scenarios.detector.bugs.registry import (
    BODY_VARIABLE,
    PLANT_VARIABLE,
    PLANTS,
    Per,
    Reach,
    plant_named,
    planted,
)
from scenarios.detector.ledger import CLEAN, LEDGER_FILE, Ledger, Sweep
from scenarios.detector.observed import Found, Seen, ToldCause
from scenarios.detector.rates import Rate
from scenarios.detector.result import Result, cost_in_words
from scenarios.detector.sweeps import MODES

KEPT = plant_named("full_tensor_kept")
PASSED = Seen(exit_code=0, findings=())


def refused(
    rule="slope",
    phase="construct",
    meter="device_in_use",
    subject="loading / lazy",
    code=1,
    kind="regression",
):
    found = Found(
        kind=kind,
        rule=rule,
        subject=subject,
        phase=phase,
        meter=meter,
        sentence=f"{subject}: too much",
    )
    return Seen(exit_code=code, findings=(found,))


def told(*phases, loader="lazy"):
    """What was refused, and the causes that it was told by, of these phases."""
    causes = tuple(
        ToldCause(kind="memory", loader=loader, phase=phase, what=f"kept in {phase}", checks=9)
        for phase in phases
    )
    return replace(refused(), causes=causes)


def planted_sweeps(plant, *seen):
    return [
        Sweep(kind=plant.name, chosen=plant.points, mode=mode, seen=one)
        for mode, one in zip(MODES, seen, strict=True)
    ]


def clean_sweeps(*seen):
    return [
        Sweep(kind=CLEAN, chosen="loading and lazy", mode="runner", number=n, seen=one)
        for n, one in enumerate(seen)
    ]


# --- the registry ---


def test_at_least_twenty_kinds_are_above_the_bar_and_no_two_have_a_name():
    """What the rate of detection is a rate of."""
    above = [plant for plant in PLANTS if plant.reach is Reach.ABOVE]

    assert len(above) >= 20
    assert (
        len({plant.name for plant in PLANTS})
        == len({plant.function for plant in PLANTS})
        == len(PLANTS)
    )


def test_what_has_to_be_found_says_by_which_finding(project_root):
    """A rule that the policy has, or the distance from the baseline; a phase of the scenario; a
    meter that is gated.
    """
    policy = read_policy(project_root / "scenarios" / "gate.toml")
    rules = {name.partition(" ")[0] for name, _ in policy.rules()} | {"floor", "baseline"}
    phases = {phase for scenario in SCENARIOS for phase in scenario.phases}
    for plant in PLANTS:
        assert (plant.expected is not None) or plant.reach is not Reach.ABOVE, plant.name
        if plant.expected is not None:
            assert plant.expected.rule in rules, plant.name
            assert plant.expected.phase in phases | {""}, plant.name
            assert plant.begins in phases | {""}, plant.name
            assert plant.expected.meter in ("device_in_use", "host_anon", "host_rss", ""), (
                plant.name
            )


@pytest.mark.parametrize(
    ("per", "cost_bytes", "reach"),
    [
        (Per.ONCE, 4 << 20, Reach.ABOVE),
        (Per.ONCE, (4 << 20) - 1, Reach.BELOW),
        (Per.IMAGE, 1024, Reach.ABOVE),
        (Per.IMAGE, 1023, Reach.BELOW),
        (Per.FRAME, 256, Reach.ABOVE),
        (Per.FRAME, 255, Reach.BELOW),
        (Per.ROUND, 128 << 10, Reach.ABOVE),
        (Per.ROUND, (128 << 10) - 1, Reach.BELOW),
    ],
)
def test_the_bar_is_a_batch_or_what_an_image_or_a_frame_may_cost(per, cost_bytes, reach):
    """At the bar and one byte below it."""
    plant = KEPT.__class__(
        name="x", function="m:f", bug="b", cost_bytes=cost_bytes, per=per, expected=None
    )

    assert plant.reach is reach


def test_every_bug_is_a_function_that_says_what_it_is(project_root):
    """Looked up in the text: the modules import TensorFlow, which belongs into the child."""
    for plant in PLANTS:
        module, _, function = plant.function.partition(":")
        text = (
            (project_root / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
        )

        assert f'\ndef {function}() -> None:\n    """' in text, plant.name
        assert any(
            all(word in point.name for word in plant.points.split(" and ")) for point in points()
        ), plant.points


def test_a_planted_point_is_the_same_point_for_a_baseline_and_a_policy():
    """Name, settings, phases and outcome stay; the body, and what its child finds in its
    environment, change.
    """
    point = points()[4]
    changed = planted(point, KEPT)

    assert (changed.name, changed.fixed, changed.phases, changed.expected) == (
        point.name,
        point.fixed,
        point.phases,
        point.expected,
    )
    assert changed.body == "scenarios.detector.body:measure"
    assert changed.environment == {
        **point.environment,
        PLANT_VARIABLE: KEPT.name,
        BODY_VARIABLE: point.body,
    }


def test_the_registry_brings_no_tensorflow():
    """It is imported by the options of every sweep."""
    assert not hasattr(import_module("scenarios.detector.bugs.registry"), "tf")


# --- rates ---


@pytest.mark.parametrize(
    ("count", "total", "words"),
    [
        # Clopper and Pearson at the edges: 1 - 0.025^(1/n), and its mirror.
        (0, 200, "0 of 200 (0 to 1.8 %)"),
        (200, 200, "200 of 200 (98.2 to 100 %)"),
        (1, 2, "1 of 2 (1.3 to 98.7 %)"),
        (0, 0, "0 of 0 (0 to 100 %)"),
    ],
)
def test_a_rate_has_its_exact_interval(count, total, words):
    """Never "100 %" alone; of nothing nothing is known."""
    assert Rate(count, total).in_words == words


# --- what the gate said ---


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (refused(), True),
        (refused(rule="budget"), False),
        (refused(phase="epoch_0"), False),
        (refused(meter="host_anon"), False),
        (refused(code=0), False),
        (refused(code=3, kind="incomplete"), False),
        (PASSED, False),
    ],
)
def test_a_plant_is_found_by_the_finding_that_tells_what_it_is(seen, told):
    """Red for another reason is no detection."""
    assert seen.tells(KEPT) is told


def test_a_plant_counts_as_found_when_every_mode_tells_it():
    """One mode of three that misses it is a miss, with what the gate said there."""
    result = Result(tuple(planted_sweeps(KEPT, refused(), refused(), PASSED)), (KEPT,))

    assert (result.detection(), result.misses) == (
        Rate(0, 1),
        ((KEPT, "resumed", "exit code 0, no finding"),),
    )
    assert not result.holds


@pytest.mark.parametrize(
    ("seen", "named"),
    [
        (told("construct"), True),
        (told("construct", "open"), True),
        (told("open", "construct"), False),
        (told("construct", loader="eager"), False),
        (told(), False),
    ],
)
def test_a_plant_is_named_by_the_loader_and_phase_of_the_first_cause(seen, named):
    """The second may say anything."""
    assert seen.names(KEPT) is named
    assert Seen.from_json(json.loads(json.dumps(seen.to_json()))) == seen


def test_a_plant_of_no_one_phase_is_named_by_its_loader():
    """What its finding may be of any phase."""
    anywhere = replace(KEPT, expected=replace(KEPT.expected, phase=""))

    assert told("epoch_0").names(anywhere)
    assert not told("epoch_0", loader="eager").names(anywhere)


@pytest.mark.parametrize(
    ("counts", "kept"),
    [((1, 1, 3), True), ((1, 3, 3), False), ((1, 1, 4), False)],
    ids=["one, but for one", "more than one as a rule", "more than three"],
)
def test_a_plant_is_one_cause_as_a_rule_and_never_more_than_three(counts, kept):
    """Of all sweeps: the median, and the most."""
    seen = [told("construct", *["open"] * (number - 1)) for number in counts]
    result = Result(tuple(planted_sweeps(KEPT, *seen)), (KEPT,))
    bars = dict(result.bars)

    assert result.cause_counts == counts
    assert bars["a planted regression is one cause (median), never more than 3"] is kept
    assert bars["the first cause names its loader and its phase"]
    assert result.holds is kept


def test_a_plant_that_its_first_cause_does_not_name_keeps_no_bar():
    """With what it says instead, in the tables and for programs."""
    seen = (told("construct"), told("construct"), told("open"))
    result = Result(tuple(planted_sweeps(KEPT, *seen)), (KEPT,))

    assert not result.holds
    assert result.named == Rate(0, 1)
    assert result.unnamed == ((KEPT, "resumed", "open: kept in open"),)
    assert result.to_json()["causes"]["of_each_sweep"] == [1, 1, 1]
    assert "| 1; first open: kept in open |" in result.table()
    assert "median, most | 1, 1 |" in result.figures("nox -s detector")


def test_verdicts_are_compared_by_exit_code_rule_and_subject():
    """Sentences may differ in their amounts; what was found where may not."""
    same = planted_sweeps(KEPT, refused(), refused(), refused())
    odd = planted_sweeps(KEPT, refused(), refused(subject="loading / lazy / construct"), refused())

    assert Result(tuple(same), (KEPT,)).differing == ()
    (found,) = Result(tuple(odd), (KEPT,)).differing
    assert found[0] == KEPT.name
    assert found[1].startswith(
        "exit codes serial 1, workers 1, resumed 1; not in all: slope of loading / lazy; "
        "not in all: "
    )


def test_a_clean_sweep_that_is_refused_or_fails_is_a_false_alarm():
    """With its sentence; one that passed after a quorum is counted apart."""
    overruled = Seen(exit_code=0, findings=(), overruled=("1 of 5 runs",), remeasured=1)
    sweeps = [
        *clean_sweeps(PASSED, overruled, refused(code=3)),
        Sweep(kind=CLEAN, chosen="x", mode="runner", failure="no disk"),
    ]
    result = Result(tuple(sweeps), (KEPT,))

    assert result.false_alarms == Rate(2, 4)
    assert [said for _, said in result.alarms] == ["loading / lazy: too much", "no disk"]
    assert result.to_json()["overruled_clean_sweeps"] == 1


def test_nothing_measured_keeps_no_bar():
    """A detector that saw nothing fails as a gate does."""
    assert not Result((), (KEPT,)).holds


def test_the_tables_tell_costs_findings_and_what_was_not_found():
    """Figures with the command that reproduces them; one row for each kind."""
    missed = plant_named("half_a_coordinate")
    sweeps = [
        *planted_sweeps(KEPT, refused(), refused(), refused()),
        *planted_sweeps(missed, PASSED, PASSED, PASSED),
    ]
    result = Result((*sweeps, *clean_sweeps(PASSED)), (KEPT, missed))

    assert (
        "| `full_tensor_kept`: self._X = every image, on the device | 65,536 B per image | "
        "slope (construct, device), exit 1 |" in (result.table())
    )
    assert "| 32 B per image | not found |" in result.table()
    assert "found, in every mode | 1 of 1 (2.5 to 100 %) |" in result.figures("nox -s detector")
    assert cost_in_words(plant_named("prefetch_by_one")) == "4.0 MiB"


# --- the ledger, the command line ---


def test_what_was_seen_is_there_after_a_restart_and_failures_are_tried_again(tmp_path):
    """The line that was cut short is measured again, as is a sweep that failed."""
    about = {"code": "1"}
    ledger = Ledger(tmp_path, about)
    done, failed = planted_sweeps(KEPT, refused(), None, PASSED)[0:2]
    ledger.add(done)
    ledger.add(failed)
    with (tmp_path / LEDGER_FILE).open("a") as file:
        file.write('{"kind": "cut sho')

    assert Ledger(tmp_path, about).sweeps == {done.key: done}


def test_other_code_does_not_go_on_with_a_ledger(tmp_path):
    """Two loaders in one rate would be neither's."""
    Ledger(tmp_path, {"code": "1"})
    with pytest.raises(
        UsageError, match="was begun with code 1, and here it is 2; name another folder"
    ):
        Ledger(tmp_path, {"code": "2"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--modes", "serial,parallel"],
            "'parallel' is no way to run a sweep; choose from serial,workers,resumed",
        ),
        (["--clean", "-1"], "'-1' is not a number of sweeps; write 0 or more"),
        (["--only", "nonesuch"], "invalid choice: 'nonesuch'"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments, words, capsys):
    """Exit code 2, before anything is measured."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert words in capsys.readouterr().err
