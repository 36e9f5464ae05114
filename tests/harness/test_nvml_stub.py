"""The stub driver itself, read by the unmodified pynvml: what is written down is what is
answered.
"""

import itertools
import json
import os
import subprocess
import sys

import pytest

from harness.pretended import control as stub
from harness.pretended.control import StubControl

MIB, GIB = 1024**2, 1024**3

ASK = """
import json, pynvml
def ask(function, *arguments, **keywords):
    try:
        return getattr(pynvml, function)(*arguments, **keywords)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError) as error:
        return type(error).__name__
"""


@pytest.fixture
def pynvml_says(driver_environment):
    """What a fresh process, which does ``code`` with pynvml, assigns to ``answer``."""

    def pynvml_says(code, environment=driver_environment):
        program = f"{ASK}\n{code}\nprint(json.dumps(answer))"
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return pynvml_says


def test_both_versions_of_the_memory_query_tell_what_they_are_documented_to(driver, pynvml_says):
    """Version 1 counts what the driver keeps for itself as used."""
    driver.add_device(total_bytes=40 * GIB, reserved_bytes=500 * MIB, used_bytes=100 * MIB)
    first, second = pynvml_says(
        "pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0)\none, two = "
        "pynvml.nvmlDeviceGetMemoryInfo(h), pynvml.nvmlDeviceGetMemoryInfo(h, "
        "version=pynvml.nvmlMemory_v2)\nanswer = [[one.total, one.free, one.used], "
        "[two.total, two.reserved, two.free, two.used]]"
    )

    assert first == [40 * GIB, 40 * GIB - 600 * MIB, 600 * MIB]
    assert second == [40 * GIB, 500 * MIB, 40 * GIB - 600 * MIB, 100 * MIB]


def test_a_list_of_processes_is_first_measured_and_then_filled(driver, pynvml_says):
    """INSUFFICIENT_SIZE with the number needed, then the list; each kind of process has its own,
    all-ones are not a number.
    """
    card = driver.add_device(total_bytes=GIB)
    for pid in range(1, 7):
        driver.add_process(card, pid, pid * MIB)
    driver.add_process(card, 7, stub.ALL_ONES, kind=stub.GRAPHICS)
    compute, graphics = pynvml_says(
        "pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0)\nanswer = [[[p.pid, "
        "p.usedGpuMemory] for p in f(h)] for f in "
        "(pynvml.nvmlDeviceGetComputeRunningProcesses, "
        "pynvml.nvmlDeviceGetGraphicsRunningProcesses)]"
    )

    assert compute == [[pid, pid * MIB] for pid in range(1, 7)]
    assert graphics == [[7, None]]
    assert driver.calls("nvmlDeviceGetComputeRunningProcesses_v3") == 2


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (stub.UNKNOWN, "NVMLError_Unknown"),
        (stub.NO_PERMISSION, "NVMLError_NoPermission"),
        (stub.LIB_RM_VERSION_MISMATCH, "NVMLError_LibRmVersionMismatch"),
        (stub.DRIVER_NOT_LOADED, "NVMLError_DriverNotLoaded"),
    ],
)
def test_any_function_fails_as_often_as_it_is_told_to(driver, pynvml_says, code, error):
    """Twice, and not a third time."""
    driver.fail("nvmlInitWithFlags", code, times=2)

    assert pynvml_says("answer = [ask('nvmlInit') for _ in range(3)]") == [error, error, None]


def test_a_driver_that_nobody_has_written_down_is_not_loaded(
    driver, pynvml_says, driver_environment
):
    """No control file, and one of another size."""
    driver.path.with_suffix(".short").write_bytes(b"short")
    for path in ("/nowhere", str(driver.path.with_suffix(".short"))):
        environment = {**driver_environment, stub.VARIABLE: path}
        assert pynvml_says("answer = ask('nvmlInit')", environment) == "NVMLError_DriverNotLoaded"


def test_a_lost_card_is_lost_to_every_question_about_it(driver, pynvml_says):
    """The other card goes on, and both are counted."""
    driver.add_device(total_bytes=GIB, lost=1)
    driver.add_device(total_bytes=GIB, used_bytes=MIB)
    answer = pynvml_says(
        "pynvml.nvmlInit()\nanswer = [pynvml.nvmlDeviceGetCount(), "
        "ask('nvmlDeviceGetHandleByIndex', 0), "
        "pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(1)).used]"
    )

    assert answer == [2, "NVMLError_GpuIsLost", MIB]


def test_a_card_in_mig_mode_has_instances_with_memory_and_processes_of_their_own(
    driver, pynvml_says
):
    """The whole card answers the privileged only."""
    card = driver.add_device(total_bytes=40 * GIB, used_bytes=9 * MIB, unprivileged=1)
    for number in (1, 2):
        driver.add_instance(card, f"MIG-{number}", total_bytes=5 * GIB, used_bytes=number * MIB)
        driver.add_process(card, number, number * MIB, instance=number)
    answer = pynvml_says(
        "pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0)\nm = "
        "pynvml.nvmlDeviceGetMigDeviceHandleByIndex(h, 1)\np, = "
        "pynvml.nvmlDeviceGetComputeRunningProcesses(m)\nanswer = "
        "[ask('nvmlDeviceGetMemoryInfo', h), ask('nvmlDeviceGetComputeRunningProcesses', "
        "h), pynvml.nvmlDeviceGetUUID(m), pynvml.nvmlDeviceGetMemoryInfo(m).used, p.pid, "
        "p.usedGpuMemory, p.gpuInstanceId, ask('nvmlDeviceGetMigDeviceHandleByIndex', h, "
        "2)]"
    )

    forbidden = "NVMLError_NoPermission"
    assert answer == [forbidden, forbidden, "MIG-2", 2 * MIB, 2, 2 * MIB, 8, "NVMLError_NotFound"]


def test_accounting_tells_the_peak_of_a_process_only_where_it_is_on(driver, pynvml_says):
    """Also of one that has ended."""
    card = driver.add_device(total_bytes=GIB, accounting=stub.ON)
    driver.add_process(card, 5, 0, running=0, accounted_bytes=77 * MIB)
    code = (
        "pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0); s = "
        "ask('nvmlDeviceGetAccountingStats', h, 5)\nanswer = s if isinstance(s, str) else "
        "s.maxMemoryUsage"
    )
    assert pynvml_says(code) == 77 * MIB
    card.accounting = stub.OFF

    assert pynvml_says(code) == "NVMLError_NotSupported"


def test_an_old_driver_lacks_the_newer_functions_altogether(old_nvml_stub, tmp_path, pynvml_says):
    """As pynvml sees it: the second memory query is not found, and an unversioned list is a
    mismatch.
    """
    driver = StubControl.create(tmp_path / "old", old_nvml_stub.functions)
    driver.add_device(total_bytes=GIB, used_bytes=MIB, reserved_bytes=MIB)
    answer = pynvml_says(
        "pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0)\nanswer = "
        "[ask('nvmlDeviceGetMemoryInfo', h, version=pynvml.nvmlMemory_v2), "
        "pynvml.nvmlDeviceGetMemoryInfo(h).used, "
        "ask('nvmlDeviceGetComputeRunningProcesses', h), "
        "ask('nvmlDeviceGetComputeRunningProcesses_v2', h)]",
        {**os.environ, **driver.environment(old_nvml_stub.library)},
    )
    driver.close()

    assert answer == ["NVMLError_FunctionNotFound", 2 * MIB, "NVMLLibraryMismatchError", []]


def test_spikes_are_seen_exactly_while_they_last(driver, pynvml_says):
    """Every look is compared with the script by its own clock; looks next to an edge are left
    out.
    """
    card = driver.add_device(total_bytes=GIB, used_bytes=MIB)
    spikes = [
        (start_ns, 3_000_000, number * MIB)
        for number, start_ns in enumerate(range(0, 200_000_000, 10_000_000), start=1)
    ]
    driver.script_spikes(card, spikes)
    looks = pynvml_says(
        "import time, sys; sys.path.insert(0, '')\n"
        "from harness.pretended.control import StubControl\n"
        "pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0)\n"
        "c = StubControl.open(); origin = c.start_spikes(c.state.devices[0]); answer = []\n"
        "while time.monotonic_ns() < origin + 200_000_000:\n"
        "    before = time.monotonic_ns(); used = pynvml.nvmlDeviceGetMemoryInfo(h).used\n"
        "    answer.append([before - origin, time.monotonic_ns() - origin, used])"
    )
    wrong, right = [], 0
    for before_ns, after_ns, used_bytes in looks:
        number, since_ns = divmod(before_ns, 10_000_000)
        if number >= len(spikes):
            continue  # the last look may begin after the script has ended
        if (since_ns < 3_000_000) == (
            (after_ns % 10_000_000) < 3_000_000
        ) and after_ns // 10_000_000 == number:
            expected = MIB + ((number + 1) * MIB if since_ns < 3_000_000 else 0)
            wrong += [(before_ns, used_bytes)] if used_bytes != expected else []
            right += used_bytes == expected

    assert wrong == []
    assert right > 0


def test_calls_are_counted_with_their_times_and_what_is_slow_is_slow(driver, pynvml_says):
    """Ten calls of at least a millisecond each."""
    driver.add_device(total_bytes=GIB)
    driver.delay("nvmlDeviceGetMemoryInfo", 1000)
    pynvml_says(
        "pynvml.nvmlInit(); h = pynvml.nvmlDeviceGetHandleByIndex(0)\n"
        "for _ in range(10): pynvml.nvmlDeviceGetMemoryInfo(h)\nanswer = 0"
    )
    times_ns = driver.call_times_ns("nvmlDeviceGetMemoryInfo")

    assert driver.calls("nvmlDeviceGetMemoryInfo") == len(times_ns) == 10
    assert driver.busy_ns("nvmlDeviceGetMemoryInfo") >= 10_000_000
    assert min(b - a for a, b in itertools.pairwise(times_ns)) >= 1_000_000


def test_what_is_not_written_out_is_not_supported(driver, pynvml_says):
    """Every function of the header exists, and is counted."""
    driver.add_device(total_bytes=GIB)

    assert (
        pynvml_says(
            "pynvml.nvmlInit(); answer = ask('nvmlDeviceGetPowerUsage', "
            "pynvml.nvmlDeviceGetHandleByIndex(0))"
        )
        == "NVMLError_NotSupported"
    )
    assert driver.calls("nvmlDeviceGetPowerUsage") == 1
