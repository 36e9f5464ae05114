"""``where`` of a marker's limit: checked against the points of its test, before anything is
measured for a limit of none.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from harness.plugin.limits import SECTIONS
from harness.plugin.sweeps import sizes_of, uncollected
from harness.records import Scalar
from harness.words import nearest

if TYPE_CHECKING:
    from harness.plugin.marks import Wanted

_ARGUMENTS: Mapping[str, str] = {section: argument for argument, section in SECTIONS.items()}


def misnarrowed(
    marked: "Iterable[tuple[pytest.Item, Wanted]]",
) -> Iterator[tuple[pytest.Item, str]]:
    """Tests with a limit whose ``where`` no point of theirs has, and a sentence for each.

    Points that were not collected count as well, as far as their tests' own parametrization tells
    them.
    """
    holders: dict[tuple[str, str, str], list[tuple[pytest.Item, Wanted]]] = {}
    wheres: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for item, wanted in marked:
        for section, rule in wanted.rules:
            if rule.get("where"):
                key = (section, json.dumps(rule, sort_keys=True), wanted.scenario)
                wheres.setdefault(key, rule["where"])
                holders.setdefault(key, []).append((item, wanted))
    for key, tests in holders.items():
        mistake = _mistake(wheres[key], tests)
        if mistake:
            yield from ((item, f"{_ARGUMENTS[key[0]]}: {mistake}") for item, _ in tests)


def _mistake(where: Mapping[str, Any], tests: "Sequence[tuple[pytest.Item, Wanted]]") -> str:
    """What is wrong with a ``where``; empty where some point has all of it."""
    settings = [{**wanted.settings.fixed, **wanted.parameters} for _, wanted in tests]
    if any(
        all(name in own and own[name] == value for name, value in where.items()) for own in settings
    ):
        return ""
    known = list(dict.fromkeys(name for own in settings for name in own))
    for name, value in where.items():
        if name not in known:
            has = (
                nearest(name, known)
                if known
                else "the test is not parametrized, and nothing is fixed"
            )
            return (
                f"where names {name!r}, which is neither a parameter of the test nor fixed; {has}"
            )
        values = list(
            dict.fromkeys(
                [*(own[name] for own in settings if name in own), *_uncollected_values(tests, name)]
            )
        )
        if value not in values:
            return (
                f"where has {name}={value!r}, which no point of the test has; "
                f"{_nearest_value(value, values)}"
            )
    if uncollected([item for item, _ in tests]):
        return ""  # the one that has all of it may be among them
    return (
        "no point of the test has all of where "
        f"({', '.join(f'{name}={value!r}' for name, value in where.items())})"
    )


def _uncollected_values(
    tests: "Sequence[tuple[pytest.Item, Wanted]]", name: str
) -> Iterator[Scalar]:
    """All that the parametrization of the tests gives a parameter, also where a test was named by
    its id.
    """
    for item, wanted in tests:
        if name in wanted.parameters:
            yield from sizes_of(item, name) or ()


def _nearest_value(value: object, values: Sequence[Scalar]) -> str:
    texts = [each for each in values if isinstance(each, str)]
    if isinstance(value, str) and texts:
        return nearest(value, texts)
    return f"known are {', '.join(map(repr, values))}"
