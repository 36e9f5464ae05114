"""What the action and the workflows may not do: unpinned code, a token that writes, text from
outside in a script.
"""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from tests.harness.action.job import read_action

WORKFLOWS = (".github/workflows/gate.yml", ".github/workflows/tests.yml")
SNIPPETS = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def scripts(root):
    """Every script of the action, by the name of its step."""
    return {
        step["name"]: step["run"] for step in read_action(root)["runs"]["steps"] if "run" in step
    }


def documents(root):
    """The action, the workflows, and the workflows that docs/ci.md shows."""
    found = {name: (root / name).read_text(encoding="utf-8") for name in ("action.yml", *WORKFLOWS)}
    shown = SNIPPETS.findall((root / "docs" / "ci.md").read_text(encoding="utf-8"))
    return found | {f"snippet {number} of docs/ci.md": text for number, text in enumerate(shown)}


def steps_of(document):
    """The steps of an action, or of all jobs of a workflow."""
    if "runs" in document:
        return document["runs"]["steps"]
    return [step for job in document.get("jobs", {}).values() for step in job["steps"]]


def test_every_workflow_is_checked(project_root):
    """A new one has to be named here."""
    assert {path.name for path in (project_root / ".github" / "workflows").iterdir()} == {
        name.split("/")[-1] for name in WORKFLOWS
    }


def test_third_party_code_is_pinned_by_commit(project_root):
    """A tag can be moved; what is documented may name a place to be filled in."""
    used = [
        step["uses"]
        for text in documents(project_root).values()
        for step in steps_of(yaml.safe_load(text))
        if "uses" in step
    ]

    assert used
    assert [
        use for use in used if not re.fullmatch(r"\./|[\w.-]+/[\w./-]+@([0-9a-f]{40}|COMMIT)", use)
    ] == []


def test_no_expression_stands_in_the_text_of_a_script(project_root):
    """Branches, titles and inputs are words in the environment, never text that a shell reads."""
    for name, text in documents(project_root).items():
        for step in steps_of(yaml.safe_load(text)):
            assert "${{" not in step.get("run", ""), f"{name}: {step}"


def test_workflows_read_only_and_never_run_strangers_code_with_our_rights(project_root):
    """permissions is contents: read and nothing else, for the workflow and every job."""
    for name, text in documents(project_root).items():
        document = yaml.safe_load(text)
        assert "secrets." not in text, name
        assert "github.token" not in text.lower(), name
        if "jobs" not in document or True not in document:
            continue  # YAML 1.1 reads the key `on` as True: only GitHub's workflows have it
        assert document["permissions"] == {"contents": "read"}, name
        assert all("permissions" not in job for job in document["jobs"].values()), name
        assert "pull_request_target" not in document[True], name
        checkouts = [
            step
            for step in steps_of(document)
            if step.get("uses", "").startswith("actions/checkout@")
        ]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts), name


def test_every_input_and_output_is_described(project_root):
    """A default for each input, none of them required; outputs come from a step that there is."""
    action = read_action(project_root)
    ids = {step.get("id") for step in action["runs"]["steps"]}

    assert all(
        declared["description"] and isinstance(declared["default"], str)
        for declared in action["inputs"].values()
    )
    assert all(declared["description"] for declared in action["outputs"].values())
    assert {
        re.search(r"steps\.(\w+)\.", declared["value"]).group(1)
        for declared in action["outputs"].values()
    } <= ids


def test_the_page_lists_every_input_and_output(project_root):
    """And none that there is not."""
    action = read_action(project_root)
    told = re.findall(
        r"^\| `([\w-]+)` \|",
        (project_root / "docs" / "ci.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )

    assert sorted(told) == sorted([*action["inputs"], *action["outputs"]])


def test_workflows_give_the_action_inputs_that_it_has(project_root):
    """A misspelt input is only a warning on GitHub."""
    known = set(read_action(project_root)["inputs"])
    uses = [
        step
        for text in documents(project_root).values()
        for step in steps_of(yaml.safe_load(text))
        if step.get("uses") == "./" or step.get("uses", "").endswith("ptycho-memory@COMMIT")
    ]

    assert len(uses) >= 2
    assert all(set(step.get("with", {})) <= known for step in uses)


@pytest.mark.parametrize("program", ["bash", "shellcheck"])
def test_scripts_are_correct_bash(project_root, tmp_path, program):
    """By bash's own parser, and by shellcheck in every kind of message."""
    checker = {"bash": ["-n"], "shellcheck": ["--shell=bash", "--severity=style"]}[program]
    assert scripts(project_root)
    for name, script in scripts(project_root).items():
        file = tmp_path / f"{name}.sh"
        file.write_text(f"#!/usr/bin/env bash\n{script}")
        done = subprocess.run(
            [shutil.which(program), *checker, file], capture_output=True, text=True, check=False
        )

        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), name


def test_scripts_are_strict_and_keep_to_what_old_bash_knows(project_root):
    """macOS has bash 3.2: no mapfile, no associative arrays, no case conversion."""
    for name, script in scripts(project_root).items():
        assert script.startswith("set -euo pipefail\n"), name
        assert not re.search(r"mapfile|readarray|declare -A|local -n|\$\{\w+(,,|\^\^)", script), (
            name
        )


def scripts_of_the_page(root):
    """What docs/ci.md lets other services run, each as one script."""
    text = (root / "docs" / "ci.md").read_text(encoding="utf-8")
    jobs = [yaml.safe_load(shown) for shown in SNIPPETS.findall(text)]
    lines = [
        job["script"]
        for document in jobs
        for job in document.values()
        if isinstance(job, dict) and "script" in job
    ]
    return ["\n".join(["set -eo pipefail", *script]) for script in lines] + re.findall(
        r"^```sh\n(.*?)^```$", text, re.M | re.S
    )


@pytest.mark.parametrize(
    ("measured", "judged", "code"),
    [(0, 0, 0), (1, 1, 1), (1, 0, 3), (5, 3, 3), (0, 5, 5), (4, 2, 2)],
)
def test_what_the_page_shows_for_other_services_ends_with_the_code_of_the_gate(
    project_root, tmp_path, measured, judged, code
):
    """With stand-ins for pytest and Python; what passes although a test failed is no pass."""
    judge = f'case "$1" in gate) exit {judged} ;; esac'
    for name, text in {
        "pytest": f"exit {measured}",
        "memory-harness": judge,
        "python": "exit 0",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    found = scripts_of_the_page(project_root)
    path = f"{tmp_path}:{os.environ['PATH']}"

    assert len(found) == 2
    assert [
        subprocess.run(
            ["bash", "-c", each], cwd=tmp_path, env={"PATH": path}, check=False
        ).returncode
        for each in found
    ] == [
        code,
        code,
    ]
