"""The rows as a page of Markdown, and as JSON."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from scenarios.fidelity.compare import CARDS, Difference, Kind, Row, Side
from scenarios.fidelity.explain import ON_HOST, WORKSPACE

_HEAD = {Kind.EMULATED: "emulated", Kind.PRETENDED: "pretended", Kind.REAL: "real"}
_HOW = {
    Kind.PRETENDED: "No run on a pretended card was given. Measure one: `nox -s card`.",
    Kind.REAL: "No run on a real card was given. On a machine that has one: `nox -s gpu`, which "
    "writes this table too.",
}
_NOTES = f"""\
What differences are: *{ON_HOST}*: shapes, scalars and int32, and the arguments of tf.data, \
which TensorFlow keeps there; on the
emulated device host and device share one allocator. *{WORKSPACE} ...*: memory that an operation \
takes for itself while it runs; on
a pretended card that of an algorithm for the CPU, on a real one cuDNN's. Where both runs have a \
trace, sizes are those alive at
the two peaks, which need not be at the same operation."""


def page(sides: Mapping[Kind, Side], rows: Sequence[Row]) -> str:
    """The page, with one table for each scenario."""
    return "\n".join(_lines(sides, rows)) + "\n"


def _lines(sides: Mapping[Kind, Side], rows: Sequence[Row]) -> Iterator[str]:
    yield "# device_in_use on the emulated device and on cards"
    yield ""
    yield "Bytes, the smallest of the repeats. A difference is the card less the emulated device."
    yield ""
    for kind in Kind:
        yield (
            f"- {_HEAD[kind]}: {_measured(sides[kind])}"
            if kind in sides
            else f"- {_HEAD[kind]}: {_HOW[kind]}"
        )
    yield f"- {summary(rows)}"
    yield from ("", _NOTES)
    for scenario in dict.fromkeys(row.scenario for row in rows):
        mine = [row for row in rows if row.scenario == scenario]
        yield from ("", f"## {scenario}", "")
        yield from _table(mine)


def _measured(side: Side) -> str:
    manifest = side.run.manifest
    device, versions = manifest.device, manifest.environment
    driver = "" if side.kind is Kind.EMULATED else f", driver {device.driver}"
    tensorflow, commit = (
        versions.get("tensorflow", "unknown"),
        str(versions.get("git_commit", "unknown"))[:12],
    )
    return (
        f"{manifest.comparability.get('device', device.name)}{driver}, TensorFlow "
        f"{tensorflow}, commit {commit}, {manifest.started[:10]}, in {side.run.path.name}"
    )


def summary(rows: Sequence[Row]) -> str:
    """How many amounts were compared, and how many differences are explained."""
    compared = [difference for row in rows for difference in row.differences.values()]
    if not compared:
        return "Nothing could be compared: no amount was measured on two devices."
    apart = [difference for difference in compared if difference.amount_bytes]
    left = [difference for difference in apart if difference.unexplained_bytes]
    most = max((abs(difference.unexplained_bytes) for difference in left), default=0)
    equal, explained = len(compared) - len(apart), len(apart) - len(left)
    rest = f"{len(left)} are not, by up to {most:,} B" if left else "none is left over"
    return (
        f"{len(compared)} amounts compared: {equal} equal to the byte, {explained} differ and "
        f"are explained, {rest}."
    )


def _table(rows: Sequence[Row]) -> Iterator[str]:
    ended = [row for row in rows if all(amount is None for amount in row.amounts.values())]
    shown = [row for row in rows if row not in ended and (any(row.amounts.values()) or row.reasons)]
    if shown:
        columns = ["point", "phase", "", *_columns()]
        yield f"| {' | '.join(columns)} |"
        yield f"|{'---|' * 3}{'---:|' * 5}---|"
    for row in shown:
        cells = [row.point, row.phase, row.field, _amount(row, Kind.EMULATED)]
        for kind in CARDS:
            cells += [
                _amount(row, kind),
                f"{row.differences[kind].amount_bytes:+,}" if kind in row.differences else "",
            ]
        yield f"| {' | '.join([*cells, _explained(row)])} |"
    if nothing := len(rows) - len(shown) - len(ended):
        yield from ("", f"{nothing} further amounts are 0 B on every device.")
    for point in dict.fromkeys(row.point for row in ended):
        row = next(row for row in ended if row.point == point)
        phases = ", ".join(dict.fromkeys(row.phase for row in ended if row.point == point))
        how = ", ".join(f"{_HEAD[kind]} {reason}" for kind, reason in row.reasons.items())
        yield from ("", f"{point} has no amount in {phases}: {how}.")


def _columns() -> Iterator[str]:
    yield _HEAD[Kind.EMULATED]
    for kind in CARDS:
        yield from (_HEAD[kind], "difference")
    yield "what it is"


def _amount(row: Row, kind: Kind) -> str:
    if kind not in row.amounts:
        return ""
    amount = row.amounts[kind]
    return row.reasons[kind] if amount is None else f"{amount:,}"


def _explained(row: Row) -> str:
    words_of = {
        kind: in_words(difference)
        for kind, difference in row.differences.items()
        if difference.amount_bytes
    }
    if len(set(words_of.values())) == 1:
        return next(iter(words_of.values()))
    return "; ".join(f"{_HEAD[kind]}: {words}" for kind, words in words_of.items())


def in_words(difference: Difference) -> str:
    """What a difference is made of, and what of it is not explained."""
    parts = [f"{part.amount_bytes:+,} B {part.words}" for part in difference.parts if part.explains]
    if difference.unexplained_bytes:
        where = "; ".join(
            f"{part.amount_bytes:+,} B: {part.words}"
            for part in difference.parts
            if not part.explains
        )
        parts.append(
            f"**{difference.unexplained_bytes:+,} B unexplained**{f' ({where})' if where else ''}"
        )
    return "; ".join(parts)


def as_json(sides: Mapping[Kind, Side], rows: Sequence[Row]) -> dict[str, Any]:
    """The runs and all rows as plain values."""
    return {
        "runs": {
            str(kind): {"path": str(side.run.path), "device": side.run.manifest.device.name}
            for kind, side in sides.items()
        },
        "summary": summary(rows),
        "outcomes": {
            str(kind): dict(Counter(map(str, side.run.ends["outcome"])))
            for kind, side in sides.items()
        },
        "rows": [_row_as_json(row) for row in rows],
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    return {
        "point": row.point,
        "phase": row.phase,
        "field": row.field,
        "bytes": {str(kind): amount for kind, amount in row.amounts.items()},
        "reasons": {str(kind): reason for kind, reason in row.reasons.items()},
        "differences": {
            str(kind): {
                "bytes": difference.amount_bytes,
                "parts": [asdict(part) for part in difference.parts],
                "unexplained_bytes": difference.unexplained_bytes,
            }
            for kind, difference in row.differences.items()
        },
    }
