"""What a difference between two devices is made of: from the traces of both where there are any,
else by rules.

Amounts are bytes, card less emulated. Whatever no rule covers is left over, and the table says so.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.rundir.traces import Alive, Trace, TracedPhase
from harness.words import format_bytes

CHUNK_BYTES = 256
"""What BFC rounds every allocation up to (kMinAllocationSize, bfc_allocator.h)."""
SMALL_BYTES = 4096
"""Chosen: up to here a tensor is a scalar, a shape or a short list of indices, never a frame of a
scan (N = 32: 4,096 B)."""
SMALL_SUM_BYTES = 32 * CHUNK_BYTES
"""Chosen: so many bytes are taken for small tensors where there is no trace."""
LEAST_BATCH_BYTES = 32 * SMALL_SUM_BYTES
"""Chosen: of smaller batches any amount would be a multiple by chance, give or take the small
tensors."""
MOST_BATCHES = 2
"""Chosen: what is fetched and what is taken; more of them on one device alone would be a fault to
be looked at."""
ON_HOST = "small tensors on the host of a card"
MORE_SMALL = "small tensors more on the card"
WORKSPACE = "workspace of"
_WORKSPACE_REGION = "temp"
"""The region that TensorFlow names for memory that an operation takes for itself."""
_ELSEWHERE = (
    "the allocator's peak is at another moment than that of the bytes asked for, and what was "
    "alive then is not recorded"
)
_MOST_PARTS = 3
"""Chosen: the largest sizes are what matters; the rest is one part together."""


@dataclass(frozen=True, slots=True)
class Part:
    """So many bytes of a difference, and what they are."""

    amount_bytes: int
    words: str
    explains: bool = True
    """False where it is known where the bytes come from, but not what they are: they stay
    unexplained."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """One amount of one device: the untraced repeats, the phase in the trace, and how much was kept
    before it.
    """

    repeats_bytes: tuple[int, ...]
    kept_bytes: int = 0
    """Retained by the phases before this one, by the smallest of the repeats of each."""
    trace: Trace | None = None
    phase: TracedPhase | None = None

    @property
    def least_bytes(self) -> int:
        """What is compared."""
        return min(self.repeats_bytes)

    @property
    def range(self) -> str:
        """The repeats in words."""
        return f"{min(self.repeats_bytes):,} to {max(self.repeats_bytes):,}"


@dataclass(frozen=True, slots=True)
class Traced:
    """One phase in the trace of one device."""

    phase: TracedPhase
    base_bytes: int
    """In use when the recording began."""
    at_peak_bytes: int
    """The allocator's count when most was asked for."""

    @classmethod
    def of(cls, amounts: Amounts) -> "Traced | None":
        """The traced phase; None where there is no trace of it."""
        if amounts.trace is None or amounts.phase is None:
            return None
        times, requested, allocator = amounts.trace.timeline.columns()
        peak = (amounts.phase.peak_ns, amounts.phase.requested.peak_bytes)
        found = [
            count
            for time, asked, count in zip(times, requested, allocator, strict=True)
            if (time, asked) == peak
        ]
        # A phase whose peak is its start has no event of its own there.
        return cls(
            amounts.phase,
            amounts.trace.base_bytes,
            found[0] if found else amounts.phase.allocator.peak_bytes,
        )

    @property
    def growth_bytes(self) -> int:
        """By the allocator's own count."""
        return self.phase.allocator.peak_bytes - self.phase.allocator.start_bytes

    @property
    def kept_bytes(self) -> int:
        """From earlier phases."""
        return self.phase.allocator.start_bytes - self.base_bytes

    @property
    def whole_bytes(self) -> int:
        """What was in use at the peak beyond what was asked for, rounded up: chunks that the
        allocator handed out whole.
        """
        asked = sum(rounded(alive.each_bytes) * alive.count for alive in self.phase.alive)
        return self.at_peak_bytes - self.base_bytes - asked

    @property
    def elsewhere_bytes(self) -> int:
        """By how much the allocator's own peak, at another moment, is above its count where most
        was asked for.
        """
        return self.phase.allocator.peak_bytes - self.at_peak_bytes

    @property
    def ends_at_its_peak(self) -> bool:
        """Whether what was alive at the peak is what the phase has kept."""
        return self.phase.requested.peak_bytes == self.phase.requested.end_bytes


def rounded(amount_bytes: int) -> int:
    """As BFC counts it."""
    return -(-amount_bytes // CHUNK_BYTES) * CHUNK_BYTES


def explain(
    field: str, declared: Mapping[str, int], emulated: Amounts, card: Amounts
) -> tuple[Part, ...]:
    """The parts of one difference; they need not add up to it, and what is left over is
    unexplained.
    """
    amount_bytes = card.least_bytes - emulated.least_bytes
    if amount_bytes == 0:
        return ()
    here, there = Traced.of(emulated), Traced.of(card)
    if here and there and (field == "growth" or (here.ends_at_its_peak and there.ends_at_its_peak)):
        return (*_from_traces(here, there), *_run_to_run(amount_bytes, here, there))
    if field == "retained" and (
        parts := tuple(_given_back(amount_bytes, card.kept_bytes - emulated.kept_bytes))
    ):
        return parts
    if parts := tuple(_by_rules(amount_bytes, declared)):
        return parts
    if max(emulated.repeats_bytes) >= min(card.repeats_bytes) and max(card.repeats_bytes) >= min(
        emulated.repeats_bytes
    ):
        return (
            Part(
                amount_bytes,
                f"from repeat to repeat: {emulated.range} emulated, {card.range} on the card",
            ),
        )
    return ()


def _from_traces(emulated: Traced, card: Traced) -> Iterator[Part]:
    """What the growth of one traced run differs by from that of the other, as far as both peaks are
    known.
    """
    yield from _alive_parts(emulated.phase.alive, card.phase.alive)
    if whole_bytes := card.whole_bytes - emulated.whole_bytes:
        yield Part(whole_bytes, "chunks that the allocator hands out whole")
    if elsewhere_bytes := card.elsewhere_bytes - emulated.elsewhere_bytes:
        yield Part(elsewhere_bytes, _ELSEWHERE, explains=False)
    if kept_bytes := card.kept_bytes - emulated.kept_bytes:
        yield Part(
            -kept_bytes,
            f"the phases before kept {format_bytes(abs(kept_bytes))} {_way(kept_bytes)}",
        )


def _run_to_run(amount_bytes: int, emulated: Traced, card: Traced) -> Iterator[Part]:
    """What the traced runs differ by otherwise than the untraced ones: the same device, the same
    point, another run.
    """
    if rest_bytes := amount_bytes - (card.growth_bytes - emulated.growth_bytes):
        yield Part(rest_bytes, "from run to run: the traced runs differ otherwise")


def _alive_parts(emulated: Sequence[Alive], card: Sequence[Alive]) -> Iterator[Part]:
    """What was alive at one peak and not at the other, by size: the same tensor has other names on
    a card.
    """
    counts = _by_size(card)
    counts.subtract(_by_size(emulated))
    small = [size * count for size, count in counts.items() if size <= SMALL_BYTES]
    large = sorted(
        ((size, count) for size, count in counts.items() if count and size > SMALL_BYTES),
        key=_by_total,
    )
    for size, count in large[:_MOST_PARTS]:
        yield Part(size * count, _large_in_words(size, count, card if count > 0 else emulated))
    if rest := large[_MOST_PARTS:]:
        yield Part(
            sum(size * count for size, count in rest),
            f"tensors of {len(rest)} other sizes, alive at one of the peaks alone",
        )
    if fewer_bytes := sum(amount for amount in small if amount < 0):
        yield Part(fewer_bytes, ON_HOST)
    if more_bytes := sum(amount for amount in small if amount > 0):
        yield Part(more_bytes, MORE_SMALL)


def _by_total(found: tuple[int, int]) -> int:
    return -abs(found[0] * found[1])


def _by_size(alive: Sequence[Alive]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for group in alive:
        counts[rounded(group.each_bytes)] += group.count
    return counts


def _large_in_words(size: int, count: int, alive: Sequence[Alive]) -> str:
    group = next(group for group in alive if rounded(group.each_bytes) == size)
    like = f", {group.like}" if group.like else ""
    each = f"{abs(count)} x " if abs(count) > 1 else ""
    # the layer and the operation; what is before them is of the training step
    op = "/".join(group.op.split("/")[-3:])
    if group.region == _WORKSPACE_REGION:
        return f"{WORKSPACE} {op} ({'card' if count > 0 else 'emulated'} alone)"
    named = f"{group.dtype} {group.shape}".strip()  # a copy to the card has neither
    tensor = (
        f"{each}{named}{like}{f' by {op}' if op else ''}"
        if named
        else f"{each}{op or 'memory'}{like}"
    )
    return (
        f"{tensor}, "
        f"{'on the card alone' if count > 0 else 'on the host of a card, or freed before'}"
    )


def _given_back(amount_bytes: int, kept_bytes: int) -> Iterator[Part]:
    """What earlier phases kept otherwise, and this one gives back."""
    left_bytes = amount_bytes + kept_bytes
    if abs(kept_bytes) > abs(left_bytes) and abs(left_bytes) <= SMALL_SUM_BYTES:
        yield Part(-kept_bytes, f"gives back what the phases before kept {_way(kept_bytes)}")
        yield from _small(left_bytes)


def _by_rules(amount_bytes: int, declared: Mapping[str, int]) -> Iterator[Part]:
    """Without traces: batches, and a few small tensors."""
    left_bytes, batch_bytes = amount_bytes, declared.get("batch", 0)
    batches = round(amount_bytes / batch_bytes) if batch_bytes >= LEAST_BATCH_BYTES else 0
    if (
        0 < abs(batches) <= MOST_BATCHES
        and abs(amount_bytes - batches * batch_bytes) <= SMALL_SUM_BYTES
    ):
        where = "on the host of a card" if batches < 0 else "more on the card"
        yield Part(batches * batch_bytes, f"staging: {abs(batches)} x batch {where}")
        left_bytes -= batches * batch_bytes
    yield from _small(left_bytes)


def _small(left_bytes: int) -> Iterator[Part]:
    if left_bytes and abs(left_bytes) <= SMALL_SUM_BYTES and left_bytes % CHUNK_BYTES == 0:
        yield Part(left_bytes, ON_HOST if left_bytes < 0 else MORE_SMALL)


def _way(amount: int) -> str:
    return "more" if amount > 0 else "fewer"
