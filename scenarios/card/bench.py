"""Where the steps on pretended cards measure and judge: pytest and the gate as users start them, in
processes of their own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.judge import ExitCode
from harness.pretended import Machine, make_machine
from harness.pretended.card import Card
from harness.records import ROWS_FILE
from harness.words import GIB, MIB

CARD_BYTES = 4 * GIB
"""Size of each card. The eager loader peaks at 1.2 GiB, and of the rest 1.8 GiB at most are left to
the driver."""
CONTEXT_BYTES = 300 * MIB
"""What each process takes of a card beside its pool; chosen: about what contexts of CUDA take."""
_JUDGEABLE = (0, 1)
"""What pytest exits with when all tests passed, or some failed: a planted bug or a lost card may
end a run otherwise."""
_THREADS = {"TF_NUM_INTRAOP_THREADS": "1"}
"""Of one operation. Two children share two processors: with two threads each they wait for each
other, spinning."""
_SESSION = ("scenarios", "-q", "-p", "no:cacheprovider", "--device", "gpu")


class StepError(HarnessError, RuntimeError):
    """What a step expected and did not find; one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """One sweep on pretended cards, and what the gate said about it."""

    run: Path
    code: int
    said: str

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The rows of that kind."""
        lines = (self.run / ROWS_FILE).read_text(encoding="utf-8").splitlines()
        return [row for row in map(json.loads, lines) if row["kind"] == kind]

    @property
    def used(self) -> tuple[str, ...]:
        """The devices that its runs had, each once."""
        return tuple(sorted({row["device"] for row in self.rows("end") if row["device"]}))

    def expect_code(self, code: ExitCode) -> None:
        """Raise StepError unless the gate ended with ``code``."""
        if self.code != code:
            raise StepError(
                f"the gate of {self.run} ended with {self.code} where {int(code)} is "
                f"right:\n{self.said}"
            )

    def expect_devices(self, uuids: tuple[str, ...]) -> None:
        """Raise StepError unless the runs were on exactly these devices, and each was alone
        there.
        """
        if self.used != tuple(sorted(uuids)):
            raise StepError(
                f"the runs of {self.run} were on {', '.join(self.used)}; expected was "
                f"{', '.join(uuids)}"
            )
        if disturbed := self.rows("again"):
            raise StepError(
                f"{len(disturbed)} runs of {self.run} shared their device, the first: "
                f"{disturbed[0]['reason']}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The folder that everything goes into, and the built card."""

    out: Path
    root: Path
    card: Card
    accept: str | None = None
    """Why what is measured becomes the committed baseline where there is none; None: it does
    not."""

    def machine(self, step: str, *, cards: int = 1) -> Machine:
        """Pretended cards for one step."""
        return make_machine(
            self.out / f"cards-{step}",
            self.card,
            cards=cards,
            total_bytes=CARD_BYTES,
            context_bytes=CONTEXT_BYTES,
        )

    def sweep(
        self,
        machine: Machine,
        step: str,
        *options: str,
        partial: bool = False,
        again: bool = False,
        meanwhile: Callable[[Path], None] | None = None,
    ) -> Swept:
        """Measure with ``pytest scenarios --device gpu`` and judge with the committed baselines.

        ``again`` measures once more what may be noise; ``meanwhile(run)`` is called while it is
        measured. Raises StepError where pytest cannot measure.
        """
        run, log = self.out / step, self.out / f"{step}.log"
        command = [sys.executable, "-m", "pytest", *_SESSION, "--memory-out", str(run), *options]
        with log.open("w", encoding="utf-8") as output:
            session = subprocess.Popen(
                command,
                cwd=self.root,
                env=_environment(machine),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            if meanwhile is not None:
                meanwhile(run)
            code = session.wait()
        if code not in _JUDGEABLE:
            raise StepError(f"pytest ended with {code}, see {log}")
        remeasure = ["--remeasure", "--workers", str(len(machine.devices))] if again else []
        return self._judge(machine, run, [*(["--partial"] if partial else []), *remeasure])

    def _judge(self, machine: Machine, run: Path, options: list[str]) -> Swept:
        done = self.python(machine, "-m", "harness", "gate", str(run), *options)
        if (
            self.accept is not None
            and "--partial" not in options
            and done.returncode == ExitCode.NO_BASELINE
        ):
            accepted = self.python(
                machine, "-m", "harness", "accept", str(run), "--reason", self.accept
            )
            if accepted.returncode != 0:
                raise StepError(f"{run} cannot become the baseline: {accepted.stderr.strip()}")
            done = self.python(machine, "-m", "harness", "gate", str(run), *options)
        return Swept(run=run, code=done.returncode, said=(done.stdout + done.stderr).strip())

    def python(self, machine: Machine, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python on the cards."""
        command = [sys.executable, *arguments]
        return subprocess.run(
            command,
            cwd=self.root,
            env=_environment(machine),
            capture_output=True,
            text=True,
            check=False,
        )


def _environment(machine: Machine) -> dict[str, str]:
    # Of a pytest around this one, as in the tests.
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    own.pop("CUDA_VISIBLE_DEVICES", None)
    return {**own, **machine.environment, **_THREADS}
