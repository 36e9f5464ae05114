"""The text of a baseline: TOML that is reviewed like code. One block for each point, one line for
each phase and meter.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from harness.errors import BaselineError
from harness.records import Scalar
from harness.words import natural

_HEADER = """\
# Accepted memory of every point, in bytes: the smallest of its repeats, and how far above it most \
of them stay.
# Written by `python -m harness accept RUN --reason "..."`; review it like code, do not edit it by \
hand. A block is touched
# only where its point changed, and says in `accepted` on what evidence; how it moved: \
`python -m harness history POINT`.
"""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_text(document: Mapping[str, Any]) -> str:
    """TOML of a baseline document: ``schema_version``, ``key``, ``also`` and ``point`` tables, in
    that order; points by name.
    """
    lines = [_HEADER, f"schema_version = {document['schema_version']}", "", "[key]"]
    lines += [f"{_key(name)} = {_value(value)}" for name, value in document["key"].items()]
    if document.get("also"):
        held = sorted(document["also"].items(), key=lambda item: natural(item[0]))
        lines += [
            "",
            "[also]",
            *(f"{_key(version)} = {_value(evidence)}" for version, evidence in held),
        ]
    # In the order of their names, so that branches which add points add them in the same places.
    for name, point in sorted(document["point"].items(), key=lambda item: natural(item[0])):
        lines += ["", f"[point.{_key(name)}]"]
        lines += list(_point_lines(point))
    return "\n".join(lines) + "\n"


def from_text(text: str) -> dict[str, Any]:
    """The document that ``to_text`` wrote. Raises BaselineError when it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BaselineError(f"not TOML: {error}") from error


def _point_lines(point: Mapping[str, Any]) -> Iterator[str]:
    for name, value in point.items():
        if name != "phase":
            yield f"{_key(name)} = {_value(value)}"
    for phase, meters in point["phase"].items():
        for meter, amounts in meters.items():
            yield f"phase.{_key(phase)}.{_key(meter)} = {_value(amounts)}"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _value(value: Scalar | Mapping[str, Any]) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    raise BaselineError(
        f"{value!r} has no form in a baseline file; use a text, a number or a truth value"
    )


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(_escape(character) for character in escaped) + '"'


def _escape(character: str) -> str:
    # TOML 1.0 forbids control characters other than tab in a basic string, and DEL; lone surrogates
    # have no form at all.
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        return "\\uFFFD"
    return f"\\u{code:04X}" if code < 0x20 or code == 0x7F else character
