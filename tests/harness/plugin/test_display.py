"""While a session measures, its terminal says how far it has come; nothing of that stays there."""

import os
import pty
import select
import subprocess
import sys

import pytest

SWEEP = """
@pytest.mark.memory("bodies:lazy", budgets="64 MiB")
@pytest.mark.parametrize("image_count", [256, 512])
def test_load(image_count):
    pass
"""
SAYS = """
@pytest.fixture(autouse=True)
def said(pytestconfig):
    display = pytestconfig.pluginmanager.get_plugin("memory-display")
    with open("said.txt", "a") as file:
        file.write(f"{display is not None and display.is_shown} ")
"""


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), "True True "),
        (("-q",), "False False "),
        (("-p", "no:terminal"), "False False "),
        (("-n", "1"), "False False "),
    ],
)
def test_it_is_shown_where_somebody_reads_it(project, pytester, options, shown):
    """Not with -q, not without a terminal's plug-in, and never by a worker."""
    project(SAYS + SWEEP, *options)

    assert (pytester.path / "said.txt").read_text() == shown


def test_a_short_session_in_a_log_has_no_line_of_it(project):
    """Lines come every half minute; a session of seconds has none."""
    result = project(SWEEP)

    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*/6 load*")
    result.stdout.no_fnmatch_line("*\x1b*")


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_on_a_terminal_the_line_comes_and_goes(project, pytester, monkeypatch, options):
    """The first point waits until it was seen; when all is over only pytest's own lines are
    there. With workers the controller shows it.
    """
    project(SWEEP, "--collect-only", "-q")
    os.mkfifo(pytester.path / "go")
    environment = {
        **os.environ,
        "TERM": "xterm",
        "TROUBLE": "wait",
        "TROUBLE_AT": "load-image_count=256 1",
        "COLUMNS": "80",
    }
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly"]
    with subprocess.Popen(
        [*command, *options], stdout=slave, stderr=slave, stdin=slave, env=environment
    ) as session:
        os.close(slave)
        try:
            before = _read(master, "/6 load ")
            (pytester.path / "go").write_text("on")
            after = _read(master, None)
        finally:
            session.kill()
            os.close(master)

    assert "\n1/6 load 256 epoch_1 1.0 MiB" in before or options
    assert "/6 load" not in after.rpartition("\x1b[2K")[2]
    assert "2 passed" in after


def _read(master, until):
    found = ""
    while until is None or until not in found.split("\x1b[2K")[-1]:
        ready, _, _ = select.select([master], [], [], 60)
        assert ready, f"{until!r} did not come; there was {found!r}"
        try:
            came = os.read(master, 65_536)
        except OSError:  # Linux: the other end is closed (pty(7))
            return found
        found += came.decode().replace("\r\n", "\n")
    return found
