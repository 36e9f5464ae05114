"""Plots of scaling and of causes: the very amounts that are judged, their limits, what was before,
and rings where something was found.
"""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from harness.judge import Check, FindingKind, RuleName, Seen, Verdict
from harness.judge.causes import Cause, CauseKind
from harness.judge.gate import Judgement
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import Point
from harness.words import GIB, KIB, MIB
from reports.cause_panel import cause_panel
from reports.curves import MOST_PANELS, Curve, Panel, run_panels, worth_drawing
from reports.drawing import finish
from reports.earlier import NOTHING_EARLIER, Earlier
from reports.panels import panel_figure
from reports.plan import Plan
from reports.view import RunView

LAZY = {f"loading-lazy-image_count={size}-stack_size=2048": size for size in (100, 500, 1000, 2000)}
PEAK = 12 * MIB
"""What the lazy loader of the synthetic sweep peaks at, whatever the size."""


def read(amounts):
    return tuple(
        Seen(point=point, repeat=repeat, amount_bytes=amounts(size) + repeat)
        for point, size in LAZY.items()
        for repeat in (0, 1)
    )


def slope(limit, amounts=lambda size: PEAK, finding=None):
    return Check(
        rule=RuleName.SLOPE,
        subject="loading / lazy / epoch_0 / device in use",
        sentence="loading / lazy / epoch_0 / device in use: grows by 0 B per image.",
        finding=finding,
        scenario="loading",
        phase="epoch_0",
        meter="device_in_use",
        measured=0.0,
        limit=float(limit),
        bound="upper",
        unit="B/image",
        points=tuple(LAZY),
        readings=read(amounts),
    )


def budget(point, limit, amount=PEAK, rule=RuleName.BUDGET, **more):
    return Check(
        rule=rule,
        subject=f"loading / lazy / image_count={LAZY[point]} / stack_size=2048 / epoch_0 / device",
        sentence="grows by 12.0 MiB",
        scenario="loading",
        phase="epoch_0",
        meter="device_in_use",
        point=point,
        points=(point,),
        measured=float(amount),
        limit=float(limit),
        bound="upper",
        unit="B",
        readings=(Seen(point=point, repeat=0, amount_bytes=amount),),
        **more,
    )


def panels_of(run, *checks, earlier=NOTHING_EARLIER):
    return run_panels(RunView(run), Judgement(Verdict(checks), ()), earlier)


def lazy(panels):
    """The curve of the lazy loader, by the device, over the number of images."""
    return next(curve for curve in panels[0].curves if curve.series == "lazy")


def test_every_scenario_has_a_plot_of_device_and_host_with_its_name(whole_run):
    """A larger stack is a plot of its own."""
    titles = [panel.title for panel in panels_of(whole_run)]

    assert titles == [
        "loading: device",
        "loading: host",
        "loading: device, larger stack",
        "loading: host, larger stack",
        "arrays: device",
        "arrays: host",
        "oom: device",
        "oom: host",
    ]


def test_a_scenario_that_is_swept_over_the_stack_alone_has_a_plot(whole_run):
    """It has no number of images."""
    points = [
        Point(
            scenario="formats",
            body="a:b",
            parameters={"loader": "lazy", "stack_size": size},
            fixed={},
            phases=("open",),
        )
        for size in (1024, 2048)
    ]
    view = RunView(whole_run)
    view.plan = Plan(points)
    rises = view.plan.table.assign(rise_bytes=MIB, peak_bytes=MIB, quality="exact")
    view.peaks = dict.fromkeys((DEVICE_IN_USE, HOST_ANON), rises)
    view.stacks = rises.iloc[:0]
    found = run_panels(view, Judgement(Verdict(()), ()), NOTHING_EARLIER)

    assert [(panel.title, panel.over) for panel in found] == [
        ("formats: device", "stack_size"),
        ("formats: host", "stack_size"),
    ]
    assert found[0].curves[0].amounts == ((1024, MIB), (2048, MIB))


def test_a_slope_is_a_zone_from_the_smallest_size_on(whole_run):
    """1 KiB for each further image, above what 100 images took."""
    curve = lazy(panels_of(whole_run, slope(KIB)))

    assert curve.amounts == tuple((size, PEAK) for size in LAZY.values())
    assert curve.limits == tuple((size, PEAK + KIB * (size - 100)) for size in LAZY.values())
    assert curve.broken == frozenset()


def test_the_lowest_of_two_limits_is_the_zone(whole_run):
    """A budget below the slope at the largest size, above it elsewhere."""
    point = "loading-lazy-image_count=2000-stack_size=2048"
    curve = lazy(panels_of(whole_run, slope(KIB), budget(point, PEAK + MIB)))

    assert dict(curve.limits)[2000] == PEAK + MIB
    assert dict(curve.limits)[1000] == PEAK + 900 * KIB


@pytest.mark.parametrize(("away", "drawn"), [(0.1, True), (0.11, False)])
def test_a_limit_on_another_amount_is_not_drawn(whole_run, away, drawn):
    """A phase that takes a tenth less is nearly the peak; one that takes less still is not."""
    amount = int(PEAK * (1 - away)) + (1 if drawn else 0)
    curve = lazy(panels_of(whole_run, slope(KIB, amounts=lambda size: amount)))

    assert bool(curve.limits) is drawn
    assert not curve.limits or curve.limits[0][1] == PEAK


@pytest.mark.parametrize("rule", [RuleName.BASELINE, RuleName.AGAINST, RuleName.FLOOR])
def test_only_promises_are_zones(whole_run, rule):
    """What a comparison tolerates is no limit of the policy, and neither is a lower bound."""
    point = "loading-lazy-image_count=2000-stack_size=2048"
    lower = replace(budget(point, MIB), bound="lower")

    assert lazy(panels_of(whole_run, budget(point, PEAK, rule=rule), lower)).limits == ()


def test_rings_are_where_something_was_found(whole_run):
    """At the point of a finding; of a slope at the largest size."""
    point = "loading-lazy-image_count=500-stack_size=2048"
    broken = budget(point, MIB, finding=FindingKind.REGRESSION)
    steep = slope(1, finding=FindingKind.REGRESSION)

    assert lazy(panels_of(whole_run, broken)).broken == {500}
    assert lazy(panels_of(whole_run, steep)).broken == {2000}
    assert lazy(panels_of(whole_run, budget(point, MIB))).broken == frozenset()


def test_what_was_before_is_a_curve_of_the_points_that_were_there(whole_run):
    """Points that nobody had measured before have none."""
    earlier = Earlier(
        words="at main",
        rises={(point, "device_in_use"): 8 * MIB for point, size in LAZY.items() if size > 100},
    )
    curve = lazy(panels_of(whole_run, earlier=earlier))

    assert curve.earlier == tuple((size, 8 * MIB) for size in (500, 1000, 2000))
    assert "before 8.0 MiB at 2,000" in curve.words


def test_a_cause_shows_the_amount_that_it_is_about_with_limit_and_what_was_before(whole_run):
    """Growth in construct, not the peak of the run; the earlier amounts are of the same field."""
    steep = slope(512, amounts=lambda size: 65_536 * size, finding=FindingKind.REGRESSION)
    before = [
        replace(
            budget(point, 64 * KIB, amount=65_536 * size, rule=RuleName.BASELINE),
            subject=f"{point} / growth",
            earlier=float(KIB),
        )
        for point, size in LAZY.items()
    ]
    others = [
        replace(check, subject=f"{check.point} / retained", measured=0.0, earlier=5.0)
        for check in before
    ]
    judgement = Judgement(Verdict((steep, *others, *before)), ())
    panel = cause_panel(RunView(whole_run), judgement, cause(steep), "plot")
    (curve,) = panel.curves

    assert (panel.title, panel.quantity, panel.over) == (
        "loading, epoch 0: device",
        "growth",
        "image_count",
    )
    assert curve.amounts == tuple((size, 65_536.0 * size) for size in LAZY.values())
    assert curve.limits[0] == (100, 65_536 * 100)
    assert curve.limits[-1] == (2000, 65_536 * 100 + 512 * 1900)
    assert curve.earlier == tuple((size, float(KIB)) for size in LAZY.values())
    assert curve.broken == {2000}


def test_a_cause_about_amounts_is_drawn_with_those_of_the_other_sizes(whole_run):
    """One budget is broken at one size; the others of the same limit are the curve."""
    checks = [
        budget(
            point,
            16 * MIB,
            amount=size * 10 * KIB,
            finding=FindingKind.REGRESSION if size == 2000 else None,
        )
        for point, size in LAZY.items()
    ]
    judgement = Judgement(Verdict(tuple(checks)), ())
    (curve,) = cause_panel(RunView(whole_run), judgement, cause(checks[-1]), "plot").curves

    assert curve.amounts == tuple((size, size * 10.0 * KIB) for size in LAZY.values())
    assert curve.limits == tuple((size, 16.0 * MIB) for size in LAZY.values())
    assert curve.broken == {2000}


def test_a_cause_without_amounts_or_with_one_size_has_no_plot(whole_run):
    """A death; one point."""
    death = Check(
        rule=RuleName.OUTCOME, subject="a", sentence="ended crashed", finding=FindingKind.INCOMPLETE
    )
    alone = budget("loading-lazy-image_count=2000-stack_size=2048", MIB)
    for check in (death, alone):
        judgement = Judgement(Verdict((check,)), ())
        assert cause_panel(RunView(whole_run), judgement, cause(check), "plot") is None


def cause(*checks):
    return Cause(
        id="a1",
        kind=CauseKind.MEMORY,
        finding=FindingKind.REGRESSION,
        what="the lazy loader keeps X",
        where="loading",
        how_much="125.0 MiB",
        loader="lazy",
        checks=checks,
    )


def drawn(*curves, device_bytes=None):
    panel = Panel(
        name="plot",
        scenario="s",
        meter="device_in_use",
        title="s: device",
        over="image_count",
        quantity="growth",
        curves=curves,
        device_bytes=device_bytes,
    )
    return finish(panel_figure(panel), panel.name, panel.description, png=False).svg


def texts_of(svg):
    return [
        element.text.strip()
        for element in ET.fromstring(svg).iter()  # noqa: S314 - our own
        if element.tag.endswith("text") and element.text
    ]


def curve(name, *amounts, **more):
    return Curve(series=name, amounts=tuple(zip((10, 20), amounts, strict=True)), **more)


def test_series_that_lie_on_each_other_share_one_label():
    """All are named, or counted where they do not fit."""
    assert {"a, b", "4.0 MiB"} <= set(
        texts_of(drawn(curve("a", MIB, 4 * MIB), curve("b", 0, 4 * MIB)))
    )
    long = [curve(f"a loader of a long name {number}", MIB, 4 * MIB) for number in range(3)]
    assert "3 series alike" in texts_of(drawn(*long))


def test_a_long_name_is_wrapped_and_cut_never_clipped():
    """Three lines of fifteen letters at most; the key below the plot has all of it."""
    name = "grows, kind=<script>alert, and more of it than there is room for anywhere"
    svg = drawn(curve(name, MIB, 2 * MIB))
    labels = set(texts_of(svg)) - {"s: device", "growth", "number of images"}

    assert all(len(text) <= 15 for text in labels)
    assert [text for text in labels if text.endswith("...")]
    assert "<script>" not in svg.split(">", 1)[1]


@pytest.mark.parametrize("letters", [38, 39, 200])
def test_a_title_keeps_what_is_drawn_and_the_end_of_a_long_name(letters):
    """46 letters fit; a longer name loses its beginning."""
    name = "a" * (letters - 3) + "end"
    panel = Panel(
        name="plot",
        scenario=name,
        meter="device_in_use",
        title=f"{name}: device",
        over="image_count",
        quantity="growth",
        curves=(curve("a", 1, 2),),
    )
    title = texts_of(finish(panel_figure(panel), "plot", "x", png=False).svg)[-2]

    assert title.endswith("end: device")
    assert len(title) <= 46
    assert title.startswith("...") is (letters > 38)


def test_colours_are_variables_of_the_page_with_the_colour_itself_beside():
    """So that a drawing follows light and dark in a page, and stands alone as a file."""
    svg = drawn(curve("lazy", MIB, 2 * MIB, limits=((10, 2 * MIB), (20, 2 * MIB))))

    assert "var(--series-0, #0072b2)" in svg
    assert "var(--plot-forbidden, #c02a2a)" in svg
    assert "var(--card, #ffffff)" in svg
    assert "#0072b2" not in svg.replace("var(--series-0, #0072b2)", "").replace(
        "var(--ink-0, #0072b2)", ""
    )


def test_a_name_that_reads_like_a_colour_stays_as_it_is():
    """Only what the drawing itself writes is a variable."""
    assert "a: #0072b2" in texts_of(drawn(curve("a: #0072b2", MIB, MIB)))


@pytest.mark.parametrize(("most", "shown"), [(2 * GIB, True), (2 * GIB - 1, False)])
def test_the_device_is_drawn_where_half_of_it_was_taken(whole_run, most, shown):
    """4 GiB; of an amount below that it would only make the plot flat."""
    view = RunView(whole_run)
    for meter in list(view.peaks):
        table = view.peaks[meter]
        view.peaks[meter] = table.assign(rise_bytes=most)
    panel = run_panels(view, Judgement(Verdict(()), ()), NOTHING_EARLIER)[0]

    assert panel.device_bytes == (4 * GIB if shown else None)


@pytest.mark.parametrize(("number", "left_out"), [(MOST_PANELS, 0), (MOST_PANELS + 1, 1)])
def test_plots_that_show_something_come_before_all_others_where_there_is_no_room(number, left_out):
    """All at the limit; one past it, the last of those that show nothing goes."""
    panels = [
        Panel(
            name=str(place),
            scenario="s",
            meter="device_in_use",
            title="s",
            over="image_count",
            quantity="growth",
            curves=(curve("a", 1, 2, broken=frozenset({20} if place == number else ())),),
        )
        for place in range(1, number + 1)
    ]
    shown = [panel.name for panel in worth_drawing(panels)]

    assert len(shown) == number - left_out
    assert shown[-1] == str(number)
    assert (str(number - 1) in shown) is (left_out == 0)
