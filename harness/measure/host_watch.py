"""Host memory over one phase: its peak, from looks and the times at which they were taken.

The kernel keeps no peak of anon (RssAnon + RssShmem), only of the whole resident set, VmHWM. From
VmHWM = max(anon + file) follow two bounds of the peak of anon, VmHWM - max(file) and VmHWM -
min(file). A phase is cut into windows, each of which ends with a look and a reset of VmHWM; the
bounds of a window differ by what RssFile moved within it, and those of the phase are the highest of
its windows'. A second upper bound is what anon was at the look before, and all that faults have
brought since, which is far lower while a file is read through a mapping: one fault maps many pages
of it. The lower of the two counts.

What this takes for granted:

- Within each window RssFile stayed between what was seen at its edges. Pages of a file that are
  mapped *and* let go within one window count as anon in the lower bound. Anon that peaks while
  pages are let go and mapped again escapes the upper one.
- VmHWM lags by ``lag_bytes`` at most (see ``harness.system.proc``). The upper bound includes that.
  The lower one does not subtract it: pages that come one by one make VmHWM lag downwards, and the
  looks, which do not lag, count beside it.
- No page comes without a fault (see ``harness.system.proc``), and nothing peaks between a look and
  its reset. That takes some microseconds, of which ``blind_s`` is the longest.
"""

import time
from dataclasses import dataclass, field
from enum import IntEnum

from harness.measure import HostSpan
from harness.system.proc import CheapRead, HostCounters, HostState, lag_here_bytes

_TRUSTED_MOVES = 3
"""Chosen: so many cheap reads in a row may take what moved for pages of files, though it could be
shared memory that was there already; 7.5 ms at most."""
_RISE_BYTES = 256 * 1024
"""Chosen: a quarter of the mebibyte that the bracket is to be exact to."""


class Movement(IntEnum):
    """What one look has seen, from nothing to the most urgent."""

    STILL = 0
    """Nothing has come or gone since the look before."""
    MOVED = 1
    RISES = 2
    """The peak rises so fast that the next look should be soon."""


@dataclass(slots=True)
class Pace:
    """How often something was looked at, the start of the phase included."""

    started_s: float
    samples: int = 1
    largest_gap_s: float = 0.0
    last_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.last_s = self.started_s

    def count(self, now_s: float) -> None:
        """One more look, at ``now_s`` of the monotonic clock."""
        self.samples += 1
        gap_s = now_s - self.last_s
        if gap_s > self.largest_gap_s:  # noqa: PLR1730 - a call of max costs more than all the rest
            self.largest_gap_s = gap_s
        self.last_s = now_s

    @property
    def duration_s(self) -> float:
        """From the first look to the last."""
        return self.last_s - self.started_s

    @property
    def rate_hz(self) -> float:
        """Looks a second."""
        return self.samples / self.duration_s if self.duration_s > 0 else 0.0


class HostWatch:
    """Gathers one ``HostSpan``, look by look."""

    def __init__(self, start: HostState, now_s: float, faulted_bytes: int | None) -> None:
        """``start`` was taken right after a reset, and ``faulted_bytes`` before it."""
        self.start = self.edge = start
        self.pace = Pace(now_s)
        self._low_bytes = self._high_bytes = self._anon_bytes = start.anon_bytes
        self._faulted_bytes = faulted_bytes
        self._mapped_bytes, self._trusted_moves = start.mapped_bytes, _TRUSTED_MOVES
        self._highest_resident_bytes = start.resident_bytes
        self._highest_mapped_bytes = start.mapped_bytes
        self._highest_shared_bytes = start.shared_bytes
        # A counter that stands at nothing at both edges of a window is taken to have stood still in
        # it.
        self._lag_bytes = (lag_here_bytes(2), lag_here_bytes(3))
        self._windows = 1
        self._blind_s = 0.0

    @property
    def low_bytes(self) -> int:
        """The peak of anon until now, at least."""
        return self._low_bytes

    def see_cheap(self, seen: CheapRead, now_s: float) -> bool:
        """Note a cheap read if it says enough, and return whether it does. If not, a full read has
        to follow, and nothing is noted yet.

        It does when nothing that came since the last one can have lifted anon over what is known,
        and files alone moved.
        """
        shared_bytes = self.edge.shared_bytes
        mapped_bytes = seen.not_private_bytes - shared_bytes
        known_bytes = self._high_bytes
        if mapped_bytes != self._mapped_bytes:
            if (
                mapped_bytes < self._mapped_bytes
                or shared_bytes
                or seen.faulted_bytes is None
                or not self._trusted_moves
            ):
                return False
            known_bytes = self._low_bytes
            self._trusted_moves -= 1
        if seen.faulted_bytes is not None and self._faulted_to(seen.faulted_bytes) > known_bytes:
            return False
        self.pace.count(now_s)
        self._mapped_bytes = mapped_bytes  # it has not fallen, so the least of the window stays
        self._anon_bytes = anon_bytes = seen.resident_bytes - mapped_bytes
        self._faulted_bytes = seen.faulted_bytes
        self._low_bytes = max(self._low_bytes, anon_bytes)
        self._highest_resident_bytes = max(self._highest_resident_bytes, seen.resident_bytes)
        return True

    def see_full(self, state: HostState, now_s: float, faulted_bytes: int | None) -> bool:
        """Note a full read, and return whether a reset is worth it: RssFile has moved, and VmHWM is
        not where a reset would set it.
        """
        self.pace.count(now_s)
        shares = bool(self.edge.shared_bytes or state.shared_bytes)
        mapped_bytes, highest_bytes = (
            state.mapped_bytes,
            max(state.highest_resident_bytes, state.resident_bytes),
        )
        most_bytes, least_bytes = (
            max(self._mapped_bytes, mapped_bytes),
            min(self.edge.mapped_bytes, mapped_bytes),
        )
        bound_bytes = highest_bytes - least_bytes + self._lag_bytes[shares]
        # one fault may map many pages of shared memory
        if faulted_bytes is not None and not shares:
            bound_bytes = min(bound_bytes, self._faulted_to(faulted_bytes))
        self._low_bytes = max(self._low_bytes, highest_bytes - most_bytes, state.anon_bytes)
        self._high_bytes = max(self._high_bytes, bound_bytes, self._low_bytes)
        self._highest_resident_bytes = max(self._highest_resident_bytes, highest_bytes)
        self._highest_mapped_bytes = max(self._highest_mapped_bytes, most_bytes)
        self._highest_shared_bytes = max(self._highest_shared_bytes, state.shared_bytes)
        self.edge, self._mapped_bytes, self._trusted_moves = state, mapped_bytes, _TRUSTED_MOVES
        self._anon_bytes, self._faulted_bytes = state.anon_bytes, faulted_bytes
        return most_bytes != least_bytes and highest_bytes > state.resident_bytes

    def reset(self, blind_s: float) -> None:
        """VmHWM was reset, so long after the last look; where it stood at what is resident there
        was nothing to reset.
        """
        self._windows += 1
        self._blind_s = max(self._blind_s, blind_s)

    def _faulted_to(self, faulted_bytes: int) -> int:
        """What anon can have been since the last look."""
        return self._anon_bytes + faulted_bytes - (self._faulted_bytes or 0)

    def close(self) -> HostSpan:
        """The span up to the last look."""
        return HostSpan(
            start_anon_bytes=self.start.anon_bytes,
            end_anon_bytes=self.edge.anon_bytes,
            low_anon_bytes=self._low_bytes,
            high_anon_bytes=max(self._high_bytes, self._low_bytes),
            start_resident_bytes=self.start.resident_bytes,
            end_resident_bytes=self.edge.resident_bytes,
            highest_resident_bytes=self._highest_resident_bytes,
            start_mapped_bytes=self.start.mapped_bytes,
            end_mapped_bytes=self.edge.mapped_bytes,
            highest_mapped_bytes=self._highest_mapped_bytes,
            lag_bytes=self._lag_bytes[self._highest_shared_bytes > 0],
            windows=self._windows,
            samples=self.pace.samples,
            rate_hz=self.pace.rate_hz,
            largest_gap_s=self.pace.largest_gap_s,
            blind_s=self._blind_s,
            duration_s=self.pace.duration_s,
        )


def begin_host(counters: HostCounters) -> HostWatch:
    """Forget earlier peaks and take the first look of a phase."""
    faulted_bytes = counters.cheap_read().faulted_bytes
    counters.reset_highest()
    start = counters.full_read()
    return HostWatch(start, time.monotonic(), faulted_bytes)


def see_host(watch: HostWatch, counters: HostCounters, now_s: float) -> Movement:
    """One look, as cheap as says enough."""
    if not counters.has_moved():
        # What came and went unseen is in the next read's count of faults, and in VmHWM.
        watch.pace.count(now_s)
        return Movement.STILL

    before_bytes = watch.low_bytes
    cheap = counters.cheap_read()
    if not watch.see_cheap(cheap, now_s):
        full = counters.full_read()
        now_s = time.monotonic()
        if watch.see_full(full, now_s, cheap.faulted_bytes):
            counters.reset_highest()
            watch.reset(time.monotonic() - now_s)

    rises = watch.low_bytes - before_bytes >= _RISE_BYTES
    return Movement.RISES if rises else Movement.MOVED


def end_host(watch: HostWatch, counters: HostCounters) -> HostSpan:
    """The last look of a phase, and what was seen over it."""
    faulted_bytes = counters.cheap_read().faulted_bytes
    watch.see_full(counters.full_read(), time.monotonic(), faulted_bytes)
    return watch.close()
