"""Options, markers and fixtures of the whole suite; every test leaves the process as it found
it.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["pytester", "tests.driver_fixtures"]

ROOT = Path(__file__).resolve().parent.parent
TEST_LIMIT_S = 600
"""A test that takes longer fails with the stack of where it stood, and the others go on. Chosen:
the slowest seen took 229 s, on two processors that 25 tasks wanted at once."""
MEASURED_SCANS = ROOT.parent / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run-oom",
        action="store_true",
        help="also run the tests marked `oom`: they run out of memory on purpose, in a child, "
        "at a capped budget",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "oom: runs out of memory on purpose, in a child, at a capped budget; needs --run-oom",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Not in pyproject.toml: `pytest scenarios`, whose points may take longer, reads that too, and
    # needs no pytest-timeout.
    if not config.pluginmanager.hasplugin("timeout"):
        raise pytest.UsageError(
            "pytest-timeout is not installed, without which a test may never end: pip "
            "install -e '.[test]'"
        )
    for item in items if config.getoption("timeout") is None else ():
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_LIMIT_S))
    if config.getoption("--run-oom"):
        return
    for item in items:
        if item.get_closest_marker("oom"):
            item.add_marker(
                pytest.mark.skip(reason="runs out of memory on purpose; ask for it with --run-oom")
            )


@pytest.fixture(autouse=True)
def on_no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest prints its summary of failures in full where one of these is set, and a session that a
    test starts must print the same on every machine.
    """
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project_root() -> Path:
    """The root of the project, from which children import scenario bodies."""
    return ROOT


@pytest.fixture
def siemens_star() -> Path:
    """The measured far-field scan, deflated; the test is skipped where it is absent."""
    path = MEASURED_SCANS / "siemens_star" / "siemens_star_contract.npz"
    if not path.exists():
        pytest.skip(f"the measured scan {path.name} is not here")
    return path


@pytest.fixture(autouse=True)
def _leave_the_process_as_found() -> Iterator[None]:
    environment = dict(os.environ)
    threads = set(threading.enumerate())
    yield
    changed = {
        name
        for name in environment.keys() | os.environ.keys()
        if environment.get(name) != os.environ.get(name)
        and name not in _SET_BY_LIBRARIES | {"PYTEST_CURRENT_TEST"}
    }
    started = {thread.name for thread in set(threading.enumerate()) - threads if not thread.daemon}

    assert changed == set(), f"environment variables left changed: {changed}"
    assert started == set(), f"threads left running: {started}"


# What importing TensorFlow and h5py sets in the process that does it.
_SET_BY_LIBRARIES = {
    "ENABLE_RUNTIME_UPTIME_TELEMETRY",
    "HDF5_PLUGIN_PATH",
    "TF2_BEHAVIOR",
    "TPU_ML_PLATFORM",
    "TPU_ML_PLATFORM_VERSION",
}
