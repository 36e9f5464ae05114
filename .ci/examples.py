"""Documents that are run: the tutorials' files and commands, in the order of the page, and the
outputs that the page shows.

``python .ci/examples.py FILE ...`` runs pages and notebooks and fails where one does not do what it
says. ``--write`` also writes each output into its page, between the two comments that mark its
place. Each mark bears a digest of everything that the output follows from and of the output itself,
so that a test can tell, without running anything, what was typed or went out of date.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 1200
"""Chosen: the slowest command of the pages took 520 s on two processors that ten tasks wanted."""
COLUMNS = "100"
"""Width of the terminal that commands believe to have."""
_PARTS = re.compile(
    r"`(?P<path>[\w/-]+\.\w+)`[^\n]*:\n\n```(?!console)\w+\n(?P<content>.*?)^```$"
    r"|^```console\n(?P<commands>.*?)^```$"
    r"\n*(?:<!-- ends with (?P<code>\d+)(?:, last (?P<last>\d+) lines)?"
    r"(?P<says>[^\n]*) -->\n)?"
    r"(?:\n*<!-- output (?P<digest>\w+): begin -->\n```text\n(?P<output>.*?)^```$\n"
    r"<!-- output: end -->)?",
    re.DOTALL | re.MULTILINE,
)
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True, slots=True)
class File:
    """A file that the page tells its reader to write."""

    path: str
    content: str


@dataclass(frozen=True, slots=True)
class Commands:
    """What the page tells its reader to type at one place, and what it shows of the answer."""

    lines: tuple[str, ...]
    code: int
    """The exit code of the last of them; the others have to end with 0."""
    says: tuple[str, ...]
    """Words of the output that the text of the page relies on; line breaks count as spaces."""
    last: int | None
    """How many of the last lines of the output are shown; None is all of them."""
    digest: str
    """The one that stands in the page; empty where no output is shown."""
    output: str
    """The one that stands in the page."""
    span: tuple[int, int]
    """Where the shown output is in the page, from the begin of its first mark."""


Step = File | Commands


class WrongPageError(Exception):
    """A page does not do what it says."""


def steps(text: str) -> list[Step]:
    """Files and commands of a page, in its order."""
    return [_step(match) for match in _PARTS.finditer(text)]


def _step(match: re.Match[str]) -> Step:
    if match["path"]:
        return File(match["path"], match["content"])

    lines = tuple(
        line.removeprefix("$ ") for line in match["commands"].splitlines() if line.startswith("$ ")
    )
    if not lines:
        raise WrongPageError(f"a block of commands has no line that begins with $: {match[0]}")
    shown = match["digest"] or ""
    begin = match.start("digest") - len("<!-- output ") if shown else match.end()
    return Commands(
        lines=lines,
        code=int(match["code"] or 0),
        last=int(match["last"]) if match["last"] else None,
        says=tuple(_QUOTED.findall(match["says"] or "")),
        digest=shown,
        output=match["output"] or "",
        span=(begin, match.end()),
    )


def digest(done: list[Step], command: Commands, output: str) -> str:
    """Twelve digits of everything that an output follows from in its page, and of the output."""
    made = hashlib.sha256()
    for step in done:
        said = (step.path, step.content) if isinstance(step, File) else step.lines
        made.update("\0".join(said).encode() + b"\1")
    made.update("\0".join((*command.lines, str(command.code), output)).encode())
    return made.hexdigest()[:12]


def stale(text: str) -> Iterator[str]:
    """The commands whose shown output was not written from them as they stand in the page."""
    done: list[Step] = []
    for step in steps(text):
        shown = isinstance(step, Commands) and step.digest
        if shown and step.digest != digest(done, step, step.output):
            yield step.lines[-1]
        done.append(step)


def run(page: Path, place: Path) -> list[tuple[Commands, str]]:
    """Do in the folder ``place`` what the page says; the commands and what they printed.

    Raises WrongPageError where a command ends with another code, or does not say what the page
    relies on.
    """
    printed: list[tuple[Commands, str]] = []
    for step in steps(page.read_text(encoding="utf-8")):
        if isinstance(step, File):
            path = place / step.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.content, encoding="utf-8")
            continue
        output = _output(page, step, place)
        missing = [words for words in step.says if words not in " ".join(output.split())]
        if missing:
            raise WrongPageError(f"{page.name}: {step.lines[-1]} does not say {missing}:\n{output}")
        printed.append((step, _shown(step, output)))
    return printed


def _shown(step: Commands, output: str) -> str:
    """The output as the page shows it: with the exit code where that is not 0."""
    lines = output.splitlines()
    if step.last is not None and len(lines) > step.last:
        lines = ["...", *lines[-step.last :]]
    code = ["$ echo $?", str(step.code)] if step.code else []
    return "".join(f"{line}\n" for line in [*lines, *code])


def _output(page: Path, step: Commands, place: Path) -> str:
    """What the last of the commands printed."""
    output = ""
    for number, line in enumerate(step.lines, start=1):
        expected = step.code if number == len(step.lines) else 0
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=place,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )
        if done.returncode != expected:
            raise WrongPageError(
                f"{page.name}: {line} ended with {done.returncode}, where the page says "
                f"{expected}:\n{done.stdout}\n{done.stderr}"
            )
        output = done.stdout.replace(str(place), "~/mylab")
    return "\n".join(line.rstrip() for line in output.splitlines()).strip("\n")


def _environment() -> dict[str, str]:
    """That of a person at a terminal of 100 columns, who has activated this environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "PYTHONPATH", "GIT_")) and name != "CI"
    }
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "COLUMNS": COLUMNS,
        "NO_COLOR": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_NAME": "You" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "you@example.org" for who in ("AUTHOR", "COMMITTER")},
    }


def written(text: str, printed: list[tuple[Commands, str]]) -> str:
    """The page with these outputs in their places."""
    answers = {command.span: output for command, output in printed if command.digest}
    done: list[Step] = []
    pieces, last = [], 0
    for step in steps(text):
        if isinstance(step, Commands) and step.digest:
            begin, end = step.span
            output = answers[step.span]
            mark = f"<!-- output {digest(done, step, output)}: begin -->"
            pieces += [text[last:begin], f"{mark}\n```text\n{output}```\n<!-- output: end -->"]
            last = end
        done.append(step)
    return "".join([*pieces, text[last:]])


def run_notebook(path: Path, *, write: bool) -> None:
    """Execute a notebook from its first cell to its last, in a folder of its own; with ``write``
    keep what it shows. Raises where a cell does.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    os.environ.update(_environment())
    with tempfile.TemporaryDirectory() as place:
        client = NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": place}})
        kernel = client.create_kernel_manager()
        kernel.transport, kernel.ip = "ipc", str(Path(place) / "kernel")  # no port is opened
        client.execute()
    if not write:
        return

    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when each cell ran: another one every time
    notebook.metadata.pop("widgets", None)
    notebook.metadata["sources"] = notebook_digest(notebook.cells)
    nbformat.write(notebook, path)


def notebook_digest(cells: list[dict[str, object]]) -> str:
    """Twelve digits of the code whose outputs a notebook shows."""
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]  # type: ignore[arg-type]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:12]


def main() -> None:
    """Run the pages that are named, and with --write keep what they print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--write", action="store_true", help="write the outputs into the pages")
    arguments = parser.parse_args()

    for page in arguments.pages:
        print(f"{page} ...", flush=True)
        if page.suffix == ".ipynb":
            run_notebook(page, write=arguments.write)
            continue
        place = Path(tempfile.mkdtemp(prefix="page-"))
        try:
            printed = run(page, place)
        except WrongPageError as error:
            sys.exit(str(error))
        finally:
            shutil.rmtree(place)
        if arguments.write:
            text = page.read_text(encoding="utf-8")
            page.write_text(written(text, printed), encoding="utf-8")


if __name__ == "__main__":
    main()
