"""What memory is fitted against: parameters that are whole numbers, and the words for their
steps.
"""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from harness.records import Point

NAMED_STEPS: Mapping[str, str] = {"image_count": "image", "stack_size": "frame"}
"""Parameters whose steps have a name of their own; those of all others are called by the
parameter."""
_MINIMUM_SIZES: Mapping[str, int] = {"stack_size": 2}
"""Two stack sizes show whether the stack matters at all."""
_USUAL_MINIMUM_SIZES = 3
"""The fewest that can show a bend."""


def unit_of(over: str) -> str:
    """What one step of a swept parameter is called: ``"image"``, ``"frame"``, or the parameter's
    own name.
    """
    return NAMED_STEPS.get(over, over)


def sizes_in_words(over: str, *sizes: int) -> str:
    """Sizes of a swept parameter: ``"2,000 images"``, ``"100 to 2,000 images"``, ``"batch_size 8 to
    64"``.
    """
    span = " to ".join(f"{size:,}" for size in sizes)
    return (
        f"{span} {NAMED_STEPS[over]}{'' if sizes[-1] == 1 else 's'}"
        if over in NAMED_STEPS
        else f"{over} {span}"
    )


def step_in_words(over: str) -> str:
    """One step of a swept parameter in the middle of a sentence: ``"image"``, ``"step of
    batch_size"``.
    """
    return NAMED_STEPS.get(over, f"step of {over}")


def count_in_words(over: str) -> str:
    """A swept parameter as what it counts: ``"number of images"``, ``"batch_size"``."""
    return f"number of {NAMED_STEPS[over]}s" if over in NAMED_STEPS else over


def minimum_sizes(over: str) -> int:
    """Different sizes that a gated fit over the parameter needs."""
    return _MINIMUM_SIZES.get(over, _USUAL_MINIMUM_SIZES)


def size_parameters(points: Sequence[Point]) -> tuple[str, ...]:
    """Every parameter that is a whole number in some point: what memory can be fitted against."""
    names = dict.fromkeys(
        name for point in points for name, value in point.parameters.items() if is_size(value)
    )
    return tuple(dict.fromkeys([*(name for name in NAMED_STEPS if name in names), *names]))


def is_size(value: object) -> TypeGuard[int]:
    """Whether memory can be fitted against the value: a whole number that is no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def size_of(point: Point, over: str) -> int:
    """The value of a swept parameter. Raises TypeError where it is no whole number."""
    size = point.parameters[over]
    if not is_size(size):
        raise TypeError(
            f"{point.name}: {over} is {size!r}; a size that memory is fitted against is a "
            "whole number"
        )
    return size
