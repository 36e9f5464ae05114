"""Children of the zygote on a pretended card find what a fresh process finds there, every time."""

import json
import os
import subprocess
import sys
from pathlib import Path

from harness.words import MIB

CHILDREN = 50
"""Chosen for the time that it takes; children_on_card.py FOLDER zygote 200 found all of 200 alike
(2.21, two cores, 112 s)."""
POOL_BYTES = 256 * MIB  # the budget that children_on_card.py asks for


def test_every_child_finds_what_a_fresh_process_finds(machine, tmp_path, project_root):
    """The answer of one operation, and the bytes of the device and of NVML at the edges and at the
    peak, to the byte.
    """
    one = machine()

    def children(launcher, count):
        program = Path(__file__).with_name("children_on_card.py")
        done = subprocess.run(
            [sys.executable, str(program), str(tmp_path / launcher), launcher, str(count)],
            env={**os.environ, **one.environment, "PYTHONPATH": str(project_root)},
            cwd=project_root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    found, fresh = children("zygote", CHILDREN), children("spawn", 1)

    assert found["outcomes"] == {"ok": CHILDREN}
    assert found["answers"] == dict.fromkeys(fresh["answers"], CHILDREN)
    assert found["amounts"] == dict.fromkeys(fresh["amounts"], CHILDREN)
    (amounts,) = (json.loads(amounts) for amounts in fresh["amounts"])
    assert amounts["nvml_process"] == amounts["nvml_device_used"] == [POOL_BYTES] * 3
    assert amounts["device_in_use"][1] - amounts["device_in_use"][0] >= 4 * MIB
