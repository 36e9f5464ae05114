"""How the suite itself is run: what is an error, and how long a test may take."""

import warnings

import pytest

from tests.conftest import TEST_LIMIT_S


def warn_from(module, category=DeprecationWarning):
    warnings.warn_explicit("it is old", category, "file.py", 1, module=module)


@pytest.mark.parametrize(
    "module",
    [
        "harness",
        "harness.words",
        "ptycho.scan",
        "reports.html",
        "scenarios.catalog",
        "tests.conftest",
    ],
)
def test_a_warning_that_a_line_of_ours_causes_is_an_error(module):
    """Of any category."""
    for category in (DeprecationWarning, UserWarning, FutureWarning):
        with pytest.raises(category, match="it is old"):
            warn_from(module, category)


@pytest.mark.parametrize("module", ["pyparsing.util", "gast.astn", "harnessed", "matplotlib.tests"])
def test_what_others_warn_of_among_themselves_is_none(module):
    """Their next version may warn of anything, and no test of ours is worse for it."""
    with warnings.catch_warnings(record=True) as seen:  # pytest.warns would take the filters away
        for category in (DeprecationWarning, UserWarning, FutureWarning):
            warn_from(module, category)

    assert len(seen) == 3


def test_what_a_test_left_behind_is_an_error():
    """An exception that nobody saw, of a thread or while an object was freed."""
    with pytest.raises(pytest.PytestWarning):
        warn_from("_pytest.unraisableexception", pytest.PytestUnraisableExceptionWarning)


@pytest.mark.timeout(TEST_LIMIT_S // 2)
def test_a_test_may_have_a_limit_of_its_own(request):
    """What it says itself stands."""
    assert request.node.get_closest_marker("timeout").args == (TEST_LIMIT_S // 2,)


def test_every_test_has_a_limit(request):
    """Unless the command line says another one for all."""
    asked = request.config.getoption("timeout")
    mark = request.node.get_closest_marker("timeout")

    assert (mark.args if mark else (asked,)) == ((TEST_LIMIT_S,) if asked is None else (asked,))
