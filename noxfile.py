"""Every job of the project as one command: ``nox -s gate``, ``nox -s tests``, ``nox -l`` for the
rest.
"""

import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.reuse_existing_virtualenvs = True
# versions-3.13 is skipped, with a sentence, where there is no Python 3.13
nox.options.error_on_missing_interpreters = False

# The sweep measures it; whoever installs the gate does not get it.
CONTAINER = ("-e", "./ptycho")
# Exit codes of `python -m harness gate`, which `nox -s gate` passes on, and of pytest for a run
# that can be judged: all passed, some failed, interrupted, none selected.
USAGE, INCOMPLETE = 2, 3
JUDGEABLE = (0, 1, 2, 5)
# What pytest exits with when the device that was asked for is not there (harness/pytest_plugin.py).
NO_DEVICE = 3


@nox.session
def gate(session: nox.Session) -> None:
    """Measure the sweep, judge it, write the page. Takes the options of `pytest scenarios --help`,
    --partial, --bisect GOOD.
    """
    session.install("-e", ".", *CONTAINER)
    if _option(session.posargs, "--bisect") is None:
        _measure_and_judge(session, "gate", [])
    else:
        _bisect(session)


@nox.session
def gpu(session: nox.Session) -> None:
    """The same sweep on a real card; exits 3 where there is none, or none that TensorFlow can use.
    Takes the options of gate.
    """
    session.install("-e", ".", *CONTAINER)
    asked = [
        "python",
        "-m",
        "harness",
        "doctor",
        "--device",
        "gpu",
        *_pool_options(session.posargs),
    ]
    if code := _code(session, *asked, "--find", "driver"):
        sys.exit(code)  # before gigabytes of CUDA are installed for nothing
    if _code(session, *asked, "--find", "tensorflow"):
        session.log("CUDA's libraries are installed now, for TensorFlow to see the card")
        session.install("-e", ".[gpu]")
    if code := _code(session, *asked):
        sys.exit(code)
    _measure_and_judge(session, "gpu", ["--device", "gpu"], beside=True)


@nox.session
def card(session: nox.Session) -> None:
    """The catalogue, planted bugs and mishaps on pretended cards, under 4 minutes; exits 3 without
    a compiler. -- --help.
    """
    session.install("-e", ".[pretended]", *CONTAINER)
    if code := _code(session, "python", "-m", "scenarios.card", *session.posargs):
        sys.exit(code)


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite, under pytest-xdist."""
    session.install("-e", ".[test]", *CONTAINER)
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13"])
@nox.parametrize("resolution", ["lowest-direct", "highest"], ids=["lowest", "highest"])
def versions(session: nox.Session, resolution: str) -> None:
    """The suite on the lowest or highest versions that install together; a Python that is not here
    is skipped, with a sentence.
    """
    session.install("uv>=0.5")  # pip knows no lowest
    # Upgraded, so that what an earlier time left in the environment decides nothing.
    wanted = ["--resolution", resolution, "--upgrade", "-e", ".[test]", *CONTAINER]
    session.run_install(
        "uv", "pip", "install", *wanted, env={"VIRTUAL_ENV": str(Path(session.bin).parent)}
    )
    session.run("pytest", *_with_workers(session.posargs))


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lint, who may import whom, and the shape of the action and the workflows."""
    session.install("-e", ".", "--no-deps")
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-actions", "action.yml")
    session.run(
        "check-jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
        *map(str, Path(".github/workflows").iterdir()),
    )
    session.run(
        "check-jsonschema",
        "--builtin-schema",
        "vendor.citation-file-format",
        "CITATION.cff",
    )


@nox.session
def types(session: nox.Session) -> None:
    """Static types, strictly; needs no TensorFlow."""
    session.install("-e", ".", "--no-deps")
    session.install(
        *nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "types")
    )
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documents as a site, strictly: no broken link, no undocumented public name, no request to
    anybody; executes the notebook.
    """
    session.install("-e", ".", *CONTAINER)
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "docs"))
    session.run("python", ".ci/examples.py", "docs/notebooks/read-a-run.ipynb")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", ".ci/website.py", "artifacts/site")


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Speed and memory beside the alternatives; about 25 minutes and 6 GB of disk. Options: `nox -s
    benchmarks -- --help`.
    """
    session.install("-e", ".[test]", *CONTAINER)
    if code := _code(session, "python", "-m", "scenarios.benchmarks", *session.posargs):
        sys.exit(code)


@nox.session
def detector(session: nox.Session) -> None:
    """Planted regressions and clean runs: what the gate finds, what it refuses; 80 minutes. `nox -s
    detector -- --help`.
    """
    session.install("-e", ".", *CONTAINER)
    if code := _code(session, "python", "-m", "scenarios.detector", *session.posargs):
        sys.exit(code)


@nox.session
def report(session: nox.Session) -> None:
    """Write the page of a run again: nox -s report -- RUN (default: the newest run under
    artifacts).
    """
    session.install("-e", ".")
    run = Path(session.posargs[0]) if session.posargs else _newest_run()
    if run is None and not _installs_only(session):
        session.error("no run under artifacts; measure one first: nox -s gate")
    session.run("python", "-m", "harness", "report", str(run))


def _measure_and_judge(
    session: nox.Session, name: str, options: list[str], *, beside: bool = False
) -> None:
    """Measure, judge, write the page; ``beside`` also the table of what the emulated device reads
    of the same points.
    """
    arguments = [argument for argument in session.posargs if argument != "--partial"]
    partial = ["--partial"] if "--partial" in session.posargs else []
    directory = _option(arguments, "--resume") or _option(arguments, "--memory-out")
    if directory is None:
        directory = f"artifacts/{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        arguments += ["--memory-out", directory]
    # the gate prints the table, with limits beside it
    no_table = f"{os.environ.get('PYTEST_ADDOPTS', '')} --memory-no-table".strip()
    measured = _code(
        session,
        "pytest",
        "scenarios",
        *options,
        *_with_workers(arguments),
        env={"PYTEST_ADDOPTS": no_table},
    )
    if measured not in JUDGEABLE:
        # pytest has said why on the lines above: a bad option, or a device that is not there.
        sys.exit(INCOMPLETE if measured == NO_DEVICE else USAGE)
    again = ["--remeasure", "--workers", str(_workers())]
    code = _code(session, "python", "-m", "harness", "gate", directory, "--page", *again, *partial)
    if beside:
        # it judges nothing
        _code(session, "python", "-m", "scenarios.fidelity", "--beside", directory)
    if code:
        sys.exit(code)


def _bisect(session: nox.Session) -> None:
    """Find the commit that made memory worse since a good one, or with --better better; takes the
    options of the sweep.
    """
    good, options = _without(session.posargs, "--bisect")
    better = ["--better"] if "--better" in options else []
    options = [option for option in options if option not in better]
    arguments = [
        "-m",
        "harness",
        "bisect",
        *better,
        good,
        "--",
        "scenarios",
        *_with_workers(options),
    ]
    if code := _code(session, "python", "-P", *arguments):
        sys.exit(code)


def _pool_options(arguments: list[str]) -> list[str]:
    """Of the sweep's options those that the doctor has too, so that it examines the pool that is
    measured on.
    """
    budget = _option(arguments, "--device-budget") or _option(arguments, "--memory-device-budget")
    growth = {"--growth", "--memory-growth"} & set(arguments)
    return [*(["--device-budget", budget] if budget else []), *(["--growth"] if growth else [])]


def _with_workers(arguments: list[str]) -> list[str]:
    given = any(argument.startswith(("-n", "--numprocesses")) for argument in arguments)
    return arguments if given else [*arguments, "-n", str(_workers())]


def _without(arguments: list[str], name: str) -> tuple[str, list[str]]:
    """The value of an option that is there, and all other arguments."""
    for place, argument in enumerate(arguments):
        if argument == name:
            return arguments[place + 1], [*arguments[:place], *arguments[place + 2 :]]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2], [*arguments[:place], *arguments[place + 1 :]]
    raise KeyError(name)


def _workers() -> int:
    """One more than there are processors, because a child that runs out of memory waits for 10 s; 4
    at most, for their memory.
    """
    return min((os.cpu_count() or 1) + 1, 4)


def _code(
    session: nox.Session, program: str, *arguments: str, env: dict[str, str] | None = None
) -> int:
    """Run a program of the session's environment and give its exit code, which session.run keeps to
    itself.

    With ``nox --install-only`` nothing is run, as by session.run, and the code is 0.
    """
    if _installs_only(session):
        return 0
    session.log(shlex.join([program, *arguments]))
    command = [Path(session.bin) / program, *arguments]
    return subprocess.run(command, check=False, env={**os.environ, **(env or {})}).returncode


def _installs_only(session: nox.Session) -> bool:
    """Whether nox was asked for `--install-only`: session.run, which obeys it, gives None then and
    a text otherwise.
    """
    return session.run("python", "-c", "", silent=True) is None


def _option(arguments: list[str], name: str) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == name and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _newest_run() -> Path | None:
    runs = sorted(Path("artifacts").rglob("run.json"), key=lambda path: path.stat().st_mtime)
    return runs[-1].parent if runs else None
