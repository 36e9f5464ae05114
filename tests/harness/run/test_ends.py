"""The name of an ending, from the exit code and the rows the child left."""

import os
import signal

import pytest

from harness.records import Outcome
from harness.run.ends import ChildEnd, classify, last_words
from harness.rundir.rows import Begin, Done, PhaseRecord
from harness.system.memory import Overrun

RUN = {"point": "p", "repeat": 0}
BEGIN = Begin(**RUN, phase="construct", index=0)
LEFT = PhaseRecord(**RUN, phase="construct", index=0, finished=True, duration_s=1.0, readings=())
DONE = Done(**RUN, outcome=Outcome.OK, cause="", reason="")


def ended(exit_code, *, timed_out=False, **changes):
    return ChildEnd(exit_code=exit_code, timed_out=timed_out, duration_s=12.0, **changes)


@pytest.mark.parametrize(
    ("child", "rows", "outcome", "cause", "reason"),
    [
        (ended(0), [BEGIN, LEFT, DONE], Outcome.OK, "", ""),
        (ended(0), [BEGIN, LEFT], Outcome.EXITED, "0", "exited with code 0 without finishing"),
        (
            ended(0),
            [BEGIN],
            Outcome.EXITED,
            "0",
            "exited with code 0 in phase construct without finishing",
        ),
        (ended(3), [BEGIN, LEFT, DONE], Outcome.EXITED, "3", "exit code 3"),
        (
            ended(-signal.SIGKILL),
            [BEGIN],
            Outcome.CRASHED,
            "SIGKILL",
            "killed by SIGKILL in phase construct",
        ),
        (ended(-signal.SIGSEGV), [BEGIN, LEFT], Outcome.CRASHED, "SIGSEGV", "killed by SIGSEGV"),
        (
            ended(-signal.SIGKILL, oom_kills=("this machine", "the cgroup /c")),
            [BEGIN],
            Outcome.HOST_OOM,
            "kernel",
            (
                "SIGKILL in phase construct; the kernel counted out-of-memory kills for this "
                "machine and the cgroup /c"
            ),
        ),
        (
            ended(-signal.SIGSEGV, oom_kills=("this machine",)),
            [BEGIN],
            Outcome.CRASHED,
            "SIGSEGV",
            "killed by SIGSEGV",
        ),
        (ended(0, oom_kills=("this machine",)), [BEGIN, LEFT, DONE], Outcome.OK, "", ""),
        (
            ended(
                -signal.SIGKILL,
                overrun=Overrun("watchdog", "it held 2 of 1"),
                oom_kills=("this machine",),
            ),
            [BEGIN],
            Outcome.HOST_OOM,
            "watchdog",
            "the harness killed it in phase construct: it held 2 of 1",
        ),
        (
            ended(-signal.SIGKILL, overrun=Overrun("machine", "nothing was left")),
            [BEGIN, LEFT],
            Outcome.HOST_OOM,
            "machine",
            "the harness killed it: nothing was left",
        ),
        (
            ended(os.EX_IOERR),
            [BEGIN],
            Outcome.ERROR,
            "rows",
            "what it measured in phase construct could not be written",
        ),
        (
            ended(-signal.SIGKILL, timed_out=True),
            [BEGIN],
            Outcome.TIMED_OUT,
            "time-out",
            "still running after 12 s in phase construct",
        ),
        (
            ended(0),
            [Done(**RUN, outcome=Outcome.DEVICE_OOM, cause="allocator", reason="refused")],
            Outcome.DEVICE_OOM,
            "allocator",
            "refused",
        ),
    ],
)
def test_every_ending_has_a_name_and_a_reason(child, rows, outcome, cause, reason):
    """Exit code 0 alone is not success: the child's last word must be on disk too."""
    ending = classify(child, rows, "")

    assert (ending.outcome, ending.cause) == (outcome, cause)
    assert ending.reason.startswith(reason)
    assert bool(ending.reason) == (outcome is not Outcome.OK)


def test_a_child_that_was_stopped_says_for_how_long_it_ran_and_what_sets_its_time():
    """The reading, the limit, the option."""
    ending = classify(ended(-signal.SIGTERM, timed_out=True), [BEGIN], "", timeout_s=10.5)

    assert ending.reason == (
        "still running after 12 s in phase construct; the harness stopped it, as it was "
        "given 10.5 s (--memory-timeout)"
    )


def test_the_last_words_of_the_log_are_quoted():
    """A crash of native code often says why on its last line."""
    assert classify(ended(-signal.SIGABRT), [], "free(): invalid pointer").reason == (
        "killed by SIGABRT; its last words: free(): invalid pointer"
    )


def test_a_native_allocation_failure_is_host_oom():
    """C++ reports it as std::bad_alloc on its way out; Python as MemoryError, where nobody catches
    it.
    """
    words = (
        "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  "
        "std::bad_alloc\n"
    )
    endings = [
        classify(ended(134), [], words),
        classify(
            ended(-signal.SIGABRT),
            [],
            words + "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n",
        ),
        classify(ended(1), [], "Traceback (most recent call last):\nMemoryError"),
    ]

    assert [ending.outcome for ending in endings] == [Outcome.HOST_OOM] * 3
    assert [ending.cause for ending in endings] == ["bad_alloc", "bad_alloc", "refused"]


CHATTER = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    (
        "I0000 00:00:1795471632.989443    8947 cudart_stub.cc:31] Could not find cuda drivers "
        "on your machine"
    ),
    "W0000 00:00:1795471634.151672    8958 op_kernel.cc:1845] UNKNOWN: KeyError: 'x'",
    (
        "E0000 00:00:1795471633.944445    8947 cuda_platform.cc:52] failed call to cuInit: "
        "INTERNAL: CUDA error"
    ),
    (
        "2026-11-23 22:00:00.123456: E "
        "external/local_xla/xla/stream_executor/cuda/cuda_driver.cc:152] failed call to cuInit"
    ),
)


@pytest.mark.parametrize(
    "words",
    [
        "free(): invalid pointer",
        "F0000 00:00:1795471633.944445    8947 tensor.cc:852] Check failed: dtype() == expected",
        (
            "2026-11-23 22:00:00.123456: F tensorflow/core/framework/tensor.cc:852] Check "
            "failed: dtype() == expected"
        ),
        "Error: E0000 is not a frame",
    ],
)
def test_last_words_are_the_last_line_that_is_not_chatter(words):
    """Before or after it; a fatal line of TensorFlow's own counts."""
    assert (
        last_words("\n".join([words, *CHATTER, ""]))
        == last_words("\n".join([*CHATTER, words, ""]))
        == words
    )


def test_chatter_alone_is_no_last_words():
    """Nothing is quoted then."""
    assert last_words("\n".join(CHATTER)) == last_words("\n \n") == last_words("") == ""
