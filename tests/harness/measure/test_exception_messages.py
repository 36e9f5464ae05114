"""Messages of TensorFlow and Keras: the line that says what went wrong, wherever they put it."""

import keras
import pytest
import tensorflow as tf

from harness.measure.exceptions import name_exception, python_error, substance
from harness.records import Ending, Outcome

# Each of them as TensorFlow 2.19.1, 2.20.0 and 2.21.0 wrote it, all alike but for numbers; traces
# of Python's stack shortened.
FIT = """Graph execution error:

Detected at node assert_less/Assert/AssertGuard/Assert defined at (most recent call last):
<stack traces unavailable>
assertion failed: [frame out of the scan] [Condition x < y did not hold element-wise:] \
[x (args_0:0) = ] [2] [y (Const:0) = ] [2]
\t [[{{node assert_less/Assert/AssertGuard/Assert}}]]
\t [[IteratorGetNext]] [Op:__inference_multi_step_on_iterator_434]"""
FIT_OF_PYTHON = """Graph execution error:

Detected at node PyFunc defined at (most recent call last):
<stack traces unavailable>
OSError: [Errno 5] beam off: 'f.npz'
Traceback (most recent call last):

  File "script_ops.py", line 269, in __call__
    ret = func(*args)
          ^^^^^^^^^^^

OSError: [Errno 5] beam off: 'f.npz'


\t [[{{node PyFunc}}]]
\t [[IteratorGetNext]] [Op:__inference_multi_step_on_iterator_390]"""
CALL = """Exception encountered when calling L.call().

\x1b[1mCould not automatically infer the output shape / dtype of 'l' (of type L). Error encountered:

Cannot reshape a tensor with 6 elements to shape [3,3] (9 elements) with input shapes: [2,3], \
[2].\x1b[0m

Arguments received by L.call():
  • args=('<KerasTensor shape=(2, 3)>',)
  • kwargs=<class 'inspect._empty'>"""
TRACED = """in user code:

    File "own.py", line 166, in f  *
        return x * 3.5 + tf.ones([100, 100])

    ValueError: Dimensions must be equal, but are 1000 and 100 for \
'{{node add}} = AddV2[T=DT_FLOAT](mul, ones)'.
"""
SEVERAL = """2 root error(s) found.
  (0) INVALID_ARGUMENT:  Input is not invertible.
\t [[{{node MatrixInverse}}]]
\t [[MatrixInverse/_2]]
  (1) INVALID_ARGUMENT:  Input is not invertible.
\t [[{{node MatrixInverse}}]]
0 successful operations.
0 derived errors ignored. [Op:__inference_f_14]"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        (FIT, FIT.splitlines()[4]),
        (
            CALL,
            (
                "Cannot reshape a tensor with 6 elements to shape [3,3] (9 elements) with "
                "input shapes: [2,3], [2]."
            ),
        ),
        (
            TRACED,
            (
                "ValueError: Dimensions must be equal, but are 1000 and 100 for '= "
                "AddV2[T=DT_FLOAT](mul, ones)'."
            ),
        ),
        (SEVERAL, "Input is not invertible."),
        ("Graph execution error:", "Graph execution error:"),
        ("Graph execution error: none\nsecond", "Graph execution error: none"),
        ("first\n\nsecond", "first"),
        ("", ""),
    ],
)
def test_the_line_of_substance_is_found_behind_what_says_only_where(message, line):
    """The last one before the nodes; elsewhere the first."""
    assert substance(message) == line


def test_a_long_line_is_cut():
    """At 500 characters, wherever it stands."""
    assert (
        len(substance("x" * 501))
        == len(substance(f"Graph execution error:\n\n{'x' * 501}\n\t [[node]]"))
        == 500
    )


def test_an_error_of_python_is_found_inside_fit():
    """As it was raised, before its traceback."""
    assert python_error(FIT_OF_PYTHON) == "OSError: [Errno 5] beam off: 'f.npz'"
    assert python_error(FIT) is None


class InvalidArgumentError(Exception):
    """Stands for TensorFlow's class of this name."""


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (
            InvalidArgumentError(SEVERAL),
            ("InvalidArgumentError", "InvalidArgumentError: Input is not invertible."),
        ),
        (InvalidArgumentError(FIT_OF_PYTHON), ("OSError", "OSError: [Errno 5] beam off: 'f.npz'")),
        (
            ValueError(TRACED),
            (
                "ValueError",
                (
                    "ValueError: Dimensions must be equal, but are 1000 and 100 for '= "
                    "AddV2[T=DT_FLOAT](mul, ones)'."
                ),
            ),
        ),
    ],
)
def test_the_reason_of_an_error_is_that_line_with_its_type_once(error, ending):
    """Also where the line begins with the type."""
    assert name_exception(error) == Ending(Outcome.ERROR, *ending)


def fit(function):
    """Train on what a dataset makes with ``function``, which fails."""
    dataset = (
        tf.data.Dataset.range(1, 3)
        .map(lambda number: (function(number), tf.constant([1.0])))
        .batch(1)
    )
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(dataset, shuffle=False, verbose=0)


def test_what_keras_raises_in_fit_is_named_by_its_cause():
    """A true message of the installed version: a dataset whose tf.function finds something
    wrong.
    """

    @tf.function
    def check(number):
        tf.debugging.assert_less(number, tf.constant(1, tf.int64), message="frame out of the scan")
        return tf.zeros([3])

    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        fit(check)
    ending = name_exception(raised.value)

    assert (ending.outcome, ending.cause) == (Outcome.ERROR, "InvalidArgumentError")
    assert ending.reason.startswith(
        "InvalidArgumentError: assertion failed: [frame out of the scan]"
    )


def test_what_python_raises_under_fit_is_named_as_it_was_raised():
    """A true message of the installed version: a loader of numpy's that fails."""

    def load(number):
        raise OSError(5, "beam off")

    with pytest.raises(tf.errors.UnknownError) as raised:
        fit(lambda number: tf.reshape(tf.numpy_function(load, [number], tf.float32), [3]))

    assert name_exception(raised.value) == Ending(
        Outcome.ERROR, "OSError", "OSError: [Errno 5] beam off"
    )
