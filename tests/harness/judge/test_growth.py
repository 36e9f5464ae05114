"""Fits of synthetic runs with known growth, their classes, and what their lines say."""

import math

import numpy as np
import pytest

from harness.judge.growth import (
    GrowthClass,
    GrowthLimits,
    classify,
    fit_line,
    fit_run,
    fits_table,
    planned_series,
)
from harness.judge.table import load_run
from harness.records import Outcome

SIZES = (100, 500, 1000, 2000)
MIB = 1024 * 1024


def class_of(growth, sizes=SIZES, repeats=2, limits=None):
    runs = [size for size in sizes for _ in range(repeats)]
    return classify(
        fit_line(runs, [int(growth(size)) for size in runs]), sizes, limits or GrowthLimits()
    )


def noisy(slope, sd_mib, seed):
    noise = np.random.default_rng(seed)
    return lambda size: slope * size + noise.normal(0, sd_mib * MIB)


@pytest.mark.parametrize(
    ("growth", "expected"),
    [
        (lambda size: 4 * MIB, GrowthClass.FLAT),
        (lambda size: 0, GrowthClass.FLAT),
        (lambda size: 1024 * size, GrowthClass.FLAT),
        (lambda size: 1025 * size, GrowthClass.LINEAR),
        (lambda size: 327_680 * size, GrowthClass.LINEAR),
        (lambda size: -327_680 * size, GrowthClass.LINEAR),
        (lambda size: 1000 * size**2, GrowthClass.SUPERLINEAR),
        (lambda size: 10_000 * size**1.5, GrowthClass.SUPERLINEAR),
        (lambda size: 10_000 * size * math.log(size), GrowthClass.LINEAR),
        (lambda size: 5_000_000 * math.sqrt(size), GrowthClass.LINEAR),
        (noisy(0, 1, seed=1), GrowthClass.FLAT),
        (noisy(327_680, 2, seed=2), GrowthClass.LINEAR),
        (noisy(0, 40, seed=3), GrowthClass.UNRESOLVED),
    ],
)
def test_known_growth_is_classified(growth, expected):
    """At the limit of flat and one byte past it, steep, bent, saturating and noisy."""
    assert class_of(growth) == expected


def test_noise_alone_is_never_called_growth():
    """A thousand flat series with runs 1 MiB apart: none linear, none superlinear, none
    unresolved.
    """
    assert {class_of(noisy(0, 1, seed)) for seed in range(1000)} == {GrowthClass.FLAT}


def test_two_sizes_show_flatness_but_not_the_shape_of_growth():
    """A bend needs a third size."""
    assert class_of(lambda size: 5, sizes=(2048, 8192)) is GrowthClass.FLAT
    assert class_of(lambda size: 16_384 * size, sizes=(2048, 8192)) is GrowthClass.UNRESOLVED


def test_series_are_points_that_differ_in_one_parameter(synthetic_run):
    """The default sweep has image series for two scenarios and two loaders, and a stack series for
    each loader.
    """
    found = [
        (series.scenario, series.over, *series.constants.values(), series.sizes)
        for series in planned_series(synthetic_run.points)
    ]

    assert found == [
        ("loading", "image_count", "eager", 2048, SIZES),
        ("loading", "image_count", "lazy", 2048, SIZES),
        ("arrays", "image_count", "eager", SIZES[:3]),
        ("arrays", "image_count", "lazy", SIZES[:3]),
        ("loading", "stack_size", "eager", 500, (2048, 8192)),
        ("loading", "stack_size", "lazy", 500, (2048, 8192)),
    ]


def test_the_arithmetic_of_the_eager_loader_is_recovered(synthetic_run):
    """327,680 B per image retained by construct, with an interval of width 0; growth and bound are
    fitted as well.
    """
    table = fits_table(fit_run(load_run(synthetic_run.write())))
    own = table[
        (table["loader"] == "eager")
        & (table["scenario"] == "loading")
        & (table["phase"] == "construct")
    ]
    row = own[
        (own["meter"] == "device_in_use")
        & (own["field"] == "retained")
        & (own["over"] == "image_count")
    ].iloc[0]

    assert (row["slope_bytes_per_image"], row["slope_low"], row["slope_high"]) == (
        327_680,
        327_680,
        327_680,
    )
    assert (row["growth_class"], row["sizes"], row["runs"], row["quality"]) == (
        "linear",
        4,
        8,
        "exact",
    )
    assert math.isnan(row["slope_bytes_per_frame"])
    assert "growth_bound" in set(own.loc[own["meter"] == "host_anon", "field"])


def test_only_runs_that_finished_the_phase_are_fitted(synthetic_run):
    """A run that died in construct counts for open and not for construct."""
    dead = synthetic_run.points[3].name
    synthetic_run.ends[dead, 0] = (Outcome.CRASHED, "SIGKILL", "construct")
    fits = fit_run(load_run(synthetic_run.write()))
    runs = {
        fit.phase: fit.runs
        for fit in fits
        if (fit.series.scenario, fit.series.over, fit.meter, fit.field)
        == ("loading", "image_count", "device_in_use", "growth")
        and fit.series.constants["loader"] == "eager"
    }

    assert (runs["open"], runs["construct"]) == (8, 7)


def test_a_run_without_rows_has_no_fits(synthetic_run):
    """The table has its columns all the same."""
    table = fits_table(fit_run(load_run(synthetic_run.write([]))))

    assert len(table) == 0
    assert "slope_bytes_per_image" in table.columns


def fit_of(run, loader):
    return next(
        fit
        for fit in fit_run(load_run(run.write()))
        if (fit.phase, fit.meter, fit.field, fit.series.over)
        == ("construct", "device_in_use", "peak", "image_count")
        and fit.series.constants["loader"] == loader
    )


def test_the_interval_encloses_the_slope(synthetic_run):
    """Noise of 1 MiB widens it to both sides."""
    synthetic_run.plant(
        phase="construct",
        meter="device_in_use",
        loader="eager",
        extra=lambda point, repeat: repeat * MIB,
    )
    line = fit_of(synthetic_run, "eager").line

    assert line.slope_low < line.slope < line.slope_high
