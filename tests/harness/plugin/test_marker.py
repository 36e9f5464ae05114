"""``@pytest.mark.memory``: what a test measures, what it promises, and every mistake in one
sentence.
"""

import re
from fnmatch import fnmatch

import pytest

SWEEP = """
@pytest.mark.memory("bodies:{body}"{more})
@pytest.mark.parametrize("image_count", [256, 512, 1024])
def test_load(image_count):
    pass
"""


def sweep(body="lazy", **arguments):
    return SWEEP.format(
        body=body, more="".join(f", {name}={value!r}" for name, value in arguments.items())
    )


def planned(run_json):
    return [point["parameters"] for point in run_json()["planned"]]


def test_every_set_of_parametrized_values_is_a_point_and_is_measured_as_often_as_asked(
    project, run_json, rows
):
    """Three sizes, three repeats and a trace of each, planned when the session has been
    collected.
    """
    result = project(
        sweep(device_budget="64MiB", path="."),
        *("-v", "--memory-out", "out", "--memory-repeats", "3"),
    )

    result.assert_outcomes(passed=3)
    assert planned(run_json) == [{"image_count": count} for count in (256, 512, 1024)]
    point = run_json()["planned"][0]
    assert (point["scenario"], point["body"], point["path"]) == ("load", "bodies:lazy", ".")
    assert (point["device_budget_bytes"], point["phases"], point["expected"]) == (
        64 * 1024 * 1024,
        [],
        "ok",
    )
    assert len(rows("end")) == 9
    assert len(rows("traced")) == 3
    result.stdout.fnmatch_lines(
        [
            (
                "load-image_count=1024  load     device_in_use  1.0 MiB     0 B  2.0 MiB  3.0 "
                "MiB  3.0 MiB"
            )
        ]
    )


def test_the_body_is_measured_before_the_test_and_memory_run_gives_what_was_read(project):
    """So that a test may assert more than the marker can."""
    test = """
@pytest.mark.memory("bodies:lazy", fixed={"batch_size": 8})
@pytest.mark.parametrize("image_count", [256])
def test_load(image_count, memory_run):
    run = memory_run()
    assert run["load"].device_in_use.growth_bytes == 1024 * 1024
    assert run.point.fixed == {"batch_size": 8}
"""
    project(test, "--memory-out", "out").assert_outcomes(passed=1)


def test_a_budget_is_judged_in_the_test_that_measures(project):
    """The eager body of 1,024 images keeps 16 MiB: at the limit it holds, a KiB or an image less
    and it does not.
    """
    limits = {"16 MiB": 3, "16383 KiB": 2, "4 MiB": 1, "1024 images": 3, "1023 images": 2}
    tests = [
        sweep("eager", budgets=limit).replace("test_load", f"test_{place}")
        for place, limit in enumerate(limits)
    ]
    result = project("\n".join(tests), "--memory-out", "out", "-rA")
    passed = [line for line in result.outlines if line.startswith("PASSED")]

    assert [sum(f"::test_{place}[" in line for line in passed) for place in range(5)] == list(
        limits.values()
    )


def test_a_test_fails_with_the_findings_sentence_and_nothing_else(project):
    """What was measured against what, and where the limit is written; no traceback."""
    result = project(sweep("eager", budgets="8 MiB"), "--memory-out", "out", "-k", "1024")

    result.assert_outcomes(failed=1, deselected=2)
    sentence = (
        "regression: load / image_count=1024 / load / device in use: grows by 16.0 MiB, "
        "limit 8.0 MiB (worst of 2 runs, all alike): 8,388,608 B over it; *. To do: find "
        "what load allocates; the limit is the marker of test_memory.py::test_load."
    )
    result.stdout.fnmatch_lines([sentence, "Regression: 1 cause; 1 of * checks does not hold."])
    assert "Traceback" not in result.stdout.str()
    assert "def test_load" not in result.stdout.str()


def test_noise_is_measured_again_in_the_test_and_a_quorum_decides(project, rows, said):
    """One run of five was 64 MiB; it is told, and counts for nothing."""
    result = project(sweep("noisy", budgets="2 MiB"), "--memory-out", "out", "-k", "512")

    result.assert_outcomes(passed=1, deselected=2)
    assert [row["repeats"] for row in rows("remeasure")] == [3]
    assert len(rows("end")) == 5
    assert re.search(
        "overruled: .* measured again, 1 of 5 runs are over it; 3 are needed: not confirmed",
        said(result),
    )


@pytest.mark.parametrize(("limit", "passed"), [("1 MiB", 1), ("1048575 B", 0)])
def test_a_leak_is_what_a_second_epoch_keeps_and_phases_are_found_by_their_numbers(
    project, limit, passed
):
    """The leaky body ends its second epoch with 1 MiB more than its first."""
    test = sweep("leaky", leaks=limit, phases=["load", "epoch_0", "epoch_1"])

    project(test, "--memory-out", "out", "-k", "512").assert_outcomes(
        passed=passed, failed=1 - passed, deselected=2
    )


def test_markers_of_the_module_the_class_and_the_test_are_merged(project, run_json):
    """Settings of the nearest, promises of all."""
    test = """
pytestmark = pytest.mark.memory(budgets="4 MiB", device_budget="64MiB", repeats=3)

@pytest.mark.memory(device_budget="128MiB", budgets={"meters": "host_anon", "at_most": "1 GiB", \
"phases": "load"})
class TestLoad:
    @pytest.mark.memory("bodies:lazy", slopes="1 KiB", scenario="mine")
    @pytest.mark.parametrize("image_count", [256, 512, 1024])
    def test_load(self, image_count):
        pass

def test_something_else():
    pass
"""
    project(test, "--memory-out", "out", "-k", "512")
    found = run_json()
    (budget, other, of_host), (slope, slope_of_host) = (
        found["policy"]["budget"],
        found["policy"]["slope"],
    )

    assert found["planned"][0]["device_budget_bytes"] == 128 * 1024 * 1024
    assert (other["meters"], other["at_most"]) == (["device_in_use"], "4 MiB")
    assert (of_host["meters"], of_host["at_most"]) == (["host_anon"], "8 MiB + 32 MiB")
    assert (
        slope_of_host["meters"],
        slope_of_host["at_most"],
        slope_of_host["at_most_over_all"],
    ) == (
        ["host_anon"],
        "1 KiB",
        "2 MiB",
    )
    assert (budget["meters"], budget["phases"], budget["scenarios"]) == (
        ["host_anon"],
        ["load"],
        ["mine"],
    )
    assert (slope["over"], slope["at_most"], slope["resolve"], slope["meters"]) == (
        "image_count",
        "1 KiB",
        "1 KiB",
        ["device_in_use"],
    )
    assert slope["because"] == "marker of test_memory.py::TestLoad::test_load"


@pytest.mark.parametrize(
    ("arguments", "runs"), [((), 3), (("--memory-repeats", "1"), 1)], ids=["marker", "option"]
)
def test_an_option_goes_before_what_a_marker_says_of_repeats(project, rows, arguments, runs):
    """The marker asks for three; who types another number gets that."""
    result = project(sweep(repeats=3), "--memory-out", "out", "-k", "512", *arguments)

    result.assert_outcomes(passed=1, deselected=2)
    assert len(rows("end")) == runs


def test_a_mark_of_one_set_of_values_is_about_its_point_alone(project, run_json):
    """The others may have what they like."""
    test = """
@pytest.mark.memory("bodies:eager")
@pytest.mark.parametrize("image_count", \
[pytest.param(256, marks=pytest.mark.memory(budgets="1 MiB")), 512, 1024])
def test_load(image_count):
    pass
"""
    project(test, "--memory-out", "out").assert_outcomes(passed=2, failed=1)

    assert [rule["where"] for rule in run_json()["policy"]["budget"]] == [{"image_count": 256}] * 2


def test_a_run_has_to_end_as_the_marker_expects(project):
    """Also one that is to run out of memory, and does not."""
    bodies = [("oom", "device_oom"), ("oom", "ok"), ("lazy", "device_oom"), ("missing", "ok")]
    tests = [
        sweep(body, expected=end).replace("test_load", f"test_{place}")
        for place, (body, end) in enumerate(bodies)
    ]
    result = project(
        "\n".join(tests), "--memory-out", "out", "--memory-repeats", "1", "-k", "512", "-rA"
    )

    result.assert_outcomes(passed=1, failed=3, deselected=8)
    result.stdout.fnmatch_lines(
        [
            (
                "*ended device_oom in phase load instead of ok: the faked oom; what was alive "
                "is unknown, as * To do: *"
            )
        ]
    )
    result.stdout.fnmatch_lines(
        ["*the faked missing*Its log: out/logs/3-image_count=512-repeat=0.log"]
    )
    result.stdout.fnmatch_lines(["PASSED test_memory.py::test_0?512?"])


def test_a_body_without_phases_fails_with_what_to_write(project):
    """It measured nothing."""
    result = project(sweep("phaseless"), "--memory-out", "out", "-k", "512")

    result.assert_outcomes(failed=1, deselected=2)
    result.stdout.fnmatch_lines(
        ["*its body ended without having entered a phase*with memory.phase(*"]
    )


MISTAKES = {
    "a misspelt argument": (
        sweep(budget="1 MiB"),
        "@pytest.mark.memory has the unknown argument 'budget'; did you mean 'budgets'?",
    ),
    "a misspelt key": (
        sweep(budgets={"at_mots": "1 MiB"}),
        "budgets has the unknown key 'at_mots'; did you mean 'at_most'?",
    ),
    "no limit": (
        sweep(budgets={"phases": ["load"]}),
        "budgets has neither at_most nor at_least; give one of them, or both",
    ),
    "no amount": (
        sweep(budgets="16 MB"),
        "budgets: at_most: '16 MB' has the unit MB; write B, KiB, MiB, GiB or TiB, *",
    ),
    "a number": (
        sweep(slopes=1024),
        "slopes: 1024 is no limit; write an amount, as '16 MiB', or a dict, *",
    ),
    "an unknown phase": (
        sweep(budgets={"at_most": "1 MiB", "phases": ["epok"]}, phases=["load", "epoch"]),
        "budgets names the unknown phase 'epok'; did you mean 'epoch'?",
    ),
    "leaks without phases": (
        sweep(leaks="1 KiB"),
        "leaks compares phases that do the same one after the other; say which, as *",
    ),
    "scenarios": (
        sweep(budgets={"at_most": "1 MiB", "scenarios": ["x"]}),
        "budgets names scenarios; a marker's limits are *",
    ),
    "over a stranger": (
        sweep(slopes="1 KiB", over="stack_size"),
        "a slope is over 'stack_size', which is not among the test's *",
    ),
    "a budget that is no amount": (
        sweep(device_budget="lots"),
        "device_budget: 'lots' is not an amount of bytes; *",
    ),
    "a budget that is too small": (
        sweep(device_budget="15MiB"),
        "device_budget: *the smallest is 16.0 MiB",
    ),
    "a budget without a unit": (
        sweep(device_budget=2**28),
        "device_budget: 268435456 is not a text; write *as '256MiB'",
    ),
    "no outcome": (
        sweep(expected="devise_oom"),
        "expected: 'devise_oom' is not how a run can end; did you mean 'device_oom'?",
    ),
    "no repeats": (
        sweep(repeats=0),
        "repeats: 0 is not a number of repeats; write a whole number from 1 to 1000",
    ),
    "no promise": (sweep(leaks=None), "leaks is None; leave it out where nothing is promised"),
    "one parameter twice": (
        sweep(fixed={"batch_size": 2, "image_count": 3}),
        (
            "fixed has image_count = 3, and image_count is a parameter of the point too: "
            "parametrized, *; leave it out of one of them"
        ),
    ),
    "no folder": (
        sweep(path="nowhere"),
        "path: there is no folder */nowhere; write one that exists, from the root of the session *",
    ),
    "no body": (
        sweep("lazy").replace("bodies:lazy", "bodies.lazy"),
        "body: 'bodies.lazy' does not name a function; write *",
    ),
    "phases that are a text": (
        sweep(phases="load"),
        "phases: 'load' is not a list of phases; write their names in order, *",
    ),
    "an environment of numbers": (
        sweep(environment={"A": 1}),
        "environment: {'A': 1} is not an environment; write *",
    ),
    "nothing to measure": (
        "@pytest.mark.memory(budgets='1 MiB')\ndef test_load():\n    pass",
        (
            "@pytest.mark.memory names no body, and the test does not take memory_run, so "
            "nothing would be measured; *"
        ),
    ),
    "a body by name": (
        "@pytest.mark.memory(body='bodies:lazy')\ndef test_load():\n    pass",
        "the body is the argument without a name; write @pytest.mark.memory('bodies:lazy', ...)",
    ),
    "a field that there is not": (
        sweep(budgets={"at_most": "1 MiB", "field": "grow"}),
        "budgets: field: 'grow' cannot be chosen; did you mean 'growth'?",
    ),
    "an unknown key": (
        sweep(budgets={"at_most": "1 MiB", "x": 1}),
        (
            "budgets has the unknown key 'x'; known are because, where, phases, meters, "
            "pool, field, at_most, at_least, without_device_pages"
        ),
    ),
    "a where of a parameter that there is not": (
        sweep(budgets={"at_most": "1 MiB", "where": {"imagecount": 256}}),
        (
            "budgets: where names 'imagecount', which is neither a parameter of the test nor "
            "fixed; did you mean 'image_count'?"
        ),
    ),
    "a where that no point has": (
        sweep(
            leaks={
                "at_most": "1 MiB",
                "phases": ["epoch_0", "epoch_1"],
                "where": {"image_count": 257},
            }
        ),
        (
            "leaks: where has image_count=257, which no point of the test has; known are 256, "
            "512, 1024"
        ),
    ),
    "a where of a fixed value": (
        sweep(fixed={"kind": "lazy"}, budgets={"at_most": "1 MiB", "where": {"kind": "lasy"}}),
        "budgets: where has kind='lasy', which no point of the test has; did you mean 'lazy'?",
    ),
    "arithmetic as a text": (
        sweep(arithmetic="1 KiB"),
        "arithmetic: '1 KiB' is no dict; write {'declared': 'image', *",
    ),
    "no sizes": (
        "@pytest.mark.memory('bodies:lazy', slopes='1 KiB')\ndef test_load():\n    pass",
        "a slope needs sizes, and the test is not parametrized with any; *",
    ),
    "an object": (
        (
            "@pytest.mark.memory('bodies:lazy')\n@pytest.mark.parametrize('loader', "
            "[object()])\ndef test_load(loader):\n    pass"
        ),
        (
            "the parameter loader is of the type object, which cannot be handed to another "
            "process; pass a number, *"
        ),
    ),
}


def test_mistakes_are_one_sentence_each_with_the_test_before_anything_is_measured(
    project, pytester
):
    """An error of usage, found when the session is collected; all of them at once."""
    tests = [
        test.replace("test_load", f"test_{number}")
        for number, (test, _) in enumerate(MISTAKES.values())
    ]
    result = project("\n".join(tests), "--memory-out", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stderr.lines
    told[0] = told[0].removeprefix("ERROR: ")
    for number, (_, sentence) in enumerate(MISTAKES.values()):
        (found,) = [line for line in told if line.startswith(f"test_memory.py::test_{number}: ")]
        assert fnmatch(found, f"test_memory.py::test_{number}: {sentence}"), found
    assert len([line for line in told if line]) == len(MISTAKES)
    assert not (pytester.path / "measured.txt").exists()


def test_a_mistake_is_told_once_by_the_controller_of_two_workers(project, pytester):
    """No worker crashes of it."""
    result = project(sweep(budget="1 MiB"), "--memory-out", "out", "-n", "2")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["ERROR: test_memory.py::test_load: *did you mean 'budgets'?"])
    assert "INTERNALERROR" not in result.stdout.str()


def test_two_tests_whose_points_would_have_one_name_are_refused(project):
    """They could not be told apart."""
    twins = sweep() + sweep(scenario="load").replace("test_load", "test_other")
    result = project(twins, "--memory-out", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    sentence = (
        "ERROR: test_memory.py::test_load?256? and test_memory.py::test_other?256? would "
        "both measure the point load-image_count=256; give one of them a name of its own "
        "with scenario='...'"
    )
    result.stderr.fnmatch_lines([sentence])


def test_limits_that_are_about_no_test_are_refused(project):
    """The tests below them moved away; nobody would notice."""
    result = project(
        "pytestmark = pytest.mark.memory(budgets='1 MiB')\ndef test_load():\n    pass",
        "--memory-out",
        "out",
    )

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            (
                "ERROR: test_memory.py: @pytest.mark.memory is about no test: none below it "
                "names a body *"
            )
        ]
    )


def test_the_marker_is_known_to_strict_sessions_and_explained(project):
    """--strict-markers, --markers."""
    project(sweep(), "--strict-markers", "--memory-out", "out").assert_outcomes(passed=3)

    project(None, "--markers").stdout.fnmatch_lines(
        ["@pytest.mark.memory(body, *): measure the body*"]
    )
