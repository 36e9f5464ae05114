"""An amount as the policy writes it: bytes, or a multiple of whatever the bodies declare by name,
and bytes on top of it.
"""

import dataclasses
import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.errors import BytesError
from harness.units import format_bytes, parse_bytes

# A count and a declared name, in the singular or the plural.
_MULTIPLE = re.compile(r"\s*(?P<count>\d+(?:\.\d+)?)\s+(?P<what>[A-Za-z_]\w*)\s*")
# What reads like a unit of bytes is one, or a mistake that ``parse_bytes`` has a sentence for.
_LIKE_A_UNIT = re.compile(r"(?:[kmgtp]i?)?bs?|[kmgtp]|bytes?|bits?", re.IGNORECASE)
WELL_KNOWN = ("batch", "arrays", "image", "frame")
"""What the bodies of this project declare, among others; a misspelt one is told before anything is
measured."""
# chosen: "bathces" is 0.86 like "batches"; a name of its own, "frames_kept", 0.71 like "frames"
_MISSPELT = 0.8


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes, or a multiple of what the body declared; and bytes on top of it."""

    text: str
    count: float
    of: str | None = None
    """A declared name, in the singular or the plural; None: ``count`` is bytes."""
    more_bytes: int = 0

    @classmethod
    def parse(cls, text: object) -> "Amount":
        """``"64 KiB"``, ``"4 batches"``, ``"1.5 Y_I"`` or ``"4 batches + 1 MiB"``. Raises
        BytesError for anything else.
        """
        if isinstance(text, Amount):
            return text
        if not isinstance(text, str):
            raise BytesError(
                f'{text!r} is not a text; write an amount with its unit, for example "64 '
                'KiB" or "4 batches"'
            )
        first, plus, more = text.partition("+")
        if plus:
            return dataclasses.replace(
                cls._parse_one(first.strip()), text=text, more_bytes=parse_bytes(more.strip())
            )
        return cls._parse_one(text)

    @classmethod
    def _parse_one(cls, text: str) -> "Amount":
        multiple = _MULTIPLE.fullmatch(text)
        if multiple is None or _LIKE_A_UNIT.fullmatch(multiple["what"]):
            return cls(text, parse_bytes(text))
        what = multiple["what"]
        known = [form for name in WELL_KNOWN for form in (name, _plural(name))]
        near = difflib.get_close_matches(what, known, n=1, cutoff=_MISSPELT)
        if near and what not in known:
            raise BytesError(
                f"{text!r} is neither bytes nor a multiple of what bodies declare; did you "
                f"mean {near[0]!r}?"
            )
        return cls(text, float(multiple["count"]), what)

    def name_in(self, declared: Collection[str]) -> str | None:
        """Which of the declared names it is a multiple of; None where it is of none of them."""
        return (
            None
            if self.of is None
            else next((name for name in declared if self.of in (name, _plural(name))), None)
        )

    def in_bytes(self, declared: Mapping[str, int]) -> float | None:
        """The amount in bytes; None when it is a multiple of something that was not declared."""
        if self.of is None:
            return self.count + self.more_bytes
        name = self.name_in(declared)
        return None if name is None else self.count * declared[name] + self.more_bytes

    def in_words(self, declared: Mapping[str, int]) -> str:
        """The amount for people, with its bytes where it is a multiple or a sum: ``"4 batches (16.0
        MiB)"``.
        """
        size = self.in_bytes(declared)
        if size is None:
            return self.text
        return (
            format_bytes(size)
            if self.of is None and not self.more_bytes
            else f"{self.text} ({format_bytes(size)})"
        )

    def gap(self, declared: Collection[str]) -> str:
        """What to say where it is a multiple of something that was not declared."""
        known = sorted(declared)
        near = difflib.get_close_matches(str(self.of), known, n=1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"it declared {', '.join(known) or 'nothing'}; mend the policy or the body"
        )
        return (
            f"the body did not declare {self.of!r}, which the limit {self.text!r} is a multiple "
            f"of: {hint}"
        )


def _plural(name: str) -> str:
    return f"{name}es" if name.endswith(("s", "x", "ch", "sh")) else f"{name}s"
