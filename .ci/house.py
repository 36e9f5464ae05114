"""The house as it is: which modules there are, who imports whom, and the table of
docs/architecture.md.

``python .ci/house.py`` prints the table, ``python .ci/house.py --write`` puts it into the document,
between the two comments that mark its place, and writes docs/vocabulary.md and docs/schemas/.
"""

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "reports", "scenarios", "ptycho")
DOCUMENT = ROOT / "docs" / "architecture.md"
VOCABULARY = ROOT / "docs" / "vocabulary.md"
BEGIN, END = "<!-- modules: begin -->", "<!-- modules: end -->"


@dataclass(frozen=True, slots=True)
class Module:
    """One file."""

    name: str
    """Dotted, ``harness.judge.gate``; a package's is that of its ``__init__.py``."""
    path: Path
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether it is an ``__init__.py``."""
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """The folder that it stands in, dotted."""
        return ".".join(self.path.relative_to(ROOT).parent.parts)

    @property
    def line_count(self) -> int:
        """Lines of the file."""
        return len(self.path.read_text(encoding="utf-8").splitlines())

    @property
    def docstring(self) -> str:
        """Its docstring, on one line."""
        return " ".join((ast.get_docstring(self.tree) or "").split())

    @property
    def summary(self) -> str:
        """The first paragraph of its docstring, on one line."""
        return " ".join((ast.get_docstring(self.tree) or "").partition("\n\n")[0].split())


def modules(package: str) -> Iterator[Module]:
    """All modules of a package, in the order of their paths."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Module(name, path, ast.parse(path.read_text(encoding="utf-8")))


def imports(all_modules: Mapping[str, Module]) -> dict[str, set[str]]:
    """Which modules each one imports, anywhere in its file: in functions and for types too."""
    return {name: set(_imported(module, all_modules)) for name, module in all_modules.items()}


def _imported(module: Module, known: Mapping[str, Module]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found = whole if whole in known else base
                if found in known and found != module.name:
                    yield found


def _base(module: Module, node: ast.ImportFrom) -> str:
    """The module that a statement imports from, dots in front of it resolved."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of names that can reach each other (Tarjan's strongly connected components, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows.get(name, ())):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return found


def between_rooms(
    arrows: Mapping[str, set[str]], all_modules: Mapping[str, Module]
) -> dict[str, set[str]]:
    """The same arrows between the folders of the packages, ``harness.judge`` with all that is below
    it; a module at the top of a package is a room of its own.
    """

    def room(name: str) -> str:
        module = all_modules[name]
        at_top = module.room in PACKAGES and not module.is_package
        return name if at_top else ".".join(module.room.split(".")[:2])

    found: dict[str, set[str]] = {}
    for name, others in arrows.items():
        found.setdefault(room(name), set()).update({room(other) for other in others} - {room(name)})
    return found


def table(packages: tuple[str, ...] = PACKAGES) -> str:
    """Every module with what its docstring says first, room by room, as Markdown."""
    lines = ["| room | module | what it is |", "|---|---|---|"]
    for package in packages:
        room = ""
        for module in sorted(
            modules(package), key=lambda one: (one.room, not one.is_package, one.name)
        ):
            shown = f"`{module.room.replace('.', '/')}/`" if module.room != room else ""
            room = module.room
            summary = module.summary.replace("|", "\\|")
            lines.append(f"| {shown} | `{module.path.name}` | {summary} |")
    return "\n".join(lines)


def document_with(text: str, modules_table: str) -> str:
    """The document with this table in its place. Raises ValueError where the marks are missing."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{DOCUMENT.name} lacks {BEGIN} or {END}")
    return f"{head}{BEGIN}\n{modules_table}\n{END}{tail}"


def vocabulary() -> str:
    """Meters, rules, findings and outcomes, as the program defines them, as Markdown."""
    sys.path.insert(0, str(ROOT))
    from harness.judge.rules import findings_table, outcomes_table, rules_table
    from harness.meters import METERS

    rows = (
        f"| `{one.name}` | {one.words} | {one.meaning} ({one.counter}) | {one.memory} | {one.peak} "
        f"| {'yes' if one.gated else ''} |"
        for one in METERS
    )
    meters = "\n".join(
        [
            "| meter | in words | what it reads | memory | peak | gated |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )
    return f"""\
# Vocabulary

Written by `python .ci/house.py --write` out of the tables that the program itself uses; a test
compares. `python -m harness doctor --help` prints the meters, `gate --help` the rules and the
findings.

## Meters

{meters}

A peak is exact where the counter keeps its own, bracketed between two exact bounds, sampled where
it is polled, and read at the edges where only the start and the end of a phase are.
[how-it-works.md](how-it-works.md) says what each does not see.

## Rules

{rules_table()}

## Findings

The gravest decides the exit code.

{findings_table()}

## Outcomes of runs

{outcomes_table()}
"""


def main() -> None:
    """Print the table, or write it, the vocabulary and the schemas."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/architecture.md"
    )
    if parser.parse_args().write:
        import schemas  # beside this file, which is on the path when it is run

        schemas.write()
        VOCABULARY.write_text(vocabulary(), encoding="utf-8")
        DOCUMENT.write_text(
            document_with(DOCUMENT.read_text(encoding="utf-8"), table()), encoding="utf-8"
        )
    else:
        print(table())


if __name__ == "__main__":
    main()
