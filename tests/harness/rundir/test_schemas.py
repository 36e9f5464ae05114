"""The published schemas are those of the program, and hold what it writes."""

import copy
import importlib.util
import json
import sys
from pathlib import Path

import jsonschema
import pytest

from harness.__main__ import main

ROOT = Path(__file__).resolve().parents[3]
STORED = Path(__file__).parent / "stored" / "run"
FOLDER = ROOT / "docs" / "schemas"
NAMES = ("run", "rows", "findings")


@pytest.fixture(scope="module")
def written():
    """What ``python .ci/house.py --write`` would write."""
    spec = importlib.util.spec_from_file_location("schemas", ROOT / ".ci" / "schemas.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    found = module.schemas()
    sys.path[:] = before
    return found


@pytest.fixture(scope="module")
def validators():
    """By the name of the file that is described."""
    found = {}
    for name in NAMES:
        schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        found[name] = jsonschema.Draft202012Validator(schema)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_published_schema_is_that_of_the_program(written, name):
    """Written by ``python .ci/house.py --write``."""
    file = f"{name}.schema.json"

    assert (FOLDER / file).read_text(encoding="utf-8") == written[file]
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(written)


def test_a_run_of_an_earlier_version_is_held_by_them(validators):
    """run.json, and every row, those of its trace among them."""
    validators["run"].validate(json.loads((STORED / "run.json").read_bytes()))
    rows = [
        json.loads(line)
        for file in (STORED / "rows.jsonl", *(STORED / "traces").glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()
    ]
    for row in rows:
        validators["rows"].validate(row)

    assert {row["kind"] for row in rows} >= {"begin", "phase", "declared", "done", "end", "trace"}


@pytest.fixture
def findings(synthetic_run, tmp_path, capsys):
    """What the gate writes of a run with a finding."""
    path = synthetic_run.write()
    (tmp_path / "none").mkdir()
    main(["gate", str(path), "--partial", "--baselines", str(tmp_path / "none")])
    capsys.readouterr()
    return json.loads((path / "findings.json").read_bytes())


def test_what_the_gate_writes_is_held_by_them(validators, findings):
    """Checks, causes, and which side of each amount its limit is on."""
    validators["findings"].validate(findings)

    assert {check["bound"] for check in findings["checks"]} == {"", "upper", "lower"}
    assert findings["findings"]
    assert findings["causes"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda found: found["checks"][0].update(bound="sideways"), "bound"),
        (lambda found: found["checks"][0].update(measured="1 MiB"), "measured"),
        (lambda found: found.pop("causes"), None),
        (lambda found: found.update(exit_code=17), "exit_code"),
        (lambda found: found["causes"][0].update(kind="bad luck"), "kind"),
    ],
)
def test_what_is_no_judgement_is_not(validators, findings, change, place):
    """The schema says where."""
    wrong = copy.deepcopy(findings)
    change(wrong)
    errors = list(validators["findings"].iter_errors(wrong))

    assert errors
    assert place in (None, *(error.absolute_path[-1] for error in errors if error.absolute_path))


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "begin", "point": "p", "repeat": 0, "phase": "open", "index": "0"},
        {"kind": "begin", "point": "p", "repeat": 0, "phase": "open"},
        {"kind": "unheard of", "point": "p"},
    ],
)
def test_what_is_no_row_is_not(validators, row):
    """A kind, and every field of it with its type."""
    assert not validators["rows"].is_valid(row)
