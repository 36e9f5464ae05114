"""A body of our own: somebody's script, whole, in one phase. ``python -m harness why`` has it run.

Loaded by name in the child, as every body is.
"""

import functools
import importlib
import json
import os
import runpy
import sys
import threading
import types
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.measure import Memory
from harness.measure.importing import is_users
from harness.rundir.traces import ScriptNote

SCRIPT_PHASE = "script"
STREAMS_VARIABLE = "MEMORY_SCRIPT_STREAMS"
"""Descriptors that the script gets as its standard input and output, with a comma between them; a
place that is empty leaves the worker's own. No part of the job, which run.json records."""

_LATE_SETTINGS = (
    "set_logical_device_configuration",
    "set_visible_devices",
    "experimental.set_memory_growth",
    "experimental.set_virtual_device_configuration",
    "experimental.set_visible_devices",
    "threading.set_inter_op_parallelism_threads",
    "threading.set_intra_op_parallelism_threads",
)
"""Functions of tf.config that raise RuntimeError once TensorFlow has started
(tensorflow/python/eager/context.py)."""
_LATE_VARIABLES = ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_GPU_ALLOCATOR")
"""Variables that TensorFlow reads when it starts, and never again."""
_MOST_OPERATIONS = 20_000
"""Chosen: different outputs that are told apart by their lines; a script with more has sizes that
change all the time, and the largest come first of all as often as not."""


def run_script(memory: Memory, parameters: Mapping[str, Any]) -> None:
    """Run the script ``parameters["script"]`` as ``python SCRIPT ARGUMENTS`` does, in one phase.

    ``arguments`` is a JSON list of texts, ``path`` the script's whole path. Raises what the script
    raises, SystemExit for another code than 0 among it.
    """
    _connect_streams()
    script, note = str(parameters["script"]), ScriptNote()
    sys.argv = [script, *json.loads(parameters["arguments"])]
    sys.path[0] = str(Path(parameters["path"]).parent)  # in place of the working directory
    lines = _Lines(script)
    note.without_lines = lines.record()
    os.register_at_fork(after_in_parent=functools.partial(_count_fork, note))
    _pass_over_late_settings(note.ignored)
    before = {name: os.environ.get(name) for name in _LATE_VARIABLES}
    note.log_bytes = os.fstat(2).st_size
    note.write(memory.workspace)
    try:
        with memory.phase(SCRIPT_PHASE):
            _run_as_main(script, note)
    finally:
        late = [name for name in _LATE_VARIABLES if os.environ.get(name) != before[name]]
        note.ignored += late
        note.lines = lines.found()
        note.write(memory.workspace)


def _run_as_main(script: str, note: ScriptNote) -> None:
    """Run it to its end, threads included. Raises what it raises, once that is printed."""
    process = os.getpid()
    failure: BaseException | None = None
    try:
        runpy.run_path(script, run_name="__main__")
        _wait_for_threads()
    except SystemExit as leaving:
        note.exit_code = _exit_code(leaving)
        failure = leaving if note.exit_code else None
    except BaseException as error:  # noqa: BLE001 - raised again below
        note.exit_code, note.place = 1, _place_of(error, script)
        _print_error(error)
        failure = error
    if os.getpid() != process:
        # Forked by the script, and at its end: what follows is the parent's to do.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(note.exit_code)
    if failure is not None:
        raise failure


def _connect_streams() -> None:
    """Give the script the streams that it was started with; standard error stays the log."""
    given = os.environ.pop(STREAMS_VARIABLE, ",").split(",")
    for descriptor, target in zip(given, (0, 1), strict=True):
        if descriptor:
            os.dup2(int(descriptor), target)
            os.close(int(descriptor))


def _count_fork(note: ScriptNote) -> None:
    note.forks += 1


def _wait_for_threads() -> None:
    """As Python does at its end."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _exit_code(leaving: SystemExit) -> int:
    """The code that Python ends with; a text is printed and means 1 (sys.exit)."""
    if leaving.code is None or isinstance(leaving.code, int):
        return (leaving.code or 0) & 0xFF
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def _print_error(error: BaseException) -> None:
    """As Python prints what nobody has caught, without our own frames."""
    import traceback

    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename in (__file__, *_RUNPY):
        own = own.tb_next
    traceback.print_exception(type(error), error, own)


_RUNPY = (runpy.__file__, "<frozen runpy>")


def _place_of(error: BaseException, script: str) -> str:
    """The innermost line of the user's own that an error passed; empty where it passed none."""
    if isinstance(error, SyntaxError) and error.filename and error.filename.endswith(script):
        return f"{_shown(error.filename)}:{error.lineno}"
    found, step = "", error.__traceback__
    while step is not None:
        found = _line_of(step.tb_frame, step.tb_lineno, script) or found
        step = step.tb_next
    return found


def _line_of(frame: types.FrameType, line: int, script: str) -> str:
    """``"train.py:12 in load"``; empty where the frame is of no code of the user's."""
    filename, function = frame.f_code.co_filename, frame.f_code.co_name
    if filename != script and not is_users(filename):
        return ""
    inside = "" if function == "<module>" else f" in {function}"
    return f"{_shown(filename)}:{line}{inside}"


@functools.cache
def _shown(filename: str) -> str:
    """A file as it is named from the working directory, where it lies below that."""
    path, folder = Path(filename), Path.cwd()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else filename


def _pass_over_late_settings(ignored: list[str]) -> None:
    """Let the script go on where it wants to set what TensorFlow had to know before it started."""
    for name in _LATE_SETTINGS:
        holder: Any = sys.modules["tensorflow"].config
        *path, last = name.split(".")
        for part in path:
            holder = getattr(holder, part)
        setattr(holder, last, _passed_over(getattr(holder, last), f"tf.config.{name}", ignored))


def _passed_over(setting: Callable[..., Any], name: str, ignored: list[str]) -> Callable[..., Any]:
    @functools.wraps(setting)
    def set_if_possible(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - TensorFlow's own signature
        try:
            return setting(*arguments, **named)
        except RuntimeError as error:
            if "initializ" not in str(error):
                raise
            if name not in ignored:
                ignored.append(name)
            return None

    return set_if_possible


class _Lines:
    """Which lines of the user's called which operations, by TensorFlow's own callbacks (the ones
    that its debugger uses: tensorflow/python/framework/op_callbacks.py).
    """

    def __init__(self, script: str) -> None:
        self._script = script
        self._lines: dict[tuple[str, str, str], Counter[str]] = {}

    def record(self) -> str:
        """Start recording; why that cannot be, or nothing."""
        try:
            callbacks = importlib.import_module("tensorflow.python.framework.op_callbacks")
            callbacks.add_op_callback(self._hear)
        except (ImportError, AttributeError) as error:
            return f"this TensorFlow does not tell which line calls an operation ({error})"
        return ""

    def found(self) -> list[dict[str, Any]]:
        """For each operation, shape and dtype, the lines, those that called it most first."""
        return [
            {"operation": operation, "shape": shape, "dtype": dtype, "lines": dict(most)}
            for (operation, shape, dtype), lines in self._lines.items()
            if (most := lines.most_common())
        ]

    def _hear(
        self,
        op_type: str | bytes,
        inputs: Sequence[Any],
        attributes: Sequence[Any],
        outputs: Sequence[Any],
        op_name: str | None = None,
        graph: Any = None,  # noqa: ANN401 - a graph of TensorFlow's, or None
    ) -> None:
        """One operation was executed, or put into a graph. Changes no output (None)."""
        del inputs, attributes
        line = self._line()
        if not line:
            return
        if graph is not None:  # sizes of a batch are not known there, and the name is its own
            self._note((str(op_name), "", ""), line)
            return
        operation = op_type.decode() if isinstance(op_type, bytes) else op_type
        for tensor in outputs:
            known = tensor.shape.rank is not None
            sizes = str(tensor.shape.as_list()).replace(" ", "") if known else ""
            self._note((operation, sizes, str(tensor.dtype.name)), line)

    def _note(self, key: tuple[str, str, str], line: str) -> None:
        if key in self._lines or len(self._lines) < _MOST_OPERATIONS:
            self._lines.setdefault(key, Counter())[line] += 1

    def _line(self) -> str:
        """The innermost line of the user's that led here."""
        frame: types.FrameType | None = sys._getframe(2)
        while frame is not None:
            if line := _line_of(frame, frame.f_lineno, self._script):
                return line
            frame = frame.f_back
        return ""
