"""The action's own scripts, run in order as a job runs them: summary, annotations, outputs, exit
codes.
"""

import re
import tomllib

import pytest

from harness.records import Outcome
from tests.harness.action.job import ARTIFACT_URL

HOSTILE = '$(touch pwned) `touch pwned` "; touch pwned; echo "'


@pytest.fixture
def policy_file(synthetic_run, workspace, project_root):
    """The project's policy where it is looked for, without the rules of scenarios that the
    synthetic sweep does not have.

    Nor does it ask for offenders to be measured again: nothing is there that could be.
    """
    swept = {point.scenario for point in synthetic_run.points}
    head, *rules = re.split(
        r"\n(?=\[\[)", (project_root / "scenarios" / "gate.toml").read_text(encoding="utf-8")
    )
    settings = [next(iter(tomllib.loads(rule).values()))[0] for rule in rules]
    kept = [
        rule
        for rule, setting in zip(rules, settings, strict=True)
        if swept & set(setting.get("scenarios", swept))
    ]
    path = workspace / "scenarios" / "gate.toml"
    path.write_text("\n".join([head.partition("\n[remeasure]\n")[0], *kept]), encoding="utf-8")
    return path


@pytest.fixture
def lazy_run(synthetic_run):
    """A small sweep in which all is well."""
    return synthetic_run.keep_points(
        lambda point: point.scenario == "arrays" and point.parameters["loader"] == "lazy"
    )


@pytest.fixture
def judge_it(fake, job, lazy_run, policy_file, baselines):
    """Let pytest leave the run, and run the job over it; limits are where the gate looks for them
    by itself.
    """
    assert policy_file.is_file()

    def judge_it(*, code=0, **inputs):
        fake.measures(lazy_run.write(), code=code)
        return job(baselines=str(baselines), partial="true", **inputs).run()

    return judge_it


def test_a_run_in_which_every_check_holds_passes(judge_it, fake):
    """Exit code 0, the summary with a link to the artifact, the page in it, no annotation."""
    done = judge_it(pytest_arguments="tests -n 2 -k 'lazy and 500'")
    run = done.results["run"]

    assert (done.exit_code, done.commands) == (0, [])
    assert done.results == {
        "verdict": "pass",
        "exit-code": "0",
        "run": run,
        "report": f"{run}/report.html",
        "artifact-url": ARTIFACT_URL,
    }
    assert run.endswith("/gate-7-1")
    assert fake.asked("pytest") == ["tests", "-n", "2", "-k", "lazy and 500", f"--memory-out={run}"]
    assert done.summary.startswith(
        f"[Page, plots and tables of this run]({ARTIFACT_URL})\n\n## Pass\n"
    )
    assert {
        "run.json",
        "rows.jsonl",
        "report.html",
        "summary.md",
        "junit.xml",
        "findings.json",
    } <= done.uploads[0]


def test_a_regression_is_put_on_the_changed_file_of_the_loader(
    judge_it, lazy_run, workspace, git_in
):
    """Exit code 1, whatever pytest exited with; an error on the first changed line of what the pull
    request changed.
    """
    git_in(workspace, "update-ref", "refs/remotes/origin/main", "HEAD")
    (workspace / "ptycho" / "feed.py").write_text("one\nTWO\nthree\n")
    git_in(workspace, "commit", "-q", "-am", "worse")
    lazy_run.plant(
        phase="construct",
        meter="device_in_use",
        extra=lambda point, repeat: 65_536 * point.parameters["image_count"],
    )
    done = judge_it(target="main", against="none", code=1)
    (command, properties, message), *_ = done.commands

    assert (done.exit_code, done.results["verdict"], done.results["exit-code"]) == (
        1,
        "regression",
        "1",
    )
    assert (command, properties["file"], properties["line"]) == ("error", "ptycho/feed.py", "2")
    assert "grows by" in message
    assert (
        "is the only file of the code under test that differs from the merge base with origin/main."
        in message
    )
    assert "## Regression" in done.summary
    assert len(done.uploads) == 1


def test_an_incomplete_run_exits_with_3_and_its_words_are_no_commands(
    judge_it, lazy_run, fake, policy_file
):
    """A child's last words with a workflow command in them; and pytest prints some of its own."""
    forged = "died\n::error file=x::forged\r::set-output name=verdict::pass\n::notice::forged"
    lazy_run.ends[lazy_run.points[0].name, 1] = (Outcome.CRASHED, forged, "epoch_0")
    fake.set("says", "::error::forged\n::stop-commands::x\n::x::\n::error::forged")
    done = judge_it(code=1, policy=str(policy_file.rename(policy_file.with_name("other.toml"))))

    assert (done.exit_code, done.results["verdict"]) == (3, "incomplete")
    assert done.commands
    assert {command for command, _, _ in done.commands} == {"error"}
    assert all("exit code 3" in properties["title"] for _, properties, _ in done.commands)
    assert "::error::forged" in done.log


def test_a_test_that_failed_for_a_reason_of_its_own_is_no_pass(judge_it):
    """Every check of the gate holds, and pytest exited with 1."""
    done = judge_it(code=1)

    assert (done.exit_code, done.results["verdict"]) == (3, "incomplete")
    assert "what was run exited with 1: a test failed, or was not run." in done.summary
    assert [command for command, _, _ in done.commands] == ["error"]


@pytest.mark.parametrize(
    ("measured", "code", "verdict", "words"),
    [
        (0, 3, "incomplete", "Nothing was measured: what was run exited with 0 and left no run."),
        (5, 3, "incomplete", "Nothing was measured: what was run exited with 5 and left no run."),
        (
            137,
            3,
            "incomplete",
            "Nothing was measured: what was run exited with 137 and left no run.",
        ),
        (
            *(4, 2, "usage"),
            (
                "pytest cannot use its arguments or settings; the log of the step Measure says "
                "why. Nothing was measured."
            ),
        ),
    ],
)
def test_nothing_measured_is_never_a_pass(job, fake, measured, code, verdict, words):
    """Whatever pytest exited with; there is no artifact, and both summary and annotation say so."""
    fake.set("pytest-code", str(measured))
    done = job().run()

    assert (done.exit_code, done.results["verdict"], done.results["run"]) == (code, verdict, "")
    assert done.summary == f"## Memory gate: {verdict}\n\n**{words}** Exit code {code}.\n\n"
    assert done.commands == [
        ("error", {"title": f"Memory gate%3A {verdict} (exit code {code})"}, words)
    ]
    assert done.uploads == []


def test_the_summary_repeats_why_pytest_refused(job, fake):
    """As lines of code, whatever is in them, and without the characters that terminals obey."""
    fake.set("pytest-code", "4")
    fake.set("complains", "ERROR: memory_subject names \x1b[31m```\n<b>::error::x\n")
    done = job().run()

    assert (
        "Exit code 2.\n\n    ERROR: memory_subject names [31m```\n    <b>::error::x\n"
        in done.summary
    )
    assert [message for _, _, message in done.commands] == [
        (
            "pytest cannot use its arguments or settings; the log of the step Measure says "
            "why. Nothing was measured."
        )
    ]


def test_the_summary_repeats_why_the_gate_refused(job, fake, lazy_run):
    """A policy that is not there."""
    fake.measures(lazy_run.write())
    done = job(policy="nowhere.toml").run()

    assert (done.exit_code, done.results["verdict"]) == (2, "usage")
    assert re.search(
        r"^    harness: the policy nowhere.toml cannot be read", done.summary, re.MULTILINE
    )


def test_an_installation_that_fails_is_incomplete(job, fake):
    """Nothing is measured after it."""
    fake.set("pip-code", "1")
    done = job(install="-e '.[test, gpu]'").run()

    assert fake.asked("pip") == ["-m", "pip", "install", "-e", ".[test, gpu]"]
    assert fake.asked("pytest") is None
    assert (done.exit_code, done.results["exit-code"]) == (1, "3")
    assert "Nothing was measured: the installation failed." in done.summary


def test_the_harness_comes_from_the_commit_of_the_action(job, fake, project_root):
    """Where the project has not brought its own."""
    fake.set("harness-is-missing", "1")
    job().run()

    assert fake.asked("pip") == ["-m", "pip", "install", str(project_root)]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {"working_directory": "nowhere"},
            "The input working-directory is no folder of the checkout.",
        ),
        (
            {"pytest_arguments": "-k 'lazy"},
            "The inputs install and pytest-arguments have a quote that is not closed.",
        ),
        ({"against": "main\nx=y"}, "The input against has more than one line; give one revision."),
        (
            {"target": "gone"},
            (
                "git does not have the merge base with the target branch; give "
                "actions/checkout fetch-depth: 0."
            ),
        ),
    ],
)
def test_an_input_that_cannot_be_used_is_exit_code_2_and_one_sentence(job, fake, inputs, words):
    """Nothing is installed, nothing measured."""
    done = job(**inputs).run()

    assert (done.exit_code, done.results["exit-code"], done.results["verdict"]) == (2, "2", "usage")
    assert words in [message for _, _, message in done.commands]
    assert (fake.asked("pip"), fake.asked("pytest")) == (None, None)
    assert "An input of the action cannot be used" in done.summary


@pytest.mark.parametrize(
    ("against", "target", "changed", "expected"),
    [
        ("auto", "main", "ptycho/feed.py", "merge-base:origin/main"),
        ("auto", "main", "scenarios/baselines/one.toml", None),
        ("auto", "", "ptycho/feed.py", None),
        ("none", "main", "ptycho/feed.py", None),
        ("v1.0", "", "ptycho/feed.py", "v1.0"),
        ("--help", "", "ptycho/feed.py", "--help"),
    ],
)
def test_what_a_run_is_compared_with(
    job, fake, workspace, git_in, against, target, changed, expected
):
    """The merge base on a pull request, unless it changes the baselines; they decide on a push, or
    what was asked for.
    """
    git_in(workspace, "update-ref", "refs/remotes/origin/main", "HEAD")
    (workspace / changed).write_text("changed\n")
    git_in(workspace, "commit", "-q", "-am", "a change")
    job(against=against, target=target).run()
    asked = [word for word in fake.asked("pytest") if word.startswith("--memory-against")]

    assert asked == ([] if expected is None else [f"--memory-against={expected}"])


def test_baselines_that_git_does_not_know_are_refused(job, fake, workspace, git_in):
    """They would pass for baselines that the pull request has changed."""
    git_in(workspace, "update-ref", "refs/remotes/origin/main", "HEAD")
    done = job(target="main", baselines="/somewhere/else").run()

    assert (done.exit_code, fake.asked("pytest")) == (2, None)
    assert (
        "git cannot tell whether the input baselines changed; name a folder of this repository."
        in done.log
    )


def test_a_command_is_told_where_to_measure_and_against_what(job, fake, workspace):
    """Instead of pytest; the files that the runner reads are not in its environment."""
    done = job(
        command='printf "%s\\n" "$MEMORY_RUN" "$MEMORY_AGAINST" > told; env > seen; exit 4',
        against="v1",
    ).run()

    assert (workspace / "told").read_text().splitlines() == [done.outputs["prepare"]["run"], "v1"]
    assert not re.search(
        r"^GITHUB_(ENV|PATH|OUTPUT|STATE|STEP_SUMMARY)=",
        (workspace / "seen").read_text(),
        re.MULTILINE,
    )
    assert (fake.asked("pytest"), done.results["exit-code"]) == (None, "3")


def test_names_and_inputs_are_words_and_never_run(job, fake, workspace, git_in):
    """A branch, a revision and arguments with commands of the shell in them."""
    branch = "$(touch${IFS}pwned);touch${IFS}pwned"
    git_in(workspace, "update-ref", f"refs/remotes/origin/{branch}", "HEAD")
    first = job(
        target=branch, pytest_arguments=f"-k '{HOSTILE}' $(touch pwned)", install="$(touch pwned)"
    ).run()
    asked = fake.asked("pytest")
    second = job(
        against=HOSTILE, artifact_name=HOSTILE, policy=HOSTILE, baselines=HOSTILE, partial=HOSTILE
    ).run()

    assert asked[:4] == ["-k", HOSTILE, "$(touch", "pwned)"]
    assert asked[-1] == f"--memory-against=merge-base:origin/{branch}"
    assert f"--memory-against={HOSTILE}" in fake.asked("pytest")
    assert (first.results["exit-code"], second.results["exit-code"]) == ("3", "3")
    assert [path.name for path in workspace.rglob("pwned*")] == []


def test_a_summary_beyond_a_steps_limit_is_left_to_the_artifact(job):
    """One at a million bytes is shown, one a byte longer is not."""
    written = []
    for number, size in enumerate((1_000_000, 1_000_001)):
        line = (
            f'mkdir "$MEMORY_RUN"; head -c {size} /dev/zero | tr "\\0" x > "$MEMORY_RUN/summary.md"'
        )
        done = job(command=line).run()
        written.append(len(done.summary.encode()))
        assert ("too long to be shown here" in done.summary) == bool(number)

    assert written[0] > 1_000_000 > written[1]
