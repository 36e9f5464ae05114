"""Bodies from another checkout, and packages of one name in two places: what is measured is what
was asked for.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.records import Outcome, Point
from harness.run.launchers import HOME
from harness.run.revisions import Code, own_packages, shadowing_packages
from harness.rundir.manifest import start_run

BODY = """
def measure(memory, parameters):
    import ptycho
    with memory.phase("look"):
        pass
    memory.declare(mark=ptycho.MARK)
"""
MARK = 4711
# What is imported is the question here, not what it takes: without TensorFlow a fresh interpreter
# is there at once.
LIGHT = {"prepare_device": "builtins:repr", "meters": ()}


@pytest.fixture
def checkout(tmp_path):
    """A foreign checkout with a body, and packages called like three of those that lie beside the
    harness.
    """

    def write(**files):
        folder = tmp_path / "foreign"
        for name, text in {"bodies.py": BODY, **files}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return write


@pytest.fixture(params=["spawn", "zygote"])
def measure(request, make_runner, project_root):
    """Measure a body by name, from a folder; its end, and its rows by kind."""
    changes = {} if request.param == "spawn" else {"launcher": request.getfixturevalue("zygote")}

    def run(body="bodies:measure", *, path="", root=project_root, code=None, further_paths=()):
        point = Point(
            scenario="foreign", body=body, parameters={}, phases=("look",), path=str(path)
        )
        runner = make_runner(
            root=root, code=code or Code(), further_paths=further_paths, **LIGHT, **changes
        )
        start_run(
            runner.run_directory,
            points=[point],
            repeats=1,
            device=runner.device,
            command="test",
            root=project_root,
            settings={},
        )
        end = runner.measure(point, 0)
        runner.close()
        rows = [
            json.loads(line)
            for line in (runner.run_directory / "rows.jsonl").read_text().splitlines()
        ]
        return end, {row["kind"]: row for row in rows}

    return run


@pytest.mark.parametrize("package", ["ptycho/__init__.py", "ptycho.py", "ptycho/nested.py"])
def test_a_foreign_package_of_our_name_is_the_one_that_is_measured(measure, checkout, package):
    """Also as a single file, and as a folder without __init__.py; the run says which file it
    was.
    """
    body = (
        BODY
        if "nested" not in package
        else BODY.replace("import ptycho\n", "import ptycho.nested as ptycho\n")
    )
    folder = checkout(**{package: f"MARK = {MARK}\n", "bodies.py": body})
    end, rows = measure(path=folder)

    assert end.outcome is Outcome.OK, end.reason
    assert rows["declared"]["values"] == {"mark": MARK}
    assert Path(rows["code"]["packages"]["ptycho"]).is_relative_to(folder)
    assert Path(rows["code"]["packages"]["harness"]).parents[1] == HOME


@pytest.mark.parametrize("nested", ["ptycho/nested.py", "ptycho/deep/nested.py"])
def test_a_foreign_root_is_not_hidden_by_ours_without_a_path_either(measure, checkout, nested):
    """A folder without __init__.py stands behind every package that has one, so that ours would be
    measured in its place.
    """
    module = nested.removesuffix(".py").replace("/", ".")
    folder = checkout(
        **{
            nested: f"MARK = {MARK}\n",
            "bodies.py": BODY.replace("import ptycho\n", f"import {module} as ptycho\n"),
        }
    )
    end, rows = measure(root=folder)

    assert end.outcome is Outcome.OK, end.reason
    assert rows["declared"]["values"] == {"mark": MARK}
    assert Path(rows["code"]["packages"]["ptycho"]).is_relative_to(folder)


def test_a_folder_of_data_hides_nothing(tmp_path):
    """Whoever uses the container of this project may have a folder of that name with scans in
    it.
    """
    (tmp_path / "ptycho" / "scans").mkdir(parents=True)
    (tmp_path / "ptycho" / "scans" / "one.npz").touch()
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "make.py").touch()

    assert shadowing_packages(tmp_path) == ("reports",)
    assert shadowing_packages(HOME) == ()


def test_ours_stays_out_where_the_foreign_checkout_lacks_it(measure, checkout):
    """One sentence: what was asked for, where it was looked for, and that there is one which was
    not taken.
    """
    folder = checkout()
    end, rows = measure(path=folder)

    assert (end.outcome, end.cause) == (Outcome.ERROR, "ModuleNotFoundError")
    assert end.reason.startswith(f"ModuleNotFoundError: no package 'ptycho' in {folder}")
    assert f"the one that comes with this harness ({HOME / 'ptycho'}) was kept out" in end.reason
    assert "ptycho" not in rows["code"]["packages"]


def test_ours_is_there_for_bodies_that_come_from_nowhere_else(measure):
    """Without a folder of its own a body may use what lies beside the harness; the run says that it
    did.
    """
    end, rows = measure("tests.harness.run.foreign_bodies:name_ptycho")

    assert end.outcome is Outcome.OK, end.reason
    assert rows["code"]["packages"]["ptycho"] == str(HOME / "ptycho" / "__init__.py")


@pytest.mark.parametrize("where", ["root", "path"])
def test_a_foreign_package_called_harness_does_not_take_the_place_of_ours(
    measure, checkout, tmp_path, where
):
    """Neither in the working directory nor in the body's folder; children are measured all the
    same.
    """
    folder = checkout(
        **{"harness/__init__.py": "raise RuntimeError('not this one')\n", "ptycho.py": "MARK = 1\n"}
    )
    end, _ = measure(path=folder, root=folder if where == "root" else tmp_path)

    assert end.outcome is Outcome.OK, end.reason


def test_files_called_like_modules_of_python_do_not_get_in_the_way_of_ours(
    make_runner, checkout, tmp_path, project_root
):
    """TensorFlow, and the instruments, are there before the body's folder comes first; its own
    modules get what lies there.
    """
    spoilt = {
        "random.py": "raise RuntimeError('not this one')\n",
        "gzip.py": "raise RuntimeError('nor this')\n",
    }
    folder = checkout(**spoilt, **{"ptycho.py": "MARK = 1\n"})
    point = Point(
        scenario="foreign", body="bodies:measure", parameters={}, phases=("look",), path=str(folder)
    )
    runner = make_runner(root=tmp_path)
    start_run(
        runner.run_directory,
        points=[point],
        repeats=1,
        device=runner.device,
        command="test",
        root=project_root,
        settings={},
    )
    end = runner.measure(point, 0)
    runner.close()

    assert end.outcome is Outcome.OK, end.reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no module 'bodies' in {folder}, {root}"),
        (
            "import nowhere_at_all\n",
            "no module 'nowhere_at_all' in {folder}, {root}",
        ),
        (
            "import json\njson.absent\n",
            "AttributeError: module 'json' has no attribute 'absent' ({folder}/bodies.py, line 2)",
        ),
        ("from json import absent\n", "ImportError: cannot import name 'absent' from 'json'"),
        (
            "def measure(:\n",
            "SyntaxError: invalid syntax (bodies.py, line 1) ({folder}/bodies.py, line 1)",
        ),
        ("raise SystemExit(3)\n", "SystemExit: 3 ({folder}/bodies.py, line 1)"),
        (
            "import ptycho\n",
            "no package 'ptycho' in {folder}, {root}; the one that comes with this harness (",
        ),
    ],
)
def test_a_body_that_cannot_be_imported_ends_with_the_reason(
    make_runner, checkout, tmp_path, project_root, text, reason
):
    """An error of the run, in one sentence that names the body, the folders that were searched, and
    the line at fault.
    """
    folder = checkout(**({} if text is None else {"bodies.py": text}))
    if text is None:
        (folder / "bodies.py").unlink()
    point = Point(
        scenario="foreign", body="bodies:measure", parameters={}, phases=("look",), path=str(folder)
    )
    runner = make_runner(root=tmp_path)
    start_run(
        runner.run_directory,
        points=[point],
        repeats=1,
        device=runner.device,
        command="test",
        root=project_root,
        settings={},
    )
    end = runner.measure(point, 0)
    runner.close()

    assert (end.outcome, end.cause) == (Outcome.ERROR, "import")
    assert end.reason.startswith(
        f"'bodies:measure' cannot be loaded: {reason.format(folder=folder, root=tmp_path)}"
    )
    assert (
        text is None
        or "json import" in text
        or f"bodies.py, line {text.count(chr(10))})" in end.reason
    )


@pytest.mark.parametrize(
    ("body", "files", "missing"),
    [
        ("bodies:measure", {"src/bodies.py": BODY}, "bodies"),
        ("outer:measure", {"outer.py": "import mylab\n", "src/mylab/__init__.py": ""}, "mylab"),
        ("mylab.bodies:measure", {"src/mylab/bodies.py": BODY}, "mylab"),
    ],
    ids=["the body", "what it imports", "its package"],
)
def test_a_module_that_lies_in_a_folder_of_the_root_is_named_with_what_to_write(
    measure, tmp_path, body, files, missing
):
    """path="src", or pytest's own pythonpath, which is honoured."""
    for name, text in {"ptycho.py": "MARK = 1\n", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    end, _ = measure(body, root=tmp_path)

    assert end.outcome is Outcome.ERROR
    assert f"no module '{missing}" in end.reason
    assert end.reason.endswith(
        "; src has one: write path='src', or add it to pytest's setting pythonpath"
    )


def test_a_body_is_found_in_the_folders_of_the_session(measure, tmp_path):
    """After its own folder, and before the root."""
    for name, text in {
        "src/bodies.py": BODY,
        "ptycho.py": "MARK = 1\n",
        "src/ptycho.py": "MARK = 2\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    end, rows = measure(root=tmp_path, further_paths=(tmp_path / "src",))

    assert end.outcome is Outcome.OK, end.reason
    assert rows["declared"]["values"] == {"mark": 2}


def test_a_package_under_test_comes_from_its_folder_or_not_at_all(measure, checkout, tmp_path):
    """Neither the checkout nor the installation steps in for a side that lacks it."""
    side = tmp_path / "side"
    side.mkdir()
    checkout(**{"ptycho.py": "MARK = 1\n"})
    end, _ = measure(root=tmp_path / "foreign", code=Code(packages={"ptycho": side}))

    assert (end.outcome, end.reason) == (
        Outcome.ERROR,
        f"ModuleNotFoundError: no package 'ptycho' in {side}",
    )


def test_a_package_under_test_beats_every_other_of_its_name(measure, checkout, tmp_path):
    """Here one in the working directory and the one beside the harness."""
    side = tmp_path / "side" / "ptycho"
    side.mkdir(parents=True)
    (side / "__init__.py").write_text("MARK = 2\n")
    checkout(**{"ptycho.py": "MARK = 1\n"})
    end, rows = measure(root=tmp_path / "foreign", code=Code(packages={"ptycho": side.parent}))

    assert end.outcome is Outcome.OK, end.reason
    assert rows["declared"]["values"] == {"mark": 2}
    assert rows["code"]["packages"]["ptycho"] == str(side / "__init__.py")


def test_what_came_along_with_the_harness_is_known():
    """The packages beside it, whether it is installed or used from its checkout."""
    assert {"ptycho", "reports", "scenarios"} <= set(own_packages())
    assert "harness" not in own_packages()


INSTALLED = {
    "ptycho_memory-0.1.0.dist-info": ("ptycho-memory", "harness/__init__.py,,\n"),
    "ptycho_lazy-0.1.0.dist-info": (
        "ptycho-lazy",
        "ptycho/__init__.py,,\nptycho/formats/__init__.py,,\n",
    ),
}


@pytest.fixture
def ask_installed(tmp_path, project_root):
    """Ask a harness that is installed in a folder of its own, beside other distributions: what a
    fresh interpreter says.
    """
    site = tmp_path / "site-packages"
    shutil.copytree(
        project_root / "harness", site / "harness", ignore=shutil.ignore_patterns("__pycache__")
    )

    def ask(code, distributions, packages):
        for package in packages:
            (site / package).mkdir()
            (site / package / "__init__.py").touch()
        for folder in distributions:
            name, record = INSTALLED[folder]
            (site / folder).mkdir()
            (site / folder / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n"
            )
            (site / folder / "RECORD").write_text(f"{record}{folder}/METADATA,,\n")
        start = (
            "import sys; sys.path[:] = [sys.argv[1], *(p for p in sys.path if p != sys.argv[2])]\n"
            "from harness.run.revisions import own_packages as own\n"
        )
        command = [
            sys.executable,
            "-P",
            "-c",
            start + code,
            str(site),
            str(project_root),
            str(tmp_path),
        ]
        return site, subprocess.run(command, capture_output=True, text=True, check=False)

    return ask


def test_an_installed_harness_keeps_out_the_container_of_this_project_and_nothing_else(
    ask_installed, tmp_path
):
    """Everything else in site-packages stays importable; whoever asks for code in a folder of
    theirs gets that, or an error.
    """
    code = (
        "from harness.measure.importing import arrange_imports\n"
        "print(own()); arrange_imports([sys.argv[3]], root=sys.argv[3], kept_out=own())\n"
        "import stranger, ptycho\n"
    )
    site, done = ask_installed(code, INSTALLED, ["stranger", "ptycho"])

    assert done.stdout == "('ptycho',)\n", done.stderr
    assert f"no package 'ptycho' in {tmp_path}" in done.stderr.splitlines()[-1]
    assert f"({site / 'ptycho'}) was kept out" in done.stderr.splitlines()[-1]


def test_a_harness_that_is_installed_alone_has_nothing_beside_it(ask_installed):
    """A package called ptycho that lies there is somebody else's, and is imported as ever."""
    _, done = ask_installed(
        "print(own()); import ptycho\n", ["ptycho_memory-0.1.0.dist-info"], ["ptycho", "reports"]
    )

    assert (done.stdout, done.stderr) == ("()\n", "")


def test_a_harness_of_which_nothing_says_how_it_came_is_a_usage_error(ask_installed, tmp_path):
    """One sentence, with the command that helps."""
    _, done = ask_installed("own()\n", [], [])

    assert (
        f"harness was imported from {tmp_path / 'site-packages'}, which is neither" in done.stderr
    )
    assert done.stderr.splitlines()[-1].endswith("(pip install ptycho-memory)")
