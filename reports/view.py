"""A run as the page and the summary look at it: each table is worked out once, when it is first
asked for, and shared by all that show it.
"""

from collections.abc import Mapping
from functools import cached_property

import pandas as pd

from harness.errors import RunDirectoryError
from harness.judge.completeness import Traces, read_traces
from harness.judge.table import Run, load_run
from harness.meters import DEVICE_IN_USE, HOST_ANON
from harness.records import THEN_FOLDER
from harness.rundir.traces import Trace

from .frames import PeakPicture, ends_table, peak_picture, phase_table, run_peaks, stack_table
from .plan import Plan


class RunView:
    """One run directory, read and looked at. Nothing of it says how the run was judged."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.plan = Plan(run.points)

    @cached_property
    def phases(self) -> pd.DataFrame:
        """``frames.phase_table``: one row per point, phase and meter."""
        return phase_table(self.run.phases, self.plan)

    @cached_property
    def readings(self) -> Mapping[tuple[str, str, str], "pd.Series[str]"]:
        """The rows of ``phases`` by point, phase and meter."""
        return {
            (str(row["point"]), str(row["phase"]), str(row["meter"])): row
            for _, row in self.phases.iterrows()
        }

    @cached_property
    def ends(self) -> pd.DataFrame:
        """``frames.ends_table``: one row for each run that is required."""
        return ends_table(self.run.ends, self.plan, self.run.repeats_of)

    @cached_property
    def peaks(self) -> Mapping[str, pd.DataFrame]:
        """``frames.run_peaks`` by meter, of those that the pictures show."""
        return {
            meter: run_peaks(self.run.phases, self.plan, meter)
            for meter in (DEVICE_IN_USE, HOST_ANON)
        }

    @cached_property
    def picture(self) -> PeakPicture:
        """What the main picture shows."""
        return peak_picture(self.plan, self.peaks[DEVICE_IN_USE], self.run.ends, self._device_bytes)

    @cached_property
    def stacks(self) -> pd.DataFrame:
        """``frames.stack_table``: what the size of the stack does; empty where it does not vary."""
        return stack_table(self.plan, self.peaks)

    @cached_property
    def traces(self) -> Traces:
        """The traces of the run, read from their files."""
        return read_traces(self.run)

    @cached_property
    def traces_then(self) -> Mapping[str, Trace]:
        """By point, those of the code that was measured beside this one; empty where there is none,
        or none that can be read.
        """
        if self.run.manifest.against is None:
            return {}
        try:
            earlier = load_run(self.run.path / THEN_FOLDER)
        except RunDirectoryError:
            return {}
        return read_traces(earlier).found

    @property
    def _device_bytes(self) -> int:
        """The size that all points ask for; else the smallest limit of the runs without a budget of
        their own, because a card's reserved pool is smaller than the card.
        """
        if self.plan.shared_budget_bytes:
            return self.plan.shared_budget_bytes
        ends = self.run.ends
        own = {point.name for point in self.plan.points if point.device_budget_bytes is None}
        limits = ends[ends["point"].isin(own)]["device_limit_bytes"].dropna()
        return self.run.manifest.device.memory_bytes if limits.empty else int(limits.min())
