"""GitLab's report: one entry for each cause, and the same fingerprint for the same cause in every
run.
"""

import json
from dataclasses import replace

import pytest

from reports.annotate import code_quality_text
from reports.annotations import Findings, Reported, Spot

PLACE = Spot(file="ptycho/feed.py", line=12, why="Put here because.")


def entries(*causes, place=PLACE, exit_code=1):
    found = Findings(
        verdict="incomplete",
        exit_code=exit_code,
        sentence="Nothing was checked.",
        causes=causes,
    )
    return json.loads(code_quality_text(found, place, otherwise="scenarios/gate.toml"))


@pytest.fixture
def told():
    return Reported(
        id="0123456789",
        kind="regression",
        rule="slope",
        sentence="It grows by 4 B per image.",
    )


def test_an_entry_has_what_gitlab_asks_for(told):
    """Description, name, fingerprint, severity, and the place as path and line."""
    (entry,) = entries(told)

    assert (entry["description"], entry["check_name"]) == (
        "It grows by 4 B per image. Put here because.",
        "memory gate: slope",
    )
    assert (entry["severity"], entry["location"]) == (
        "critical",
        {"path": "ptycho/feed.py", "lines": {"begin": 12}},
    )
    assert len(entry["fingerprint"]) == 64


def test_the_fingerprint_is_that_of_the_cause_and_not_of_its_amount(told):
    """Two amounts of one cause are one; two causes are two."""
    once, again = entries(told)[0], entries(replace(told, sentence="It grows by 8 B per image."))[0]
    twice = entries(told, replace(told, id="9876543210"))

    assert once["fingerprint"] == again["fingerprint"]
    assert len({entry["fingerprint"] for entry in twice}) == 2


def test_what_has_no_file_is_put_on_the_policy(told):
    """GitLab leaves out an entry without a path."""
    assert entries(told, place=Spot(why="No file."))[0]["location"]["path"] == "scenarios/gate.toml"


def test_a_pass_is_an_empty_report_and_nothing_checked_is_not():
    """An empty report is green."""
    assert entries(exit_code=0) == []
    assert [entry["description"] for entry in entries(exit_code=3)] == [
        "Nothing was checked. Put here because."
    ]
