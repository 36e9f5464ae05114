"""What was not selected refuses nobody, and what runs no test writes nothing."""

from xml.etree import ElementTree as ET

import pytest

GOOD = """
@pytest.mark.memory("bodies:lazy", budgets="4 MiB")
def test_good():
    pass

def test_plain():
    pass
"""
BAD = """
@pytest.mark.memory("bodies:lazy", budget="4 MiB")
def test_bad():
    pass
"""
TWINS = """
@pytest.mark.memory("bodies:lazy", scenario="good")
def test_bad():
    pass
"""
IDLE = """
@pytest.mark.memory(budgets="4 MiB")
class TestOf:
    def test_bad(self):
        pass
"""


@pytest.mark.parametrize("mistake", [BAD, TWINS, IDLE], ids=["argument", "name", "idle"])
@pytest.mark.parametrize(
    "choice",
    [["-k", "not bad"], ["--deselect", "test_memory.py::{bad}"], ["test_memory.py::test_good"]],
)
def test_a_mistake_in_a_test_that_was_deselected_refuses_nobody(project, mistake, choice):
    """By name, by id, or because others were named."""
    bad = "TestOf::test_bad" if mistake is IDLE else "test_bad"
    result = project(
        GOOD + mistake,
        "--memory-out",
        "out",
        "--memory-no-trace",
        *(each.format(bad=bad) for each in choice),
    )

    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == (1 if choice[0].startswith("test_") else 2)


def test_a_mistake_refuses_whoever_has_selected_it(project):
    """Beside good tests too."""
    result = project(GOOD + BAD, "--memory-out", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            (
                "ERROR: test_memory.py::test_bad: @pytest.mark.memory has the unknown argument "
                "'budget'; *"
            )
        ]
    )


def test_without_tests_that_measure_nobody_hears_of_their_mistakes(project, pytester):
    """-m "not memory": the usual way to leave them out."""
    result = project(GOOD + BAD, "-m", "not memory")

    result.assert_outcomes(passed=1, deselected=2)
    assert result.ret == pytest.ExitCode.OK
    assert not (pytester.path / "artifacts").exists()


def test_a_mistake_in_a_test_that_did_not_fail_last_time_refuses_nobody(project, pytester):
    """--lf deselects after every other plug-in."""
    test = GOOD + "def test_failing():\n    raise ValueError\n"
    project(test, "-p", "cacheprovider", "-k", "failing or plain")
    result = project(test + BAD, "-p", "cacheprovider", "--lf")

    assert result.parseoutcomes()["failed"] == 1
    assert "passed" not in result.parseoutcomes()
    assert result.ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("calls", [False, True], ids=["marker", "call"])
def test_a_plug_in_that_runs_each_test_several_times_measures_again(project, rows, calls):
    """As pytest-repeat's --count 2 does, with a parameter of its own; the first rows are void."""
    count = """
import pytest

@pytest.fixture
def __pytest_repeat_step_number(request):
    return request.param

def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append("__pytest_repeat_step_number")
    metafunc.parametrize("__pytest_repeat_step_number", range(2), indirect=True, ids=["1-2", "2-2"])
"""
    test = (
        "def test_good(memory_run):\n    memory_run('bodies:lazy', image_count=4)\n"
        if calls
        else GOOD
    )
    result = project(test, "--memory-out", "out", "--memory-no-trace", "-p", "count", count=count)

    assert result.parseoutcomes() == {"passed": 2 if calls else 4}
    assert result.ret == pytest.ExitCode.OK
    assert (len(rows("end")), len(rows("again"))) == (4, 2)


@pytest.mark.parametrize("dry", ["--setup-plan", "--setup-only", "--collect-only", "--fixtures"])
def test_a_session_that_runs_no_test_writes_nothing_and_fails_nothing(project, pytester, dry):
    """It says what a real one would be refused for."""
    result = project(
        GOOD + BAD + "def test_call(memory_run):\n    pass\n",
        dry,
        "--memory-out",
        "out",
        "--memory-points",
        "nothing",
    )

    assert result.ret == pytest.ExitCode.OK
    assert sorted(
        path.name for path in pytester.path.iterdir() if not path.name.startswith((".", "__"))
    ) == [
        "conftest.py",
        "test_memory.py",
    ]
    if dry == "--collect-only":
        result.stdout.fnmatch_lines(
            ["test_memory.py::test_bad: @pytest.mark.memory has the unknown argument 'budget'; *"]
        )


SIZES = """
@pytest.mark.memory("bodies:lazy", slopes="1 KiB")
@pytest.mark.parametrize("image_count", {sizes})
def test_load(image_count):
    pass
"""


def test_one_size_named_by_its_id_is_measured_and_its_slope_is_not_judged(project):
    """As with -k: the user's own choice."""
    test = SIZES.format(sizes="[256, pytest.param(512, id='half'), 1024]")
    result = project(
        test, "--memory-out", "out", "--memory-no-trace", "test_memory.py::test_load[half]"
    )

    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["2 points were deselected: rules over several points were judged on *"]
    )


@pytest.mark.parametrize("sizes", ["[256]", "[256, pytest.param(512)]"])
def test_a_slope_over_too_few_sizes_is_refused_before_anything_is_measured(
    project, pytester, sizes
):
    """One and two; through them no line can be drawn that could be wrong."""
    result = project(SIZES.format(sizes=sizes), "--memory-out", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            (
                "ERROR: test_memory.py::test_load: a slope over image_count needs 3 different "
                "values of it, and the test has ? (256*"
            )
        ]
    )
    assert not (pytester.path / "measured.txt").exists()


def test_a_folder_outside_that_stands_after_a_space_is_refused_with_what_to_write(
    project, pytester
):
    """pytest would take it for a folder with tests, and look for its root and settings there."""
    outside = pytester.path.parent / "runs of mine"
    outside.mkdir()
    refused = project(GOOD, "--memory-out", str(outside))
    taken = project(None, f"--memory-out={outside}", "--memory-no-trace")

    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        [f"ERROR: --memory-out {outside} is outside of *; write '--memory-out={outside}'"]
    )
    assert taken.ret == pytest.ExitCode.OK
    assert (outside / "run.json").exists()


def test_workers_find_the_root_of_the_session_beside_a_folder_that_it_has_made(project, pytester):
    """A new folder outside, after a space: when workers start it is there, and would move their
    root.
    """
    outside = pytester.path.parent / "new runs"
    result = project(GOOD, "-n", "1", "--memory-out", str(outside), "--memory-no-trace")

    assert result.ret == pytest.ExitCode.OK
    assert (outside / "run.json").exists()


def test_texts_of_any_kind_break_no_table_and_no_file(project, pytester, run_json):
    """Line breaks, tabs, pipes, control characters, slashes, and more letters than a file's name
    may have.
    """
    texts = [
        "a\nb",
        "a\\nb",
        "a\tb|c",
        "a\x1b[31mb\x00",
        "a/b",
        "a_b",
        "x" * 260,
        "\u4e16" * 200,
        "\u2028",
    ]
    test = f"""
@pytest.mark.memory("bodies:lazy", budgets="1 KiB")
@pytest.mark.parametrize("text", {texts!r})
def test_load(text):
    pass
"""
    options = ("-v", "--memory-out", "out", "--memory-no-trace", "--junitxml", "junit.xml")
    result = project(test, *options)
    table = [line for line in result.outlines if line.startswith("load-")]
    csv = (pytester.path / "out" / "phases.csv").read_text(encoding="utf-8").split("\n")

    result.assert_outcomes(failed=len(texts))
    assert len({point["parameters"]["text"] for point in run_json()["planned"]}) == len(texts)
    assert len(table) == 40  # the most that are shown
    assert {len(line) for line in table if line.isascii()} == {
        len(next(line for line in table if line.isascii()))
    }
    # A header, a line for each point, repeat, phase and meter, and the end of the last one.
    assert len(csv) == 2 + len(texts) * 2 * 3 * 3
    findings = (pytester.path / "out" / "findings.json").read_text(encoding="utf-8")
    assert "x" * 261 not in findings
    for name in ("junit.xml", "out/junit.xml"):
        ET.parse(pytester.path / name)  # noqa: S314 - written just now


WHERE = """
@pytest.mark.memory("bodies:lazy", budgets={{"at_most": "4 MiB", "where": {where}}})
@pytest.mark.parametrize("image_count", [256, 512])
@pytest.mark.parametrize("kind", ["lazy", "eager"])
def test_bad(image_count, kind):
    pass
"""


def test_a_where_that_names_no_point_refuses_whoever_has_selected_its_test(project, pytester):
    """Nothing is measured; with the test deselected, nobody hears of it."""
    tests = GOOD + WHERE.format(where={"kind": "lazzy"})
    result = project(tests, "--memory-out", "out", "-k", "512 or good")
    others = project(tests, "--memory-out", "out", "--memory-no-trace", "-k", "not bad")

    assert (result.ret, others.ret) == (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.OK)
    result.stderr.fnmatch_lines(
        [
            (
                "ERROR: *test_bad: budgets: where has kind='lazzy', which no point of the test "
                "has; did you mean 'lazy'[?]"
            )
        ]
    )


@pytest.mark.parametrize(
    "where", [{"image_count": 256}, {"kind": "eager"}, {"kind": "eager", "image_count": 256}]
)
@pytest.mark.parametrize(
    "choice", [["-k", "512"], ["test_memory.py::test_bad[lazy-512]"]], ids=["by name", "by id"]
)
def test_a_where_may_name_points_that_were_deselected(project, where, choice):
    """Or that were not collected at all, since another one was named."""
    result = project(WHERE.format(where=where), "--memory-out", "out", "--memory-no-trace", *choice)

    assert result.ret == pytest.ExitCode.OK


def test_a_where_may_be_about_a_point_of_each_test_but_not_about_none(project):
    """Both values are there, never together; a marker of a module is about each of its tests."""
    tests = """
pytestmark = pytest.mark.memory(budgets={"at_most": "4 MiB", "where": {"kind": "eager"}})

@pytest.mark.memory("bodies:lazy", budgets={"at_most": "4 MiB", \
"where": {"kind": "lazy", "image_count": 512}})
@pytest.mark.parametrize(("kind", "image_count"), [("lazy", 256), ("eager", 512)])
def test_pairs(kind, image_count):
    pass

@pytest.mark.memory("bodies:lazy")
def test_without():
    pass
"""
    result = project(tests, "--memory-out", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            (
                "*test_pairs: budgets: no point of the test has all of where (kind='lazy', "
                "image_count=512)"
            ),
            (
                "*test_without: budgets: where names 'kind', which is neither a parameter of "
                "the test nor fixed; the test is not *"
            ),
        ]
    )


CALLED = """
@pytest.mark.memory(budgets={"at_most": "4 MiB", "where": {"imagecount": 256}})
def test_calls(memory_run):
    memory_run("bodies:lazy", image_count=256)
"""


def test_a_where_that_no_call_answers_is_said_once_without_excusing_it(project, said):
    """No meter is named, so that there are two rules; nothing was left out, so that no option of
    the gate is advised.
    """
    result = project(CALLED, "--memory-out", "out", "--memory-no-trace")
    sentence = (
        "incomplete: the marker of test_memory.py::test_calls: this run planned no point of calls, "
        "imagecount 256; correct the rule."
    )

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert said(result).count(sentence) == 1
    assert "--partial" not in result.stdout.str()
