"""A promise that names no meter covers the device and the host, each with a limit that its meter
can resolve.
"""

import pytest

from harness.plugin.limits import GROWTH_MORE, LEAK_MORE, OVER_ALL_MORE
from harness.words import KIB, MIB, parse_bytes

SWEEP = """
@pytest.mark.memory("bodies:{body}", phases={phases!r}, fixed={{"epochs": {epochs}}}, {promise})
@pytest.mark.parametrize("image_count", {sizes})
def test_load(image_count):
    pass
"""


def sweep(body, promise, epochs=2, sizes=(512,)):
    phases = ["load", *(f"epoch_{number}" for number in range(epochs))]
    return SWEEP.format(body=body, phases=phases, epochs=epochs, promise=promise, sizes=list(sizes))


@pytest.mark.parametrize("epochs", [2, 3])
@pytest.mark.parametrize("beyond", [0, 1], ids=["at the limit", "a byte more"])
def test_a_leak_on_the_host_is_what_was_asked_and_what_its_meter_cannot_tell(
    project, epochs, beyond
):
    """The sentence has the limit as it was asked, and why it is larger."""
    limit_bytes = 64 * KIB + parse_bytes(LEAK_MORE)
    result = project(
        sweep(f"hoarding_{limit_bytes + beyond}", 'leaks="64 KiB"', epochs),
        "--memory-out",
        "out",
        "--memory-no-trace",
    )
    found = [line for line in result.outlines if line.startswith("regression")]

    result.assert_outcomes(passed=1 - beyond, failed=beyond)
    assert len(found) == beyond
    for line in found:
        assert (
            f"/ epoch_0 to epoch_{epochs - 1} / host anonymous memory: ends with more by 1.1 MiB"
            in line
        )
        assert f", limit 64 KiB + {LEAK_MORE} (1.1 MiB)" in line
        keeps = (
            "each of epoch_1 and epoch_2 keeps about as much or more"
            if epochs == 3
            else "epoch_1 keeps it"
        )
        assert f"over it; {keeps}" in line
        assert "began" not in line
        assert (
            f"The limit is the marker of test_memory.py::test_load: on the host {LEAK_MORE} "
            "more, which its readings" in line
        )


def test_a_leak_of_one_step_alone_is_none_where_there_are_three_phases(project):
    """A cache that fills in the first epoch; what it costs is for slopes and budgets."""
    result = project(
        sweep("caching", 'leaks="64 KiB"', 3), "--memory-out", "out", "--memory-no-trace"
    )

    result.assert_outcomes(passed=1)


def test_a_slope_finds_a_cache_of_the_host(project, said):
    """16 KiB for each image, in the first epoch; nothing on the device."""
    result = project(
        sweep("caching", 'slopes="1 KiB"', sizes=(512, 1024, 2048)),
        "--memory-out",
        "out",
        "--memory-no-trace",
        "-v",
    )

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    limit = 1024 + parse_bytes(OVER_ALL_MORE) / 1536
    assert (
        "regression: load / epoch_0 / host anonymous memory: grows by 16,384 B per image, limit "
        f"{limit:,.0f} (" in said(result)
    )
    result.stdout.fnmatch_lines(
        ["this session fails because of 1 finding that no test has failed with"]
    )


@pytest.mark.parametrize("beyond", [0, 1], ids=["at the limit", "a byte more"])
def test_a_budget_of_the_host_allows_what_a_first_epoch_takes(project, beyond):
    """Twice the limit of the device, and 32 MiB: TensorFlow's own memory before the first phase
    does not count.
    """
    kept = 2 * 4 * MIB + parse_bytes(GROWTH_MORE) + beyond
    promise = 'budgets=["4 MiB", {"at_most": "4 MiB", "field": "retained", "phases": "epoch_1"}]'
    result = project(sweep(f"hoarding_{kept}", promise), "--memory-out", "out", "--memory-no-trace")

    result.assert_outcomes(passed=1 - beyond, failed=beyond)
    assert (
        sum(
            "host anonymous memory: keeps" in line
            for line in result.outlines
            if line.startswith("regression")
        )
        == beyond
    )


def test_the_peak_of_the_host_is_taken_over_what_there_was_before(project, run_json):
    """200 MiB of TensorFlow are nobody's; a floor, and the start of a phase, are about the device
    alone.
    """
    promise = (
        'budgets=[{"at_most": "20 MiB", "field": "peak"}, {"at_most": "20 MiB", '
        '"at_least": "1 MiB"}, {"at_least": "1 MiB"}, {"at_most": "4 MiB", "field": '
        '"start"}]'
    )
    result = project(sweep("lazy", promise), "--memory-out", "out", "--memory-no-trace")
    of_host = [rule for rule in run_json()["policy"]["budget"] if rule["meters"] == ["host_anon"]]

    result.assert_outcomes(passed=1)
    assert [(rule["field"], "at_least" in rule) for rule in of_host] == [
        ("net_peak", False),
        ("growth", False),
    ]
    assert len(run_json()["policy"]["budget"]) == 6


def test_who_names_a_meter_has_that_one_and_the_limit_as_written(project, run_json):
    """Both ways: a leak of the host is none of the device's, and a byte over a limit of the host is
    one.
    """
    body = f"hoarding_{8 * MIB}"
    device = sweep(body, 'leaks={"at_most": "64 KiB", "meters": "device_in_use"}').replace(
        "test_load", "test_device"
    )
    host = sweep(body, f'leaks={{"at_most": "{8 * MIB - 1} B", "meters": "host_anon"}}').replace(
        "test_load", "test_host"
    )
    result = project(device + host, "--memory-out", "out", "--memory-no-trace")

    result.assert_outcomes(passed=1, failed=1)
    assert [rule["meters"] for rule in run_json()["policy"]["leak"]] == [
        ["device_in_use"],
        ["host_anon"],
    ]


def test_a_promise_by_meters_is_a_short_form_too(project, run_json):
    """``{"device_in_use": "64 KiB", "host_anon": "8 MiB"}``: each meter has its own limit."""
    promise = 'leaks={"device_in_use": "64 KiB", "host_anon": "8 MiB"}'
    result = project(
        sweep(f"hoarding_{8 * MIB}", promise), "--memory-out", "out", "--memory-no-trace"
    )

    result.assert_outcomes(passed=1)
    assert [(rule["meters"], rule["at_most"]) for rule in run_json()["policy"]["leak"]] == [
        (["device_in_use"], "64 KiB"),
        (["host_anon"], "8 MiB"),
    ]
