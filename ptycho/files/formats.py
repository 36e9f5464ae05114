"""Which array is what: the arguments of ``Scan.open`` before the names that the format has."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptycho.errors import ContainerError
from ptycho.files import GivenPart, Names, Part, Store
from ptycho.formats.paths import check_regular, reading
from ptycho.formats.tables import SUFFIXES, file_part


@dataclass(frozen=True, slots=True)
class Parts:
    """The arrays of one scan, found but not read."""

    frames: Part
    positions: tuple[Part, ...]
    """One with a column for every coordinate, or one of x and one of y."""
    probe: Part | None
    object: Part | None
    mask: Part | None
    order: tuple[Part, ...]
    scan_index: Part | None
    notes: tuple[str, ...]


def choose(store: Store, *, frames: Any, positions: Any, probe: Any, obj: Any, mask: Any) -> Parts:  # noqa: ANN401 - finds out
    """Find every array; raises ContainerError for arguments that name none, ScanError for names
    that are not there.
    """
    if frames is not None and not isinstance(frames, str):
        raise ContainerError(
            f"frames is {type(frames).__name__}; the name of the frames in {store.path} is a str"
        )
    names, notes = store.names(frames)
    return Parts(
        frames=store.part(_known(names.frames)),
        positions=_positions(store, positions, names),
        probe=_part(store, "probe", probe, names.probe),
        object=_part(store, "object", obj, names.object),
        mask=_part(store, "mask", mask, names.mask),
        order=tuple(store.part(key) for key in names.order) if positions is None else (),
        scan_index=None if names.scan_index is None else store.part(names.scan_index),
        notes=notes,
    )


def _known(name: str | None) -> str:
    assert name is not None  # noqa: S101 - a store raises where it has no frames
    return name


def _positions(store: Store, given: Any, names: Names) -> tuple[Part, ...]:  # noqa: ANN401 - finds out
    if given is None:
        if names.positions is None:
            raise ContainerError(
                f"{store.path} does not say where the frames were taken; give positions, an "
                "array (M, 2) of [x, y] or its place"
            )
        given = names.positions
    is_pair = (
        isinstance(given, tuple | list)
        and len(given) == 2
        and all(_is_axis(item) for item in given)
    )
    found = [_part(store, "positions", item, None) for item in (given if is_pair else (given,))]
    return tuple(part for part in found if part is not None)


def _is_axis(item: Any) -> bool:  # noqa: ANN401 - finds out
    """Whether it stands for all x, or all y: one [x, y] of a list of them is no array."""
    return isinstance(item, str | os.PathLike) or (isinstance(item, np.ndarray) and item.ndim == 1)


def _part(store: Store, role: str, given: Any, name: str | None) -> Part | None:  # noqa: ANN401 - finds out
    """An array itself, a file of its own, or a name in the scan file: a name never ends as those
    files do.
    """
    if given is None:
        return None if name is None else store.part(name)
    if isinstance(given, os.PathLike) or (
        isinstance(given, str) and given.lower().endswith(SUFFIXES)
    ):
        path = Path(given)
        check_regular(path)
        with reading(path):
            return file_part(path)
    if isinstance(given, str):
        return store.part(given)
    try:
        values = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise ContainerError(
            f"{role} is no array ({error}); give an array, a file or a name in {store.path}"
        ) from error
    if values.dtype.hasobject or values.ndim == 0:
        raise ContainerError(
            f"{role} is {given!r:.60}; give an array, a file or a name in {store.path}"
        )
    return GivenPart(role, values)
