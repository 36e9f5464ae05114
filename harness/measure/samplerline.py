"""The child's end of the line to the sampler."""

import json
import os
import socket
import sys
from collections.abc import Mapping
from typing import Any, NoReturn, Self

from harness.errors import MeterUnavailable
from harness.system.proc import started_ticks

# chosen: a span takes a kilobyte, and a list of the processes on a card a few
MESSAGE_BYTES = 1 << 16
SOCKET_KIND = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
"""Packets, so that a message is never cut. Elsewhere a stream does: nobody speaks before the other
has."""
# chosen: a driver's slowest answer that was told of took 2 s; a child must not wait for ever
_ANSWER_S = 10.0


class SamplerLine:
    """Asks, and waits for the answer. Once the sampler has failed, it stays failed for this
    child.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._lost = ""

    @classmethod
    def connect(cls, address: str) -> Self:
        """Connect to the sampler and say who this process is. Raises MeterUnavailable with the
        reason when it cannot.
        """
        line = socket.socket(socket.AF_UNIX, SOCKET_KIND)
        line.settimeout(_ANSWER_S)
        try:
            line.connect(address)
        except OSError as error:
            line.close()
            raise MeterUnavailable(f"the sampler does not answer: {error}") from error
        connected = cls(line)
        connected.ask({"hello": os.getpid(), "started": started_ticks()})
        return connected

    @property
    def lost(self) -> str:
        """Why the sampler is not there any more; empty while it is."""
        return self._lost

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The sampler's answer. Raises MeterUnavailable when it refuses, or is gone."""
        if self._lost:
            raise MeterUnavailable(self._lost)
        try:
            self._line.sendall(json.dumps(request).encode())
            packet = self._line.recv(MESSAGE_BYTES)
        except OSError as error:
            self._lose(f"the sampler was lost: {error}")
        if not packet:
            self._lose("the sampler was lost: it has ended")
        answer: dict[str, Any] = json.loads(packet)
        if "refused" in answer:
            raise MeterUnavailable(str(answer["refused"]))
        return answer

    def close(self) -> None:
        """Let go of the line."""
        self._line.close()

    def _lose(self, reason: str) -> NoReturn:
        self._lost = reason
        self._line.close()
        raise MeterUnavailable(reason)
