"""Pictures: the same bytes for the same run, ids of their own, crosses where memory ran out."""

from xml.etree import ElementTree as ET

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from harness.judge import Verdict
from harness.judge.gate import Judgement
from harness.records import Outcome, Point
from reports.axes import size_axis, spread_apart
from reports.curves import run_panels
from reports.drawing import looks
from reports.earlier import NOTHING_EARLIER
from reports.pictures import draw_panels, draw_peaks
from reports.view import RunView


def draw(run):
    """The main picture, and the plots of the page, of a run that nobody has judged."""
    view = RunView(run)
    panels = run_panels(view, Judgement(Verdict(()), ()), NOTHING_EARLIER)
    return (draw_peaks(view), *draw_panels(panels))


@pytest.fixture(scope="module")
def pictures(whole_run):
    return {picture.name: picture for picture in draw(whole_run)}


def labels(drawing):
    return [
        text
        for element in ET.fromstring(drawing.svg).iter()  # noqa: S314 - our own
        if (text := (element.text or "").strip())
    ]


def test_the_main_picture_names_series_slope_device_budget_and_death(pictures):
    """Everything can be read without a legend."""
    texts = labels(pictures["peak"].wide)

    for expected in (
        "eager: 1.4 GiB",
        "735,000 B/image",
        "lazy: 12.0 MiB",
        "0 B/image",
        "device: 4.0 GiB",
        "budget: 256.0 MiB",
    ):
        assert expected in texts
    assert "eager ran out of" in texts
    assert "peak device memory" in texts


def test_a_run_draws_the_same_bytes_twice(whole_run, pictures):
    """No date, no random id."""
    again = {picture.name: picture for picture in draw(whole_run)}

    assert {name: picture.wide for name, picture in pictures.items()} == {
        name: picture.wide for name, picture in again.items()
    }


def test_no_two_drawings_of_a_page_share_an_id(pictures):
    """All are inlined into one document."""
    drawings = [picture.wide for picture in pictures.values()]
    ids = [
        element.get("id")
        for drawing in drawings
        for element in ET.fromstring(drawing.svg).iter()  # noqa: S314
        if element.get("id")
    ]

    assert len(set(ids)) == len(ids)


def test_references_inside_a_drawing_lead_to_ids_in_it(pictures):
    """Clip paths and markers survive the renaming."""
    for drawing in (pictures["peak"].wide, pictures["scaling-1"].wide):
        root = ET.fromstring(drawing.svg)  # noqa: S314
        ids = {element.get("id") for element in root.iter()}
        used = {
            value
            for element in root.iter()
            for name, value in element.items()
            if name.endswith("href")
        }
        clips = {clip for element in root.iter() if (clip := element.get("clip-path"))}

        assert used
        assert all(value.removeprefix("#") in ids for value in used)
        assert all(clip.removeprefix("url(#").removesuffix(")") in ids for clip in clips)


def test_matplotlibs_own_settings_are_left_as_found(whole_run):
    """No setting and no back end is switched for anybody else."""
    before = dict(mpl.rcParams)
    draw(whole_run)

    assert before == dict(mpl.rcParams)


def test_only_failures_still_draw_the_crosses(only, tmp_path):
    """The eager point at 256 MiB alone: that is the device then, and the phases before the death
    are drawn as ever.
    """
    run = only(lambda cell: cell.scenario == "oom" and cell.parameters["loader"] == "eager").write(
        tmp_path
    )
    peak, device = draw(run)

    assert "eager ran out of" in labels(peak.wide)
    assert "ran out of memory at 2,000 images, as the plan expects" in peak.caption
    assert device.key == ("eager: out of memory at 2,000 with 256.0 MiB",)
    assert {"oom: device", "eager", "out of memory,"} <= set(labels(device.wide))


def test_a_run_without_readings_says_why_there_is_no_picture(sweep, tmp_path):
    """A caption instead of an empty drawing."""
    sweep.missing = frozenset(cell.name for cell in sweep.points)
    (peak,) = draw(sweep.write(tmp_path))

    assert peak.wide is None
    assert "No picture of peak memory" in peak.caption


def test_one_size_has_no_slope(only, tmp_path):
    """One point for each loader: drawn, without a line."""
    run = only(
        lambda cell: (
            cell.scenario == "loading"
            and dict(cell.parameters).items() >= {"image_count": 500, "stack_size": 2048}.items()
        )
    ).write(tmp_path)
    peak = draw(run)[0]

    assert "with one number of images there is no slope" in peak.caption
    assert "eager: 350.5 MiB" in labels(peak.wide)
    assert not [text for text in labels(peak.wide) if "B/image" in text]


def test_an_unexpected_death_is_called_so(sweep, tmp_path):
    """The caption says that the plan does not expect it."""
    sweep.deaths = {
        "loading-eager-image_count=2000-stack_size=2048": (Outcome.DEVICE_OOM, "construct", "full")
    }
    peak = draw(sweep.write(tmp_path))[0]

    assert "ran out of memory at 2,000 images, which the plan does not expect" in peak.caption


def test_deaths_of_one_series_are_one_sentence_and_those_of_other_scenarios_belong_elsewhere(
    sweep, tmp_path
):
    """Three sizes of loading on one device; arrays died too, which is another picture."""
    eager = [
        cell
        for cell in sweep.points
        if cell.parameters["loader"] == "eager" and cell.device_budget_bytes is None
    ]
    died = [
        cell.name
        for cell in eager
        if cell.scenario == "arrays" or cell.parameters["image_count"] > 100
    ]
    sweep.deaths = dict.fromkeys(died, (Outcome.DEVICE_OOM, "construct", "full"))
    peak = draw(sweep.write(tmp_path))[0]

    assert peak.caption.count("ran out of memory at") == 1
    assert "eager ran out of memory at 500, 1,000, 2,000 images" in peak.caption
    assert "memory from 500" in labels(peak.wide)


def test_eager_and_lazy_always_look_the_same():
    """Alone, together, or beside others; colour and marker both differ."""
    alone, together = looks(["lazy"]), looks(["streamed", "lazy", "eager"])

    assert alone["lazy"] == together["lazy"]
    assert (
        3
        == len({look.colour for look in together.values()})
        == len({look.marker for look in together.values()})
    )


def test_labels_are_spread_until_none_touches():
    """In the order of what they name, inside the picture."""
    placed = spread_apart([0.5, 0.5, 0.99], [0.1, 0.1, 0.1])

    assert pytest.approx(placed) == [0.5, 0.6, 0.95]


def with_sizes(sweep, folder, sizes):
    """The lazy loader over these numbers of images, whatever they may stand for."""
    (first, *_) = [
        cell
        for cell in sweep.points
        if cell.scenario == "loading" and cell.parameters["loader"] == "lazy"
    ]
    sweep.points = tuple(
        Point(
            scenario=first.scenario,
            body=first.body,
            parameters={"loader": "lazy", "image_count": size},
            fixed=first.fixed,
            phases=first.phases,
        )
        for size in sizes
    )
    sweep.deaths = {}
    return sweep.write(folder)


@pytest.mark.parametrize(
    "sizes", [(0, 2, 8), (-1, 1, 2), (0, -1), (0,), (-3,), (-200, -100)], ids=str
)
def test_sizes_that_have_no_logarithm_are_drawn_with_their_ticks(sweep, tmp_path, sizes):
    """0, negative and mixed ones, one or several: both pictures are there, and the outer sizes are
    on the axis.
    """
    pictures = draw(with_sizes(sweep, tmp_path, sizes))

    assert len(pictures) == 3
    for picture in pictures:
        assert picture.wide is not None
        assert {f"{min(sizes):,}", f"{max(sizes):,}"} <= {
            text.replace("\N{MINUS SIGN}", "-") for text in labels(picture.wide)
        }


@pytest.mark.parametrize(
    ("sizes", "scale"), [((1, 2, 8), "log"), ((0, 2, 8), "linear"), ((-1, 1), "linear")]
)
def test_an_axis_is_logarithmic_where_every_size_is_above_0(sizes, scale):
    """1 is, 0 is not; the limits enclose every size."""
    axes = Figure().subplots()
    size_axis(axes, pd.Series(sizes))
    low, high = axes.get_xlim()

    assert axes.get_xscale() == scale
    assert low < min(sizes)
    assert high > max(sizes)


def test_ticks_of_a_linear_axis_stand_apart():
    """0 and 1 would touch on an axis to 100; 50 has room."""
    axes = Figure().subplots()
    size_axis(axes, pd.Series([0, 1, 50, 100]))

    assert list(axes.get_xticks()) == [1, 50, 100]
