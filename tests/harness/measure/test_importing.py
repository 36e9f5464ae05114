"""Bodies that only promise to run are refused, before and after the call."""

import asyncio
import functools

import pytest

from harness.errors import UsageError
from harness.measure.importing import refuse_deferred, refuse_returned


def plain(memory, parameters):
    return 1


def generator(memory, parameters):
    yield


async def coroutine(memory, parameters):
    return None


async def async_generator(memory, parameters):
    yield


class Callable:
    async def __call__(self, memory, parameters):
        return None


def run(function):
    @functools.wraps(function)
    def wrapped(*arguments):
        return asyncio.run(function(*arguments))

    return wrapped


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (generator, "a generator (it has a yield)"),
        (coroutine, "a coroutine (async def)"),
        (async_generator, "an async generator (async def with yield)"),
        (Callable(), "a coroutine (async def)"),
        (functools.partial(generator), "a generator (it has a yield)"),
    ],
    ids=["generator", "coroutine", "async generator", "object", "partial"],
)
def test_a_body_whose_call_runs_nothing_is_named_and_refused(body, what):
    """And told what to write instead."""
    with pytest.raises(UsageError) as told:
        refuse_deferred("bodies:it", body)

    assert str(told.value).startswith(
        f"the body 'bodies:it' is {what}, and a call runs none of it; "
    )
    assert "write a plain def" in str(told.value)


def test_what_runs_in_the_call_itself_is_a_body():
    """A plain function; a coroutine below a decorator that runs it; whatever a body returns
    besides.
    """
    for body in (plain, run(coroutine)):
        refuse_deferred("bodies:it", body)
        refuse_returned("bodies:it", body(None, {}))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("body", "what"),
    [
        (generator, "a generator"),
        (coroutine, "a coroutine that nobody awaits"),
        (async_generator, "an async generator"),
    ],
    ids=["generator", "coroutine", "async generator"],
)
def test_a_body_that_returns_what_still_has_to_run_is_refused(body, what):
    """As one does that hands on what another function gives."""
    with pytest.raises(UsageError, match=f"the body 'bodies:it' returned {what}"):
        refuse_returned("bodies:it", body(None, {}))
