"""Fixtures: the stub driver and the pretended card, built once for the session, and a control file
for each test.
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.pretended import Machine, make_machine
from harness.pretended.card import (
    LIBRARY,
    Card,
    DoesNotCompileError,
    Stub,
    StubUnavailableError,
    build,
    cached_card,
    header,
    load,
)
from harness.pretended.control import StubControl


@pytest.fixture(scope="session")
def build_stub(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Stub]:
    """``build_stub(old_library=False)``; the workers of xdist share one build. Skips where it
    cannot be built.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def built(*, old_library: bool = False) -> Stub:
        folder = shared / ("nvml-stub-old" if old_library else "nvml-stub")
        try:
            nvml_h = header()
            with (shared / ".nvml-stub.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if (folder / LIBRARY).exists():
                    return load(folder, nvml_h, old_library=old_library)
                return build(folder, nvml_h, old_library=old_library)
        except DoesNotCompileError:
            raise
        except StubUnavailableError as reason:
            pytest.skip(str(reason))

    return built


@pytest.fixture(scope="session")
def nvml_stub(build_stub: Callable[..., Stub]) -> Stub:
    """The stub of a driver of today."""
    return build_stub()


@pytest.fixture(scope="session")
def old_nvml_stub(build_stub: Callable[..., Stub]) -> Stub:
    """The stub of a driver before R510: no second version of the memory query, no third of the
    process lists.
    """
    return build_stub(old_library=True)


@pytest.fixture
def driver(nvml_stub: Stub, tmp_path: Path) -> Iterator[StubControl]:
    """A control file without devices yet."""
    control = StubControl.create(tmp_path / "driver", nvml_stub.functions)
    yield control
    control.close()


@pytest.fixture
def driver_environment(driver: StubControl, nvml_stub: Stub) -> dict[str, str]:
    """The whole environment of a child that has this driver."""
    return {**os.environ, **driver.environment(nvml_stub.library)}


@pytest.fixture(scope="session")
def pretended_card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """The libraries of a pretended card, built once; the workers of xdist share them. Skips where
    they cannot be built.
    """
    base = tmp_path_factory.getbasetemp()
    try:
        return cached_card(
            (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)
            / "ptycho-memory"
            / "pretended"
        )
    except DoesNotCompileError:
        raise
    except StubUnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def machine(pretended_card: Card, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """``machine(cards=1, total_bytes=...)``: pretended cards of this test's own."""
    made: list[Machine] = []

    def make(**settings: Any) -> Machine:
        made.append(make_machine(tmp_path / f"machine{len(made)}", pretended_card, **settings))
        return made[-1]

    yield make
    for one in made:
        one.control.close()
