"""What ``import ptycho`` gives: names that are loaded when they are used, help that can be read,
examples that are right.
"""

import doctest
import importlib
import importlib.metadata
import inspect
import pydoc
import subprocess
import sys

import pytest

import ptycho
from ptycho.__main__ import main

LONGEST_SIGNATURE = 600
"""Chosen: eight lines of a terminal."""
PUBLIC_CALLS = {
    "ptycho.containers.base": ("Container.as_dataset", "Container.from_scan"),
    "ptycho.containers.lazy": ("LazyPtychoDataContainer.batches",),
    "ptycho.loader": ("load", "normalize_data"),
    "ptycho.model": ("build_model", "compile_model"),
    "ptycho.raw_data": ("RawData", "RawData.generate_grouped_data"),
    "ptycho.reconstruct": ("reconstruct",),
    "ptycho.scan": ("Scan.energies", "Scan.open"),
    "ptycho.simulate": ("simulate", "subset", "write_scan"),
}


def run(code):
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_importing_the_package_imports_neither_tensorflow_nor_h5py():
    """Nor does looking at what it has."""
    code = (
        "import sys, ptycho; dir(ptycho), ptycho.Scan, ptycho.ScanError; "
        "print({'tensorflow', 'h5py', 'scipy'} & set(sys.modules))"
    )

    assert run(code) == "set()"


def test_every_name_is_what_its_module_has():
    assert set(ptycho.__all__) < set(dir(ptycho))
    for name in ptycho.__all__:
        assert getattr(ptycho, name).__name__ == name
    from_loader = importlib.import_module("ptycho.loader")
    assert ptycho.LazyPtychoDataContainer is from_loader.LazyPtychoDataContainer
    assert ptycho.PtychoDataContainer is from_loader.PtychoDataContainer
    assert ptycho.RawData is from_loader.RawData


def test_the_public_modules_are_there_without_an_import_of_their_own():
    code = "import ptycho; print(ptycho.scan.Scan is ptycho.Scan, ptycho.errors.__name__)"

    assert run(code) == "True ptycho.errors"


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ptycho' has no attribute 'Scann'"):
        ptycho.Scann  # noqa: B018 - the attribute is asked for


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC_CALLS.items() for name in names]
)
def test_the_signature_in_help_can_be_read(module, name):
    """Names of types stay names: no union of numpy's is written out."""
    thing = importlib.import_module(module)
    for part in name.split("."):
        thing = getattr(thing, part)
    signature = str(inspect.signature(thing))

    assert len(signature) < LONGEST_SIGNATURE
    assert "_typing" not in signature
    assert "numpy.ndarray[" not in signature


def test_help_of_opening_a_scan_names_what_it_takes():
    """From the name to the end of the signature, however Python breaks it into lines."""
    text = pydoc.render_doc(ptycho.Scan.open, renderer=pydoc.plaintext)
    signature = text[text.index("open(") : text.index(" -> ")]

    assert len(signature) < LONGEST_SIGNATURE
    assert "ArrayLike" in signature


def test_the_command_line_has_the_version_of_the_package(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])

    assert end.value.code == 0
    assert capsys.readouterr().out == f"ptycho-lazy {ptycho.__version__}\n"


def test_files_that_are_not_installed_have_no_version(monkeypatch):
    """Unknown is said to be unknown."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)

    assert ptycho.__version__ == "unknown, because the distribution ptycho-lazy is not installed"


@pytest.mark.parametrize(
    "module",
    [
        "ptycho.errors",
        "ptycho.files.arrays",
        "ptycho.files.cxi",
        "ptycho.files.npz",
        "ptycho.files.storage",
    ],
)
def test_examples_in_docstrings_are_right(module):
    results = doctest.testmod(importlib.import_module(module))

    assert results.attempted > 0
    assert results.failed == 0
