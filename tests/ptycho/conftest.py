"""Scans for these tests: a small simulated one, arrays to spoil one by one, and the measured one
where it is there.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from ptycho.scan import Scan
from ptycho.simulate import simulate

# Before TensorFlow is imported: it greets on stderr otherwise.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

SIEMENS_STAR = Path(__file__).parents[2] / "../shared/data/siemens_star/siemens_star_contract.npz"


@pytest.fixture(scope="session")
def simulated_path(tmp_path_factory):
    """100 frames of 32 x 32 pixels, seed 0."""
    path = tmp_path_factory.mktemp("scans") / "simulated.npz"
    simulate(path, frame_count=100, frame_size=32)
    return path


@pytest.fixture
def scan(simulated_path):
    return Scan.open(simulated_path)


@pytest.fixture
def arrays():
    """A whole small scan as arrays: 9 frames of 16 x 16 pixels over an object of 40 x 48."""
    generator = np.random.default_rng(1)
    y, x = (
        axis.ravel() for axis in np.meshgrid([10.0, 18.0, 30.0], [12.0, 20.0, 38.0], indexing="ij")
    )
    return {
        "diff3d": generator.random((9, 16, 16), np.float32),
        "xcoords": x,
        "ycoords": y,
        "probeGuess": np.ones((16, 16), np.complex64),
        "objectGuess": np.ones((40, 48), np.complex64),
    }


@pytest.fixture(scope="session")
def siemens_path():
    if not SIEMENS_STAR.exists():
        pytest.skip(f"the measured scan is not there: {SIEMENS_STAR}")
    return SIEMENS_STAR


@pytest.fixture(scope="session")
def siemens_scan(siemens_path, tmp_path_factory):
    return Scan.open(siemens_path, cache_dir=tmp_path_factory.mktemp("cache"))
