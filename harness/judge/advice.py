"""The commands that sentences advise: complete, with the arguments that the run was judged with."""

import glob
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.rundir.manifest import Manifest

DEFAULT_BASELINES = Path("scenarios/baselines")
"""Where a project keeps its own, seen from the folder that the gate is started in."""
REASON = '--reason "..."'
"""How every advised ``accept`` ends; its reader writes the reason."""

LESS_ON_PURPOSE = "pass --partial when less was measured on purpose"
"""What to do about points that are missing because nobody wanted them, as the end of ``"measure
more, or ..."``."""
_ENDING_COMMAND = re.compile(r"(?:\bwith|\brun|first): (?:python|pytest) [^`]*$")
_PLACES = ("--memory-out", "--memory-resume", "--resume")
"""Options of pytest that name a run directory; each takes one value."""
_AGAINST = ("--memory-against", "--against")
"""Options that name the other revision."""
_REVISIONS = (*_AGAINST, "--memory-revision", "--revision")
_POINTS = "--memory-points"
"""Option that chooses points by their names."""
_PYTEST = ("pytest", "py.test")
"""Words after which the arguments of pytest begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The arguments that a run is judged with; what differs from the defaults is in every command
    that is advised.
    """

    policy: Path | None = None
    """None: what the run brings along, else the project's own."""
    baselines: Path = DEFAULT_BASELINES
    baselines_typed: bool = False
    """Somebody has named their folder, be it the default one: then a run that finds none in it is
    not compared, and no pass."""
    partial: bool = False
    against: Path | None = None
    by_pytest: bool = False
    """A pytest session judges its own tests: its command has none of the gate's options."""

    @property
    def options(self) -> tuple[str, ...]:
        """What ``accept`` and ``gate`` take alike: policy and baselines, where they are not the
        default.
        """
        policy = () if self.policy is None else ("--policy", str(self.policy))
        return (
            *policy,
            *(
                ("--baselines", str(self.baselines))
                if self.baselines_typed or self.baselines != DEFAULT_BASELINES
                else ()
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """As findings.json has it."""
        named = {"policy": self.policy, "against": self.against}
        return {
            **{name: None if path is None else str(path) for name, path in named.items()},
            "baselines": str(self.baselines),
            "baselines_typed": self.baselines_typed,
            "partial": self.partial,
            "by_pytest": self.by_pytest,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Asked":
        """Raises KeyError or TypeError where it is damaged."""
        named = {
            name: None if found[name] is None else Path(found[name])
            for name in ("policy", "against")
        }
        flags = {name: bool(found[name]) for name in ("partial", "by_pytest")}
        return cls(
            **named,  # type: ignore[arg-type]
            baselines=Path(found["baselines"]),
            baselines_typed=bool(found.get("baselines_typed")),
            **flags,  # type: ignore[arg-type]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """Commands about one run directory, to be typed in the folder where it was judged."""

    run: Path
    asked: Asked = field(default_factory=Asked)
    typed: str = "pytest"
    """The command that has measured it, as run.json has it."""
    device: str = "auto"
    growth: bool = False

    @classmethod
    def of(cls, run: Path, manifest: "Manifest", asked: Asked | None = None) -> "Commands":
        """Those of a run, judged as ``asked`` says; None: by the defaults."""
        device, growth = manifest.settings.get("device"), manifest.settings.get("growth")
        known = device if device in ("cpu", "gpu", "pretended") else "auto"
        return cls(
            run=run,
            asked=asked or Asked(),
            typed=manifest.command,
            device=known,
            growth=bool(growth),
        )

    def gate(self, *options: str) -> str:
        """Judge it again by the same arguments; ``options`` are added."""
        against = () if self.asked.against is None else ("--against", str(self.asked.against))
        partial = ("--partial",) if self.asked.partial and "--partial" not in options else ()
        return _harness("gate", str(self.run), *self.asked.options, *against, *partial, *options)

    def report(self) -> str:
        """Write the page of the judgement that is there."""
        return _harness("report", str(self.run))

    def accept(self, *options: str) -> str:
        """Make it the baseline. Whether it may become one, ``judge.baseline_file`` finds out."""
        return f"{_harness('accept', str(self.run), *self.asked.options, *options)} {REASON}"

    def doctor(self) -> str:
        """Ask what can be measured on the device that the run was for."""
        device = () if self.device == "auto" else ("--device", self.device)
        return _harness("doctor", *device, *(("--growth",) if self.growth else ()))

    def measure(self) -> str:
        """Measure the same once more, into a run directory of its own."""
        return measuring(self.typed)

    def measure_point(self, name: str) -> str:
        """Measure one point of it once more; empty where it is unknown how it was measured."""
        words = _words(self.typed)
        if words is None or not _after_pytest(words):
            return ""
        return shlex.join([*_without(words, (*_PLACES, _POINTS)), f"{_POINTS}={glob.escape(name)}"])

    def bisect(self, good: str) -> str:
        """Find the commit after ``good`` that made it worse; empty where it is unknown how it was
        measured.
        """
        words = _words(self.typed)
        if words is None or not _after_pytest(words):
            return ""
        policy = () if self.asked.policy is None else ("--policy", str(self.asked.policy))
        arguments = _without(_after_pytest(words), (*_PLACES, *_REVISIONS))
        return _harness("bisect", *policy, good, "--", *arguments)

    def resume(self) -> str:
        """Measure what is missing of it."""
        return measuring(self.typed, resuming=self.run)

    def compare(self, revision: str) -> str:
        """Measure the same with the code of another revision, in turns."""
        return measuring(self.typed, against=revision)


def quoted(command: str) -> str:
    """A command that words follow; one that ends its sentence stands as it is, without a full stop
    that a copy takes along.
    """
    return f"`{command}`"


def stopped(sentence: str) -> str:
    """The sentence with its full stop; without one where it ends with a question, or with a command
    to be copied.
    """
    return (
        sentence if sentence.endswith(("?", ".")) or ends_with_command(sentence) else f"{sentence}."
    )


def ends_with_command(sentence: str) -> bool:
    """Whether nothing may be put after the sentence, because its end is to be copied."""
    return _ENDING_COMMAND.search(sentence) is not None


def measuring(typed: str, *, resuming: Path | str | None = None, against: str | None = None) -> str:
    """The command ``typed`` without the run directory that it named; to go on with a run, or
    against another revision.
    """
    # With "=": a folder that stands alone, outside of the project, pytest takes for one of tests.
    resumed = [] if resuming is None else [f"--memory-resume={resuming}"]
    compared = [] if against is None else [f"--memory-against={against}"]
    try:
        words = shlex.split(typed)
    except ValueError:  # a quote that is never closed: recorded by something else
        return f"{typed} {shlex.join([*resumed, *compared])}".strip()
    kept = [*_without(words, (*_PLACES, *(_AGAINST if compared else ()))), *resumed, *compared]
    return typed if kept == words else shlex.join(kept)


def launcher(here: Path | None = None) -> tuple[str, ...]:
    """How the command line is started in a folder: -P keeps another package called harness out of
    its way.
    """
    other = (here or Path.cwd()) / "harness"
    foreign = other.is_dir() and not (other / "measure" / "worker.py").exists()
    return ("python", "-P", "-m", "harness") if foreign else ("python", "-m", "harness")


def _harness(*arguments: str) -> str:
    return shlex.join([*launcher(), *arguments])


def _words(typed: str) -> list[str] | None:
    """The words of a command; None where a quote is never closed: recorded by something else."""
    try:
        return shlex.split(typed)
    except ValueError:
        return None


def _after_pytest(words: Sequence[str]) -> list[str]:
    """The arguments that pytest was given; none where something else was started."""
    called = [Path(word).name for word in words]
    begin = next((place for place, word in enumerate(called) if word in _PYTEST), None)
    return [] if begin is None else list(words[begin + 1 :])


def _without(words: Sequence[str], options: Collection[str]) -> Iterator[str]:
    skip = False
    for word in words:
        if skip or word.partition("=")[0] in options:
            skip = not skip and word in options
            continue
        yield word
