"""Near misses of settings, functions given for their names, and modules that lie beside the root:
what to write instead.
"""

import functools
import re
import sys

import pytest

from harness.errors import UsageError
from harness.plugin.arguments import (
    OF_CALLS,
    OF_TESTS,
    SETTINGS,
    Settings,
    as_text,
    meant,
    read_call,
)
from harness.plugin.limits import SECTIONS

KNOWN = (*OF_CALLS, *OF_TESTS)
MISSES = {
    "budget": "budgets",
    "Budgets": "budgets",
    "limit": "budgets",
    "limits": "budgets",
    "repeat": "repeats",
    "n_repeats": "repeats",
    "slope": "slopes",
    "leak": "leaks",
    "leeks": "leaks",
    "growthclass": "growth_class",
    "device_buget": "device_budget",
    "deviceBudget": "device_budget",
    "device_limit": "device_budget",
    "phase": "phases",
    "expect": "expected",
    "env": "environment",
    "enviroment": "environment",
    "paths": "path",
    "pth": "path",
    "fixd": "fixed",
    "fxied": "fixed",
    "preparation": "prepare",
    "ovr": "over",
}
PARAMETERS = [
    "image_count",
    "batch_size",
    "patch",
    "order",
    "loader",
    "size",
    "seed",
    "dtype",
    "cover",
    "mixed",
    "math",
    "x",
    "stack",
]


@pytest.mark.parametrize(("name", "word"), MISSES.items())
def test_a_near_miss_of_a_setting_is_told_from_a_parameter(name, word):
    """By its letters, or because others call it so."""
    assert meant(name, KNOWN) == word


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_is_no_near_miss(name):
    """Words that bodies use, some of them a letter away."""
    assert meant(name, KNOWN) == ""


def test_all_near_misses_of_a_call_are_told_with_the_way_to_pass_such_a_parameter(tmp_path):
    """A sentence for each; what the test is parametrized with is a parameter, whatever it is
    called.
    """
    with pytest.raises(UsageError) as told:
        read_call(
            Settings(),
            {"limit": 3},
            "bodies:small",
            {"budget": "1 KiB", "repeat": 7, "limit": 3},
            tmp_path,
        )

    first, second = str(told.value).splitlines()
    assert first == (
        "memory_run has no argument 'budget'; did you mean 'budgets'? It belongs in the "
        "test's marker: @pytest.mark.memory(budgets=...). If the body has a parameter of "
        "that name, write fixed={'budget': ...}, or parametrize the test with it"
    )
    assert second.startswith(
        "memory_run has no argument 'repeat'; did you mean 'repeats'? If the body has a "
        "parameter of that name"
    )
    settings, _ = read_call(Settings(), {}, "bodies:small", {"fixed": {"budget": 1}}, tmp_path)
    assert settings.fixed == {"budget": 1}


def body(memory, parameters):
    """What somebody may hand over instead of its name."""


class _Callable:
    def __call__(self, memory, parameters):
        """Of an object."""


def test_a_function_is_answered_with_its_name_as_a_text(tmp_path, monkeypatch, project_root):
    """And with the folder that its module is imported from, where that is not the root."""
    module = "shown_bodies"
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / f"{module}.py").write_text("def small(memory, parameters):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path / "src")
    small = __import__(module).small

    with pytest.raises(
        UsageError,
        match=r"small is a function, and .*; write its name, 'shown_bodies:small', with "
        r"path='src'$",
    ):
        as_text(small, tmp_path)
    with pytest.raises(UsageError, match=r"; write its name, 'shown_bodies:small'$"):
        as_text(small, tmp_path, "src")
    with pytest.raises(UsageError, match=r"; write its name, 'shown_bodies:small'$"):
        as_text(small, tmp_path / "src")
    assert as_text("shown_bodies:small", tmp_path) == "shown_bodies:small"
    sys.modules.pop(module)


@pytest.mark.parametrize(
    "given",
    [lambda memory, parameters: None, functools.partial(body), _Callable()],
    ids=["lambda", "partial", "object"],
)
def test_what_has_no_name_is_answered_with_where_to_define_it(given, tmp_path):
    """At the top level of a module."""
    with pytest.raises(
        UsageError, match="define it with def at the top level of a module, and write its name"
    ):
        as_text(given, tmp_path)


@pytest.mark.parametrize(
    ("parametrized", "arguments"),
    [
        ({"loader": "eager"}, {"fixed": {"loader": "lazy"}}),
        ({}, {"fixed": {"loader": "lazy"}, "loader": "eager"}),
    ],
)
def test_a_call_with_a_parameter_that_is_fixed_too_is_refused(tmp_path, parametrized, arguments):
    """Parametrized, or given beside it: one of the two values would be dropped."""
    with pytest.raises(
        UsageError, match="fixed has loader = 'lazy', and loader is a parameter of the point too"
    ):
        read_call(Settings(), parametrized, "bodies:lazy", arguments, tmp_path)


def test_the_help_of_the_marker_lists_every_argument_that_it_has(pytester):
    """In order: a setting or a limit that is added is listed."""
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "--markers", timeout=120)
    (listed,) = re.findall(r"^@pytest\.mark\.memory\((.*)\): ", result.stdout.str(), re.MULTILINE)

    assert listed.split(", ") == ["body", "*", *SETTINGS[1:], *SECTIONS]
    assert SETTINGS[0] == "body"
    assert set(OF_CALLS) | set(OF_TESTS) | {"body"} == {*SETTINGS, *SECTIONS}
