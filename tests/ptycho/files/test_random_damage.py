"""HDF5, CXI and .npy with random damage: one of our errors or a scan, in a child, because libhdf5
is C.
"""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

CHILD = """
import json, pathlib, random, resource, sys, traceback
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))  # what damage asks for is refused, \
not given
from ptycho.errors import PtychoError
from ptycho.scan import Scan

path, seed, rounds, settings = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), \
json.loads(sys.argv[4])
image, generator = path.read_bytes(), random.Random(seed)
damaged, cache = path.with_name("damaged" + path.suffix), path.with_name("cache")
sentences, scans, others = [], 0, []
for index in range(rounds):
    content = bytearray(image)
    if generator.random() < 0.15:
        del content[generator.randrange(len(content)):]
    for _ in range(generator.choice([1, 1, 2, 8]) if content else 0):
        # Where the metadata is: headers and B-trees come first in a file this small, the raw \
frames fill the rest.
        at = generator.randrange(min(len(content), generator.choice([200, 4096, len(content)])))
        content[at] = generator.choice([0, 1, 255, content[at] ^ (1 << generator.randrange(8)), \
generator.randrange(256)])
    damaged.unlink(missing_ok=True)  # a new inode: libhdf5 knows files by it
    damaged.write_bytes(content)
    print(index, file=sys.stderr, flush=True)  # the last one, if the process dies
    try:
        scan = Scan.open(damaged, cache_dir=cache, **settings)
        scan.energies()
        scan.frames[scan.frame_count - 1]
        scans += 1
    except PtychoError as error:
        sentences.append(str(error))
    except BaseException:
        others.append(traceback.format_exc())
    left = [file.name for file in cache.glob(".*")] if cache.exists() else []
    if left:
        others.append(f"left behind: {left}")
print(json.dumps({"sentences": sentences, "scans": scans, "others": others}))
"""

NAMES = {"positions": ["/x", "/y"], "probe": "/probe", "object": "/object"}


@pytest.fixture
def write(tmp_path, measured, write_hdf5, cxi_arrays):
    def written(kind):
        if kind == "npy":
            np.save(tmp_path / "scan.npy", measured.amplitude)
            np.savetxt(tmp_path / "positions.csv", measured.positions, delimiter=",")
            return tmp_path / "scan.npy", {"positions": str(tmp_path / "positions.csv")}
        if kind == "cxi":
            return write_hdf5(cxi_arrays, name="scan.cxi", chunks=(5, 4, 8), compression="gzip"), {
                "intensity": True
            }
        arrays = {
            "/x": measured.x,
            "/y": measured.y,
            "/probe": measured.probe,
            "/object": measured.object,
        }
        layout = (
            {}
            if kind == "contiguous"
            else {"chunks": (5, 8, 8), "compression": "gzip", "fletcher32": True}
        )
        settings = {
            "frames": "/frames",
            **NAMES,
            **({"repack": True} if kind == "repacked" else {}),
        }
        return write_hdf5({"/frames": measured.amplitude, **arrays}, **layout), settings

    return written


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["npy", "contiguous", "chunked", "repacked", "cxi"])
def test_random_damage_is_one_of_our_errors_or_a_scan(write, kind, seed):
    """150 files each; never another exception, never the end of the process, never a half-written
    copy.
    """
    path, settings = write(kind)
    command = [sys.executable, "-c", CHILD, str(path), str(seed), "150", json.dumps(settings)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, (
        f"ended by {result.returncode} at damage {result.stderr.splitlines()[-1:]}"
    )
    found = json.loads(result.stdout)

    assert found["others"] == []
    assert len(found["sentences"]) > 20
    assert found["scans"] > 0
    assert all(sentence.isprintable() and len(sentence) < 1000 for sentence in found["sentences"])


def test_damage_to_headers_is_found_byte_by_byte(tmp_path, measured, write_hdf5):
    """Every byte of the superblock and the root group changed once, in turn: the file is small, and
    all of it metadata.
    """
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["/frames"] = measured.amplitude[:1]
        file["/xy"] = measured.positions[:1]
    path = tmp_path / "scan.h5"
    code = (
        CHILD.replace("for index in range(rounds):", "for index in range(0, 1600, 3):")
        .replace("if generator.random() < 0.15:", "content[index] ^= 255\n    if False:")
        .replace("generator.choice([1, 1, 2, 8]) if content else 0", "0")
    )
    settings = json.dumps({"frames": "/frames", "positions": "/xy"})
    result = subprocess.run(
        [sys.executable, "-c", code, str(path), "0", "0", settings],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, (
        f"ended by {result.returncode} at byte {result.stderr.splitlines()[-1:]}"
    )
    found = json.loads(result.stdout)

    assert found["others"] == []
    assert found["scans"] + len(found["sentences"]) == len(range(0, 1600, 3))
