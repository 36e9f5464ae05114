"""Exports: a run in the formats of other people's viewers and trackers. Here: which function writes
which, by the names that ``python -m harness export --format`` has.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from harness.judge.gate import Judgement
from harness.judge.table import Run
from harness.rundir.traces import Trace

from .profiles import collapsed, perfetto, pprof, xplane
from .trackers import badge, bmf, csv, github_action_benchmark, openmetrics

PROFILES: Mapping[str, Callable[[Trace], Mapping[str, bytes]]] = MappingProxyType(
    {"perfetto": perfetto, "pprof": pprof, "collapsed": collapsed, "xplane": xplane}
)
"""A trace -> its files, by what follows the name of its point."""

DOCUMENTS: Mapping[str, Callable[[Run, Judgement, str], str]] = MappingProxyType(
    {
        "csv": csv,
        "bmf": bmf,
        "github-action-benchmark": github_action_benchmark,
        "openmetrics": openmetrics,
        "badge": badge,
    }
)
"""A run, its judgement, and the name of a point or nothing -> one text."""
