"""One table of meters: what the instruments read, in words and for terminals."""

import ast
import doctest
from pathlib import Path

import harness.meters
from harness.meters import (
    GATED_METERS,
    MEASURED_METERS,
    METERS,
    WITNESS_METERS,
    meter_words,
    meters_table,
)
from harness.run.runner import METERS as INSTRUMENTS
from harness.run.runner import TRACED_METERS as TRACED_INSTRUMENTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-it-works.md"


def names_of(instruments):
    """The meters that instruments, written as ``module:Class``, read; none of them is imported, as
    one needs TensorFlow.
    """
    found = set()
    for module, kind in (instrument.split(":") for instrument in instruments):
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        (body,) = (node.body for node in tree.body if getattr(node, "name", "") == kind)
        names = next(node.value for node in body if isinstance(node, ast.Assign))
        found |= {getattr(harness.meters, name.id) for name in names.elts}
    return found


def test_every_meter_of_a_measured_run_is_in_the_table():
    """The table has what the instruments of a child read, and nothing else."""
    assert set(MEASURED_METERS) == names_of(INSTRUMENTS)


def test_what_is_read_in_the_traced_run_alone_is_marked():
    """The traced run has all meters of the table."""
    assert {meter.name for meter in METERS} == names_of(TRACED_INSTRUMENTS)


def test_gated_by_default_is_what_a_loader_controls():
    """Live tensors, and what the process itself has allocated; mapped files are a witness."""
    assert GATED_METERS == ("device_in_use", "host_anon")
    assert WITNESS_METERS == ("host_mapped",)


def test_no_two_meters_share_a_name_or_words():
    """A sentence names one meter."""
    assert len({meter.name for meter in METERS}) == len(METERS)
    assert len({meter.words for meter in METERS}) == len(METERS)


def test_an_unknown_meter_is_called_by_its_name():
    """A run of a later version may have further ones."""
    assert meter_words("host_swap") == "host_swap"


def test_the_table_for_terminals_has_a_line_for_each_meter():
    """The first word of each line is the name."""
    heading, *lines = meters_table()

    assert heading.split() == ["meter", "memory", "peak", "gated", "reads"]
    assert [line.split()[0] for line in lines] == [meter.name for meter in METERS]


def test_the_page_of_meters_names_all_of_them():
    """docs/how-it-works.md has every name."""
    page = PAGE.read_text(encoding="utf-8")

    assert [meter.name for meter in METERS if f"`{meter.name}`" not in page] == []


def test_the_example_of_the_docstring_holds():
    """The doctest runs."""
    result = doctest.testmod(harness.meters)

    assert (result.failed, result.attempted) == (0, 1)
