"""Children on pretended cards. TensorFlow looks for cards once, when it starts, and the tests' own
process has none.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.pretended import make_machine

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def measured(pretended_card, tmp_path_factory):
    """``measured("placing", cards=1)``: what that child reports; without cards it runs on the
    CPU.
    """

    def run(child, *arguments, cards=1, **environment):
        machine = make_machine(
            tmp_path_factory.mktemp("machine"), pretended_card, cards=max(1, cards)
        )
        seen = ",".join(map(str, range(cards))) or "-1"
        settings = {
            **os.environ,
            **machine.environment,
            "CUDA_VISIBLE_DEVICES": seen,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **environment,
        }
        command = [sys.executable, "-m", f"tests.ptycho.card.{child}", *map(str, arguments)]
        result = subprocess.run(
            command, env=settings, cwd=ROOT, capture_output=True, text=True, check=False
        )
        machine.control.close()
        assert result.returncode == 0, result.stderr[-3000:]
        # What the card says where code for CUDA was to run, which it cannot: results are wrong from
        # there on.
        assert "pretended card:" not in result.stderr, result.stderr[-3000:]
        return json.loads(result.stdout.splitlines()[-1])

    return run
