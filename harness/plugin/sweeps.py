"""What the parametrized values of a test say of its sweep, also of those that this session has not
collected.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest


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
            own = getattr(value, "values", value)  # of pytest.param(...)
            several = own is not value or len(names) > 1
            found.add(own[place] if several else own)
    return found or None


def uncollected(items: Sequence[pytest.Item]) -> int:
    """How many tests of these functions there are beyond those that were collected: others were
    named by their ids.
    """
    collected = Counter(item.nodeid.partition("[")[0] for item in items)
    whole = {
        item.nodeid.partition("[")[0]: math.prod(len(values) for _, values in _parametrized(item))
        for item in items
    }
    return sum(max(0, count - collected[function]) for function, count in whole.items())


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
