"""The house holds together: no import goes round in a circle, no room is a crumb, and the document
names every module that there is.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MOST_FILES = {"harness": 87, "ptycho": 30}
"""Chosen: what a reader can take in by names."""
CRUMB_LINES = 60
REASON = "On its own because"
"""How the docstring of a small module with a single importer begins to say why it is one."""


def _load_house():
    spec = importlib.util.spec_from_file_location("house", ROOT / ".ci" / "house.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


house = _load_house()


@pytest.fixture(scope="module")
def all_modules():
    return {module.name: module for package in house.PACKAGES for module in house.modules(package)}


@pytest.fixture(scope="module")
def arrows(all_modules):
    return house.imports(all_modules)


def test_no_module_imports_itself_by_way_of_others(arrows):
    """Imports inside functions and for type checkers count as well."""
    assert house.circles(arrows) == []


def test_no_room_imports_itself_by_way_of_others(arrows, all_modules):
    """Neither packages nor the folders in them."""
    assert house.circles(house.between_rooms(arrows, all_modules)) == []


def test_packages_import_each_other_one_way(arrows):
    """``ptycho`` imports none of the others, ``harness`` none of them, ``reports`` the harness."""
    between = {package: set() for package in house.PACKAGES}
    for name, others in arrows.items():
        own = name.partition(".")[0]
        between[own] |= {other.partition(".")[0] for other in others} - {own}

    assert between == {
        "harness": set(),
        "ptycho": set(),
        "reports": {"harness"},
        "scenarios": {"harness", "ptycho"},
    }


@pytest.mark.parametrize("package", MOST_FILES)
def test_a_package_has_no_more_files_than_a_reader_takes_in(package):
    """``__init__.py`` included."""
    count = len(list(house.modules(package)))

    assert count <= MOST_FILES[package], f"{package} has {count} files"


@pytest.mark.parametrize("package", ["harness", "ptycho", "reports"])
def test_a_small_module_with_one_importer_says_why_it_is_one(package, arrows, all_modules):
    """Else it belongs into its importer."""
    importers = dict.fromkeys(all_modules, 0)
    for others in arrows.values():
        for other in others:
            importers[other] += 1
    crumbs = [
        module.name
        for module in house.modules(package)
        if not module.is_package
        and module.path.name != "__main__.py"
        and module.line_count < CRUMB_LINES
        and importers[module.name] == 1
        and REASON not in module.docstring
    ]

    assert crumbs == []


def test_every_module_says_first_what_it_is(all_modules):
    """In a paragraph that fits a row of a table."""
    assert [
        name for name, module in all_modules.items() if not 0 < len(module.summary) <= 250
    ] == []


def test_the_document_names_every_module_there_is_and_no_other():
    """Written by ``python .ci/house.py --write``."""
    text = house.DOCUMENT.read_text(encoding="utf-8")

    assert text == house.document_with(text, house.table())


def test_the_vocabulary_is_that_of_the_program():
    """Meters, rules, findings and outcomes; written by ``python .ci/house.py --write``."""
    assert house.VOCABULARY.read_text(encoding="utf-8") == house.vocabulary()


@pytest.mark.parametrize(
    ("arrows", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [["a", "b", "c"]]),
        ({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c", "a"}}, [["a", "b"], ["c", "d"]]),
    ],
    ids=["a line", "two", "three and one beside", "two circles"],
)
def test_circles_are_found(arrows, found):
    """The check itself can fail."""
    assert house.circles(arrows) == found
