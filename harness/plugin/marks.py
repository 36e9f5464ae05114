"""``@pytest.mark.memory`` on a test, its class and its module: one set of settings, and every
promise of them.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.plugin import FIXTURE, MARK
from harness.plugin.arguments import (
    SETTINGS,
    Settings,
    meant,
    read_settings,
    refuse_given_twice,
    scalar,
)
from harness.plugin.limits import DEFAULT_OVER, SECTIONS, read_rules
from harness.records import Point, Scalar, minimum_sizes
from harness.words import nearest

KEYWORDS = (*(name for name in SETTINGS if name != "body"), *SECTIONS)
"""The arguments of the marker that have a name."""


def help_text() -> str:
    """What ``pytest --markers`` says of the marker."""
    return (
        f"{MARK}(body, *, {', '.join(KEYWORDS)}): measure the body ('package.module:function') in "
        "children of its own, one point for each set of parametrized values, and hold it to the "
        "limits; without a body: settings and limits of the tests below"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one test measures."""

    test: str
    """Its id."""
    same: str
    """What it shares with the other executions of the same test, where a plug-in runs each test
    several times."""
    settings: Settings
    scenario: str
    parameters: Mapping[str, Scalar]
    """What the test is parametrized with."""
    rules: tuple[tuple[str, dict[str, Any]], ...]
    """(section of a policy, rule), complete but for the points that it is about."""

    @property
    def point(self) -> Point | None:
        """The point that the marker names; None where the test calls ``memory_run`` with bodies of
        its own.
        """
        return (
            None
            if self.settings.body is None
            else make_point(self.scenario, self.settings, self.parameters)
        )


WANTED = pytest.StashKey[Wanted]()
"""Where a test keeps it."""


def make_point(scenario: str, settings: Settings, parameters: Mapping[str, Scalar]) -> Point:
    """The point of a body under these settings. Raises UsageError where there is no body."""
    if settings.body is None:
        raise UsageError(f"no body is named; write {FIXTURE}('package.module:function', ...)")
    return Point(
        scenario=scenario,
        body=settings.body,
        parameters=dict(parameters),
        fixed=dict(settings.fixed),
        phases=settings.phases,
        path=settings.path,
        prepare=settings.prepare,
        expected=settings.expected,
        device_budget_bytes=settings.device_budget,
        environment=dict(settings.environment),
    )


Mistakes = Mapping[str, Sequence[pytest.Item]]
"""A sentence for each mistake, with the tests that it is about: it refuses nobody who has
deselected all of them."""


def mistakes_of(mistakes: Mistakes, selected: Iterable[pytest.Item]) -> list[str]:
    """The mistakes of the tests that are left once others were deselected."""
    left = set(selected)
    return [sentence for sentence, items in mistakes.items() if not left.isdisjoint(items)]


def read_tests(items: Sequence[pytest.Item], root: Path) -> Mistakes:
    """Give every test that measures its ``WANTED``. A sentence for each mistake; one that several
    tests share is listed once.
    """
    mistakes: dict[str, list[pytest.Item]] = {}
    used: set[int] = set()
    for item in items:
        marks = list(item.iter_markers_with_node(MARK))
        if measures(item):
            used.update(id(mark) for _, mark in marks)
            for sentence in _keep_wanted(item, [mark for _, mark in marks], root):
                mistakes.setdefault(f"{function_of(item)}: {sentence}", []).append(item)
        elif any(node is item for node, _ in marks):
            used.update(id(mark) for _, mark in marks)
            mistakes.setdefault(_idle(item), []).append(item)

    marked = [
        (item, item.stash[WANTED])
        for item in items
        if WANTED in item.stash and item.stash[WANTED].point is not None
    ]
    for item, sentence in [*_of_few_sizes(marked), *unmatched_wheres(marked)]:
        mistakes.setdefault(f"{function_of(item)}: {sentence}", []).append(item)
    return {**mistakes, **_about_no_test(items, used)}


def _keep_wanted(item: pytest.Item, marks: list[pytest.Mark], root: Path) -> list[str]:
    """Read the markers of a test that measures; the mistakes in them."""
    try:
        item.stash[WANTED] = _read(item, marks, root)
    except UsageError as error:
        return str(error).splitlines()
    return []


def _about_no_test(items: Sequence[pytest.Item], used: set[int]) -> Mistakes:
    """The markers of classes and modules that no test below them uses."""
    found: dict[int, tuple[str, list[pytest.Item]]] = {}
    for item in items:
        for node, mark in item.iter_markers_with_node(MARK):
            if id(mark) not in used:
                found.setdefault(id(mark), (node.nodeid or item.nodeid, []))[1].append(item)
    return {
        f"{place}: @pytest.mark.{MARK} is about no test: none below it names a body "
        f"or takes {FIXTURE}": below
        for place, below in found.values()
    }


def measures(item: pytest.Item) -> bool:
    """Whether the test measures anything: a marker names a body, or it takes the fixture."""
    if not isinstance(item, pytest.Function):
        return False  # such as a doctest below a marker of its module
    return FIXTURE in item.fixturenames or any(mark.args for mark in item.iter_markers(MARK))


def function_of(item: pytest.Item) -> str:
    """The id of the test's function: that of all its parametrized tests."""
    return item.nodeid.partition("[")[0]


def _idle(item: pytest.Item) -> str:
    if (
        body := next(
            (mark.kwargs["body"] for mark in item.iter_markers(MARK) if "body" in mark.kwargs), None
        )
    ) is not None:
        return (
            f"{function_of(item)}: the body is the argument without a name; write "
            f"@pytest.mark.{MARK}({body!r}, ...)"
        )
    return (
        f"{function_of(item)}: @pytest.mark.{MARK} names no body, and the test does not "
        f"take {FIXTURE}, so nothing would be measured; write "
        f"@pytest.mark.{MARK}('package.module:function', ...), or take {FIXTURE} and call it"
    )


def _read(item: pytest.Item, marks: list[pytest.Mark], root: Path) -> Wanted:
    settings = read_settings(_settings_of(marks), root)
    parameters = dict(_parameters(item, strict=settings.body is not None))
    over = settings.over or _only_size(parameters)
    rules = tuple(
        (SECTIONS[argument], rule)
        for mark in marks
        for argument in SECTIONS
        if argument in mark.kwargs
        for rule in read_rules(
            argument,
            mark.kwargs[argument],
            because=f"marker of {function_of(item)}",
            phases=settings.phases,
            over=over,
        )
    )
    if settings.body is not None:
        refuse_given_twice(settings, parameters)
        _check_over(rules, parameters)
    return Wanted(
        test=item.nodeid,
        same=f"{function_of(item)} {json.dumps(parameters, sort_keys=True)}",
        settings=settings,
        scenario=settings.scenario or _scenario(item),
        parameters=parameters,
        rules=rules,
    )


def _settings_of(marks: list[pytest.Mark]) -> dict[str, Any]:
    """The arguments that are settings; of several markers the nearest one's."""
    known = set(KEYWORDS)
    found: dict[str, Any] = {}
    for mark in marks:
        if len(mark.args) > 1:
            raise UsageError(
                f"@pytest.mark.{MARK} has {len(mark.args)} arguments without a name; only the "
                "body is written without one"
            )
        unknown = [name for name in mark.kwargs if name not in known]
        if unknown:
            raise UsageError("\n".join(_unknown(name, known) for name in unknown))
        if mark.args:
            found.setdefault("body", mark.args[0])
        for name in SETTINGS:
            if name in mark.kwargs:
                found.setdefault(name, mark.kwargs[name])
    return found


def _unknown(name: str, known: set[str]) -> str:
    word = meant(name, sorted(known))
    hint = f"did you mean {word!r}?" if word else nearest(name, sorted(known))
    sentence = f"@pytest.mark.{MARK} has the unknown argument {name!r}; {hint}"
    if hint.endswith("?"):
        return sentence
    return (
        f"{sentence}. A parameter of the body is written fixed={{{name!r}: ...}}, or the test is "
        "parametrized with it"
    )


def _parameters(item: pytest.Item, *, strict: bool) -> Iterator[tuple[str, Scalar]]:
    """What the test is parametrized with; where a call names its own parameters, without what
    cannot be handed to a child.
    """
    callspec = getattr(item, "callspec", None)
    for name, value in (callspec.params if callspec is not None else {}).items():
        if name.startswith("_"):
            continue  # of another plug-in, as the number of a repetition
        try:
            yield name, scalar(name, value)
        except UsageError:
            if strict:
                raise


def _scenario(item: pytest.Item) -> str:
    name = str(getattr(item, "originalname", None) or item.name.partition("[")[0])
    return name.removeprefix("test_") or name


def _sizes(parameters: Mapping[str, Scalar]) -> list[str]:
    return [
        name
        for name, value in parameters.items()
        if isinstance(value, int) and not isinstance(value, bool)
    ]


def _only_size(parameters: Mapping[str, Scalar]) -> str:
    sizes = _sizes(parameters)
    return sizes[0] if len(sizes) == 1 else DEFAULT_OVER


def _check_over(
    rules: Iterable[tuple[str, dict[str, Any]]], parameters: Mapping[str, Scalar]
) -> None:
    """A slope over something that the test is not parametrized with would never be judged."""
    sizes = _sizes(parameters)
    for section, rule in rules:
        if "over" not in rule or rule["over"] in sizes:
            continue
        if not sizes:
            raise UsageError(
                f"a {section} needs sizes, and the test is not parametrized with any; "
                f"write @pytest.mark.parametrize('{DEFAULT_OVER}', [500, 1000, 2000])"
            )
        raise UsageError(
            f"a {section} is over {rule['over']!r}, which is not among the test's whole-number "
            f"parameters ({', '.join(sizes)}); write over=..."
        )


# Slopes: checked against the sizes of their tests, so that nothing is measured for a slope through
# too few of them.


def _of_few_sizes(
    marked: Sequence[tuple[pytest.Item, Wanted]],
) -> Iterator[tuple[pytest.Item, str]]:
    """Tests whose slopes have too few sizes to be drawn through, also with those of the other tests
    of their scenario.
    """
    known: dict[tuple[str, str], set[Any]] = {}
    for item, wanted in marked:
        for _, over in _swept(wanted):
            sizes = sizes_of(item, over)
            known.setdefault((wanted.scenario, over), set()).update(
                {None, wanted.parameters[over]} if sizes is None else sizes
            )

    for item, wanted in marked:
        for section, over in _swept(wanted):
            sizes = known[wanted.scenario, over]
            if None not in sizes and len(sizes) < minimum_sizes(over):
                yield item, _too_few(section, over, sizes)


def _too_few(section: str, over: str, sizes: set[Any]) -> str:
    listed = ", ".join(map(str, sorted(sizes)))
    return (
        f"a {section} over {over} needs {minimum_sizes(over)} different values of it, and the test "
        f"has {len(sizes)} ({listed}); write, for example, "
        f"@pytest.mark.parametrize('{over}', [500, 1000, 2000])"
    )


def _swept(wanted: Wanted) -> list[tuple[str, str]]:
    """The rules over several points: their sections, and the parameters that they are over."""
    found = ((section, rule["over"]) for section, rule in wanted.rules if "over" in rule)
    return list(dict.fromkeys(found))


# ``where`` of a marker's limit: checked against the points of its test, so that nothing is measured
# for a limit that is about none of them.


_ARGUMENTS: Mapping[str, str] = {section: argument for argument, section in SECTIONS.items()}


def unmatched_wheres(
    marked: Iterable[tuple[pytest.Item, Wanted]],
) -> Iterator[tuple[pytest.Item, str]]:
    """Tests with a limit whose ``where`` no point of theirs has, and a sentence for each.

    Points that were not collected count as well, as far as the parametrization of their tests names
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
        mistake = _where_mistake(wheres[key], tests)
        if mistake:
            yield from ((item, f"{_ARGUMENTS[key[0]]}: {mistake}") for item, _ in tests)


def _where_mistake(where: Mapping[str, Any], tests: Sequence[tuple[pytest.Item, Wanted]]) -> str:
    """What is wrong with a ``where``; empty where some point has all of it."""
    settings = [{**wanted.settings.fixed, **wanted.parameters} for _, wanted in tests]
    if any(where.items() <= point.items() for point in settings):
        return ""

    known = list(dict.fromkeys(name for point in settings for name in point))
    for name, value in where.items():
        if name not in known:
            return _unknown_name(name, known)
        collected = (point[name] for point in settings if name in point)
        values = list(dict.fromkeys([*collected, *_uncollected_values(tests, name)]))
        if value not in values:
            return (
                f"where has {name}={value!r}, which no point of the test has; "
                f"{_nearest_value(value, values)}"
            )
    if uncollected([item for item, _ in tests]):
        return ""  # the one that has all of it may be among them
    listed = ", ".join(f"{name}={value!r}" for name, value in where.items())
    return f"no point of the test has all of where ({listed})"


def _unknown_name(name: str, known: Sequence[str]) -> str:
    nothing = "the test is not parametrized, and nothing is fixed"
    return (
        f"where names {name!r}, which is neither a parameter of the test nor fixed; "
        f"{nearest(name, known) if known else nothing}"
    )


def _uncollected_values(tests: Sequence[tuple[pytest.Item, Wanted]], name: str) -> Iterator[Scalar]:
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


# What the parametrization of a test says of its sweep, also of the values that this session has not
# collected.


def sizes_of(item: pytest.Item, name: str) -> set[Any] | None:
    """All values that ``@pytest.mark.parametrize`` gives a parameter; None where its values come
    from elsewhere.
    """
    found: set[Any] = set()
    for names, values in _parametrized(item):
        if name not in names:
            continue
        place = names.index(name)
        for value in values:
            row = getattr(value, "values", value)  # of pytest.param(...)
            is_several = row is not value or len(names) > 1
            found.add(row[place] if is_several else row)
    return found or None


def uncollected(items: Sequence[pytest.Item]) -> int:
    """How many tests of these functions there are beyond those that were collected: others were
    named by their ids.
    """
    collected = Counter(map(function_of, items))
    of_function = {
        function_of(item): math.prod(len(values) for _, values in _parametrized(item))
        for item in items
    }
    return sum(max(0, count - collected[function]) for function, count in of_function.items())


def _parametrized(item: pytest.Item) -> Iterator[tuple[list[str], Sequence[Any]]]:
    for mark in item.iter_markers("parametrize"):
        names, values = ([*mark.args, None, None])[:2]
        names, values = (
            names or mark.kwargs.get("argnames"),
            values if values is not None else mark.kwargs.get("argvalues"),
        )
        if isinstance(values, Sequence) and names is not None:  # a generator is used up by now
            yield (
                [each.strip() for each in names.split(",") if each.strip()]
                if isinstance(names, str)
                else [*names],
                values,
            )
