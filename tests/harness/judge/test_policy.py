"""The policy file: the project's own is valid, and every mistake is a sentence that says what to
write.
"""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from harness.errors import BytesError, PolicyError
from harness.judge.limits import Amount
from harness.judge.policy import RUNS_OWN, choose_policy, read_policy
from harness.rundir.manifest import read_manifest
from scenarios.catalog import SCENARIOS

SLOPE = """
schema_version = 1
[[slope]]
scenarios = ["loading"]
meters = ["device_in_use"]
over = "image_count"
at_most = "1024 B"
resolve = "16 KiB"
because = "chosen"
"""


def refused(tmp_path, text):
    path = tmp_path / "gate.toml"
    path.write_text(text)
    with pytest.raises(PolicyError) as refusal:
        read_policy(path)
    return str(refusal.value)


def test_every_rule_of_the_project_names_what_the_catalogue_has(policy):
    """A rule for a scenario or phase that does not exist would hold for ever."""
    phases = {scenario.name: set(scenario.phases) for scenario in SCENARIOS}
    for name, rule in policy.rules():
        assert set(rule.scenarios) <= set(phases), name
        assert set(rule.phases or ()) <= set().union(
            *(phases[scenario] for scenario in rule.scenarios)
        ), name


def test_a_text_is_bytes_or_a_multiple_of_what_was_declared():
    """Multiples need the declaration; bytes do not."""
    assert Amount.parse("64 KiB").in_bytes({}) == 65_536
    assert Amount.parse("4 batches").in_bytes({"batch": 10}) == 40
    assert Amount.parse("1.5 arrays").in_bytes({"arrays": 10}) == 15
    assert Amount.parse("0.25 images").in_bytes({"image": 400}) == 100
    assert Amount.parse("0.5 frames").in_bytes({"frame": 400}) == 200
    assert Amount.parse("1 batch").in_bytes({"arrays": 10}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 X", 20),
        ("2 Xs", 20),
        ("1 Y_I", 7),
        ("3 probes", 15),
        ("1 coords", 3),
        ("1 class_", None),
    ],
)
def test_a_multiple_may_be_of_whatever_a_body_declares(text, expected):
    """By name, in the singular or the plural; what no body declared has no size."""
    assert Amount.parse(text).in_bytes({"X": 10, "Y_I": 7, "probe": 5, "coords": 3}) == expected


def test_a_name_that_was_not_declared_is_told_with_the_nearest():
    """Found only when a run is judged: until then any name is as good as another."""
    assert (
        Amount.parse("2 Y_phy")
        .gap({"X": 1, "Y_phi": 1})
        .endswith("is a multiple of: did you mean Y_phi?")
    )
    assert (
        Amount.parse("2 quanta").gap({"X": 1}).endswith("it declared X; fix the policy or the body")
    )


@pytest.mark.parametrize("text", ["1 kib", "1 mb", "1 K", "1 Bytes", "1 bits", "1 MiBs"])
def test_what_reads_like_bytes_is_bytes_or_a_mistake(text):
    """Never the name of an array."""
    with pytest.raises(BytesError, match=r"write (B, KiB, MiB, GiB or TiB|1KiB)"):
        Amount.parse(text)


def test_the_minimal_policy_is_read(tmp_path):
    """Defaults: every phase, growth."""
    path = tmp_path / "gate.toml"
    path.write_text(SLOPE)
    (rule,) = read_policy(path).slope

    assert (rule.phases, rule.field, rule.at_most.count, rule.resolve.count) == (
        None,
        "growth",
        1024,
        16_384,
    )


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            'at_most = "1024 B"',
            'at_mots = "1024 B"',
            "unknown key 'at_mots'; did you mean 'at_most'?",
        ),
        ("[[slope]]", "[[slopes]]", "unknown key 'slopes'; did you mean 'slope'?"),
        (
            'because = "chosen"',
            "",
            "[[slope]] number 1 lacks 'because'; say where the limit comes from",
        ),
        ('because = "chosen"', 'because = "  "', "empty 'because'"),
        ('"1024 B"', '"1 KB"', "write B, KiB, MiB, GiB or TiB, for example 1KiB"),
        ('"1024 B"', "1024", "1024 is not a text"),
        (
            '"1024 B"',
            '"2 bathces"',
            "neither bytes nor a multiple of what bodies declare; did you mean 'batches'?",
        ),
        ('"16 KiB"', '"1 KiB"\nmeter = "x"', "unknown key 'meter'; did you mean 'meters'?"),
        ('"16 KiB"', '"1023 B"', "below at_most"),
        ('"image_count"', '""', "[[slope]] number 1: over: "),
        ('["loading"]', "[]", "scenarios"),
        (
            'over = "image_count"',
            'over = "image_count"\nwhere = { image_count = 5 }',
            "leave it out of where",
        ),
        ("schema_version = 1", "schema_version = 2", "schema_version 2"),
        (
            "schema_version = 1",
            "",
            "gate.toml has no version; write schema_version = 1 before its rules",
        ),
        ("[[slope]]", "[[slope]", "not TOML"),
    ],
)
def test_each_mistake_is_a_sentence(tmp_path, before, after, words):
    """Key, place and what to write."""
    assert words in refused(tmp_path, SLOPE.replace(before, after, 1))


def test_a_resolution_of_exactly_the_limit_is_allowed(tmp_path):
    """One byte less is refused above."""
    path = tmp_path / "gate.toml"
    path.write_text(SLOPE.replace("16 KiB", "1024 B"))

    assert read_policy(path).slope[0].resolve.count == 1024


def test_no_rule_no_file_and_two_tolerances_are_refused(tmp_path):
    """Each would leave the gate blind or ambiguous."""
    tolerance = (
        '[[tolerance]]\nmeter = "host_anon"\npercent = 1\nfloor = "1 B"\nbecause = "chosen"\n'
    )

    assert "no rule at all" in refused(tmp_path, "schema_version = 1\n")
    assert "two [[tolerance]] for host_anon" in refused(
        tmp_path, f"schema_version = 1\n{tolerance}{tolerance}"
    )
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "missing.toml")


TOLERANCE = (
    'schema_version = 1\n[[tolerance]]\nmeter = "host_anon"\npercent = 1\nfloor = "1 '
    'B"\nbecause = "chosen"\n'
)
OWN = (
    '[[tolerance]]\nmeter = "host_anon"\npercent = 9\nfloor = "9 B"\nbecause = "chosen"\n'
    'scenarios = ["training"]\nphases = ["train_0"]\n'
)


def test_a_tolerance_with_scenarios_and_phases_holds_there_instead_of_the_general_one(tmp_path):
    """And nowhere else."""
    path = tmp_path / "gate.toml"
    path.write_text(TOLERANCE + OWN)
    policy = read_policy(path)
    places = [("training", "train_0"), ("training", "train_1"), ("loading", "train_0")]

    assert [[tolerance.percent for tolerance in policy.tolerances(*place)] for place in places] == [
        [9],
        [1],
        [1],
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN + OWN, "two [[tolerance]] for host_anon in training"),
        (
            OWN + OWN.replace('phases = ["train_0"]\n', ""),
            "two [[tolerance]] for host_anon in training",
        ),
        (OWN.replace('scenarios = ["training"]\n', ""), "names phases without scenarios"),
    ],
)
def test_tolerances_that_leave_open_which_holds_are_refused(tmp_path, text, words):
    """One for each meter and place."""
    assert words in refused(tmp_path, TOLERANCE + text)


def test_every_mistake_is_told_at_once(tmp_path):
    """Two mistakes, two lines."""
    text = SLOPE.replace("at_most", "at_mots").replace('because = "chosen"', 'because = ""')

    assert len(refused(tmp_path, text).splitlines()) == 3  # unknown key, missing key, empty reason


LEAK = """
schema_version = 1
[[leak]]
scenarios = ["loading"]
meters = ["device_in_use"]
phases = ["epoch_0", "epoch_1"]
field = "end"
at_most = "64 KiB"
because = "chosen"
"""


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (
            '"epoch_0", "epoch_1"',
            '"epoch_0"',
            "[[leak]] number 1 compares phases that do the same one after the other; name two",
        ),
        ('phases = ["epoch_0", "epoch_1"]', "", "[[leak]] number 1 compares phases"),
        ('"end"', '"growth"', "field: 'growth' cannot be chosen; known are peak, end"),
        ("at_most", "at_mots", "unknown key 'at_mots'; did you mean 'at_most'?"),
    ],
)
def test_a_leak_needs_two_phases(tmp_path, before, after, words):
    """What one has more than the one before it."""
    assert words in refused(tmp_path, LEAK.replace(before, after, 1))


REMEASURE = LEAK + '[remeasure]\nrepeats = 3\nbecause = "chosen"\n'


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("repeats = 3", "repeats = 0", "[remeasure]: repeats: "),
        ("repeats = 3", "repeats = 101", "[remeasure]: repeats: "),
        (
            "repeats = 3",
            "repeat = 3",
            "[remeasure] has the unknown key 'repeat'; did you mean 'repeats'?",
        ),
        (
            'repeats = 3\nbecause = "chosen"',
            "repeats = 3",
            "[remeasure] lacks 'because'; say where the limit comes from",
        ),
        ("[remeasure]", "[remeasur]", "unknown key 'remeasur'; did you mean 'remeasure'?"),
    ],
)
def test_measuring_again_is_checked_as_well(tmp_path, before, after, words):
    """One to a hundred repeats, with their reason."""
    path = tmp_path / "whole.toml"
    path.write_text(REMEASURE)

    assert read_policy(path).remeasure.repeats == 3
    assert words in refused(tmp_path, REMEASURE.replace(before, after, 1))


def test_a_budget_needs_a_limit(tmp_path):
    """A rule without one would hold for ever."""
    text = 'schema_version = 1\n[[budget]]\nscenarios = ["a"]\nmeters = ["m"]\nbecause = "chosen"\n'

    assert "neither at_most nor at_least" in refused(tmp_path, text)


def test_long_reasons_stay_out_of_the_way():
    """The project's file holds no unit that people read in two ways."""
    text = (Path(__file__).parents[3] / "scenarios" / "gate.toml").read_text(encoding="utf-8")

    assert not re.search(r"\d\s*[KMG]B\b", text)


def test_a_marked_test_does_not_put_the_rules_of_the_project_out_of_force(
    synthetic_run, tmp_path, monkeypatch
):
    """Its own rules are all that a run with markers brings along; the sweep beside it would be held
    against nothing.
    """
    own = tomllib.loads(SLOPE.replace('["loading"]', '["test_own.py::test_own"]'))
    manifest = read_manifest(dataclasses.replace(synthetic_run, manifest={"policy": own}).write())
    monkeypatch.chdir(tmp_path)
    assert choose_policy(None, manifest).source == RUNS_OWN  # a project without a policy of its own

    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "gate.toml").write_text(SLOPE)
    with pytest.raises(
        PolicyError,
        match=r"says nothing about \d+ points that scenarios/gate.toml has rules for, first "
        r"loading-",
    ):
        choose_policy(None, manifest)
    assert choose_policy(tmp_path / "scenarios" / "gate.toml", manifest).slope
