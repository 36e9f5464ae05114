"""Threads that share a batch: all of it is done when they say so, errors come out, nobody is left
behind.
"""

import gc
import threading

import pytest

from ptycho.feeding.feed import GatherThreads


def members():
    return [thread for thread in threading.enumerate() if thread.name == "ptycho-gather"]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_job_has_ended_when_run_returns(count):
    threads, done = GatherThreads(3), []
    for round_ in range(200):
        threads.run(
            [lambda job=job, round_=round_: done.append((round_, job)) for job in range(count)]
        )

        assert len(done) == (round_ + 1) * count
    assert sorted(done) == [(round_, job) for round_ in range(200) for job in range(count)]


def test_jobs_run_in_threads_of_their_own():
    """Each waits for the other: one thread alone would never come back."""
    threads, meeting = GatherThreads(1), threading.Barrier(2, timeout=30)
    threads.run([meeting.wait, meeting.wait])

    assert not meeting.broken


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_comes_out_after_all_have_ended(failing):
    threads, done = GatherThreads(1), []

    def fail():
        raise OSError("the disk is gone")

    def succeed():
        done.append(1)

    with pytest.raises(OSError, match="the disk is gone"):
        threads.run([fail, succeed] if failing == 0 else [succeed, fail])
    assert done == [1]
    threads.run([succeed, succeed])  # and the next batch is not affected
    assert done == [1, 1, 1]


def test_busy_threads_leave_the_work_to_the_caller():
    """While one batch is being made another thread makes its own, alone, instead of waiting."""
    threads, done = GatherThreads(1), []
    threads.run(
        [
            lambda: threads.run([lambda: done.append("a"), lambda: done.append("b")]),
            lambda: done.append("c"),
        ]
    )

    assert sorted(done) == ["a", "b", "c"]


def test_threads_end_with_their_owner():
    gc.collect()
    before = set(members())
    threads = GatherThreads(2)
    mine = set(members()) - before
    assert len(mine) == 2
    del threads
    gc.collect()
    for thread in mine:
        thread.join(timeout=30)

    assert not any(thread.is_alive() for thread in mine)
