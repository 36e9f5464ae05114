"""The npy header: what numpy writes is read as numpy reads it, everything else is one sentence."""

import io
import warnings

import numpy as np
import pytest

from ptycho.errors import ScanError
from ptycho.files.npz import read_header


def image(text, *, version=(1, 0), announced=None):
    """An npy header with any text."""
    raw = text if isinstance(text, bytes) else text.encode("latin1")
    length = len(raw) if announced is None else announced
    return io.BytesIO(
        b"\x93NUMPY"
        + bytes(version)
        + length.to_bytes(2 if version == (1, 0) else 4, "little")
        + raw
    )


def literal(descr="'<f4'", fortran="False", shape="(2, 3)"):
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f8", "<c8", "<i8", "|b1", "<U3", "|S2", "<M8[ns]", "|V8"]
)
@pytest.mark.parametrize("shape", [(), (3,), (0, 4), (2, 3, 4)])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read(dtype, shape, version):
    """The same shape, order and type, and the file is left where the values begin."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy says which versions need a newer numpy
        np.lib.format.write_array(file, np.zeros(shape, dtype, order="F"), version=version)
    file.seek(0)
    header = read_header(file, name="scan.npz: key")
    expected_bytes = np.zeros(shape, dtype).nbytes

    assert (header.shape, header.dtype) == (shape, np.dtype(dtype))
    assert header.is_fortran == (
        len(shape) > 1 and not np.zeros(shape, order="F").flags.c_contiguous
    )
    assert header.values_bytes == expected_bytes == len(file.read())
    assert header.length_bytes == file.tell() - expected_bytes


def test_a_header_of_python_2_is_read_without_a_word():
    assert read_header(image(literal(shape="(9L, 16L)")), name="key").shape == (9, 16)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (io.BytesIO(b""), "does not begin as an npy file"),
        (io.BytesIO(b"\x93NUMPY"), "does not begin as an npy file"),
        (image(literal(), version=(4, 0)), "its format is 4.0"),
        (image(literal(), announced=200), "ends within its header"),
        (image(literal() + " " * 10_000), "10060 bytes of header, and 10000 are the most"),
        (image(literal(), version=(2, 0), announced=1 << 31), "2147483648 bytes of header"),
        (image("{"), "not a Python literal"),
        (image("{'descr': '<f4"), "not a Python literal"),
        (image("  \n\tx = 1\n"), "not a Python literal"),
        (image("open('x')"), "not a Python literal"),
        (image("{[]: 1}"), "not a Python literal"),
        (image("(" * 5000), "not a Python literal"),
        (image("-" * 9000 + "1"), "not a Python literal"),
        (image("a\0b"), "not a Python literal"),
        (image(b"\xff\xfe", version=(3, 0)), "not a Python literal"),
        (image("[1, 2]"), "descr, fortran_order and shape"),
        (image("{'descr': '<f4', 'shape': (1,)}"), "descr, fortran_order and shape"),
        (image(literal(shape="5")), "its shape is 5"),
        (image(literal(shape="[2, 3]")), r"its shape is \[2, 3\]"),
        (image(literal(shape="(2, -3)")), r"its shape is \(2, -3\)"),
        (image(literal(shape="(2, 3.0)")), r"its shape is \(2, 3.0\)"),
        (image(literal(shape="(2, True)")), r"its shape is \(2, True\)"),
        (image(literal(fortran="0")), "its fortran_order is 0"),
        (image(literal(descr="'f4,f4'")), "its type is 'f4,f4', and one plain type"),
        (image(literal(descr="'(2,)f4'")), "one plain type"),
        (image(literal(descr="[('a', '<f4')]")), "one plain type"),
        (image(literal(descr="None")), "its type is None"),
        (image(literal(descr="'<f5'")), "its type is '<f5'"),
        (image(literal(descr="'<U99999999999999999999'")), "its type is '<U9"),
        (image(literal(descr="'M8[x]'")), r"its type is 'M8\[x\]'"),
        (image(literal(descr="'|S0'")), "has no size"),
        (image(literal(descr="'|O'")), "holds Python objects"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(file, words):
    """No warning, no trace of numpy's offer to unpickle."""
    with pytest.raises(ScanError, match=words) as caught:
        read_header(file, name="scan.npz: key")

    assert str(caught.value).startswith("scan.npz: key ")
    assert "\n" not in str(caught.value)
    assert "allow_pickle" not in str(caught.value)
    assert len(str(caught.value)) < 250
