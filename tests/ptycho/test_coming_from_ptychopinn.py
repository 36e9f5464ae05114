"""The page for those who come from PtychoPINN: its code runs as it stands."""

import importlib.util
import operator
import re

import numpy as np
import pytest

import ptycho.loader
import ptycho.raw_data
from ptycho.__main__ import main


@pytest.fixture
def page(project_root):
    return (project_root / "docs" / "coming-from-ptychopinn.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch):
    """From top to bottom, with the scan that the page simulates."""
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"^python -m ptycho (simulate .*?) *#", page, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 0
    names = {}
    exec(compile(code, "coming-from-ptychopinn.md", "exec"), names)  # noqa: S102 - our own page

    assert names["images"].shape == (16, 64, 64, 4)
    assert (len(names["train"]), len(names["again"])) == (400, 400)
    np.testing.assert_array_equal(names["train"].nn_indices, names["again"].nn_indices)
    assert names["X"].shape[1:] == (64, 64, 4)


def test_what_the_page_says_is_not_here_is_not_here(page):
    """So that the page is corrected when it comes."""
    (absent,) = re.findall(r"^Not here: (.*?)\.\n", page, re.DOTALL | re.MULTILINE)
    owners = {
        "RawData.from_simulation": ptycho.raw_data,
        "get_image_patches": ptycho.raw_data,
        "load_xpp_npz": ptycho.loader,
    }

    assert set(re.findall(r"`([\w.]+)`", absent)) == {"params", *owners}
    assert importlib.util.find_spec("ptycho.params") is None
    for name, owner in owners.items():
        with pytest.raises(AttributeError):
            operator.attrgetter(name)(owner)
