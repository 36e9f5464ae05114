"""Start the sampler, see that it lives, and end it: one process beside the children of one
runner.
"""

import contextlib
import os
import select
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

from harness.run.belongings import own_command

_SAMPLER = "harness.measure.sampler"
_SOCKET = "s"
_LONGEST_ADDRESS = 100
"""Bytes of a socket's path. Linux takes 107 and macOS 103 (unix(7), unix(4)); chosen below both."""
_START_S = 30.0  # chosen: a hundred times what an interpreter takes to start on a busy machine
_END_S = 2.0  # chosen: the sampler has nothing to finish; only a call of the driver can hold it


class Sampling:
    """The sampler of one runner, started when the first child needs it and again when it was found
    dead.
    """

    def __init__(
        self, *, environment: Mapping[str, str] | None = None, options: tuple[str, ...] = ()
    ) -> None:
        """``environment`` is that of the sampler, by default this process's own when it is
        started.
        """
        self._environment = environment
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._end: weakref.finalize[..., Sampling] | None = None

    def address(self) -> tuple[str, str]:
        """Where the sampler listens, and a word about it; without one, an empty address and the
        reason.
        """
        died = ""
        if self._process is not None:
            if self._process.poll() is None:
                return str(self._socket), ""
            died = (
                "the sampler before this one ended with code "
                f"{self._process.returncode}{self._last_words()}"
            )
            self.close()
        try:
            refused = self._start()
        except OSError as error:
            refused = str(error)
        if refused:
            reason = f"the sampler could not be started: {refused}"
            self.close()
            return "", "; ".join(filter(None, [reason, died]))
        return str(self._socket), died

    def close(self) -> None:
        """End the sampler and take its folder away."""
        if self._end is not None:
            self._end()
        self._process = self._folder = self._end = None

    @property
    def process_id(self) -> int | None:
        """The sampler's, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def _socket(self) -> Path:
        assert self._folder is not None  # noqa: S101 - set by _start()
        return self._folder / _SOCKET

    def _start(self) -> str:
        self._folder = _private_folder()
        if self._folder is None:
            return (
                f"{tempfile.gettempdir()} is too long a path for a socket; set TMPDIR to a "
                "shorter one"
            )
        environment = dict(os.environ if self._environment is None else self._environment)
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *own_command(_SAMPLER),
                    str(self._socket),
                    "--parent",
                    str(os.getpid()),
                    *self._options,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._process = process
        # Also at the interpreter's exit, and when the runner is dropped: nothing is left behind.
        self._end = weakref.finalize(self, _finish, process, self._folder)
        assert process.stdout is not None  # noqa: S101 - it was opened as a pipe
        if select.select([process.stdout], [], [], _START_S)[0] and process.stdout.readline():
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        return f"it ended with code {process.poll()}{self._last_words()}"

    def _last_words(self) -> str:
        assert self._folder is not None  # noqa: S101 - set by _start()
        with contextlib.suppress(OSError):
            lines = (
                (self._folder / "log")
                .read_text(encoding="utf-8", errors="replace")
                .strip()
                .splitlines()
            )
            return f": {lines[-1]}" if lines else ""
        return ""


def _private_folder() -> Path | None:
    """A new folder that only this user may enter (mode 0700), with a path short enough for a
    socket; None for none.
    """
    for where in (None, "/tmp"):  # noqa: S108 - only where TMPDIR is too long a path; mkdtemp makes it private
        folder = Path(tempfile.mkdtemp(prefix="memory-", dir=where))
        if len(os.fsencode(folder / _SOCKET)) <= _LONGEST_ADDRESS:
            return folder
        folder.rmdir()
    return None


def _finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Tell the sampler to end, see that it does, and take its folder away."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
