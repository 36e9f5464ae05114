"""Fixtures: children that call the pretended driver, and one that has TensorFlow and forks for each
case.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.pretended import Machine
from harness.pretended.card import Card

HERE = Path(__file__).resolve().parent


class Child:
    """A process that answers a line of JSON with a line of JSON."""

    def __init__(self, program: str, environment: dict[str, str], *, errors: Path) -> None:
        self.errors = errors
        with errors.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / program)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **environment},
            )
        self.pid = self._process.pid

    def ask(self, request: Any) -> Any:
        """What it answers; an assertion with its last words where it ended instead."""
        self.tell(request)
        return self.answer()

    def tell(self, request: Any) -> None:
        """Ask without waiting."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The next answer."""
        line = self._process.stdout.readline()
        assert line, (
            f"the child ended with {self._process.wait()}: {self.errors.read_text()[-2000:]}"
        )
        return json.loads(line)

    def __call__(self, name: str, *arguments: Any) -> Any:
        """One call of cuda_child.py."""
        return self.ask([name, *arguments])

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Let it end, and wait."""
        with self._process as process:
            process.stdin.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """``start(machine, CUDA_VISIBLE_DEVICES=...)``: a child that calls the driver, ended after the
    test.
    """
    children: list[Child] = []

    def begin(machine: Machine, **environment: str) -> Child:
        children.append(
            Child(
                "cuda_child.py", {**machine.environment, **environment}, errors=tmp_path / "errors"
            )
        )
        return children[-1]

    yield begin
    for child in children:
        child.close()


@pytest.fixture
def opened(start) -> Callable[..., Child]:
    """The same, with a context on the first card it sees."""

    def begin(machine: Machine, **environment: str) -> Child:
        child = start(machine, **environment)
        assert (child("init"), child("open", 0)) == (0, 0)
        return child

    return begin


@pytest.fixture(scope="module")
def tensorflow(pretended_card: Card, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """A process with TensorFlow, from which each case is forked."""
    environment = {"LD_LIBRARY_PATH": str(pretended_card.folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = Child(
        "tensorflow_child.py", environment, errors=tmp_path_factory.mktemp("tensorflow") / "errors"
    )
    yield child
    child.close()


@pytest.fixture
def on_cards(tensorflow: Child) -> Callable[..., dict[str, Any]]:
    """``on_cards(machine, "case", setting=...)``: what the case answers; no code for CUDA may have
    been skipped in it.
    """

    def run(machine: Machine, case: str, **settings: Any) -> dict[str, Any]:
        environment = {**machine.environment, "FIRST_CARD": machine.devices[0].uuid.decode()}
        found = tensorflow.ask({"case": case, "environment": environment, "settings": settings})
        said = tensorflow.errors.read_text()
        assert "pretended card:" not in said, said[-2000:]
        assert found["code"] == 0, said[-2000:]
        return found["answer"]

    return run
