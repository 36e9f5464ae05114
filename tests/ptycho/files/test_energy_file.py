"""Energies that are kept: believed only where they fit, written where that is possible, and never
half.
"""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from ptycho.errors import ContainerError, ScanError, ScanFileError
from ptycho.scan import Scan
from ptycho.simulate import simulate


@pytest.fixture
def path(tmp_path, arrays):
    folder = tmp_path / "scans"
    folder.mkdir()
    np.savez(folder / "scan.npz", **arrays)
    return folder / "scan.npz"


@pytest.fixture(autouse=True)
def _user_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


@pytest.fixture
def passes(monkeypatch):
    """How often all frames were read."""
    from ptycho import scan

    found, real = [], scan.frame_energies

    def counted(*arguments, **settings):
        found.append(1)
        return real(*arguments, **settings)

    monkeypatch.setattr(scan, "frame_energies", counted)
    return found


def expected(arrays):
    return (arrays["diff3d"].astype(np.float64) ** 2).sum(axis=(1, 2))


def kept_beside(path):
    return [file for file in path.parent.iterdir() if file.name.endswith(".energies.npz")]


def test_energies_are_kept_beside_the_scan(path, arrays, passes):
    """One hidden file whose name says what it is; the second scan reads it and says so."""
    first = Scan.open(path)
    assert kept_beside(path) == []
    np.testing.assert_allclose(expected(arrays), first.energies(), rtol=1e-12)
    (kept,) = kept_beside(path)
    second = Scan.open(path)
    np.testing.assert_array_equal(first.energies(), second.energies())

    assert kept.name.startswith(".scan.npz.")
    assert kept.stat().st_mode & 0o777 == path.stat().st_mode & 0o666
    assert len(passes) == 1
    assert any(f"are kept in {kept}" in note for note in Scan.open(path).notes) is False
    assert any(f"read from {kept}" in note for note in second.notes)


def test_a_given_cache_folder_is_the_only_place(path, tmp_path, passes):
    for _ in range(2):
        Scan.open(path, cache_dir=tmp_path / "cache").energies()
    (kept,) = (tmp_path / "cache").iterdir()

    assert kept.name.startswith("scan-")
    assert kept_beside(path) == []
    assert not (tmp_path / "user").exists()
    assert len(passes) == 1


def deny(monkeypatch, *folders):
    """Root may write everywhere, so the answer of the system is played."""
    real = os.open

    def guarded(name, flags, *more, **settings):
        if flags & os.O_CREAT and any(str(name).startswith(str(folder)) for folder in folders):
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *more, **settings)

    monkeypatch.setattr(os, "open", guarded)


def test_beside_a_scan_that_is_read_only_the_user_cache_is_used(
    path, tmp_path, passes, monkeypatch
):
    deny(monkeypatch, path.parent)
    for _ in range(2):
        scan = Scan.open(path)
        scan.energies()
    (kept,) = (tmp_path / "user" / "ptycho-memory").iterdir()

    assert any(f"read from {kept}" in note for note in scan.notes)
    assert len(passes) == 1


def test_where_nothing_can_be_written_nothing_is_kept(path, tmp_path, arrays, passes, monkeypatch):
    """The energies come all the same, and a note says so."""
    deny(monkeypatch, tmp_path)
    for _ in range(2):
        scan = Scan.open(path)
        np.testing.assert_allclose(expected(arrays), scan.energies(), rtol=1e-12)

    assert len(passes) == 2
    assert any("energies are not kept" in note for note in scan.notes)
    assert kept_beside(path) == []


def test_a_full_disk_leaves_no_half_file(path, arrays, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", full)
    np.testing.assert_allclose(expected(arrays), Scan.open(path).energies(), rtol=1e-12)

    assert [path] == list(path.parent.iterdir())


@pytest.mark.parametrize("change", ["rewrite", "replace", "touch"])
def test_a_changed_scan_is_read_anew_and_takes_the_old_place(path, arrays, passes, change):
    Scan.open(path).energies()
    state = path.stat()
    arrays["diff3d"] = arrays["diff3d"] + 1
    if change == "rewrite":
        with path.open("r+b") as file:
            np.savez(file, **arrays)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    elif change == "replace":
        np.savez(path.with_name("other.npz"), **arrays)
        os.utime(path.with_name("other.npz"), ns=(state.st_atime_ns, state.st_mtime_ns))
        path.with_name("other.npz").replace(path)
    else:
        arrays["diff3d"] = arrays["diff3d"] - 1
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    np.testing.assert_allclose(expected(arrays), Scan.open(path).energies(), rtol=1e-6)

    assert len(passes) == 2
    assert len(kept_beside(path)) == 1


def test_every_reading_of_a_file_has_its_own_energies(tmp_path, passes):
    """Counts, zero frequency and mask change them; asking again changes nothing."""
    counts = np.random.default_rng(0).poisson(9, (9, 16, 16)).astype(np.float32)
    np.save(tmp_path / "scan.npy", counts)
    mask = np.zeros((16, 16), bool)
    mask[3] = True
    place = {"positions": np.arange(18.0).reshape(9, 2), "cache_dir": tmp_path / "cache"}
    readings = [
        {},
        {"intensity": True},
        {"intensity": True, "mask": mask},
        {"intensity": True, "mask": mask.T},
        {"dc": "corner"},
    ]
    first = [
        Scan.open(tmp_path / "scan.npy", **place, **reading).energies() for reading in readings
    ]
    second = [
        Scan.open(tmp_path / "scan.npy", **place, **reading).energies() for reading in readings
    ]

    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first[1], counts.sum(axis=(1, 2)), rtol=1e-6)
    assert len(passes) == len(readings)
    assert not np.array_equal(first[2], first[3])


def test_a_bad_scan_leaves_nothing(path, arrays):
    arrays["diff3d"][4, 2, 1] = -1
    np.savez(path, **arrays)
    with pytest.raises(ScanError, match=r"negative amplitude in frame 4 \(-1 at \[2, 1\]\)"):
        Scan.open(path).energies()

    assert kept_beside(path) == []


def test_a_file_that_changes_during_the_pass_gives_no_energies(path, monkeypatch):
    from ptycho import scan

    real = scan.frame_energies

    def changed(*arguments, **settings):
        energies = real(*arguments, **settings)
        os.utime(path, ns=(0, 0))
        return energies

    monkeypatch.setattr(scan, "frame_energies", changed)
    with pytest.raises(ScanFileError, match="changed after it was opened"):
        Scan.open(path).energies()

    assert kept_beside(path) == []


def test_a_kept_file_of_another_path_is_not_believed(path, arrays, tmp_path, passes):
    """The same name, size, inode and time, but a folder that was moved: read anew."""
    Scan.open(path).energies()
    moved = path.parent.rename(tmp_path / "moved") / path.name
    np.testing.assert_allclose(expected(arrays), Scan.open(moved).energies(), rtol=1e-12)

    assert len(passes) == 2


def rewritten(image, change):
    """The kept file with other members."""
    with zipfile.ZipFile(io.BytesIO(image)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    change(content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, values in content.items():
            archive.writestr(name, values)
    return out.getvalue()


def npy(values):
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def identity(content, **changed):
    content["identity.json"] = json.dumps(
        {**json.loads(content["identity.json"]), **changed}
    ).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update({"energies.npy": npy(np.full(9, np.nan))}),
        lambda content: content.update({"energies.npy": npy(np.full(9, -1.0))}),
        lambda content: content.update({"energies.npy": npy(np.zeros(9))}),
        lambda content: content.update({"energies.npy": npy(np.full(9, np.inf))}),
        lambda content: content.update({"energies.npy": npy(np.ones(8))}),
        lambda content: content.update({"energies.npy": npy(np.ones(9, np.float32))}),
        lambda content: content.update({"energies.npy": npy(np.ones(9, object))}),
        lambda content: content.update({"energies.npy": b"nothing"}),
        lambda content: content.pop("energies.npy"),
        lambda content: content.pop("identity.json"),
        lambda content: content.update({"identity.json": b"[" * 100_000}),
        lambda content: content.update({"identity.json": b"[1]"}),
        lambda content: content.update({"identity.json": b"\xff"}),
        lambda content: identity(content, version=0),
        lambda content: identity(content, identity={}),
    ],
)
def test_a_forged_file_is_ignored_and_replaced(path, arrays, passes, change):
    Scan.open(path).energies()
    (kept,) = kept_beside(path)
    whole = kept.read_bytes()
    kept.write_bytes(rewritten(whole, change))
    np.testing.assert_allclose(expected(arrays), Scan.open(path).energies(), rtol=1e-12)

    assert len(passes) == 2
    assert kept.read_bytes() == whole


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(generator=strategies.randoms(use_true_random=False), is_cut=strategies.booleans())
def test_a_damaged_file_never_changes_the_energies(path, arrays, generator, is_cut):
    """A byte changed or the end cut off: the energies are those of the frames, and the file is
    whole again.
    """
    Scan.open(path).energies()
    (kept,) = kept_beside(path)
    image = bytearray(kept.read_bytes())
    if is_cut:
        del image[generator.randrange(len(image)) :]
    else:
        image[generator.randrange(len(image))] ^= 1 << generator.randrange(8)
    kept.write_bytes(image)
    np.testing.assert_allclose(expected(arrays), Scan.open(path).energies(), rtol=1e-12)

    assert [kept] == kept_beside(path)


def test_a_member_that_seems_encrypted_is_damaged(path, arrays):
    """One bit of the general purpose flags in the zip directory (APPNOTE.TXT 4.4.4)."""
    Scan.open(path).energies()
    (kept,) = kept_beside(path)
    whole = kept.read_bytes()
    image = bytearray(whole)
    image[whole.index(b"PK\x01\x02") + 8] |= 1
    kept.write_bytes(image)
    np.testing.assert_allclose(expected(arrays), Scan.open(path).energies(), rtol=1e-12)

    assert kept.read_bytes() == whole


def test_a_folder_in_its_place_is_no_obstacle(path, arrays):
    Scan.open(path).energies()
    (kept,) = kept_beside(path)
    kept.unlink()
    kept.mkdir()

    np.testing.assert_allclose(expected(arrays), Scan.open(path).energies(), rtol=1e-12)


def test_progress_is_told_in_bytes(path, arrays):
    told = []
    Scan.open(path).energies(progress=lambda *what: told.append(what))

    assert told == [("checking frames", arrays["diff3d"].nbytes, arrays["diff3d"].nbytes)]


def test_a_long_name_has_a_short_companion(path, tmp_path):
    long = path.rename(path.with_name("n" * 251 + ".npz"))
    Scan.open(long).energies()
    (kept,) = kept_beside(long)

    assert len(kept.name) < 100


def test_energies_that_are_not_to_be_kept_are_neither_written_nor_believed(tmp_path):
    """A kept file of the same scan is ignored: every pass is made, and says so."""
    path = tmp_path / "scan.npz"
    simulate(path, frame_count=20, frame_size=16)
    Scan.open(path, cache_dir=tmp_path / "cache").energies()
    (kept,) = (tmp_path / "cache").iterdir()
    before = kept.read_bytes()
    scan = Scan.open(path, cache_dir=tmp_path / "cache", keep_energies=False)
    energies = scan.energies()

    np.testing.assert_allclose(
        np.square(np.asarray(scan.frames), dtype=np.float64).sum(axis=(1, 2)), energies
    )
    assert scan.notes[-1] == "energies are not kept, as asked"
    assert [entry.read_bytes() for entry in (tmp_path / "cache").iterdir()] == [before]
    with pytest.raises(ContainerError, match="keep_energies is 1; True or False is needed"):
        Scan.open(path, keep_energies=1)
