"""What a difference between two devices is made of: from the traces of both where there are any, else by rules.

Amounts are bytes, card less emulated. Whatever no rule covers is left over, and the table says so.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.judge.traces import Alive, TracedPhase
from harness.units import format_bytes

CHUNK_BYTES = 256
"""What BFC rounds every allocation up to (kMinAllocationSize, bfc_allocator.h)."""
SMALL_BYTES = 4096
"""Chosen: up to here a tensor is a scalar, a shape or a short list of indices, never a frame of a scan (N = 32: 4,096 B)."""
SMALL_SUM_BYTES = 32 * CHUNK_BYTES
"""Chosen: so many bytes are taken for small tensors where there is no trace; the catalogue's smallest batch has twice as many."""
_ON_HOST = "on the host of a card: TensorFlow keeps shapes, scalars and int32 there, and the arguments of tf.data"
_WORKSPACE = ("temp",)
"""The region that TensorFlow names for memory that an operation takes for itself."""


@dataclass(frozen=True, slots=True)
class Part:
    """So many bytes of a difference, and what they are."""

    amount_bytes: int
    words: str


@dataclass(frozen=True, slots=True)
class Traced:
    """One phase in the trace of one device."""

    phase: TracedPhase
    base_bytes: int
    """In use when the recording began."""

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
        """What the allocator had in use beyond what was asked for, rounded up: chunks that it handed out whole."""
        asked = sum(rounded(alive.each_bytes) * alive.count for alive in self.phase.alive)
        return self.phase.allocator.peak_bytes - self.base_bytes - asked

    @property
    def ends_at_its_peak(self) -> bool:
        """Whether what was alive at the peak is what the phase has kept."""
        return self.phase.requested.peak_bytes == self.phase.requested.end_bytes


def rounded(amount_bytes: int) -> int:
    """As BFC counts it."""
    return -(-amount_bytes // CHUNK_BYTES) * CHUNK_BYTES


def explain(
    amount_bytes: int, field: str, declared: Mapping[str, int], emulated: Traced | None, card: Traced | None
) -> tuple[Part, ...]:
    """The parts of one difference; they need not add up to it, and what is left over is unexplained."""
    if amount_bytes == 0:
        return ()
    if emulated and card and (field == "growth" or (emulated.ends_at_its_peak and card.ends_at_its_peak)):
        return tuple(_from_traces(emulated, card))
    return tuple(_by_rules(amount_bytes, declared))


def _from_traces(emulated: Traced, card: Traced) -> Iterator[Part]:
    """Exactly what the growth of one traced run differs by from that of the other."""
    yield from _alive_parts(emulated.phase.alive, card.phase.alive)
    if whole_bytes := card.whole_bytes - emulated.whole_bytes:
        yield Part(whole_bytes, "chunks that the allocator hands out whole, or that peaked at another moment")
    if kept_bytes := card.kept_bytes - emulated.kept_bytes:
        yield Part(-kept_bytes, f"{format_bytes(abs(kept_bytes))} {_way(kept_bytes)} from the phases before")


def _alive_parts(emulated: Sequence[Alive], card: Sequence[Alive]) -> Iterator[Part]:
    """What was alive at one peak and not at the other, by size: the same tensor has other names on a card."""
    counts = _by_size(card)
    counts.subtract(_by_size(emulated))
    small = {size: count for size, count in counts.items() if count and size <= SMALL_BYTES}
    for size, count in sorted(counts.items(), reverse=True):
        if count and size > SMALL_BYTES:
            yield Part(size * count, _large_in_words(size, count, card if count > 0 else emulated))
    fewer_bytes = sum(size * count for size, count in small.items() if count < 0)
    more_bytes = sum(size * count for size, count in small.items() if count > 0)
    if fewer_bytes:
        yield Part(fewer_bytes, f"small tensors {_ON_HOST}")
    if more_bytes:
        yield Part(more_bytes, "small tensors that the card has more: copies of scalars and of arguments")


def _by_size(alive: Sequence[Alive]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for group in alive:
        counts[rounded(group.each_bytes)] += group.count
    return counts


def _large_in_words(size: int, count: int, alive: Sequence[Alive]) -> str:
    group = next(group for group in alive if rounded(group.each_bytes) == size)
    like = f", {group.like}" if group.like else ""
    each = f"{abs(count)} x " if abs(count) > 1 else ""
    what = f"{each}{format_bytes(size)}{like}"
    if group.region in _WORKSPACE:
        return f"{what}: workspace of {group.op}"
    if count < 0:
        return f"{what}: on the host of a card ({group.what})"
    return f"{what}: on the card alone ({group.what})"


def _by_rules(amount_bytes: int, declared: Mapping[str, int]) -> Iterator[Part]:
    """Without traces: batches, and a few small tensors."""
    left_bytes = amount_bytes
    batch_bytes = declared.get("batch", 0)
    batches = round(amount_bytes / batch_bytes) if batch_bytes else 0
    if batches and abs(amount_bytes - batches * batch_bytes) <= SMALL_SUM_BYTES:
        where = "staging, on the host of a card" if batches < 0 else "staging, on the card"
        yield Part(batches * batch_bytes, f"{abs(batches)} x batch {_way(batches)}: {where}")
        left_bytes -= batches * batch_bytes
    if left_bytes and abs(left_bytes) <= SMALL_SUM_BYTES and left_bytes % CHUNK_BYTES == 0:
        where = _ON_HOST if left_bytes < 0 else "more on the card, or freed later there"
        yield Part(left_bytes, f"{abs(left_bytes) // CHUNK_BYTES} chunks of {CHUNK_BYTES} B: small tensors {where}")


def _way(amount: int) -> str:
    return "more" if amount > 0 else "fewer"
