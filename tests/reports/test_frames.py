"""Tables for people: the least of the repeats, the spread, and nothing that was not read."""

from dataclasses import replace

import pandas as pd

from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Outcome
from harness.words import GIB, KIB, MIB
from reports import frames, view
from reports.html import page_files
from reports.markdown import summary_text
from reports.plan import Plan
from reports.view import RunView


def picture_of(run, points, device_bytes):
    """The main picture of a run, as if these points were its plan."""
    plan = Plan(points)
    peaks = frames.run_peaks(run.phases, plan, DEVICE_IN_USE)
    return frames.peak_picture(plan, peaks, run.ends, device_bytes)


def test_every_planned_point_is_described_in_the_order_of_the_plan(whole_run):
    """Points without a row in the run are in the table too."""
    table = Plan(whole_run.points).table

    assert [cell.name for cell in whole_run.points] == list(table["point"])
    assert list(table["device_budget_bytes"].dropna()) == [256 * MIB, 256 * MIB]
    assert table.loc[table["scenario"] == "arrays", "stack_size"].isna().all()


def test_a_parameter_besides_the_sizes_makes_a_series_of_its_own(sweep):
    """Otherwise two points of one size would lie on one line."""
    first = sweep.points[0]
    ahead = [
        replace(first, parameters={**first.parameters, "read_ahead": steps}) for steps in (0, 2)
    ]

    assert list(Plan(ahead).table["series"]) == [
        "eager, read_ahead=0",
        "eager, read_ahead=2",
    ]


def test_a_phase_shows_the_repeat_that_grew_least_and_how_far_the_repeats_lie_apart(whole_run):
    """Repeat 1 of host memory is 512 KiB above repeat 0; the device repeats to the byte."""
    table = RunView(whole_run).phases
    mine = table[
        (table["point"] == "loading-lazy-image_count=500-stack_size=2048")
        & (table["phase"] == "epoch_0")
    ]
    host, device = (
        mine[mine["meter"] == meter].iloc[0] for meter in ("host_anon", "device_in_use")
    )

    assert (host["growth_bytes"], host["spread_bytes"], host["runs"]) == (18 * MIB, 512 * KIB, 2)
    assert (device["growth_bytes"], device["spread_bytes"], device["runs"]) == (12 * MIB, 0, 2)


def test_a_single_run_has_no_spread(sweep, tmp_path):
    """One repeat: the spread is unknown, not zero."""
    sweep.repeats = 1
    run = sweep.write(tmp_path)
    table = RunView(run).phases

    assert table["spread_bytes"].isna().all()


def test_a_phase_that_was_entered_and_never_left_is_one_row_without_a_meter(whole_run):
    """The eager loader at 256 MiB dies in construct."""
    table = RunView(whole_run).phases
    dead = table[
        (table["point"] == "oom-eager-image_count=2000-stack_size=2048")
        & (table["phase"] == "construct")
    ]

    assert list(zip(dead["meter"], dead["outcome"], strict=True)) == [("", "device_oom")]
    assert dead["growth_bytes"].isna().all()


def test_the_main_picture_takes_the_scenario_and_stack_with_the_most_sizes(whole_run):
    """Four sizes of loading at 2,048 frames, not three of arrays nor the larger stack."""
    picture = picture_of(whole_run, whole_run.points, 4 * GIB)
    eager = picture.peaks[picture.peaks["series"] == "eager"]

    assert (picture.scenarios, picture.stack_size) == (("loading",), 2048)
    assert [images * 735_000 for images in (100, 500, 1000, 2000)] == list(eager["peak_bytes"])
    assert list(zip(picture.capped["size"], picture.capped["peak_bytes"], strict=True)) == [
        (2000, 12 * MIB)
    ]
    assert [
        (row.series, row.size, row.device_budget_bytes)
        for row in picture.out_of_memory.itertuples()
    ] == [("eager", 2000, 256 * MIB)]


def test_a_budget_that_all_points_share_is_the_device_of_the_picture(whole_run):
    """As where every test of a module asks for 256 MiB; one point without, and it is the device of
    the others alone.
    """
    shared = [replace(cell, device_budget_bytes=256 * MIB) for cell in whole_run.points]
    picture = picture_of(whole_run, shared, 256 * MIB)

    assert Plan(shared).shared_budget_bytes == 256 * MIB
    assert (picture.scenarios, picture.capped.empty, picture.out_of_memory.empty) == (
        ("loading",),
        True,
        True,
    )
    assert Plan([*shared[1:], whole_run.points[0]]).shared_budget_bytes is None


def test_scenarios_without_loaders_are_shown_beside_each_other(sweep):
    """Each is what another one's loaders would be: tests of one module, over the same parameter."""
    first = sweep.points[0]
    names = ["streamed", "cached", "other"]
    cells = [
        replace(
            first,
            scenario=name,
            parameters={"batch_size" if name == "other" else "image_count": size},
        )
        for name in names
        for size in (100, 500)
    ]

    assert Plan(cells).scenarios_beside("cached") == ("cached", "streamed")
    assert Plan(cells).scenarios_beside("other") == ("other",)
    assert Plan(sweep.points).scenarios_beside("arrays") == ("arrays",)


def test_memory_that_ran_out_on_the_runs_own_device_is_placed_at_its_size(sweep, tmp_path):
    """A point without a budget of its own ran out of the whole device."""
    name = "loading-eager-image_count=2000-stack_size=2048"
    sweep.deaths = {name: (Outcome.DEVICE_OOM, "construct", "full")}
    run = sweep.write(tmp_path)
    picture = picture_of(run, run.points, 4 * GIB)

    assert list(picture.out_of_memory["device_budget_bytes"]) == [4 * GIB]
    assert 2000 not in list(picture.peaks.loc[picture.peaks["series"] == "eager", "size"])


def test_the_line_of_the_peaks_is_exact_for_exact_numbers(whole_run):
    """735,000 bytes an image; no line through one size."""
    picture = picture_of(whole_run, whole_run.points, 4 * GIB)
    eager = picture.peaks[picture.peaks["series"] == "eager"]
    line = frames.peak_line(eager)

    assert line is not None
    assert line.slope == 735_000
    assert frames.peak_line(eager.head(1)) is None


def test_stacks_are_compared_at_one_image_count_alone(whole_run, only, tmp_path):
    """Both loaders at 500 images; a run with one stack size has no such table."""
    table = RunView(whole_run).stacks
    one_stack = only(lambda cell: cell.parameters.get("stack_size") != 8192).write(tmp_path / "one")

    assert {500} == set(table["size"])
    assert {2048, 8192} == set(table["stack_size"])
    assert RunView(one_stack).stacks.empty


def test_a_run_of_which_nothing_was_recorded_stays_in_the_table_of_runs(sweep, tmp_path):
    """Its outcome is unknown; it is not dropped."""
    lost = "loading-lazy-image_count=100-stack_size=2048"
    sweep.missing = frozenset({lost})
    run = sweep.write(tmp_path)
    table = RunView(run).ends

    assert 2 * len(run.points) == len(table)
    assert pd.isna(table.loc[table["point"] == lost, "outcome"]).all()


def test_the_first_scenario_of_the_plan_is_the_first_of_the_stacks(whole_run):
    """Not the first of the alphabet, which would take the place of the main one in the picture."""
    others = {cell.name: replace(cell, scenario="a" + cell.scenario) for cell in whole_run.points}
    table = RunView(whole_run).stacks
    names = {name: cell.name for name, cell in others.items()}
    phases = pd.concat([whole_run.phases, whole_run.phases.replace({"point": names})])
    plan = Plan([*whole_run.points, *others.values()])
    peaks = {meter: frames.run_peaks(phases, plan, meter) for meter in (DEVICE_IN_USE, HOST_ANON)}
    more = frames.stack_table(plan, peaks)

    assert set(table["scenario"]) == {"loading"}
    assert list(dict.fromkeys(more["scenario"])) == ["loading", "aloading"]


def test_a_view_works_each_table_out_once(whole_run, judged, monkeypatch):
    """The page and the summary share it, however often they ask."""
    calls = []
    for name in ("phase_table", "ends_table", "run_peaks", "peak_picture", "stack_table"):
        function = getattr(view, name)
        monkeypatch.setattr(
            view, name, lambda *given, _do=function, _name=name: calls.append(_name) or _do(*given)
        )
    judgement = judged(whole_run)
    looked = RunView(whole_run)
    summary_text(looked, judgement, has_page=True)
    page_files(looked, judgement)

    assert sorted(calls) == [
        "ends_table",
        "peak_picture",
        "phase_table",
        "run_peaks",
        "run_peaks",
        "stack_table",
    ]
