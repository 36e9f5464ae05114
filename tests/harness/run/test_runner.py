"""The runner with real children: known bytes are found, deaths are rows, the sweep goes on."""

import json
from dataclasses import replace

import pytest

from harness.errors import DeviceUnavailable
from harness.records import Outcome, Point
from harness.run.devices import Device, emulated_device
from harness.run.ends import ChildEnd
from harness.rundir.manifest import start_run
from harness.rundir.rows import PhaseRecord, ends_of, rows_since
from harness.words import GIB, MIB, format_bytes

SMALLEST_CHUNK_BYTES = 256  # kMinAllocationSize of TensorFlow's BFC allocator (bfc_allocator.h)


def readings(rows, meter):
    phases = [PhaseRecord.from_json(row) for row in rows if row["kind"] == "phase"]
    return {phase.phase: next(r for r in phase.readings if r.meter == meter) for phase in phases}


def test_known_tensors_are_found_to_the_byte(measure):
    """8 MiB held, 16 MiB as a temporary beside them, and all given back."""
    end, rows = measure(
        "allocate_on_device", ("hold", "temporary", "release"), parameters={"amount_bytes": 8 * MIB}
    )
    device = readings(rows, "device_in_use")

    assert end.outcome is Outcome.OK
    assert [d.retained_bytes for d in device.values()] == [8 * MIB, 0, -8 * MIB]
    # The shape argument of tf.zeros is a tensor too, in the smallest chunk of BFC.
    assert [d.growth_bytes for d in device.values()] == [
        8 * MIB + SMALLEST_CHUNK_BYTES,
        16 * MIB + SMALLEST_CHUNK_BYTES,
        0,
    ]
    assert [row["kind"] for row in rows] == [
        "code",
        "declared",
        *["begin", "phase"] * 3,
        "done",
        "end",
    ]


def test_a_child_killed_in_mid_phase_leaves_its_finished_phases_and_a_named_end(measure, runner):
    """SIGKILL in the second phase: the first is on disk, and the end says where it died."""
    end, rows = measure("die_in_second_phase", ("first", "second"))

    assert (end.outcome, end.phase, end.exit_code) == (Outcome.CRASHED, "second", -9)
    assert end.reason.startswith("killed by SIGKILL in phase second")
    assert [row["phase"] for row in rows if row["kind"] == "phase"] == ["first"]
    assert ends_of(runner.run_directory) == [end]


@pytest.mark.oom
def test_a_device_that_is_full_is_a_named_outcome_with_the_peak_until_then(measure):
    """32 MiB of 64 MiB held, then 2 GiB asked for: device_oom, and the unfinished phase keeps its
    readings.
    """
    end, rows = measure(
        "exhaust_device",
        ("fits", "does_not_fit"),
        parameters={"amount_bytes": 32 * MIB},
        device_budget_bytes=64 * MIB,
    )

    assert (end.outcome, end.phase) == (Outcome.DEVICE_OOM, "does_not_fit")
    assert "bfc_cpu_allocator_for_gpu refused a tensor of shape [2147483648]" in end.reason
    assert [(row["phase"], row["finished"]) for row in rows if row["kind"] == "phase"] == [
        ("fits", True),
        ("does_not_fit", False),
    ]
    assert readings(rows, "device_in_use")["does_not_fit"].start_bytes >= 32 * MIB


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (
            "tests.harness.run.children:fail",
            "its input could not be prepared: error: ValueError: the beam was off",
        ),
        (
            "tests.harness.run.children:absent",
            "its input could not be prepared: error: UsageError: ",
        ),
        (
            "no.such.module:at_all",
            (
                "its input could not be prepared: error: 'no.such.module:at_all' cannot be "
                "loaded: no module 'no' in "
            ),
        ),
    ],
)
def test_an_input_that_cannot_be_prepared_ends_its_point_with_the_reason(measure, prepare, reason):
    """The body is not run, and nothing else is lost."""
    end, rows = measure("allocate_on_device", ("hold",), prepare=prepare)

    assert end.outcome is Outcome.ERROR
    assert end.reason.startswith(reason)
    assert [row["kind"] for row in rows] == ["end"]


def test_a_point_has_variables_of_its_own_but_not_the_devices(runner, measure):
    """What the device needs is not the point's to change."""
    wanted = {"TF_NUM_INTEROP_THREADS": "1", "CUDA_VISIBLE_DEVICES": "0"}
    end, _ = measure(
        "declare_environment",
        ("look",),
        environment=wanted,
        parameters={"names": ",".join(wanted)},
    )
    found = json.loads((runner.children.workspace / "environment.json").read_text())

    assert end.outcome is Outcome.OK, end.reason
    assert found == {"TF_NUM_INTEROP_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1"}


@pytest.mark.parametrize("how", ["nested", "twice", "declared"])
def test_a_mistake_that_the_harness_finds_has_its_place_in_the_log(make_runner, project_root, how):
    """Advice sends people to the traceback in the log: the line of the body that has made the
    mistake is there.
    """
    runner = make_runner(prepare_device="builtins:repr", meters=())
    planned_for(runner, project_root)
    body = "tests.harness.run.children:misuse"
    end = runner.measure(
        Point(scenario="misuse", body=body, parameters={"how": how}, phases=("load", "epoch")), 0
    )
    (log,) = (runner.run_directory / "logs").iterdir()

    assert (end.outcome, end.cause) == (Outcome.ERROR, "UsageError")
    assert "children.py" in log.read_text()
    assert "in misuse" in log.read_text()


def test_a_preparation_that_fails_has_its_place_in_the_log(make_runner, project_root):
    """The traceback comes before the sentence that the end bears."""
    runner = make_runner(prepare_device="builtins:repr", meters=())
    planned_for(runner, project_root)
    prepare = "tests.harness.run.children:fail"
    end = runner.measure(
        Point(scenario="look", body=LOOK.body, prepare=prepare, parameters={}, phases=()), 0
    )
    (log,) = (runner.run_directory / "logs").iterdir()

    assert end.reason == "its input could not be prepared: error: ValueError: the beam was off"
    assert "in fail" in log.read_text()


LOOK = Point(
    scenario="look", body="tests.harness.run.children:nothing_at_all", parameters={}, phases=()
)


def planned_for(runner, project_root):
    start_run(
        runner.run_directory,
        points=[LOOK],
        repeats=1,
        device=runner.device,
        command="t",
        root=project_root,
        settings={},
    )
    return runner


def test_a_held_device_without_room_is_a_skipped_run_with_the_reason(make_runner, project_root):
    """No child is started, and the sweep goes on; the sentence is that of whoever looked."""

    def full(device):
        raise DeviceUnavailable("A100 is full")

    runner = planned_for(make_runner(with_room=full), project_root)
    end = runner.measure(LOOK, 0)

    assert (end.outcome, end.cause, end.reason, end.exit_code) == (
        Outcome.SKIPPED,
        "device",
        "A100 is full",
        None,
    )
    assert [row.kind for row in rows_since(runner.run_directory / "rows.jsonl", 0)] == ["end"]


def test_the_limit_that_a_run_had_is_in_its_end(make_runner, project_root):
    """It is the one that was found when the device was held, not that of the plan."""
    held = replace(emulated_device("a test"), limit_bytes=256 * MIB)
    runner = planned_for(
        make_runner(
            with_room=lambda _: held,
            meters=(),
            prepare_device="tests.harness.run.children:use_device_as_it_is",
        ),
        project_root,
    )
    end = runner.measure(LOOK, 0)

    assert (end.outcome, end.device_limit_bytes) == (Outcome.OK, 256 * MIB)
    assert ends_of(runner.run_directory) == [end]


class _Order:
    """A launcher that keeps the order for a child, and starts none."""

    name = "none"

    def run(self, order):
        self.order = order
        return ChildEnd(exit_code=0, timed_out=False, duration_s=0.0)

    def close(self):
        pass


def test_a_capped_card_leaves_the_whole_host_budget_to_the_child(
    make_runner, project_root, tmp_path
):
    """56 GiB of the card and 2 GiB of the host: the table of the pool is 1.75 GiB; the watchdog has
    the same limit.
    """
    card = Device(
        kind="gpu",
        name="H100",
        uuid="GPU-0",
        memory_bytes=80 * GIB,
        limit_bytes=56 * GIB,
        driver="stub",
    )
    launcher = _Order()
    settings = {
        "device": card,
        "launcher": launcher,
        "host_limit_bytes": 2 * GIB,
        "lease_folder": tmp_path,
    }
    planned_for(make_runner(with_room=lambda held: held, **settings), project_root).measure(LOOK, 0)

    assert launcher.order.job.host_limit_bytes == 2 * GIB + 56 * GIB // 32
    assert launcher.order.watchdog(1)._limit_bytes == 2 * GIB + 56 * GIB // 32


@pytest.mark.parametrize(("size", "shown"), [(3 * GIB, "3.4 GiB"), (64 * MIB, "366.0 MiB")])
def test_an_emulated_device_is_added_to_the_host_budget_used_or_not(
    make_runner, project_root, tmp_path, size, shown
):
    """Its size and its table, in full: the limit, its sentence, and the figures of the page say
    so.
    """
    device = Device(
        kind="emulated",
        name="emulated",
        uuid="",
        memory_bytes=size,
        limit_bytes=size,
        driver="none",
    )
    launcher = _Order()
    settings = {
        "device": device,
        "launcher": launcher,
        "host_limit_bytes": 300 * MIB,
        "lease_folder": tmp_path,
    }
    planned_for(make_runner(with_room=lambda held: held, **settings), project_root).measure(LOOK, 0)
    page = (project_root / "docs" / "your-own-loader.md").read_text(encoding="utf-8")

    assert launcher.order.job.host_limit_bytes == 300 * MIB + size + size // 32
    assert launcher.order.watchdog(1)._limit_bytes == 300 * MIB + size + size // 32
    assert launcher.order.limit_made_of.endswith("for the emulated device, used or not")
    assert shown.replace("366.0", "366") in page
    assert format_bytes(launcher.order.job.host_limit_bytes) == shown


def test_a_run_goes_to_a_card_that_has_room(make_runner, project_root, tmp_path):
    """The first of two is full; where both are, the run is skipped."""
    other = Device(
        kind="gpu",
        name="H100",
        uuid="GPU-1",
        memory_bytes=80 * GIB,
        limit_bytes=None,
        driver="stub",
    )
    card = replace(other, uuid="GPU-0", equals=(other,))
    full = {"GPU-0"}

    def room(device):
        if device.uuid in full:
            raise DeviceUnavailable(f"{device.uuid} is full")
        return device

    settings = {"device": card, "launcher": _Order(), "lease_folder": tmp_path, "with_room": room}
    runner = planned_for(make_runner(**settings), project_root)
    assert (
        runner.measure(LOOK, 0).device,
        runner.launcher.order.environment["CUDA_VISIBLE_DEVICES"],
    ) == ("GPU-1", "GPU-1")
    full.add("GPU-1")
    end = runner.measure(LOOK, 0)

    assert (end.outcome, end.reason) == (Outcome.SKIPPED, "GPU-1 is full")


@pytest.mark.parametrize(
    ("names", "outcome", "reason"), [(2, Outcome.EXITED, ""), (1, Outcome.SKIPPED, "GPU-0 is gone")]
)
def test_a_run_whose_card_was_lost_under_it_is_measured_on_another_one(
    make_runner, project_root, tmp_path, names, outcome, reason
):
    """What it left is void; its end says which card it was not on, and why. Without another card it
    is skipped.
    """
    cards = [
        Device(
            kind="gpu",
            name="H100",
            uuid=f"GPU-{n}",
            memory_bytes=80 * GIB,
            limit_bytes=None,
            driver="stub",
        )
        for n in range(names)
    ]
    looked = []

    def room(device):
        looked.append(device.uuid)
        # there when the run begins, and not when it has ended
        if device.uuid == "GPU-0" and looked.count("GPU-0") > 1:
            raise DeviceUnavailable("GPU-0 is gone")
        return device

    settings = {"launcher": _Order(), "lease_folder": tmp_path, "with_room": room}
    runner = planned_for(
        make_runner(device=replace(cards[0], equals=tuple(cards[1:])), **settings), project_root
    )
    end = runner.measure(LOOK, 0)
    rows = list(rows_since(runner.run_directory / "rows.jsonl", 0))

    assert end.outcome is outcome
    assert (end.device, end.left_out) == (
        ("GPU-1", ("GPU-0 is gone",)) if names == 2 else ("GPU-0", ())
    )
    assert [row.kind for row in rows] == ["again", "end"]
    assert rows[0].reason == "the card was lost during the run: GPU-0 is gone"
    assert end.reason.startswith(reason)
    assert ends_of(runner.run_directory) == [end]
