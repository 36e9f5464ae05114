"""JSON Schema of a run directory's files, out of the records and models that read and write them.

``python .ci/house.py --write`` puts them into docs/schemas/; a test compares, and holds runs
against them.
"""

import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "schemas"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Mapping[str, Any] = {"type": "string"}


def schemas() -> dict[str, str]:
    """The text of every schema, by the name of its file."""
    sys.path.insert(0, str(ROOT))
    documents = {"run": _run(), "rows": _rows(), "findings": _findings()}
    return {
        f"{name}.schema.json": json.dumps(_plain(document), indent=1, ensure_ascii=False) + "\n"
        for name, document in documents.items()
    }


def _plain(schema: Any, *, top: bool = True) -> Any:  # noqa: ANN401 - any JSON
    """Without what says nothing, and differs between versions of pydantic."""
    if isinstance(schema, list):
        return [_plain(one, top=False) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _plain(value, top=False)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str) and not top)
        and not (key == "additionalProperties" and value is True)
    }


def write() -> None:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in schemas().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _run() -> dict[str, Any]:
    from harness.rundir.manifest import CodeSide, Manifest, RecordedDevice
    from harness.rundir.reading import SEAL

    schema = Manifest.model_json_schema()
    _describe(schema, Manifest)
    _describe_all(schema["$defs"], (CodeSide, RecordedDevice, *_records()))
    seal = {"plan_sha256": _TEXT, "rows_sha256": _TEXT, "rows_bytes": {"type": "integer"}}
    schema["properties"][SEAL] = {
        "type": "object",
        "required": list(seal),
        "properties": seal,
        "description": "What run.json and rows.jsonl were when the run ended.",
    }
    return {"$schema": DIALECT, **schema, "title": "run.json"}


def _rows() -> dict[str, Any]:
    from harness.rundir.rows import KINDS

    kinds = tuple(KINDS.values())
    names, definitions = _definitions(kinds)
    for kind in kinds:
        row = definitions[names[kind]]
        row["properties"] = {"kind": {"const": kind.kind}, **row["properties"]}
        row["required"] = ["kind", *row.get("required", [])]
    _describe_all(definitions, (*kinds, *_records()))
    return {
        "$schema": DIALECT,
        "title": "A line of rows.jsonl",
        "oneOf": [{"$ref": f"#/$defs/{names[kind]}"} for kind in kinds],
        "$defs": definitions,
    }


def _findings() -> dict[str, Any]:
    from harness.judge import Check, ExitCode, FindingKind, Identity, Seen
    from harness.judge.causes import AliveTensors, Cause, Command
    from harness.judge.gate import SCHEMA_VERSION

    kinds = (Check, Cause, Identity)
    names, definitions = _definitions(kinds)
    _describe_all(definitions, (*kinds, Seen, AliveTensors, Command))
    check, cause, judgement = (definitions[names[kind]] for kind in kinds)
    check["properties"]["repeats"] = _list_of(_over_repeats())
    cause["properties"] |= {
        "checks": {**_list_of({"type": "integer", "minimum": 0}), "description": _PLACES},
        "told": {**_TEXT, "description": "The whole of it, as one sentence."},
        "following": {**_TEXT, "description": "How many checks follow from it, in words."},
    }
    judgement["properties"] |= {"id": _TEXT, "asked": {"type": "object"}}

    verdicts = [*(str(kind) for kind in FindingKind), *(code.name.lower() for code in ExitCode)]
    properties = {
        "schema_version": {"const": SCHEMA_VERSION},
        "run_id": _TEXT,
        "judgement": {"$ref": f"#/$defs/{names[Identity]}"},
        "verdict": {"enum": sorted(set(verdicts))},
        "exit_code": {"enum": [int(code) for code in ExitCode]},
        "sentence": _TEXT,
        "policy": _TEXT,
        "baseline_commits": _list_of(_TEXT),
        "tables": {"type": "object", "additionalProperties": _TEXT},
        "causes": _list_of({"$ref": f"#/$defs/{names[Cause]}"}),
        "findings": _list_of({"$ref": f"#/$defs/{names[Check]}"}),
        "checks": _list_of({"$ref": f"#/$defs/{names[Check]}"}),
    }
    return {
        "$schema": DIALECT,
        "title": "findings.json",
        "type": "object",
        "required": list(properties),
        "properties": {**properties, "against": _TEXT},
        "$defs": definitions,
    }


_PLACES = "What follows from it: places in the list of all checks, from 0; the first says it best."


def _over_repeats() -> dict[str, Any]:
    amounts = {name: {"type": "integer"} for name in ("least_bytes", "most_bytes", "spread_bytes")}
    properties = {"point": _TEXT, "runs": {"type": "integer", "minimum": 1}, **amounts}
    return {"type": "object", "required": list(properties), "properties": properties}


def _list_of(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(item)}


def _records() -> tuple[type, ...]:
    from harness.records import Point, Reading

    return Point, Reading


def _definitions(kinds: tuple[type, ...]) -> tuple[dict[type, str], dict[str, Any]]:
    """The definitions of several records together, and the name of each."""
    from pydantic import TypeAdapter

    inputs = [(kind, "validation", TypeAdapter(kind)) for kind in kinds]
    found, shared = TypeAdapter.json_schemas(inputs)
    names = {kind: found[kind, "validation"]["$ref"].rpartition("/")[2] for kind in kinds}
    return names, shared["$defs"]


def _describe_all(definitions: Mapping[str, Any], kinds: tuple[type, ...]) -> None:
    for kind in kinds:
        if kind.__name__ in definitions:
            _describe(definitions[kind.__name__], kind)


def _describe(schema: dict[str, Any], kind: type) -> None:
    """Give every property what stands below its field in the source."""
    schema["description"] = _in_one_line(kind.__doc__ or "")
    for owner in reversed(kind.__mro__):
        for name, words in _words(owner) if owner.__module__.startswith("harness.") else ():
            if name in schema["properties"]:
                schema["properties"][name]["description"] = words


def _words(kind: type) -> Iterator[tuple[str, str]]:
    """Fields of a class, each with the text below it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    statements = tree.body if isinstance(tree, ast.ClassDef) else []
    for field, below in pairwise(statements):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            yield field.target.id, _in_one_line(below.value.value)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
