"""Bodies that do nothing when they are called: what they give back would have to be awaited, or
iterated over, by somebody.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from harness.errors import UsageError

_ADVICE = "everything has to happen in the call itself: write a plain def "
_RUN = "that runs it with asyncio.run(...), inside a phase where it is to be measured"
_LOOP = "without yield; loop over a generator of your own inside it"


def refuse_deferred(name: str, body: Callable[..., Any], *, what: str = "body") -> None:
    """Raises UsageError for a function whose call alone runs none of its lines, before anything is
    measured.

    What a decorator has made of it is asked, not what it was made of: that may well run it.
    """
    called = f"the {what} {name!r} is"
    for given in (body, getattr(type(body), "__call__", body)):  # noqa: B004 - of an object that is called, its method
        if inspect.isasyncgenfunction(given):
            raise UsageError(
                f"{called} an async generator (async def with yield), and a call runs none "
                f"of it; {_ADVICE}{_RUN}"
            )
        if inspect.iscoroutinefunction(given):
            raise UsageError(
                f"{called} a coroutine (async def), and a call runs none of it; {_ADVICE}{_RUN}"
            )
        if inspect.isgeneratorfunction(given):
            raise UsageError(
                f"{called} a generator (it has a yield), and a call runs none of it; "
                f"{_ADVICE}{_LOOP}"
            )


def refuse_returned(name: str, returned: object, *, what: str = "body") -> None:
    """Raises UsageError where a body has returned what still waits to be run."""
    called = f"the {what} {name!r} returned"
    if inspect.iscoroutine(returned):
        returned.close()  # or Python warns that it was never awaited
    if inspect.isgenerator(returned):
        raise UsageError(f"{called} a generator, none of which has run; {_ADVICE}{_LOOP}")
    if inspect.isasyncgen(returned):
        raise UsageError(f"{called} an async generator, none of which has run; {_ADVICE}{_RUN}")
    if isinstance(returned, Awaitable):
        raise UsageError(
            f"{called} a {type(returned).__name__} that nobody awaits; {_ADVICE}{_RUN}"
        )
