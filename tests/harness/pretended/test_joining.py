"""``--device pretended``: the user's own pretended cards, from the cache, for the command line and
for sessions of pytest.
"""

import os
import subprocess
import sys

import pytest

from harness.judge import ExitCode
from harness.pretended import cached_machine
from harness.pretended.control import MOST_DEVICES

BODIES = """
def load(memory, parameters):
    import numpy as np
    import tensorflow as tf

    with memory.phase("load"):
        on_the_card = tf.fill([1024, 1024], 1.0)
        on_the_host = np.ones(64 * 1024 * 1024, np.uint8)
    del on_the_card, on_the_host
"""
SESSION = """
def test_what_is_where(memory_run):
    run = memory_run("bodies:load", phases=("load",))
    assert 4 * 1024 * 1024 <= run["load"].device_in_use.growth_bytes <= 4 * 1024 * 1024 + 1024  \
# the filling value, 256 B
    assert run["load"].host_anon.growth_bytes >= 64 * 1024 * 1024
"""


@pytest.fixture
def environment(pretended_card):
    """That of a user whose cache has the built card, and who has no driver."""
    ours = {"LD_LIBRARY_PATH", "NVML_STUB_CONTROL", "PRETENDED_CARD_ARENA", "CUDA_VISIBLE_DEVICES"}
    without = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith("PYTEST_")
    }
    return {**without, "XDG_CACHE_HOME": str(pretended_card.folder.parents[2])}


@pytest.fixture
def find(environment, project_root):
    """``doctor --device ... --find driver``: exit code, and all that was said."""

    def run(device, **changes):
        done = subprocess.run(
            [sys.executable, "-m", "harness", "doctor", "--device", device, "--find", "driver"],
            env={**environment, **changes},
            cwd=project_root,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_users_cards_are_found_when_they_are_asked_for(find):
    """And only then: auto takes the emulated device although the cards are built."""
    asked = find("pretended")
    auto = find("auto")

    assert asked == (ExitCode.PASS, "Pretended A100 (gpu)\ndriver: 575.57.08\n")
    assert auto[0] == ExitCode.PASS
    assert "(emulated)\n" in auto[1]


def test_without_a_compiler_it_is_a_sentence_and_exit_code_3(find, tmp_path):
    """In a cache that has no card yet."""
    code, said = find("pretended", XDG_CACHE_HOME=str(tmp_path), CC="no-such-compiler")

    assert code == ExitCode.INCOMPLETE
    assert said.startswith("harness: there is no C compiler (no-such-compiler) here")
    assert said.endswith("nothing was measured\n")


def test_a_process_that_has_pretended_cards_stays_on_them(find, machine):
    """As a worker does that was started by a session which had joined them."""
    own = machine(name="Pretended H100")

    assert find("pretended", **own.environment) == (
        ExitCode.PASS,
        "Pretended H100 (gpu)\ndriver: 575.57.08\n",
    )


def test_the_users_machine_is_made_once(pretended_card):
    """The second session finds the same cards, for leases, and for going on with a run."""
    first, again = (cached_machine(pretended_card.folder.parent) for _ in range(2))

    uuids = [device.uuid for device in first.devices]
    assert len(set(uuids)) == MOST_DEVICES
    assert [device.uuid for device in again.devices] == uuids
    first.control.close()
    again.control.close()


def test_a_session_of_pytest_tells_the_card_from_the_host(environment, pytester):
    """Through a worker of xdist: 4 MiB on the card to the byte, 64 MiB beside it on the host."""
    pytester.makepyfile(bodies=BODIES, test_session=SESSION)
    options = [
        "--memory-device=pretended",
        "--memory-device-budget=1GiB",
        "--memory-repeats=1",
        "--memory-no-trace",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", *options]

    done = subprocess.run(
        command,
        env=environment,
        cwd=pytester.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stdout + done.stderr
