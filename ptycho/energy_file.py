"""Energies that were found once, kept beside the scan so that the pass over all frames is not made
again.
"""

import contextlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptycho.errors import PtychoError
from ptycho.files import BLOCK_BYTES, load
from ptycho.files.npz import NpzPart
from ptycho.files.storage import default_cache_dir, digest, first_letters
from ptycho.formats.archive import members, open_zip, pieces
from ptycho.replacing import replacing

_VERSION = 1
"""Of the content; another one is not read."""
_MOST_IDENTITY_BYTES = 1 << 16
"""Chosen: many times what an identity takes."""


@dataclass(eq=False)
class EnergyFile:
    """The kept energies of one scan under one interpretation: read where they fit, written where
    that is possible.

    ``identity`` is everything the energies depend on. A file that is stale, damaged or another
    scan's is never believed; it is replaced.
    """

    scan_path: Path
    identity: Mapping[str, Any]
    frame_count: int
    cache_dir: Path | None
    is_kept: bool = True
    """False: nothing is read and nothing is written."""
    note: str | None = field(default=None, init=False)
    """What became of the energies, one sentence, once they were asked for."""

    def places(self) -> list[Path]:
        """Where they may lie, the first choice first; nowhere if they are not to be kept."""
        if not self.is_kept:
            return []
        # The state is left out of the name: a changed scan takes the place of its former self.
        key = digest(self.identity["path"], self.identity["reading"])
        in_cache = f"{first_letters(self.scan_path.stem)}-{key}.energies.npz"
        if self.cache_dir is not None:
            return [self.cache_dir / in_cache]
        places = [
            self.scan_path.parent / f".{first_letters(self.scan_path.name)}.{key}.energies.npz"
        ]
        with contextlib.suppress(PtychoError):
            places.append(default_cache_dir() / in_cache)
        return places

    def read(self) -> npt.NDArray[np.float64] | None:
        """The energies (M,) float64, or None where there are none that can be believed."""
        for place in self.places():
            kept = self._content(place)
            if kept is None:
                continue
            with contextlib.suppress(PtychoError, OSError, ValueError, KeyError):
                with open_zip(place) as archive:
                    part = NpzPart(place, archive, "energies", members(place, archive)["energies"])
                    if part.header != ((self.frame_count,), np.dtype(np.float64)):
                        continue
                    energies: npt.NDArray[np.float64] = load(part)
                smallest, largest = energies.min(), energies.max()  # NaN is both
                if smallest >= 0 and 0 < largest < np.inf:
                    self.note = f"energies and the check of all frames were read from {place}"
                    return energies
        return None

    def knows_object(self, token: str) -> bool:
        """Whether the object that ``token`` stands for was found finite when the energies were
        kept.
        """
        return any(
            (kept := self._content(place)) is not None and kept.get("object") == token
            for place in self.places()
        )

    def write(self, energies: npt.NDArray[np.float64], object_token: str | None) -> None:
        """Keep the energies in the first place that takes them; where none does, say so in ``note``
        and go on.
        """
        content = {"version": _VERSION, "identity": self.identity, "object": object_token}
        for place in self.places():
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                mode = self.scan_path.stat().st_mode & 0o666
                with (
                    replacing(place, mode=mode) as file,
                    zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
                ):
                    archive.writestr(
                        zipfile.ZipInfo("identity.json"), json.dumps(content, sort_keys=True)
                    )
                    with archive.open(
                        zipfile.ZipInfo("energies.npy"), "w", force_zip64=True
                    ) as member:
                        header = {"descr": "<f8", "fortran_order": False, "shape": energies.shape}
                        np.lib.format.write_array_header_1_0(member, header)
                        member.write(np.ascontiguousarray(energies, "<f8").view(np.uint8).data)
            except (OSError, ValueError):  # ValueError: a null character in the folder's name
                continue
            self.note = f"energies and the check of all frames are kept in {place}"
            return
        if not self.is_kept:
            self.note = "energies are not kept, as asked"
            return
        self.note = (
            "energies are not kept, because neither the scan's folder nor the cache folder can "
            "be written; give a cache_dir"
        )

    def _content(self, place: Path) -> dict[str, Any] | None:
        """What the file at ``place`` says about itself, if it is whole and about this very scan."""
        with contextlib.suppress(PtychoError, OSError, ValueError, KeyError, RecursionError):
            if not place.is_file():
                return None
            with open_zip(place) as archive:
                member = archive.getinfo("identity.json")
                if (
                    member.file_size > _MOST_IDENTITY_BYTES
                    or member.compress_type != zipfile.ZIP_STORED
                ):
                    return None
                content = json.loads(
                    b"".join(pieces(place, "identity", archive, member, piece_bytes=BLOCK_BYTES))
                )
            expected = {"version": _VERSION, "identity": json.loads(json.dumps(self.identity))}
            if (
                isinstance(content, dict)
                and {key: content.get(key) for key in expected} == expected
            ):
                return content
        return None
