"""The pages, found where they are: inside this package in an installation, beside it in the
repository.

Nothing else here knows them, and they are loaded when they are asked for: matplotlib and jinja2
come with them. Nobody else's package of the name ``reports`` can come in their place, nor is one
replaced: here they are ``harness.reports``.
"""

import importlib.util
import sys
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from harness.errors import PageError, UsageError
from harness.system.files import FINDINGS_FILE, JUNIT_FILE, REPORT_FILE, replace_judgement

if TYPE_CHECKING:
    from harness.judge.gate import Judgement
    from harness.judge.table import Run

_FOLDER = "reports"
_NAME = f"harness.{_FOLDER}"


def write_outputs(run: "Run", judgement: "Judgement", *, page: bool = False) -> Path | None:
    """Replace everything that an earlier judgement left in the run directory; the path of the page,
    where there is one.

    findings.json, junit.xml and summary.md are written; report.html and plots/ where ``page`` asks
    for them, and where the directory has them already. Where the pages cannot be loaded, findings
    and junit.xml are written all the same, and an earlier page and summary go: they are of another
    judgement. Raises RunDirectoryError where something cannot be written, and PageError where a
    page is wanted and cannot be made; then all else is written.
    """
    try:
        writing = load_pages("writing")
    except (UsageError, ImportError) as error:
        wanted = page or (run.path / REPORT_FILE).exists()
        _write_without_pages(run, judgement)
        if wanted:
            raise PageError(f"the page could not be drawn: {error}") from error
        return None
    written: Path | None = writing.write_outputs(run, judgement, page=page)
    return written


def annotate(
    run: Path,
    *,
    since: str | None,
    subjects: Collection[str],
    policy: Path | None,
    baselines: Path | None,
    folder: Path,
    form: str,
) -> Iterator[str]:
    """The findings of a judged run as lines for GitHub's log or GitLab's report (``form``), as
    ``reports.annotate`` says. Raises UsageError where there are no pages.
    """
    lines: Iterator[str] = load_pages("annotate").annotate(
        run,
        since=since,
        subjects=subjects,
        policy=policy,
        baselines=baselines,
        folder=folder,
        form=form,
    )
    return lines


def load_pages(module: str) -> ModuleType:
    """A module of the pages. Raises UsageError where there are none, ImportError where a library
    that they need is missing.
    """
    if _NAME not in sys.modules:
        _load_package(Path(__file__).parent)
    return import_module(f"{_NAME}.{module}")


def _write_without_pages(run: "Run", judgement: "Judgement") -> None:
    """What the gate itself has to say, without summary and page."""
    from harness.judge.gate import findings_text, junit_of, write_tables

    contents = {
        FINDINGS_FILE: findings_text(run, judgement).encode(),
        JUNIT_FILE: junit_of(run, judgement).encode(),
    }
    write_tables(run, judgement)
    replace_judgement(run.path, contents)


def _load_package(home: Path) -> None:
    """The package of the pages, as a part of this one. Raises UsageError where there is none."""
    candidates = (home / _FOLDER / "__init__.py", home.parent / _FOLDER / "__init__.py")
    file = next((path for path in candidates if path.exists()), None)
    spec = file and importlib.util.spec_from_file_location(
        _NAME, file, submodule_search_locations=[str(file.parent)]
    )
    if not spec or spec.loader is None:
        raise UsageError(
            f"{home} has no pages, neither in it nor beside it; install the project with pip"
        )

    package = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
