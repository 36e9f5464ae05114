"""The plug-in as users meet it: options, the plan, one run directory for all workers. Children are
faked.
"""

import ast
import json
import os
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest

import harness.plugin
import harness.pytest_plugin
from harness.judge.advice import Commands

SWEEP = """
from harness.records import Outcome, Point
import pytest

POINTS = [
    Point(
        scenario="s",
        body="bodies:b",
        parameters={"loader": loader, "image_count": count},
        fixed={"scan": "mine.npz"} if loader == "eager" else {},
        phases=("construct",),
    )
    for loader in ("eager", "lazy") for count in (100, 500)
]

@pytest.mark.parametrize("point", POINTS, ids=[point.name for point in POINTS])
def test_point(point, repeat, measure):
    assert measure(point, repeat).outcome is point.expected

def test_something_else():
    pass
"""

FAKE_RUNNER = """
import json, os
import pytest
from harness.records import TRACED_REPEAT, Outcome, to_json
from harness.rundir.rows import RunEnd, TraceEnd

class FakeRunner:
    def __init__(self, directory):
        self.directory = directory

    def measure(self, point, repeat):
        assert (self.directory / "run.json").exists(), "the plan is written before the first child"
        outcome = Outcome.CRASHED if point.name == "s-eager-image_count=500" else Outcome.OK
        end = RunEnd(
            point=point.name, repeat=repeat, outcome=outcome, cause="", reason="", phase=None, \
exit_code=0,
            launcher="fake", duration_s=0.0,
        )
        row = {"kind": "end", **to_json(end)}
        if repeat == TRACED_REPEAT:
            file = None if outcome is Outcome.CRASHED else "a.json.gz"
            reason = "killed by SIGKILL" if outcome is Outcome.CRASHED else ""
            traced = TraceEnd(
                point=point.name, outcome=outcome, cause="", reason=reason, file=file, \
launcher="fake", duration_s=0.0
            )
            row = {"kind": "traced", **to_json(traced)}
        with open(self.directory / "rows.jsonl", "a") as file:
            file.write(json.dumps(row) + "\\n")
        return end

@pytest.fixture(scope="session")
def memory_runner(pytestconfig):
    from harness.plugin.session import SESSION
    return FakeRunner(pytestconfig.stash[SESSION].directory)
"""

COUNT_ENDS = """
def count_ends(runner):
    return len((runner.directory / "rows.jsonl").read_text().splitlines())
"""

NO_DRIVER = """
import pynvml

def fail():
    raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

pynvml.nvmlInit = fail
"""


@pytest.fixture
def sweep(pytester):
    """A project with a sweep of four points, and a runner that starts no children."""
    pytester.makepyfile(test_sweep=SWEEP)
    pytester.makeconftest(FAKE_RUNNER)

    def run(*arguments):
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=120)

    return run


def manifest(pytester, name="out"):
    return json.loads((pytester.path / name / "run.json").read_text())


def planned(pytester, name="out"):
    return [point["parameters"] for point in manifest(pytester, name)["planned"]]


def ends(pytester, name="out"):
    return sorted(
        (row["point"], row["repeat"]) for row in rows(pytester, name) if row["kind"] == "end"
    )


def traced(pytester, name="out"):
    return sorted(row["point"] for row in rows(pytester, name) if row["kind"] == "traced")


def rows(pytester, name):
    return [
        json.loads(line) for line in (pytester.path / name / "rows.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_every_point_is_planned_once_and_measured_as_often_as_asked(sweep, pytester, workers):
    """One run directory, the same plan with and without xdist."""
    result = sweep("--memory-out", "out", "--memory-repeats", "3", *workers)

    result.assert_outcomes(passed=13, failed=4)
    assert len(planned(pytester)) == 4
    assert len(ends(pytester)) == len(set(ends(pytester))) == 12
    assert len(traced(pytester)) == len(set(traced(pytester))) == 4
    assert manifest(pytester)["repeats"] == 3
    assert manifest(pytester)["ended"] is not None
    assert manifest(pytester)["settings"]["traces"] is True
    result.stdout.fnmatch_lines(
        [
            "12 runs measured (3 crashed, 9 ok) in out",
            "3 of 4 traced points have a trace in traces/",
            "no trace of s-eager-image_count=500, because killed by SIGKILL",
            "judge them:  python -m harness gate out",
        ]
    )


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_without_traces_each_point_is_only_repeated(sweep, pytester, workers):
    """--memory-no-trace leaves the extra run out, and run.json says that none was planned."""
    result = sweep("--memory-out", "out", "--memory-no-trace", *workers)

    result.assert_outcomes(passed=7, failed=2)
    assert (len(ends(pytester)), traced(pytester)) == (8, [])
    assert manifest(pytester)["settings"]["traces"] is False
    assert "-traced" not in result.stdout.str()


def test_a_selection_plans_what_it_selects(sweep, pytester):
    """-k lazy measures two points, and says so to the judge."""
    sweep("--memory-out", "out", "-k", "lazy").assert_outcomes(passed=6, deselected=7)

    assert planned(pytester) == [
        {"loader": "lazy", "image_count": 100},
        {"loader": "lazy", "image_count": 500},
    ]


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_a_selection_is_comparable_with_the_whole_sweep(sweep, pytester, workers):
    """The scan is that of the sweep, though no selected point reads it."""
    sweep("--memory-out", "out", "-k", "lazy", *workers)

    assert manifest(pytester)["comparability"]["scan"] == "mine.npz"


def test_a_run_that_is_interrupted_has_no_end(sweep, pytester):
    """Ctrl-C after the second point: the judge can say that the run was broken off."""
    pytester.makeconftest(
        FAKE_RUNNER.replace(
            "outcome = Outcome.CRASHED if",
            "if count_ends(self) == 2:\n            raise KeyboardInterrupt\n        "
            "outcome = Outcome.CRASHED if",
        )
        + COUNT_ENDS
    )
    result = sweep("--memory-out", "out", "--memory-repeats", "1", "--memory-no-trace")

    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert (len(ends(pytester)), manifest(pytester)["ended"]) == (2, None)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_points_are_chosen_by_patterns_of_their_names(sweep, pytester, workers):
    """Both patterns count, tests that measure nothing still run, and the plan is what was
    chosen.
    """
    patterns = ("--memory-points", "*-lazy-*=500", "--memory-points", "s-eager-image_count=1??")
    result = sweep("--memory-out", "out", "--memory-repeats", "1", *patterns, *workers)

    result.assert_outcomes(passed=5, deselected=0 if workers else 4)
    assert sorted(point for point, _ in ends(pytester)) == [
        "s-eager-image_count=100",
        "s-lazy-image_count=500",
    ]
    assert len(planned(pytester)) == 2


def test_one_point_is_measured_again_by_the_command_of_its_cause(sweep, pytester):
    """With what was typed but for the folder and the points; from another pattern too."""
    typed = "pytest -q --memory-out out --memory-points '*-lazy-*' --memory-repeats 1"
    command = Commands(run=Path("out"), typed=typed).measure_point("s-lazy-image_count=500")
    words = shlex.split(command)
    sweep(*words[1:], "--memory-out", "again")

    assert words[:2] == ["pytest", "-q"]
    assert {point for point, _ in ends(pytester, "again")} == {"s-lazy-image_count=500"}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_a_pattern_that_matches_no_point_is_refused_with_the_nearest_name(sweep, pytester, workers):
    """Beside one that does: a renamed scenario is not left out in silence."""
    patterns = ("--memory-points", "*-lazy-*", "--memory-points", "s-lazyy-image_count=500")
    result = sweep("--memory-out", "out", *patterns, *workers)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = result.outlines + result.errlines
    told = (
        "ERROR: --memory-points 's-lazyy-image_count=500' matches no point; the nearest of 4 "
        "is 's-lazy-image_count=500' *"
    )
    assert [line for line in lines if fnmatch(line, told)], lines
    assert not (pytester.path / "out" / "rows.jsonl").exists()


OTHER_PLUGIN = """
def pytest_addoption(parser):
    parser.addoption("--device", help="a phone")
    parser.addoption("--repeats", type=str)

def pytest_configure(config):
    assert config.getoption("device") == "Pixel 9", config.getoption("device")
    assert config.getoption("repeats") == "often", config.getoption("repeats")
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_another_plug_in_may_have_options_of_the_short_names(sweep, pytester, monkeypatch, workers):
    """--device and --repeats are everybody's: ours are not in their way, nor theirs in ours."""
    pytester.makepyfile(other_plugin=OTHER_PLUGIN)
    monkeypatch.setenv("PYTEST_PLUGINS", "other_plugin")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
    result = sweep(
        "--device",
        "Pixel 9",
        "--repeats",
        "often",
        "--memory-repeats",
        "1",
        "--memory-out",
        "out",
        *workers,
    )

    result.assert_outcomes(passed=7, failed=2)
    assert manifest(pytester)["repeats"] == 1
    assert manifest(pytester)["device"]["kind"] == "emulated"


def test_a_sweep_that_stops_early_keeps_its_whole_plan(sweep, pytester):
    """-x after the first failure: the judge sees what is missing."""
    sweep("--memory-out", "out", "-x", "--memory-repeats", "1")

    assert (len(planned(pytester)), len(ends(pytester))) == (4, 2)


def test_a_selection_of_nothing_is_a_run_with_an_empty_plan(sweep, pytester):
    """So that the gate can say that it saw nothing."""
    result = sweep("--memory-out", "out", "-k", "nothing_of_the_kind")

    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert planned(pytester) == []
    result.stdout.fnmatch_lines(
        ["0 runs were selected, and out holds an empty plan; --collect-only lists the points"]
    )
    assert "judge them" not in result.stdout.str()


def test_tests_that_measure_nothing_leave_nothing_behind(sweep, pytester):
    """The plug-in is silent in everybody's ordinary tests."""
    result = sweep("-k", "something_else")

    result.assert_outcomes(passed=1, deselected=12)
    assert not (pytester.path / "artifacts").exists()
    assert "= memory =" not in result.stdout.str()


LOADED = """
import sys

def test_loaded():
    names = [name for name in sys.modules if name.partition(".")[0] == "harness"]
    heavy = {"numpy", "pandas", "pydantic", "tensorflow"} & set(sys.modules)
    assert (len(names) <= 8, heavy) == (True, set()), (names, heavy)
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_a_session_that_measures_nothing_loads_at_most_eight_modules(pytester, workers):
    """Of everybody who has the package installed: the hooks, the options, and nothing heavy."""
    pytester.makepyfile(test_loaded=LOADED)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *workers, timeout=120)

    result.assert_outcomes(passed=1)


def test_nobody_writes_to_the_options_of_pytest():
    """Settings are a record of their own: an option stays what the user typed."""
    files = [Path(harness.pytest_plugin.__file__), *Path(harness.plugin.__file__).parent.iterdir()]
    trees = [ast.parse(file.read_text()) for file in files if file.suffix == ".py"]
    written = [
        ast.unparse(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Subscript)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and ".option" in ast.unparse(node.value)
    ]
    called = [
        ast.unparse(node)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"setattr", "vars", "object.__setattr__"}
        and "option" in ast.unparse(node)
    ]

    assert len(trees) > 8
    assert written + called == []


def test_listing_the_sweep_measures_nothing(sweep, pytester):
    """--collect-only writes no run directory."""
    sweep("--collect-only", "--memory-out", "out")

    assert not (pytester.path / "out").exists()


def test_without_a_directory_the_run_goes_under_artifacts(sweep, pytester):
    """Named by the time, and printed."""
    sweep("--memory-repeats", "1")

    assert [path.name for path in (pytester.path / "artifacts" / "runs").glob("*/*.json*")] in (
        ["run.json", "rows.jsonl"],
        ["rows.jsonl", "run.json"],
    )


def test_a_directory_that_holds_a_run_is_refused_and_kept(sweep, pytester):
    """Nothing is overwritten."""
    sweep("--memory-out", "out", "--memory-repeats", "1")
    before = (pytester.path / "out" / "rows.jsonl").read_bytes()
    result = sweep("--memory-out", "out")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--memory-out out already holds a run; name another folder, or delete this one first"]
    )
    assert (pytester.path / "out" / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--memory-out", "", "*'' is not a folder; name one, for example*"),
        (
            "--memory-out",
            "/proc/x",
            "*--memory-out /proc/x cannot be written to (*); name a folder in which*",
        ),
        ("--memory-repeats", "0", "*'0' is not a number of repeats; write 1 or more, up to 1000*"),
        (
            "--memory-repeats",
            "1001",
            "*'1001' is not a number of repeats; write 1 or more, up to 1000*",
        ),
        (
            "--memory-repeats",
            "two",
            "*'two' is not a number of repeats; write 1 or more, up to 1000*",
        ),
        (
            "--memory-device-budget",
            "1024TiB",
            "*a device budget of 1,024.0 TiB was asked for, but the emulated device*ask for less*",
        ),
        (
            "--memory-device-budget",
            "256MB",
            "*'256MB' has the unit MB; write B, KiB, MiB, GiB or TiB, for example 256MiB*",
        ),
        (
            "--memory-device-budget",
            "15MiB",
            "*a device budget of 15.0 MiB was asked for; the smallest is 16.0 MiB*",
        ),
        ("--memory-host-budget", "lots", "*'lots' is not an amount of bytes*"),
        ("--memory-timeout", "0", "*'0' is not a time in seconds; write a number above 0*"),
        ("--memory-device", "tpu", "*invalid choice: 'tpu'*"),
    ],
)
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_a_bad_value_is_one_sentence_and_a_usage_error(sweep, option, value, sentence, workers):
    """Before anything is measured, or a worker is started."""
    result = sweep(option, value, *workers)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([sentence])
    assert "Traceback" not in result.stderr.str()
    assert "INTERNALERROR" not in result.stdout.str()


def test_the_smallest_values_are_taken(sweep, pytester):
    """At the limit."""
    sweep(
        "--memory-out",
        "out",
        "--memory-repeats",
        "1",
        "--memory-device-budget",
        "16MiB",
        "--memory-device",
        "cpu",
    )

    assert manifest(pytester)["device"]["memory_bytes"] == 16 * 1024 * 1024


def test_a_thousand_repeats_are_taken(sweep):
    """At the limit, without measuring them."""
    result = sweep("--collect-only", "-q", "--memory-repeats", "1000")

    result.stdout.fnmatch_lines(["4005 tests collected*"])


def test_every_option_is_explained_by_help(sweep):
    """With its default."""
    result = sweep("--help")

    for option in (
        "--memory-out=DIR",
        "--memory-points=PATTERN",
        "--memory-repeats=N",
        "--memory-no-trace",
        "--memory-device-budget=SIZE",
        "--memory-growth",
        "--memory-device={auto,cpu,gpu,pretended}",
        "--memory-timeout=SECONDS",
    ):
        assert option in result.stdout.str()


def test_without_a_card_asking_for_one_measures_nothing_and_exits_with_3(sweep, pytester):
    """Never green, and NVML's own reason is told."""
    pytester.makeconftest(FAKE_RUNNER + NO_DRIVER)
    result = sweep("--memory-device", "gpu", "--memory-out", "out")

    assert result.ret == 3
    result.stderr.fnmatch_lines(
        ["*the NVIDIA driver is installed but not loaded (NVML: *); nothing was measured*"]
    )
    assert not (pytester.path / "out").exists()


ASKED = """
from pathlib import Path
import harness.run.cards
from harness.errors import DeviceUnavailable

def ask(device, folder):
    with Path(folder, "asked").open("a") as file:
        file.write("x")
    raise DeviceUnavailable(f"TensorFlow sees no GPU although the driver has {device.name}")

harness.run.cards.check_tensorflow = ask
harness.run.cards.cuda_major_of_tensorflow = lambda: None
"""


@pytest.fixture
def blind_sweep(sweep, pytester, driver, nvml_stub, monkeypatch):
    """The sweep where the driver has a card that TensorFlow does not see; each time that it is
    asked is noted.
    """
    driver.add_device("GPU-0", name="A100", total_bytes=40 * 1024**3)
    for name, value in driver.environment(nvml_stub.library).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pytester.makeconftest(FAKE_RUNNER + ASKED)
    return sweep


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two workers"])
def test_auto_takes_the_emulated_device_where_tensorflow_does_not_see_the_card(
    blind_sweep, pytester, workers
):
    """It is found out once, whoever finds it out, and run.json says why; the run goes on with the
    same device.
    """
    result = blind_sweep(
        "--memory-out", "out", "--memory-repeats", "1", "--memory-no-trace", *workers
    )
    device = manifest(pytester)["device"]

    assert device["kind"] == "emulated"
    assert device["driver"] == "unavailable: TensorFlow sees no GPU although the driver has A100"
    result.stdout.fnmatch_lines(
        [
            (
                "the emulated device was measured on, and the card was passed over: TensorFlow "
                "sees no GPU*"
            )
        ]
    )
    assert len(ends(pytester)) == 4
    assert (pytester.path / "asked").read_text() == "x"


def test_a_session_that_measures_nothing_does_not_ask_tensorflow(blind_sweep, pytester):
    """It takes seconds, and the plug-in is active in everybody's sessions."""
    blind_sweep("-k", "something_else").assert_outcomes(passed=1, deselected=12)

    assert not (pytester.path / "asked").exists()


COUNTED = """
from pathlib import Path
import harness.run.cards
from harness.errors import DeviceUnavailable

def count():
    with Path("asked").open("a") as file:
        file.write("x")
    raise DeviceUnavailable("there is no driver")

harness.run.cards.find_cards = count
"""


@pytest.mark.parametrize("budget", [(), ("--memory-device-budget", "1GiB")], ids=["free", "budget"])
def test_the_driver_is_asked_once_which_cards_there_are(sweep, pytester, budget):
    """Though the budget is checked before anything is collected, and the plan needs the device."""
    pytester.makeconftest(FAKE_RUNNER + COUNTED)
    sweep("--memory-out", "out", "--memory-repeats", "1", *budget)

    assert manifest(pytester)["device"]["kind"] == "emulated"
    assert (pytester.path / "asked").read_text() == "x"


def test_a_card_that_is_insisted_on_and_not_seen_measures_nothing_and_exits_with_3(
    blind_sweep, pytester
):
    """Before anything is collected."""
    result = blind_sweep("--memory-device", "gpu", "--memory-out", "out", "-n", "2")

    assert result.ret == 3
    result.stderr.fnmatch_lines(
        ["*--memory-device gpu: TensorFlow sees no GPU although the driver has A100; nothing*"]
    )
    assert not (pytester.path / "out").exists()


def test_growth_and_a_budget_are_a_mistake_of_usage(sweep):
    """Named as they were typed."""
    result = sweep("--memory-growth", "--memory-device-budget", "1GiB")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*--memory-growth was given together with --memory-device-budget 1.0 GiB, but a pool*"]
    )


def test_growth_without_a_card_is_a_mistake_of_usage(sweep):
    """The emulated device has no such pool."""
    result = sweep("--memory-growth", "--memory-device", "cpu")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*but the device is emulated, and its pool is always reserved*"])


def test_an_allocator_that_keeps_no_limit_is_refused_with_a_budget(
    sweep, pytester, driver, nvml_stub, monkeypatch
):
    """Before anything is measured, or TensorFlow is asked."""
    driver.add_device("GPU-0", name="A100", total_bytes=40 * 1024**3)
    for name, value in {
        **driver.environment(nvml_stub.library),
        "TF_GPU_ALLOCATOR": "cuda_malloc_async",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pytester.makeconftest(FAKE_RUNNER + ASKED)
    result = sweep("--memory-device", "gpu", "--memory-device-budget", "1GiB")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*TF_GPU_ALLOCATOR=cuda_malloc_async is set, and that allocator enforces no limit*"]
    )
    assert not (pytester.path / "asked").exists()
