"""What a step found: one row for each question, with what was expected of it where something
was.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from harness.words import format_bytes


class Kind(StrEnum):
    """What a row says."""

    HOLDS = "holds"
    """An expectation that was kept."""
    OFF = "off"
    """An expectation that was not, or a step that failed: exit code 1."""
    FACT = "fact"
    """Something that nobody can be held to; for people, and for the next who compares."""
    UNAVAILABLE = "unavailable"
    """The driver, or this machine, does not tell; the finding says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One question and its answer. Amounts are bytes, None where the question is not one of
    bytes.
    """

    what: str
    asked: str = ""
    read: str = ""
    asked_bytes: int | None = None
    read_bytes: int | None = None
    error_bytes: int | None = None
    """Read less asked."""
    kind: Kind
    finding: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "kind": str(self.kind)}


def fact(what: str, read: object, finding: str = "", *, read_bytes: int | None = None) -> Row:
    """Something seen."""
    return Row(what=what, read=str(read), read_bytes=read_bytes, kind=Kind.FACT, finding=finding)


def fact_bytes(what: str, read_bytes: int, finding: str = "") -> Row:
    """An amount seen."""
    return fact(what, exactly(read_bytes), finding, read_bytes=read_bytes)


def unavailable(what: str, reason: object) -> Row:
    """Something that is unknown here."""
    return Row(what=what, kind=Kind.UNAVAILABLE, finding=f"unavailable, because {reason}")


def failed(what: str, reason: object) -> Row:
    """A step that ended before its answer."""
    return Row(what=what, kind=Kind.OFF, finding=f"unavailable, because the step failed: {reason}")


def amount(
    what: str,
    asked_bytes: int,
    read_bytes: int,
    *,
    above_bytes: int = 0,
    below_bytes: int = 0,
    why: str = "",
) -> Row:
    """An amount against what was asked: it holds from ``below_bytes`` under it to ``above_bytes``
    over it, both included.
    """
    error_bytes = read_bytes - asked_bytes
    holds = -below_bytes <= error_bytes <= above_bytes
    allowed = (
        f"-{below_bytes:,} to +{above_bytes:,} B allowed"
        if above_bytes or below_bytes
        else "to the byte"
    )
    return Row(
        what=what,
        asked=exactly(asked_bytes),
        read=exactly(read_bytes),
        asked_bytes=asked_bytes,
        read_bytes=read_bytes,
        error_bytes=error_bytes,
        kind=Kind.HOLDS if holds else Kind.OFF,
        finding=f"{allowed}{': ' if why else ''}{why}",
    )


def expect(what: str, asked: str, read: str, *, holds: bool, finding: str = "") -> Row:
    """An expectation that is not one of bytes."""
    return Row(
        what=what, asked=asked, read=read, kind=Kind.HOLDS if holds else Kind.OFF, finding=finding
    )


def exactly(amount_bytes: int) -> str:
    """An amount for people and to the byte."""
    return (
        f"{format_bytes(amount_bytes)} ({amount_bytes:,} B)"
        if abs(amount_bytes) >= 1024
        else format_bytes(amount_bytes)
    )


def exit_code(rows: Iterable[Row]) -> int:
    """0 when everything that was expected holds, 1 when something is off, or nothing could be held
    against anything.
    """
    kinds = [row.kind for row in rows]
    return 0 if Kind.OFF not in kinds and Kind.HOLDS in kinds else 1
