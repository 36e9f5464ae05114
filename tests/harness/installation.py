"""An environment of its own with the dependencies of this one, and none of its projects: what a
wheel puts there can be seen.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

BUILD = "import sys, hatchling.build as backend; print(backend.build_wheel(sys.argv[1]))"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
OFFLINE = ("--no-compile", "--no-index", "--no-deps", "--no-build-isolation")


def build_wheel(project, folder):
    """The wheel of a project, with nothing fetched; its path."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    return folder / done.stdout.splitlines()[-1]


def checksums(folder):
    """Of every file below, without what Python compiles."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


@dataclass(frozen=True)
class Installation:
    """A virtual environment."""

    folder: Path

    @classmethod
    def make(cls, folder):
        """With everything that is installed beside the tests, apart from what is a project in a
        folder, and from ours.
        """
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        made = cls(folder)
        dependencies = folder / "dependencies"
        dependencies.mkdir()
        for path in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
            for entry in Path(path).iterdir():
                ours = entry.name.startswith(
                    ("ptycho", "harness", "reports", "scenarios", "__editable__")
                )
                if not ours and entry.suffix != ".pth" and not (dependencies / entry.name).exists():
                    (dependencies / entry.name).symlink_to(entry)
        (made.site / "dependencies.pth").write_text(f"{dependencies}\n")
        return made

    @property
    def site(self):
        """Its site-packages."""
        return next(self.folder.glob("lib/python*/site-packages"))

    @property
    def names(self):
        """What was installed there, by name of file."""
        return {path.name for path in self.site.iterdir()} - {"dependencies.pth", "__pycache__"}

    def pip(self, *arguments):
        """Run pip on it."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PIP_")
        }
        command = [*PIP, "--python", str(self.folder / "bin" / "python"), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, program, *arguments, cwd):
        """Run one of its programs there, as from a terminal."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "PYTHONPATH"))
        }
        command = [str(self.folder / "bin" / program), *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def copy_project(root, folder):
    """What a build may look at, and build products beside it that it has to leave out; the copy."""
    for name in ("harness", "ptycho", "reports", "scenarios", "tests"):
        shutil.copytree(
            root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "baselines")
        )
    for name in (".gitignore", "LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(root / name, folder / name)
    for name in ("libcuda.so", "arena.o", "lib.a"):
        (folder / "harness" / "pretended" / name).touch()
    return folder
