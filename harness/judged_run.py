"""A run directory with its judgement: what the commands work on, and what scripts and notebooks get
as tables.
"""

import dataclasses
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pandas as pd

from harness.judge import Verdict
from harness.judge.advice import DEFAULT_BASELINES, Asked
from harness.judge.baseline import load_against
from harness.judge.completeness import read_traces
from harness.judge.gate import Judgement, judge, kept_judgement
from harness.judge.policy import Policy, choose_policy
from harness.judge.table import Run, load_run
from harness.meters import DEVICE_IN_USE
from harness.records import RUN_FILE, THEN_FOLDER
from harness.system import FINDINGS_FILE
from harness.words import count, existing_folder, format_bytes, format_rate

_FINDING_COLUMNS = {
    "finding": "string",
    "rule": "string",
    "subject": "string",
    "scenario": "string",
    "point": "string",
    "phase": "string",
    "meter": "string",
    "measured": "float64",
    "limit": "float64",
    "bound": "string",
    "earlier": "float64",
    "unit": "string",
    "because": "string",
    "sentence": "string",
}
_CAUSE_COLUMNS = {
    "id": "string",
    "kind": "string",
    "finding": "string",
    "what": "string",
    "where": "string",
    "how_much": "string",
    "since": "string",
    "loader": "string",
    "point": "string",
    "phase": "string",
    "meter": "string",
    "following": "string",
}
_ALIVE_COLUMNS = {
    "point": "string",
    "phase": "string",
    "op": "string",
    "dtype": "string",
    "shape": "string",
    "count": "Int64",
    "each_bytes": "Int64",
    "total_bytes": "Int64",
    "like": "string",
}
_TRACE_COLUMNS = {
    "point": "string",
    "outcome": "string",
    "cause": "string",
    "reason": "string",
    "file": "string",
    "launcher": "string",
    "duration_s": "float64",
}
_SHOWN_ROWS = 12
"""Of each table in a notebook. Chosen: verdict and tables together fit a screen."""
_SHOWN_CAUSES = ("kind", "what", "where", "how_much", "since", "following")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How a run directory is to be judged."""

    directory: Path
    asked: Asked = field(default_factory=Asked)
    """By which policy, and compared with what; None as the other run: the one beside this one, or
    else a baseline."""

    @classmethod
    def of(
        cls,
        directory: Path,
        *,
        policy: Path | None = None,
        baselines: Path | None = None,
        against: Path | None = None,
        partial: bool = False,
        dashes: str = "--",
    ) -> Self:
        """By arguments that somebody has typed; None is the default of each.

        ``dashes`` is what stands before the names of arguments where they are typed. Raises
        UsageError where the folder of the baselines, or of the other run, is none.
        """
        asked = Asked(policy=policy, partial=partial, against=against)
        if baselines is not None:
            folder = existing_folder(baselines, f"{dashes}baselines")
            asked = dataclasses.replace(asked, baselines=folder, baselines_typed=True)
        if against is not None:
            existing_folder(against, f"{dashes}against")
        return cls(directory=directory, asked=asked)

    @classmethod
    def again(cls, directory: Path, asked: Asked) -> Self:
        """By the arguments of an earlier judgement. Raises UsageError where its folder of baselines
        is gone.
        """
        if asked.baselines != DEFAULT_BASELINES:
            existing_folder(asked.baselines, "--baselines")
        return cls(directory=directory, asked=dataclasses.replace(asked, by_pytest=False))

    def judge(self) -> tuple[Run, Policy, Judgement]:
        """Read the directory and apply every rule. Raises HarnessError where run, policy or
        baseline cannot be used.
        """
        run, asked = load_run(self.directory), self.asked
        policy = choose_policy(asked.policy, run.manifest)
        against = load_against(run, asked.against)
        judgement = judge(
            run, policy, asked.baselines, partial=asked.partial, against=against, asked=asked
        )
        return run, policy, judgement

    @property
    def measured(self) -> tuple[Path, ...]:
        """The run directories that measuring again has to add to: where two codes are compared,
        both.
        """
        beside = self.directory / THEN_FOLDER
        compared = self.asked.against is None and (beside / RUN_FILE).exists()
        return (self.directory, beside) if compared else (self.directory,)


class RunTables:
    """One run directory as pandas tables, with its verdict.

    In a notebook it shows itself: the verdict, its causes, and how the device's peak grows.
    All amounts are bytes. An amount that could not be read is missing (``pd.NA``), never 0.
    """

    __slots__ = ("_alive", "_causes", "_findings", "_judged", "_judgement", "_run", "_traces")

    def __init__(self, run: Run, judgement: Judgement, judged: str) -> None:
        self._run, self._judgement, self._judged = run, judgement, judged
        self._findings = _table(judgement.verdict.findings, _FINDING_COLUMNS)
        self._causes = _table(judgement.causes, _CAUSE_COLUMNS)
        self._traces = _table(tuple(run.traces.values()), _TRACE_COLUMNS)
        self._alive: pd.DataFrame | None = None

    @property
    def path(self) -> Path:
        """The run directory."""
        return self._run.path

    @property
    def verdict(self) -> Verdict:
        """Every check, and their sum: ``verdict.sentence``, ``verdict.exit_code``."""
        return self._judgement.verdict

    @property
    def judged(self) -> str:
        """Where the verdict comes from: findings.json of the directory, or judged now, and why."""
        return self._judged

    @property
    def phases(self) -> pd.DataFrame:
        """What was measured: one row for each point, repeat, phase and meter, as phases.csv has it.

        - ``scenario``, ``point``, and a column for each parameter and fixed setting of the points;
        - ``repeat`` (from 0), ``phase``, ``phase_index`` (its order), ``meter``;
        - ``quality``: exact, bounded, sampled, unresolved or unavailable;
        - ``start_bytes``, ``peak_bytes``, ``end_bytes``; ``peak_bound_bytes``, the upper bound of a
          bounded peak; ``growth_bytes``, peak - start; ``retained_bytes``, end - start;
        - ``samples``, ``rate_hz`` (1/s), ``largest_gap_s``: how finely a peak was sampled;
        - ``duration_s`` of the phase; ``finished``: False where the run died in it;
        - ``source`` (which counter), ``contended`` (who else used the device);
        - ``outcome``, ``cause``, ``reason``, ``launcher`` of the run;
        - ``NAME_bytes`` for everything that a body has declared.
        """
        return self._run.phases

    @property
    def fits(self) -> pd.DataFrame:
        """How memory grows: one row for each line through the sizes of a sweep, as fits.csv has it.

        - ``scenario``, and a column for each parameter that the line holds constant;
        - ``over`` (the swept parameter), ``phase``, ``meter``, ``quality``, ``field``;
        - ``slope_bytes_per_image``, ``slope_bytes_per_frame``, ...: the slope, in the column of its
          unit; ``slope_low``, ``slope_high``: its interval, in the same unit;
        - ``intercept_bytes``, ``residual_bytes``;
        - ``growth_class``: flat, linear, superlinear, ceiling or unresolved;
        - ``sizes`` (different ones), ``smallest``, ``largest``, ``runs``: what the line rests on.
        """
        return self._judgement.fits

    @property
    def scaling(self) -> pd.DataFrame:
        """How the device's peak grows, in short: of each series the phase that takes most at its
        largest size.

        - ``scenario``, and a column for each parameter that the line holds constant;
        - ``over`` (the swept parameter), ``phase``;
        - ``smallest``, ``largest`` (sizes), ``peak_bytes`` (of the line, at the largest);
        - the slope in the column of its unit, and ``growth_class``.

        One row for each series of ``fits`` that the allocator's count was read of.
        """
        return _scaling(self.fits)

    @property
    def causes(self) -> pd.DataFrame:
        """What went wrong, told once: one row for each cause, the gravest first. Every finding
        belongs to one of them.

        - ``id``, the same in every run in which the same thing goes wrong; ``kind``: memory, death,
          missing or improvement; ``finding``, the gravest kind among its findings;
        - ``what``, ``where``, ``how_much``, ``since``, a short line each; ``following``, how many
          more findings follow from it;
        - ``loader``, ``point``, ``phase``, ``meter``: where it shows best.
        """
        return self._causes

    @property
    def alive(self) -> pd.DataFrame:
        """What was alive on the device at the peak of each phase that was traced, the largest
        first.

        - ``point``, ``phase``; ``op`` (the operation, as TensorFlow's profiler names it);
        - ``dtype``, ``shape``, ``count`` (equal tensors), ``each_bytes``, ``total_bytes``;
        - ``like``: the declared array that one is as large as.
        """
        if self._alive is None:
            self._alive = _alive(self._run)
        return self._alive

    @property
    def findings(self) -> pd.DataFrame:
        """What does not hold: one row for each finding, the gravest kind first.

        - ``finding``: regression, failed, incomplete, no_baseline, moved or improvement;
        - ``rule``, ``subject``, ``scenario``, ``point``, ``phase``, ``meter``: what was checked;
        - ``measured``, ``limit``, ``earlier``: in ``unit``, B or B for each step (B/image);
        - ``bound``: upper or lower, the side that ``limit`` is on;
        - ``because``: where the limit comes from; ``sentence``: all of it in words.

        ``judged`` says which judgement they are of.
        """
        return self._findings

    @property
    def runs(self) -> pd.DataFrame:
        """How each run ended: one row for each point and repeat.

        - ``point``, ``repeat``, ``outcome``, ``cause``, ``reason``, ``phase`` (that it ended in);
        - ``exit_code``, ``launcher``, ``duration_s``;
        - ``device`` (UUID of the card), ``device_limit_bytes`` (size of its pool).
        """
        return self._run.ends

    @property
    def traces(self) -> pd.DataFrame:
        """The traced runs: one row for each point that was traced.

        - ``point``, ``outcome``, ``cause``, ``reason`` (also why there is no trace);
        - ``file`` (in the folder traces of the run directory), ``launcher``, ``duration_s``.
        """
        return self._traces

    def __repr__(self) -> str:
        points = self.phases["point"].nunique()
        return (
            f"<RunTables {self.path}: {count(points, 'point')}, {count(len(self.runs), 'run')}, "
            f"{count(len(self.findings), 'finding')}>\n{self.verdict.sentence}"
        )

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, its causes and the scaling, with every text escaped."""
        return "\n".join(
            [
                f"<p><b>{html.escape(self.verdict.sentence)}</b></p>",
                f"<p>{html.escape(str(self.path))}, {html.escape(self.judged)}</p>",
                _html_table(self.causes.loc[:, list(_SHOWN_CAUSES)], "cause"),
                _html_table(_in_words(self.scaling), "series", "series"),
            ]
        )


def load(run: str | Path) -> RunTables:
    """The tables of a run directory, with the judgement that lies in it; where none can be used it
    is judged now, and nothing is written.

    Raises RunDirectoryError where ``run`` is no run directory, and UsageError (PolicyError) or
    BaselineError where it has to be judged and cannot be.

    Parameters
    ----------
    run
        The folder that ``pytest --memory-out`` wrote.
    """
    found = load_run(Path(run))
    kept = kept_judgement(found)
    if kept.judgement is not None:
        return RunTables(found, kept.judgement, f"judged before ({FINDINGS_FILE})")
    found, _, judgement = Gate.again(found.path, kept.asked).judge()
    return RunTables(found, judgement, f"judged now, because {kept.why_not}")


def judge_run(
    run: str | Path,
    *,
    policy: str | Path | None = None,
    baselines: str | Path | None = None,
    against: str | Path | None = None,
    partial: bool = False,
) -> RunTables:
    """Judge a run directory as ``python -m harness gate`` does, and write nothing.

    Raises RunDirectoryError where ``run`` is no run directory, UsageError where another folder is
    none, PolicyError and BaselineError where one of these files cannot be used.

    Parameters
    ----------
    run
        The folder that ``pytest --memory-out`` wrote.
    policy
        File of limits; None: what the run brings along, else scenarios/gate.toml.
    baselines
        Folder of committed baselines; None: scenarios/baselines.
    against
        Another run directory to compare with instead of a baseline.
    partial
        Whether less was measured on purpose, so that points of the baseline may be missing.
    """
    gate = Gate.of(
        Path(run),
        policy=None if policy is None else Path(policy),
        baselines=None if baselines is None else Path(baselines),
        against=None if against is None else Path(against),
        partial=partial,
        dashes="",
    )
    found, _, judgement = gate.judge()
    return RunTables(found, judgement, f"judged now by {judgement.policy}")


def _table(records: Sequence[object], columns: dict[str, str]) -> pd.DataFrame:
    """Records as rows; texts that are empty are missing."""
    rows = [[getattr(record, name) for name in columns] for record in records]
    plain = [[None if value == "" else value for value in row] for row in rows]
    return pd.DataFrame(plain, columns=list(columns)).astype(columns)


def _scaling(fits: pd.DataFrame) -> pd.DataFrame:
    """Of each series the line of the device's peak that is highest at the largest size."""
    peaks = fits[(fits["meter"] == DEVICE_IN_USE) & (fits["field"] == "peak")]
    named = list(fits.columns)
    series = named[: named.index("over") + 1]
    slopes = [name for name in named if name.startswith("slope_bytes_per_")]
    columns = [*series, "phase", "smallest", "largest", "peak_bytes", *slopes, "growth_class"]
    if peaks.empty:
        return pd.DataFrame(columns=columns)
    at_largest = peaks["intercept_bytes"] + peaks["largest"] * peaks[slopes].bfill(axis=1).iloc[
        :, 0
    ].astype("float64")
    found = peaks.assign(peak_bytes=at_largest.round().astype("Int64"))
    highest = found.sort_values("peak_bytes", ascending=False, kind="stable")
    return highest.drop_duplicates(series).sort_index()[columns].reset_index(drop=True)


def _alive(run: Run) -> pd.DataFrame:
    rows = [
        [point, phase.phase, *(getattr(one, name) for name in list(_ALIVE_COLUMNS)[2:])]
        for point, trace in read_traces(run).found.items()
        for phase in trace.phases
        for one in phase.alive
    ]
    plain = [[None if value == "" else value for value in row] for row in rows]
    return pd.DataFrame(plain, columns=list(_ALIVE_COLUMNS)).astype(_ALIVE_COLUMNS)


def _in_words(scaling: pd.DataFrame) -> pd.DataFrame:
    """The same for people: amounts with units, and no column that is empty throughout."""
    words = scaling.copy()
    for name in words.columns:
        unit = name.removeprefix("slope_bytes_per_")
        if name == "peak_bytes":
            words[name] = [format_bytes(int(amount)) for amount in scaling[name]]
        elif unit != name:
            words[name] = [
                "" if pd.isna(slope) else format_rate(float(slope), unit) for slope in scaling[name]
            ]
    empty = [name for name in words.columns if (words[name].isna() | (words[name] == "")).all()]
    return words.drop(columns=empty).rename(columns={"peak_bytes": "device peak at the largest"})


def _html_table(table: pd.DataFrame, noun: str, nouns: str = "") -> str:
    """The first rows, escaped, and how many there are in all; nothing where there are none."""
    if table.empty:
        return f"<p>No {noun}.</p>"
    shown = table.head(_SHOWN_ROWS)
    text = shown.to_html(index=False, escape=True, na_rep="", border=0)
    more = len(table) - len(shown)
    rest = count(more, f"more {noun}", f"more {nouns}" if nouns else "")
    return f"{text}\n<p>{rest}.</p>" if more else str(text)
