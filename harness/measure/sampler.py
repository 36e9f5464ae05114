"""The sampler: a process that looks at other processes and at the card every 2.5 ms, beside the
workload.

Started by the parent as ``python -m harness.measure.sampler SOCKET``; a thread of the workload's
own process would wait for its interpreter, and miss most of what it is for. Children connect to the
socket, one after the other, and say when a phase begins and ends; the answer to the end is what was
seen in between (``harness.measure`` has the messages, one a packet). NVML is loaded here and
nowhere else. The sampler ends when its parent does.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import gc
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MeterUnavailable
from harness.measure import (
    MESSAGE_BYTES,
    REQUESTS,
    SOCKET_KIND,
    BeginCard,
    BeginHost,
    CardOpened,
    EndHost,
    Hello,
    HostOpened,
    HostSpan,
    Met,
    OpenCard,
    OpenHost,
    Request,
)
from harness.measure.host_watch import HostWatch, Movement, begin_host, end_host, see_host
from harness.system.proc import HostCounters, HostState, ProcCounters, PsutilCounters, started_ticks

if TYPE_CHECKING:
    from harness.measure.card_meter import CardView

LOG = "log"
"""Beside the socket: what the sampler says on standard error, which its parent has opened for
it."""
INTERVAL_S = 0.0025
"""Chosen: what lasts 5 ms is looked at twice, so that one look may come late by as much. Each look
costs 50 to 100 us, two thirds of it for being woken: at 2 ms a quiet machine spent 5 % of a core on
it."""
_STILL_INTERVAL_S = 0.004
"""Chosen: still sees what lasts 5 ms. It is taken where nothing of host memory has moved and no
card is watched, which keeps no peak between two looks; host memory has VmHWM and its faults."""
_STILL_LOOKS = 8
"""Chosen: after so many looks that saw nothing, so that a phase of 20 ms has twice as many as it is
judged by (``records.LEAST_SAMPLES``)."""
_RUSH_S = 0.000125
_MOST_RUSHES = 128
_RUSHES_PER_LOOK = 0.25
"""While the peak of host memory rises from look to look, the next look comes soon, so that the peak
is seen from close by. Chosen: a look takes 40 us, so that 0.25 of one for each interval costs 0.5 %
of a core; 64 of them see 16 ms at once, in which 32 MiB are touched here."""
_NONE: list[int] = []
_IDLE_S = 1.0  # chosen: how long the sampler may outlive a parent whose death it did not notice
_PR_SET_TIMERSLACK = 29  # linux/prctl.h
_TIMER_SLACK_NS = 1000  # chosen: the default, 50 us, would make every look that much late


class Client:
    """One connected child: who it is, and what is watched for it."""

    def __init__(self, line: socket.socket, open_counters: Callable[[int], HostCounters]) -> None:
        self.line = line
        self._open_counters = open_counters
        self._process = 0
        self._started_ticks = 0
        self._counters: HostCounters | None = None
        self._host: HostWatch | None = None
        self._card: CardView | None = None

    @property
    def is_open(self) -> bool:
        """Whether a phase is open, so that there is something to look at."""
        return self._host is not None or self._watches_card

    @property
    def _watches_card(self) -> bool:
        return self._card is not None and self._card.is_open

    def look(self, now_s: float, *, on_time: bool) -> Movement:
        """One look at all that is watched. The card is looked at when it is time, not in between;
        while it is watched, nothing counts as still.
        """
        movement = Movement.STILL
        if self._host is not None and self._counters is not None:
            movement = see_host(self._host, self._counters, now_s)
        if self._card is not None and self._card.is_open:
            if on_time:
                self._card.look(now_s)
            return movement or Movement.MOVED
        return movement

    def answer(self, request: Request[Any]) -> object:
        """The record that answers a request. Raises MeterUnavailable with the reason why it cannot
        be done.
        """
        if isinstance(request, Hello):
            return self._meet(request)
        if not self._process:
            raise MeterUnavailable("a process that has not said who it is")
        match request:
            case OpenHost():
                return HostOpened(tells_anon=self._host_counters().tells_anon)
            case BeginHost():
                self._host = begin_host(self._host_counters())
                return self._host.start
            case EndHost():
                return self._end_host()
            case OpenCard():
                return self._open_card(request.uuid)
        if self._card is None:
            raise MeterUnavailable("no card was opened")
        return self._card.begin() if isinstance(request, BeginCard) else self._card.end()

    def _host_counters(self) -> HostCounters:
        if self._counters is None:
            self._counters = self._open_counters(self._process)
            self._check_started(self._process)
        return self._counters

    def _end_host(self) -> HostSpan:
        watch, self._host = self._host, None
        if watch is None:
            raise MeterUnavailable("the phase was ended before it began")
        return end_host(watch, self._host_counters())

    def _open_card(self, uuid: str) -> CardOpened:
        # loads NVML's binding, which only a card needs
        from harness.measure.card_meter import CardView

        self._card = CardView(uuid, self._process)
        return self._card.opened

    def close(self) -> None:
        """Forget the child."""
        if self._counters is not None:
            self._counters.close()
        if self._card is not None:
            self._card.close()
        self.line.close()

    def _meet(self, who: Hello) -> Met:
        known = peer_process(self.line)
        if known not in (None, who.process):
            raise MeterUnavailable(
                f"process {who.process} was announced, but process {known} is connected"
            )
        self._started_ticks = who.started_ticks
        self._check_started(who.process)
        self._process = who.process
        return Met()

    def _check_started(self, process: int) -> None:
        # Asked again once its files are open: they stay with the process that they were opened for.
        if started_ticks(process) != self._started_ticks:
            raise MeterUnavailable(
                f"process {process} is another one than the one that connected: its id was "
                "used again"
            )


def peer_process(line: socket.socket) -> int | None:
    """The process at the other end, as the kernel noted it when it connected; None where the system
    keeps no such note.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    process, _, _ = struct.unpack(
        "3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return int(process)


class Sampler:
    """Serves children and looks on time."""

    def __init__(
        self, listener: socket.socket, open_counters: Callable[[int], HostCounters], parent: int
    ) -> None:
        self._listener = listener
        self._open_counters = open_counters
        self._parent = parent
        self._clients: dict[int, Client] = {}
        self._due_s = self._grid_s = 0.0
        self._rushes: float = _MOST_RUSHES
        self._still_looks = 0

    def serve(self, until: int) -> None:
        """Until the descriptor ``until`` is at its end, or the parent has gone."""
        while True:
            everything = [until, self._listener.fileno(), *self._clients]
            ready = self._look_until_asked(everything)
            if until in ready or os.getppid() != self._parent:
                return
            self._listen(ready)

    def _look_until_asked(self, everything: list[int]) -> list[int]:
        """Look at all that have a phase open, on time, until one of ``everything`` can be read, or
        nothing is to be done.
        """
        watching = [client for client in self._clients.values() if client.is_open]
        while watching:
            wait_s = self._due_s - time.monotonic()
            ready, _, _ = select.select(everything, _NONE, _NONE, wait_s if wait_s > 0 else 0)
            now_s = time.monotonic()
            # The look comes first: what a message costs must not make it late.
            if now_s >= self._due_s and self._look(watching, now_s):
                return []  # one of them has gone
            if ready:
                return ready
        return select.select(everything, _NONE, _NONE, _IDLE_S)[0]

    def _look(self, watching: list[Client], now_s: float) -> bool:
        """One look at each; whether one of them has gone."""
        on_time = now_s >= self._grid_s
        gone = []
        movement = Movement.STILL
        for client in watching:
            try:
                seen = client.look(now_s, on_time=on_time)
                movement = max(movement, seen)
            except MeterUnavailable:
                # in mid-phase; whoever else holds its line would wait for nothing
                gone.append(client)

        self._still_looks = 0 if movement else self._still_looks + 1
        if on_time:
            self._take_next_on_time(now_s)
        self._due_s = self._grid_s
        if movement is Movement.RISES and self._rushes >= 1:
            self._rushes -= 1
            self._due_s = min(self._grid_s, now_s + _RUSH_S)

        for client in gone:
            self._forget(client)
        return bool(gone)

    def _take_next_on_time(self, now_s: float) -> None:
        interval_s = INTERVAL_S if self._still_looks < _STILL_LOOKS else _STILL_INTERVAL_S
        # On a grid that started with the phase: what one look is late is not added to the next.
        self._grid_s += (int((now_s - self._grid_s) / interval_s) + 1) * interval_s
        if self._rushes < _MOST_RUSHES:
            self._rushes += _RUSHES_PER_LOOK

    def _listen(self, ready: list[int]) -> None:
        for readable in ready:
            if readable == self._listener.fileno():
                line, _ = self._listener.accept()
                self._clients[line.fileno()] = Client(line, self._open_counters)
            elif readable in self._clients:
                self._serve_one(self._clients[readable])

    def _serve_one(self, client: Client) -> None:
        was_watching = any(other.is_open for other in self._clients.values())
        try:
            packet = client.line.recv(MESSAGE_BYTES)
            if not packet:
                self._forget(client)
                return
            client.line.sendall(json.dumps(self._answer(client, packet)).encode())
        except OSError:
            self._forget(client)
            return
        if client.is_open and not was_watching:
            self._still_looks = 0
            self._due_s = self._grid_s = time.monotonic() + INTERVAL_S

    def _answer(self, client: Client, packet: bytes) -> Mapping[str, Any]:
        try:
            message = json.loads(packet)
            request = REQUESTS[message.pop("request")](**message)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return {"refused": f"{packet[:80]!r} is no request: {type(error).__name__}: {error}"}
        try:
            return {"answer": _to_json(client.answer(request))}
        except MeterUnavailable as reason:
            return {"refused": str(reason)}

    def _forget(self, client: Client) -> None:
        self._clients = {
            number: other for number, other in self._clients.items() if other is not client
        }
        client.close()


def _to_json(answer: Any) -> Mapping[str, Any]:  # noqa: ANN401 - a dataclass, or a tuple with names
    if isinstance(answer, HostState):
        return answer._asdict()
    fields: Mapping[str, Any] = dataclasses.asdict(answer)
    return fields


def main() -> int:
    """Listen, say so on standard output, and serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m harness.measure.sampler")
    parser.add_argument("socket", type=Path)
    parser.add_argument(
        "--counters",
        choices=("proc", "psutil"),
        default="proc" if sys.platform == "linux" else "psutil",
    )
    parser.add_argument("--parent", type=int, default=os.getppid())
    options = parser.parse_args()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NS, 0, 0, 0)
    listener = socket.socket(socket.AF_UNIX, SOCKET_KIND)
    listener.bind(str(options.socket))
    listener.listen()
    gc.collect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and a collection would come between two looks
    os.write(1, b"ready\n")
    try:
        Sampler(
            listener, ProcCounters if options.counters == "proc" else PsutilCounters, options.parent
        ).serve(until=0)
    finally:
        _tidy(options.socket)
    return 0


def _tidy(address: Path) -> None:
    """Take away the folder that the parent made, which a parent that was killed cannot do
    itself.
    """
    with contextlib.suppress(OSError):  # the parent is at it as well
        for file in (address, address.with_name(LOG)):
            file.unlink(missing_ok=True)
        address.parent.rmdir()  # only when nothing else is in it


if __name__ == "__main__":
    sys.exit(main())
