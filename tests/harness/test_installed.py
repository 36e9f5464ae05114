"""The gate in somebody else's environment: one name of ours in it, and what is theirs stays
theirs.
"""

import json
import zipfile
from pathlib import Path

import pytest

from tests.harness.conftest import loading_point
from tests.harness.installation import OFFLINE, Installation, build_wheel, checksums, copy_project

THEIR_NAMES = ("ptycho", "reports", "scenarios")
ALIVE = (
    f"import {', '.join(THEIR_NAMES)}; print(*(one.MARK + one.__file__ for one in "
    f"({', '.join(THEIR_NAMES)})), sep=chr(10))"
)
BODIES = """
import gc
import ptycho
import tensorflow as tf

def load(memory, parameters):
    with memory.phase("load"):
        images = tf.zeros([parameters["image_count"], 64, 64])
    with memory.phase("release"):
        del images
        gc.collect()
"""
TEST = """
import pytest

@pytest.mark.memory("bodies:load", path={path!r}, budgets="4 MiB", repeats=1)
@pytest.mark.parametrize("image_count", [64])
def test_load(image_count):
    import ptycho
    assert ptycho.MARK == "theirs "
"""

POLICY = """
schema_version = 1

[[budget]]
scenarios = ["loading"]
phases = ["construct"]
meters = ["device_in_use"]
field = "growth"
at_most = "1 GiB"
because = "An upper bound of the synthetic run."
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory, request):
    """The two wheels of the project, by the distribution's name."""
    project = copy_project(request.config.rootpath, tmp_path_factory.mktemp("project"))
    folder = tmp_path_factory.mktemp("wheels")
    return {
        "gate": build_wheel(project, folder),
        "container": build_wheel(project / "ptycho", folder),
    }


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """An environment with the gate alone."""
    made = Installation.make(tmp_path_factory.mktemp("installed") / "environment")
    made.pip("install", *OFFLINE, wheels["gate"])
    return made


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return sorted(
            name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")
        )


@pytest.fixture
def somebody(tmp_path):
    """Make the repository of a project with packages of all our names, in one of the two usual
    layouts.
    """

    def make(layout):
        folder = tmp_path / "somebody"
        packages = folder / layout
        for name in THEIR_NAMES:
            (packages / name).mkdir(parents=True)
            (packages / name / "__init__.py").write_text("MARK = 'theirs '\n")
        (folder / "harness").mkdir()
        (folder / "harness" / "__init__.py").write_text(
            "raise RuntimeError('this one is not ours')\n"
        )
        (folder / "bodies.py").write_text(BODIES)
        (folder / "test_memory.py").write_text(TEST.format(path=layout))
        paths = [str(Path(layout, name)) for name in THEIR_NAMES]
        (folder / "pyproject.toml").write_text(
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
            '[project]\nname = "somebody"\nversion = "1"\n'
            f"[tool.hatch.build.targets.wheel]\npackages = {json.dumps(paths)}\n"
            f"dev-mode-dirs = [{layout!r}]\n"
            '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n'
            f"pythonpath = [{layout!r}]\n"
        )
        return folder

    return make


def test_the_wheel_of_the_gate_has_one_name_and_everything_that_it_needs(wheels, project_root):
    """The pages with their vendored library and the sources of the pretended card are in it;
    neither tests nor scenarios, container, or products of a build.
    """
    found = contents(wheels["gate"])

    assert {name.split("/")[0] for name in found} == {"harness"}
    assert {Path(name).suffix for name in found} == {
        ".py", ".typed", ".c", ".h", ".cc", ".md", ".css", ".j2", ".js", ".toml", "",
    }  # fmt: skip
    assert [name for name in found if not Path(name).suffix] == [
        "harness/reports/vendored/uPlot/LICENSE"
    ]
    assert "harness/reports/templates/report.html.j2" in found
    assert "harness/pretended/kernels.cc" in found
    assert {"harness/py.typed", "harness/reports/py.typed"} <= set(found)
    for source, inside in (("harness", "harness"), ("reports", "harness/reports")):
        assert {
            f"{inside}/{path.relative_to(project_root / source)}"
            for path in (project_root / source).rglob("*.py")
        } <= set(found)


def test_the_wheel_of_the_container_has_the_container_alone(wheels, project_root):
    """Every module of it, under the name that its users import, and the mark of a typed package."""
    modules = (project_root / "ptycho").rglob("*.py")
    expected = [f"ptycho/{path.relative_to(project_root / 'ptycho')}" for path in modules]

    assert contents(wheels["container"]) == sorted([*expected, "ptycho/py.typed"])


@pytest.mark.parametrize("how", ["regular", "editable"])
@pytest.mark.parametrize("layout", [".", "src"])
def test_what_others_have_of_our_names_stays_theirs(
    wheels, somebody, tmp_path, synthetic_run, layout, how
):
    """Installed beside it, used from its repository, and taken away again."""
    project, there = somebody(layout), Installation.make(tmp_path / "environment")
    there.pip("install", *OFFLINE, *(["--editable"] if how == "editable" else []), project)
    before = (
        there.names,
        checksums(project),
        [checksums(there.site / name) for name in THEIR_NAMES],
    )
    imported = there.run("python", "-P", "-c", ALIVE, cwd=project).stdout
    there.pip("install", *OFFLINE, wheels["gate"])
    synthetic_run.points = [loading_point("lazy", 100)]
    run, policy = synthetic_run.write(), tmp_path / "gate.toml"
    policy.write_text(POLICY)
    told = there.run("memory-harness", "gate", run, "--policy", policy, cwd=project)

    assert imported.count("theirs ") == len(THEIR_NAMES)
    assert there.names - before[0] == {"harness", "ptycho_memory-0.1.0.dist-info"}
    assert there.run("python", "-P", "-c", ALIVE, cwd=project).stdout == imported
    assert (told.returncode, told.stderr) == (0, ""), told.stdout
    assert told.stdout.startswith("Pass: all ")
    there.pip("uninstall", "--yes", "ptycho-memory")
    assert (
        there.names,
        checksums(project),
        [checksums(there.site / name) for name in THEIR_NAMES],
    ) == before


def test_a_loader_is_measured_and_judged_where_every_name_of_ours_is_taken(installed, somebody):
    """Real children, started in a repository with a folder called harness; each has imported the
    repository's own package.
    """
    project, there = somebody("src"), installed
    measured = there.run(
        "python", "-P", "-m", "pytest", "-p", "no:cacheprovider", "--memory-out", "out", cwd=project
    )
    judged = there.run("memory-harness", "gate", "out", cwd=project)
    reported = there.run("memory-harness", "report", "out", cwd=project)
    rows = [json.loads(line) for line in (project / "out" / "rows.jsonl").read_text().splitlines()]
    packages = [row["packages"] for row in rows if row["kind"] == "code"][-1]

    assert measured.returncode == 0, measured.stdout + measured.stderr
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert packages["ptycho"] == str(project / "src" / "ptycho" / "__init__.py")
    assert Path(packages["harness"]).is_relative_to(there.site)
    assert reported.stdout.splitlines()[-1] == f"report: {Path('out', 'report.html')}", (
        reported.stderr
    )
    assert "<svg" in (project / "out" / "report.html").read_text(encoding="utf-8")


def test_the_console_script_is_called_by_its_name_in_its_own_help(installed, tmp_path):
    """And lists the commands that python -m harness has."""
    script = installed.run("memory-harness", "--help", cwd=tmp_path).stdout
    module = installed.run("python", "-m", "harness", "--help", cwd=tmp_path).stdout

    assert script.startswith("usage: memory-harness ")
    assert module == script.replace("memory-harness", "python -m harness")
