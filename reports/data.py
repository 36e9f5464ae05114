"""What the scripts of the page read: the readings, checks, runs and fits of a run as columns, and
its traces (``packed_traces``), each packed as base64 of gzip of JSON.
"""

import base64
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.judge import FINDINGS, Check
from harness.judge.gate import Judgement
from harness.meters import meter_words
from harness.records import unit_of

from .plan import STACK, SWEPT
from .view import RunView
from .words import known, plain

_ID_CHARACTERS = 10
"""Chosen: 40 bits, with which ten thousand checks share an anchor once in 20,000 runs; a number
behind it tells those apart that do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """One text for the page: what an element with this id holds."""

    id: str
    text: str
    """Base64 of gzip of JSON: ASCII without ``<`` or ``"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table; ``of`` gives the cell of a row, None where it is unknown."""

    name: str
    label: str
    kind: str
    """How a cell is shown: ``text``, ``bytes``, ``whole``, ``seconds``, or ``amount``, whose unit
    is in the column ``unit``."""
    of: Callable[[Any], object]


def pack(name: str, content: object) -> Packed:
    """The content as JSON in few bytes; the same content gives the same text."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return Packed(
        id=name, text=base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")
    )


def packed_tables(view: RunView, judgement: Judgement) -> tuple[Packed, ...]:
    """Every reading, check, run and fit of a run: four tables by the ids ``data-readings``,
    ``data-checks``, ``data-runs`` and ``data-fits``.

    A table is ``{"columns": [{"name", "label", "kind", "cells"}], "count"}``; a column of texts has
    them once, in ``words``, and in ``cells`` their places.
    """
    verdict = judgement.verdict
    checks = sorted(zip(verdict.checks, anchors(verdict.checks), strict=True), key=_gravest_first)
    readings = view.plan.table[["point", "series", SWEPT, STACK]].merge(
        view.run.phases.drop(columns=["series", SWEPT, STACK], errors="ignore"), on="point"
    )
    return (
        pack("data-readings", _table(_READINGS, _records(readings))),
        pack("data-checks", _table(_CHECKS, checks)),
        pack("data-runs", _table(_RUNS, _records(view.ends))),
        pack("data-fits", _table(_FITS, _records(judgement.fits))),
    )


def anchors(checks: Sequence[Check]) -> list[str]:
    """For each check the id that links lead to, the same wherever rule and subject are the same:
    ``"f-1c3e5a7b9d"``; where several checks share both, the second ends in ``-2``.
    """
    seen: Counter[str] = Counter()
    found = []
    for check in checks:
        told = f"{check.rule}\0{check.subject}".encode()
        anchor = f"f-{hashlib.sha256(told).hexdigest()[:_ID_CHARACTERS]}"
        seen[anchor] += 1
        found.append(anchor if seen[anchor] == 1 else f"{anchor}-{seen[anchor]}")
    return found


def _gravest_first(row: tuple[Check, str]) -> int:
    """Findings before what holds, in the order of ``FINDINGS``."""
    kinds = list(FINDINGS)
    return kinds.index(row[0].finding) if row[0].finding is not None else len(kinds)


def _records(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return table.to_dict("records")


def _table(columns: Sequence[Column], rows: Sequence[Any]) -> dict[str, object]:
    return {
        "count": len(rows),
        "columns": [
            {
                "name": column.name,
                "label": column.label,
                "kind": column.kind,
                **_cells(column, [column.of(row) for row in rows]),
            }
            for column in columns
        ],
    }


def _cells(column: Column, values: Sequence[object]) -> dict[str, object]:
    if column.kind != "text":
        return {"cells": [_number(value) for value in values]}
    texts = ["" if not known(value) else str(value) for value in values]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return {"words": list(places), "cells": [places[text] for text in texts]}


def _number(value: object) -> int | float | None:
    """As JSON knows it, which has no infinity: an amount without a bound is unknown."""
    if not known(value):
        return None
    number = float(str(value))
    if not np.isfinite(number):
        return None
    return int(str(value)) if isinstance(value, (int, np.integer)) else round(number, 3)


def _of(name: str) -> Callable[[Mapping[Hashable, Any]], object]:
    return lambda row: row.get(name)


def _as_words(name: str) -> Callable[[Mapping[Hashable, Any]], object]:
    return lambda row: plain(str(row[name])) if known(row[name]) else ""


def _meter(row: Mapping[Hashable, Any]) -> object:
    return plain(meter_words(str(row["meter"]))) if known(row["meter"]) else "none"


def _slope(row: Mapping[Hashable, Any]) -> object:
    return row.get(f"slope_bytes_per_{unit_of(str(row['over']))}")


def _series(row: Mapping[Hashable, Any]) -> str:
    """The scenario, and what of its parameters is the same in all points of the fit."""
    before = list(row)[1 : list(row).index("over")]
    settings = (
        f"{name}={row[name]}" if isinstance(row[name], int) else str(row[name])
        for name in before
        if known(row[name])
    )
    return " / ".join([str(row["scenario"]), *settings])


def _columns(*rows: tuple[str, str, str, Callable[[Any], object]]) -> tuple[Column, ...]:
    return tuple(Column(name=name, label=label, kind=kind, of=of) for name, label, kind, of in rows)


_READINGS = _columns(
    ("point", "point", "text", _of("point")),
    ("scenario", "scenario", "text", _of("scenario")),
    ("series", "series", "text", _of("series")),
    ("size", "size", "whole", _of(SWEPT)),
    ("stack", "stack", "whole", _of(STACK)),
    ("repeat", "repeat", "whole", _of("repeat")),
    ("phase", "phase", "text", _as_words("phase")),
    ("meter", "meter", "text", _meter),
    ("start", "start", "bytes", _of("start_bytes")),
    ("peak", "peak", "bytes", _of("peak_bytes")),
    ("bound", "peak at most", "bytes", _of("peak_bound_bytes")),
    ("end", "end", "bytes", _of("end_bytes")),
    ("growth", "growth", "bytes", _of("growth_bytes")),
    ("retained", "retained", "bytes", _of("retained_bytes")),
    ("quality", "kind of number", "text", _of("quality")),
    ("samples", "samples", "whole", _of("samples")),
    ("duration", "duration", "seconds", _of("duration_s")),
    ("finished", "finished", "text", lambda row: "yes" if row["finished"] else "no"),
    ("outcome", "outcome of the run", "text", _of("outcome")),
    ("reason", "reason", "text", _of("reason")),
)
_CHECKS = _columns(
    ("subject", "what was checked", "text", lambda row: row[0].subject),
    ("finding", "finding", "text", lambda row: plain(str(row[0].finding or "holds"))),
    ("rule", "rule", "text", lambda row: plain(str(row[0].rule))),
    ("measured", "measured", "amount", lambda row: row[0].measured),
    ("bound", "side of the limit", "text", lambda row: row[0].bound),
    ("limit", "limit", "amount", lambda row: row[0].limit),
    ("earlier", "earlier", "amount", lambda row: row[0].earlier),
    ("unit", "unit", "text", lambda row: row[0].unit),
    ("scenario", "scenario", "text", lambda row: row[0].scenario),
    ("phase", "phase", "text", lambda row: plain(row[0].phase)),
    (
        "meter",
        "meter",
        "text",
        lambda row: plain(meter_words(row[0].meter)) if row[0].meter else "",
    ),
    ("sentence", "in a sentence", "text", lambda row: row[0].sentence),
    ("because", "why this limit", "text", lambda row: row[0].because),
    ("point", "point", "text", lambda row: row[0].point),
    ("anchor", "link", "text", lambda row: row[1]),
)
_RUNS = _columns(
    ("point", "point", "text", _of("point")),
    ("scenario", "scenario", "text", _of("scenario")),
    ("series", "series", "text", _of("series")),
    ("size", "size", "whole", _of(SWEPT)),
    ("stack", "stack", "whole", _of(STACK)),
    ("repeat", "repeat", "whole", _of("repeat")),
    (
        "outcome",
        "outcome",
        "text",
        lambda row: row["outcome"] if known(row["outcome"]) else "no end was recorded",
    ),
    ("expected", "expected", "text", _of("expected")),
    ("phase", "phase", "text", _as_words("phase")),
    ("duration", "duration", "seconds", _of("duration_s")),
    ("launcher", "launcher", "text", _of("launcher")),
    ("reason", "reason", "text", _of("reason")),
)
_FITS = _columns(
    ("series", "series", "text", _series),
    ("phase", "phase", "text", _as_words("phase")),
    ("meter", "meter", "text", _meter),
    ("field", "field", "text", _as_words("field")),
    ("slope", "slope", "amount", _slope),
    ("low", "slope at least", "amount", _of("slope_low")),
    ("high", "slope at most", "amount", _of("slope_high")),
    ("unit", "unit", "text", lambda row: f"B/{unit_of(str(row['over']))}"),
    ("intercept", "intercept", "bytes", _of("intercept_bytes")),
    ("residual", "residual", "bytes", _of("residual_bytes")),
    ("class", "class of growth", "text", _of("growth_class")),
    ("sizes", "sizes", "whole", _of("sizes")),
    ("runs", "runs", "whole", _of("runs")),
    ("quality", "kind of number", "text", _of("quality")),
)
