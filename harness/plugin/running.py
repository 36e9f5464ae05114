"""What measures the points of a session: a runner on the session's device, with the launcher that
its options choose.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from harness.plugin.options import pythonpath_of
from harness.plugin.session import RunSession
from harness.plugin.sides import NOW, THEN, Turns
from harness.run.packages import Code
from harness.run.runner import Runner, opened_runner


@contextmanager
def open_runner(session: RunSession) -> Iterator[Runner]:
    """A runner for the session's run directory; what it keeps running ends with the block."""
    config = session.config
    with opened_runner(
        run_directory=session.directory,
        device=session.device(),
        isolation=config.getoption("memory_isolation"),
        preload=config.getini("memory_preload"),
        further_paths=pythonpath_of(config),
        root=config.rootpath,
        workspace=config.rootpath / "artifacts" / "inputs",
        code=Code() if session.sides is None else session.sides.now.code,
        host_limit_bytes=config.getoption("memory_host_budget"),
        timeout_s=config.getoption("memory_timeout"),
    ) as runner:
        yield runner


def turns_of(session: RunSession, runner: Runner) -> Turns:
    """What measures a run with the code of the session, and in turns with that which it is compared
    with.
    """
    if session.sides is None:
        return Turns(
            runners={NOW: runner},
            directories={NOW: session.directory},
            resumed={NOW: session.resumed},
        )
    then = dataclasses.replace(
        runner, run_directory=session.then_directory, code=session.sides.then.code
    )
    return Turns(
        runners={NOW: runner, THEN: then},
        directories={NOW: session.directory, THEN: session.then_directory},
        resumed={NOW: session.resumed, THEN: session.resumed_then},
    )
