"""Examples in docstrings are what really happens."""

import doctest
import importlib

import pytest

MODULES = ("harness.commands", "harness.records", "harness.words", "harness.words", "reports.words")
"""Those whose functions make texts."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_hold(module):
    """And there are some: a module without any has nothing to do in this list."""
    failed, attempted = doctest.testmod(importlib.import_module(module))

    assert attempted > 0
    assert failed == 0
