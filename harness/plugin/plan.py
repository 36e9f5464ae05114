"""What a session measures: the runs and points that its tests stand for, which of them are wanted,
and the policy; of which code, and on which device.
"""

import contextlib
import fcntl
import fnmatch
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RunDirectoryError, UsageError
from harness.plugin.limits import REMEASURE, SCHEMA_VERSION
from harness.plugin.marks import WANTED, Wanted, uncollected
from harness.plugin.options import SessionSettings, as_typed, is_worker
from harness.records import RUN_FILE, TRACED_REPEAT, Point
from harness.run.cards import choose_device, usable_device
from harness.run.devices import Device
from harness.run.revisions import Side, Sides, checked_subjects, revision_side, working_tree
from harness.rundir.manifest import device_kind, sides_of
from harness.words import closest

Run = tuple[Point, int]
"""A point and the number of the repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What run.json records of a session."""

    points: tuple[Point, ...]
    """Those that are known beforehand."""
    collected: tuple[Point, ...]
    """Those that were there before -k and its like chose from them."""
    asked: tuple[str, ...]
    """Tests that say only when they run what they measure: they call ``memory_run``, and no marker
    names a body."""
    policy: Mapping[str, Any] | None
    """What the markers promise, those of tests that were deselected among them."""
    traces: bool
    judged: bool
    """Whether pytest itself judges the run: some test has a marker, or takes ``memory_run``."""
    left_out: int
    """Tests or points that were collected and not selected, so that rules over several points may
    lack some."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is measured."""
        return not self.points and not self.asked


def make_plan(
    selected: Sequence[pytest.Item],
    collected: Sequence[pytest.Item],
    *,
    traces: bool,
    patterns: Sequence[str],
) -> Plan:
    """The plan of the selected tests among those collected.

    ``traces`` and ``patterns`` are what the options say.
    """
    points, asked = points_of(selected), _asked_of(selected)
    all_points, all_asked = points_of(collected), _asked_of(collected)
    marked = [item for item in collected if WANTED in item.stash]
    deselected = len(all_points) + len(all_asked) - len(points) - len(asked)

    return Plan(
        points=tuple(points),
        collected=tuple(all_points),
        # Where points are chosen by name, those tests may well have none that is wanted.
        asked=() if patterns else tuple(asked),
        policy=make_policy(collected),
        traces=_any_traced(selected, asked_for=traces),
        judged=any(WANTED in item.stash for item in selected),
        left_out=uncollected(marked) + deselected + (len(asked) if patterns else 0),
    )


def run_of(item: pytest.Item) -> Run | None:
    """The one run that a test of a sweep measures: a test with ``point``, ``repeat`` and
    ``measure``.
    """
    callspec = getattr(item, "callspec", None)
    point = callspec.params.get("point") if callspec is not None else None
    if (
        callspec is None
        or not isinstance(point, Point)
        or "measure" not in getattr(item, "fixturenames", ())
    ):
        return None
    return point, callspec.params["repeat"]


def point_of(item: pytest.Item) -> Point | None:
    """The point that a test is known to measure, in one run of a sweep or in all its runs by a
    marker.
    """
    if (run := run_of(item)) is not None:
        return run[0]
    wanted = item.stash.get(WANTED, None)
    return None if wanted is None else wanted.point


def points_of(items: Iterable[pytest.Item]) -> list[Point]:
    """The points that the tests are known to measure, each once, in order."""
    return list(
        {point.name: point for item in items if (point := point_of(item)) is not None}.values()
    )


def _asked_of(items: Iterable[pytest.Item]) -> list[str]:
    """Tests that say only when they run what they measure: they call ``memory_run``, and no marker
    names a body.
    """
    return [
        item.nodeid
        for item in items
        if (wanted := item.stash.get(WANTED, None)) is not None and wanted.point is None
    ]


def is_left_untraced(item: pytest.Item) -> bool:
    """Whether the test is the traced run of a point that has none."""
    run = run_of(item)
    return run is not None and run[1] == TRACED_REPEAT and not run[0].traced


def _any_traced(items: Iterable[pytest.Item], *, asked_for: bool) -> bool:
    """Whether a traced run is among those that the tests measure; ``asked_for`` is what the option
    says.
    """
    return any(
        asked_for if WANTED in item.stash else run is not None and run[1] == TRACED_REPEAT
        for item, run in ((item, run_of(item)) for item in items)
    )


def namesakes(items: Iterable[pytest.Item]) -> list[str]:
    """A sentence for each two tests that would measure points of the same name."""
    first: dict[str, pytest.Item] = {}
    sentences: dict[str, None] = {}
    for item in items:
        point = point_of(item)
        if point is None:
            continue
        other = first.setdefault(point.name, item)
        if (
            other is item
            or (run_of(other) is not None and run_of(item) is not None)
            or _are_same(other, item)
        ):
            # the repeats of a sweep are tests of their own; another plug-in may run a test several
            # times
            continue
        sentences[
            f"{other.nodeid} and {item.nodeid} would both measure the point {point.name}; "
            "give one of them a name of its own with scenario='...'"
        ] = None
    return list(sentences)


def _are_same(item: pytest.Item, other: pytest.Item) -> bool:
    first, second = item.stash.get(WANTED, None), other.stash.get(WANTED, None)
    return first is not None and second is not None and first.same == second.same


def is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a point's name matches one of the patterns; without any, every name does."""
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(patterns: Sequence[str], collected: Sequence[pytest.Item], option: str) -> None:
    """Raises UsageError for a pattern that no point's name matches, with the nearest name.

    Where tests name their points only when they run, ``unmatched`` checks it in the end.
    """
    names = [point.name for point in points_of(collected)]
    for pattern in () if _asked_of(collected) else patterns:
        if not any(is_named(name, [pattern]) for name in names):
            raise UsageError(f"{option} {pattern!r} matches no point; {_nearest(pattern, names)}")


def unmatched(patterns: Sequence[str], points: Iterable[Point]) -> list[str]:
    """The patterns that match none of the points."""
    names = [point.name for point in points]
    return [pattern for pattern in patterns if not any(is_named(name, [pattern]) for name in names)]


def make_policy(items: Iterable[pytest.Item]) -> dict[str, Any] | None:
    """What the markers of these tests promise, with the keys of a policy file; None where they
    promise nothing.

    A rule is about the scenario of its test; where other tests share the scenario but not the rule,
    about its points alone.
    """
    wanted = [found for item in items if (found := item.stash.get(WANTED, None)) is not None]
    holders: dict[tuple[str, str, str], list[Wanted]] = {}
    for test in wanted:
        for section, rule in test.rules:
            holders.setdefault(
                (section, json.dumps(rule, sort_keys=True), test.scenario), []
            ).append(test)
    if not holders:
        return None
    policy: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "remeasure": dict(REMEASURE)}
    for (section, text, scenario), tests in holders.items():
        rule = {**json.loads(text), "scenarios": [scenario]}
        holding = {test.test for test in tests}
        shared = all(test.test in holding for test in wanted if test.scenario == scenario)
        policy.setdefault(section, []).extend([rule] if shared else _narrowed(rule, tests))
    return policy


def _narrowed(rule: Mapping[str, Any], tests: Sequence[Wanted]) -> Iterator[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for test in tests:
        its = {name: value for name, value in test.parameters.items() if name != rule.get("over")}
        narrowed = {**rule, "where": {**its, **rule.get("where", {})}}
        found.setdefault(json.dumps(narrowed, sort_keys=True), narrowed)
    yield from found.values()


def _nearest(pattern: str, names: Sequence[str]) -> str:
    if not names:
        return "no collected test measures one"
    # Cutoff 0: the nearest one is the best example of what names look like.
    near = closest(pattern, names, cutoff=0.0)
    return f"the nearest of {len(names)} is {near!r} (* stands for any letters)"


# Which two codes a session compares.


def settle_sides(
    config: pytest.Config, settings: SessionSettings, resume: Path | None
) -> Sides | None:
    """The codes that the options ask to compare, unpacked; those of the run that is resumed. None
    where nothing is compared.

    Raises UsageError for an unknown revision, and for a resumed run whose code is not what it was.
    """
    against, revision = settings.against, settings.revision
    if against is None:
        if revision is not None:
            option = as_typed(config, "memory_revision")
            raise UsageError(
                f"{option} {revision} needs a revision to be compared with; add "
                f"{option.replace('revision', 'against')} REV"
            )
        return None
    subjects, root = checked_subjects(config.getini("memory_subject")), config.rootpath
    if resume is not None:
        return _resumed_sides(config, resume)
    current = (
        working_tree(root, subjects)
        if revision is None
        else revision_side(root, revision, subjects)
    )
    return Sides(now=current, then=revision_side(root, against, subjects))


def _resumed_sides(config: pytest.Config, resume: Path) -> Sides:
    """By commit: a branch may point elsewhere by now."""
    found = sides_of(resume)
    if "code" not in found or "against" not in found:
        raise RunDirectoryError(f"{resume} does not say which code was compared; start a new run")
    recorded = Sides(now=Side.from_json(found["code"]), then=Side.from_json(found["against"]))
    here = Sides(now=_again(config, recorded.now), then=_again(config, recorded.then))
    for before, side in ((recorded.now, here.now), (recorded.then, here.then)):
        if before != side:
            raise UsageError(
                f"{as_typed(config, 'memory_resume')} {resume}: "
                f"{before.asked or 'the working tree'} is not what it was when the run was "
                "started; bring the packages under test back to it, or start a new run"
            )
    return recorded


def _again(config: pytest.Config, side: Side) -> Side:
    subjects = checked_subjects(side.subjects)
    if not side.commit:
        return working_tree(config.rootpath, subjects)
    return revision_side(config.rootpath, side.commit, subjects, name=side.asked)


# Which device a session measures on: what can be refused at once, what is found out when there is a
# plan, and by whom.


def early_device(
    config: pytest.Config, settings: SessionSettings, directory: Path
) -> Device | None:
    """The device where the options about it can be checked before anything is collected; None where
    it is found out later.

    Whether ``auto`` can use a card takes seconds to find out, and a session may measure nothing.
    """
    if settings.device in {"gpu", "pretended"}:
        return find_device(config, settings, directory)
    if settings.device_budget is None and not settings.growth:
        return None
    device = choose_device(settings.device)
    return _sized(device, settings) if device.kind == "emulated" else None


def find_device(config: pytest.Config, settings: SessionSettings, directory: Path) -> Device:
    """The device that the options mean. Raises UsageError or DeviceUnavailable.

    Whether a card can be used is found out once: where a card is insisted on, by the process that
    the user started; for ``auto`` by the one that writes run.json into ``directory``, which all
    others follow.
    """
    choice, is_settled = settings.device, is_worker(config)
    if choice == "auto" and (directory / RUN_FILE).exists():
        choice, is_settled = "cpu" if device_kind(directory) == "emulated" else "gpu", True
    if choice == "cpu" or (choice != "auto" and is_settled):
        return _sized(choose_device(choice), settings)
    budget_bytes, growth = settings.device_budget, settings.growth
    return usable_device(choice, config.rootpath, budget_bytes=budget_bytes, growth=growth)


def _sized(device: Device, settings: SessionSettings) -> Device:
    return device.with_growth() if settings.growth else device.with_budget(settings.device_budget)


@contextlib.contextmanager
def one_decides(config: pytest.Config, settings: SessionSettings) -> Iterator[None]:
    """One worker at a time in the block, where workers have to find the device: only the first one
    looks for it.
    """
    with contextlib.ExitStack() as held:
        if is_worker(config) and settings.device == "auto":
            # a folder that takes no lock: each worker looks for itself
            with contextlib.suppress(OSError):
                folder = os.open(config.rootpath, os.O_RDONLY)
                held.callback(os.close, folder)
                fcntl.flock(folder, fcntl.LOCK_EX)
        yield
