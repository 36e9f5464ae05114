"""Memory regression tests for TensorFlow data loaders: measure phase by phase in isolated children,
judge how memory grows, and read what was found.

Runs are measured by pytest (``pytest --memory-out RUN``), judged by ``python -m harness gate RUN``,
and read here::

    import harness

    run = harness.load("RUN")        # in a notebook, run shows its verdict and its tables
    run.verdict.sentence             # the verdict in words
    run.causes, run.scaling          # what went wrong, told once; how the device's peak grows
    run.phases, run.fits, run.alive  # pandas tables; help(harness.RunTables) names their columns
    harness.judge_run("RUN", policy="gate.toml", baselines="baselines")

``harness.judge`` is the package of the rules, hence the name ``judge_run``. Everything is imported
when it is first asked for: ``import harness`` loads neither pandas nor TensorFlow.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.errors import HarnessError, RunDirectoryError, UsageError
    from harness.judged_run import RunTables, judge_run, load
    from harness.plugin.result import MemoryRun
    from harness.records import Outcome, Point
else:

    def __getattr__(name: str) -> object:
        """Import what is asked for (PEP 562)."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)


__all__ = [
    "HarnessError",
    "MemoryRun",
    "Outcome",
    "Point",
    "RunDirectoryError",
    "RunTables",
    "UsageError",
    "judge_run",
    "load",
]

_HOMES = {
    "HarnessError": "harness.errors",
    "MemoryRun": "harness.plugin.result",
    "Outcome": "harness.records",
    "Point": "harness.records",
    "RunDirectoryError": "harness.errors",
    "RunTables": "harness.judged_run",
    "UsageError": "harness.errors",
    "judge_run": "harness.judged_run",
    "load": "harness.judged_run",
}
"""Which module has each name."""


def __dir__() -> list[str]:
    """What is for users, for completion and for help()."""
    return sorted(__all__)
