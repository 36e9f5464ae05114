"""What accepting a run changes, line by line, and how each amount has moved over its acceptances
before.
"""

from collections.abc import Iterator

from harness.commands.history import NO_HISTORY, AmountPlace, History, amounts_of, drift
from harness.judge.baseline import Baseline, BaselinePoint, budget_setting
from harness.units import format_bytes


def diff(old: Baseline | None, new: Baseline, history: History = NO_HISTORY) -> Iterator[str]:
    """What accepting ``new`` changes, one line for each amount: ``point / phase / meter growth: old
    -> new``.

    Where ``history`` knows earlier acceptances, the line ends with the whole way: ``(4.00 -> 4.10
    -> 4.30 MiB over ...)``.
    """
    before = {} if old is None else old.point
    for name in dict.fromkeys([*before, *new.point]):
        if name not in before:
            yield f"{name}: none -> {_count(new.point[name])}"
        elif name not in new.point:
            yield f"{name}: {_count(before[name])} -> none"
        else:
            yield from (
                f"{name}{line}"
                for line in _diff_point(name, before[name], new.point[name], history)
            )


def _diff_point(
    name: str, old: BaselinePoint, new: BaselinePoint, history: History
) -> Iterator[str]:
    then = {**old.fixed, **budget_setting(old.device_budget_bytes)}
    now = {**new.fixed, **budget_setting(new.device_budget_bytes)}
    for setting in dict.fromkeys([*then, *now]):
        if then.get(setting) != now.get(setting):
            yield f" / {setting}: {then.get(setting, 'none')} -> {now.get(setting, 'none')}"
    before, after = amounts_of(old), amounts_of(new)
    for place in dict.fromkeys([*before, *after]):
        if before.get(place) != after.get(place):
            phase, meter, field = place
            way = _way(name, place, new, history)
            yield (
                f" / {phase} / {meter} {field}: {_amount(before.get(place))} -> "
                f"{_amount(after.get(place))}{way}"
            )


def _way(name: str, place: AmountPlace, new: BaselinePoint, history: History) -> str:
    """The drift over more than the two acceptances that the line shows anyway."""
    accepted = [*history.of(name), new]
    return f" ({drift(accepted, place)})" if len(accepted) > 2 else ""


def _amount(amount: int | None) -> str:
    return "none" if amount is None else f"{format_bytes(amount)} ({amount:,} B)"


def _count(point: BaselinePoint) -> str:
    lines = sum(len(meters) for meters in point.phase.values())
    return f"{lines} phases and meters"
