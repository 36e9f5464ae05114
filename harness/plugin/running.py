"""What measures the points of a session: a runner on the session's device, with the launcher that its options choose."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from harness.plugin.session import RunSession
from harness.run.isolation import SpawnLauncher, open_launcher
from harness.run.runner import Runner


@contextmanager
def open_runner(session: RunSession) -> Iterator[Runner]:
    """A runner for the session's run directory; what it keeps running ends with the block."""
    config = session.config
    launcher = open_launcher(
        config.getoption("memory_isolation"),
        environment=os.environ,
        folder=config.rootpath,
        preload=config.getini("memory_preload"),
    )
    runner = Runner(
        run_directory=session.directory,
        device=session.device(),
        launcher=launcher,
        preparer=SpawnLauncher(),
        root=config.rootpath,
        workspace=config.rootpath / "artifacts" / "inputs",
        host_limit_bytes=config.getoption("memory_host_budget"),
        timeout_s=config.getoption("memory_timeout"),
    )
    try:
        yield runner
    finally:
        runner.close()
        launcher.close()
