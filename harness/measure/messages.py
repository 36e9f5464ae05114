"""What a message of TensorFlow or Keras says, without what they wrap it in. Pure text: neither is
imported.
"""

import re

_MOST_CHARACTERS = 500
"""Chosen: reasons are table cells."""
# Nodes of TensorFlow's graphs, which mean nothing to the reader: {{function_node
# __wrapped__IteratorGetNext_...}}.
_NODE = re.compile(r"\{\{[^{}]*\}\}\s*")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# First lines that say only where: in a graph (a tf.function, fit), once or several times, in a
# function while it is traced, in a layer of Keras. Seen with TensorFlow 2.19 to 2.21 and Keras 3.
_WRAPPED = re.compile(
    r"Graph execution error:$|\d+ root error\(s\) found\.$|in user code:$|Exception "
    r"encountered when calling .+\.$"
)
# What comes after the cause: nodes of the graph, advice, what the layer was given.
_AFTER = re.compile(r"^\s*(?:\[\[|Hint: |Arguments received by )", re.MULTILINE)
# Before one of several causes: "(0) RESOURCE_EXHAUSTED:  ".
_NUMBERED = re.compile(r"\(\d+\) [A-Z_]+: +")
# An error of Python inside a tf.data function: TensorFlow puts words before it and the traceback
# after it (py_func.cc).
_PYTHON_ERROR = re.compile(r"\b\w*(?:Error|Exception): .*")
_TRACEBACK = "Traceback (most recent call last)"


def substance(message: str) -> str:
    """The line that says what went wrong: the first one, or the last before the nodes where the
    first says only where.
    """
    text = _COLOURS.sub("", message).strip()
    first, _, rest = text.partition("\n")
    after = _AFTER.search(rest)
    lines = [
        line.strip()
        for line in rest[: after.start() if after else None].splitlines()
        if line.strip()
    ]
    line = lines[-1] if lines and _WRAPPED.match(first) else first
    return _NODE.sub("", _NUMBERED.sub("", line))[:_MOST_CHARACTERS]


def python_error(message: str) -> str | None:
    """The ``XError: message`` that a function of tf.data died of, where TensorFlow's message
    carries its traceback.
    """
    before, found, _ = message.partition(_TRACEBACK)
    error = _PYTHON_ERROR.search(_NODE.sub("", before)) if found else None
    return None if error is None else error[0][:_MOST_CHARACTERS]
