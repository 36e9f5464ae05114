"""The parent's side of a holder: start it, ask it, end it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from harness.errors import HarnessError, MeterUnavailable
from harness.records import Quality, Reading
from scenarios.first_card.frameworks import DRIVER

HOME = Path(__file__).resolve().parents[2]
"""From where ``scenarios`` and ``harness`` were imported; the children import them from there
too."""
OPEN, AMOUNTS, FREE = {"open": True}, {"amounts": True}, {"free": True}
"""Requests (``holder``) that have no amount."""
ANSWER_S = 60.0
"""Chosen: a framework takes up to half a minute to be imported from a cold disk."""


class HolderError(HarnessError, RuntimeError):
    """A holder that refused, or is gone."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Holding:
    """One holder, as a context; its death with the context is certain."""

    def __init__(
        self, uuid: str, address: str, environment: Mapping[str, str], memory: str = DRIVER
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scenarios.first_card.holder", uuid, address, memory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **environment},
            cwd=HOME,
            start_new_session=True,  # as measured children do: neighbours are recognized by it
        )
        self._pending = b""

    @property
    def pid(self) -> int:
        """Its process id, here."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any], *, limit_s: float = ANSWER_S) -> dict[str, Any]:
        """The holder's answer. Raises HolderError where it refuses, is gone, or takes longer than
        ``limit_s``.
        """
        self.tell(request)
        answer = self.hear(limit_s)
        if answer is None:
            self.kill()
            raise HolderError(f"the holder did not answer {_short(request)} within {limit_s:.0f} s")
        if "refused" in answer:
            raise HolderError(str(answer["refused"]), code=answer.get("code"))
        return answer

    def tell(self, request: Mapping[str, Any]) -> None:
        """Ask without waiting for the answer."""
        assert self._process.stdin is not None  # noqa: S101 - it was opened as a pipe
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise HolderError(
                f"the holder ended with code {self._process.poll()} before {_short(request)}"
            ) from error

    def hear(self, limit_s: float) -> dict[str, Any] | None:
        """The next answer; None where none comes within ``limit_s``. Raises HolderError where the
        holder is gone.
        """
        assert self._process.stdout is not None  # noqa: S101 - it was opened as a pipe
        end_s = time.monotonic() + limit_s
        while b"\n" not in self._pending:
            left_s = end_s - time.monotonic()
            if left_s <= 0 or not select.select([self._process.stdout], [], [], left_s)[0]:
                return None
            said = os.read(self._process.stdout.fileno(), 1 << 16)
            if not said:
                raise HolderError(f"the holder ended with code {self._process.wait()}")
            self._pending += said
        line, _, self._pending = self._pending.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def kill(self) -> None:
        """End it by SIGKILL, as the kernel's OOM killer does, and wait until it is gone."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def taking(amount_bytes: int) -> dict[str, int]:
    """The request to hold so many bytes more."""
    return {"take": amount_bytes}


def phase(*requests: Mapping[str, Any], rest_s: float = 0.0) -> dict[str, Any]:
    """The request to do these in one phase of the meter, and to rest in it for ``rest_s``."""
    return {"phase": requests, "rest_s": rest_s}


def readings_of(answer: Mapping[str, Any]) -> dict[str, Reading]:
    """The readings of a phase, by meter."""
    found = [
        Reading(**{**reading, "quality": Quality(reading["quality"])})
        for reading in answer["readings"]
    ]
    return {reading.meter: reading for reading in found}


def retained(reading: Reading) -> int:
    """What was kept over the phase, bytes. Raises MeterUnavailable with the reason where it is not
    known.
    """
    if reading.retained_bytes is None:
        raise MeterUnavailable(reading.reason)
    return reading.retained_bytes


def _short(request: Mapping[str, Any]) -> str:
    return json.dumps(request)[:60]
