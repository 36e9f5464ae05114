"""Building a pretended card: what is missing is said in a sentence, and what is there is built
once.
"""

import importlib.metadata
import shutil
import subprocess
import sys

import pytest

from harness.pretended import card as building
from harness.pretended.__main__ import main
from harness.pretended.card import (
    DoesNotCompileError,
    StubUnavailableError,
    TensorFlowFound,
    build_card,
    cached_card,
    card_key,
    compile_library,
    find_compiler,
    find_tensorflow,
)


@pytest.mark.parametrize(("variable", "language"), [("CC", "C"), ("CXX", "C++")])
def test_a_missing_compiler_is_named(monkeypatch, tmp_path, variable, language):
    """And nothing is left behind, also where only the second is missing."""
    monkeypatch.setenv(variable, "no-such-compiler")

    with pytest.raises(StubUnavailableError) as caught:
        build_card(tmp_path / "card")

    assert str(caught.value).startswith(
        f"there is no {language} compiler (no-such-compiler) here to build the stub driver with"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "header"), [("nvidia-nvml-dev", "nvml.h"), ("nvidia-cuda-runtime-cu12", "cuda.h")]
)
def test_a_missing_header_package_is_named_with_what_brings_it(
    monkeypatch, tmp_path, package, header
):
    """The extra `pretended` has both."""
    installed = importlib.metadata.files

    def files(name):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(building.importlib.metadata, "files", files)

    with pytest.raises(StubUnavailableError) as caught:
        build_card(tmp_path / "card")

    assert str(caught.value) == (
        f"the package {package}, which has {header}, is not installed; pip install "
        "'ptycho-memory[pretended]' brings it"
    )


def _python_with(folder, tmp_path):
    """An "interpreter" whose TensorFlow is in ``folder``."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho '{folder}'\n")
    python.chmod(0o755)
    return str(python)


def test_a_build_for_the_cpu_alone_is_refused(tmp_path):
    """tensorflow-cpu has no GPU device that could start."""
    folder = tmp_path / "tensorflow"
    (folder / "python/platform").mkdir(parents=True)
    (folder / "libtensorflow_framework.so.2").touch()
    (folder / "python/platform/build_info.py").write_text(
        "build_info = OrderedDict([('is_cuda_build', False)])"
    )

    with pytest.raises(
        StubUnavailableError, match=r"is the CPU build \(tensorflow-cpu\), which has no GPU device"
    ):
        find_tensorflow(_python_with(folder, tmp_path))


def test_another_systems_package_and_none_at_all_are_refused(tmp_path):
    """A package without Linux's library, an interpreter without the package, and no interpreter."""
    with pytest.raises(StubUnavailableError, match="needs TensorFlow's package for Linux"):
        find_tensorflow(_python_with(tmp_path, tmp_path))
    with pytest.raises(StubUnavailableError, match="TensorFlow is not installed for"):
        find_tensorflow(_python_with("", tmp_path))
    with pytest.raises(StubUnavailableError, match="does not run"):
        find_tensorflow(str(tmp_path / "no-such-python"))


def test_sources_that_do_not_compile_are_told_apart_from_a_missing_compiler(tmp_path):
    """With the compiler's own words."""
    (tmp_path / "wrong.c").write_text("int one(void) { return two; }")

    with pytest.raises(
        DoesNotCompileError,
        match=r"(?s)libwrong\.so of the pretended card does not compile with .*two",
    ):
        compile_library(find_compiler("C"), tmp_path / "libwrong.so", (tmp_path / "wrong.c",))


def test_the_sources_compile_without_a_warning(pretended_card, nvml_stub):
    """With -Wall and -Wextra, both the card's and those of NVML alone."""
    for library in (pretended_card.nvml, nvml_stub.library):
        warned = library.parent / building.WARNED

        assert not warned.exists(), warned.read_text()


@pytest.mark.parametrize("source", ["nvml.c", "kernels.cc", "control.py", "card.py"])
def test_a_card_is_built_anew_from_other_sources(monkeypatch, tmp_path, source):
    """Those of the libraries, the layout that they share with Python, and how they are compiled."""
    sources = tmp_path / "sources"
    shutil.copytree(building.SOURCES, sources)
    monkeypatch.setattr(building, "SOURCES", sources)
    tensorflow = building.TensorFlowFound(folder=tmp_path, version="2.21.0")
    before = card_key(tensorflow)
    (sources / "README.md").write_text("changed")
    same = card_key(tensorflow)
    (sources / source).write_text("changed")

    assert same == before
    assert card_key(tensorflow) != before


def test_a_card_is_built_once_for_each_version_of_tensorflow(pretended_card, monkeypatch):
    """The second time it is found; another version, or another source, is another card."""
    monkeypatch.setattr(building, "_build", lambda *_: pytest.fail("built again"))

    again = cached_card(pretended_card.folder.parent)

    here = find_tensorflow()
    other = TensorFlowFound(folder=here.folder, version="2.99.0")
    assert again == pretended_card
    assert card_key(here) == pretended_card.folder.name
    assert card_key(other) != card_key(here)


def test_two_builders_at_once_leave_one_complete_folder(tmp_path):
    """The slower one's work is dropped."""
    with building.made_complete(tmp_path / "card") as slower:
        (slower / "library").write_text("slower")
        (tmp_path / "card").mkdir()
        (tmp_path / "card/library").write_text("faster")

    assert [path.name for path in tmp_path.iterdir()] == ["card"]
    assert (tmp_path / "card/library").read_text() == "faster"


def test_the_package_is_light_to_import():
    """The parent of a sweep imports it: no TensorFlow, no numpy, no pandas."""
    code = (
        "import sys, harness.pretended; print(sorted({'tensorflow', 'numpy', 'pandas', "
        "'pynvml'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_command_prints_what_to_export(pretended_card, tmp_path, capsys):
    """Three variables, for a shell's eval."""
    code = main(
        [str(tmp_path), "--cards", "2", "--gib", "1.5", "--libraries", str(pretended_card.folder)]
    )

    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("=")[0] for line in lines] == [
        "export LD_LIBRARY_PATH",
        "export NVML_STUB_CONTROL",
        "export PRETENDED_CARD_ARENA",
    ]
    assert str(tmp_path / "control") in lines[1]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (
            ["--cards", "9"],
            2,
            "9 pretended cards with 9 sizes were asked for; write 1 to 8, one size each",
        ),
        (
            ["--cards", "0"],
            2,
            "0 pretended cards with 0 sizes were asked for; write 1 to 8, one size each",
        ),
        (
            ["--gib", "0.5"],
            2,
            "a pretended card of 512.0 MiB was asked for; the smallest is 1.0 GiB",
        ),
    ],
)
def test_cards_that_cannot_be_had_are_refused(
    pretended_card, tmp_path, capsys, options, code, sentence
):
    """One past each limit: a sentence, and exit code 2."""
    assert main([str(tmp_path), "--libraries", str(pretended_card.folder), *options]) == code
    assert sentence in capsys.readouterr().err
