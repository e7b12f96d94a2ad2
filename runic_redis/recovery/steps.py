"""Run the same logic on both kinds of store: a generator yields calls of the store and receives their results."""

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from inspect import isawaitable, iscoroutine
from typing import Any, TypeAlias, TypeVar

from runic_redis.errors import InvalidType

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreCall:
    """A call of a method of the store.

    Attributes:
        method: its name.
        args: its arguments.
        kwargs: its keyword arguments.
        take: for a method that returns an iterator, the function that receives each item; the result is then None.
    """

    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    take: Callable[[Any], None] | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of some seconds, between calls of the store."""

    seconds: float


Steps: TypeAlias = Generator[StoreCall | Pause, Any, T]


def run_steps(steps: Steps[T], store: Any) -> T:
    """Run steps on a store for threads and return their result."""
    try:
        step = next(steps)
        while True:
            result = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                step = next(steps)
                continue
            try:
                called = getattr(store, step.method)(*step.args, **step.kwargs)
                if isawaitable(called) or hasattr(called, "__aiter__"):
                    raise _for_asyncio(store, called)
                if step.take is None:
                    result = called
                else:
                    for item in called:
                        step.take(item)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        done: T = stop.value
        return done


async def run_steps_async(steps: Steps[T], store: Any) -> T:
    """Run steps on a store for asyncio and return their result."""
    try:
        step = next(steps)
        while True:
            result = None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                step = next(steps)
                continue
            try:
                called = _started_call(store, step)
                if step.take is None:
                    result = await called
                else:
                    async for item in called:
                        step.take(item)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        done: T = stop.value
        return done


def _started_call(store: Any, step: StoreCall) -> Any:
    """Call a method of the store and return the awaitable or the async iterator."""
    try:
        called = getattr(store, step.method)(*step.args, **step.kwargs)
    except LookupError as error:
        if step.take is not None:
            raise
        raise _not_for_asyncio(store, step.method) from error  # it ran before it was awaited
    if not isawaitable(called) and not hasattr(called, "__aiter__"):
        raise _not_for_asyncio(store, step.method)
    return called


def _for_asyncio(store: Any, called: Any) -> InvalidType:
    if iscoroutine(called):
        called.close()  # prevents Python's warning that it was never awaited
    return InvalidType(
        f"The {type(store).__name__} is for asyncio: use async_session or AsyncFactResolver with it. Nothing was sent."
    )


def _not_for_asyncio(store: Any, method: str) -> InvalidType:
    done = "Nothing was changed." if method.startswith(("load", "stream")) else "The call took effect."
    return InvalidType(
        f"The {type(store).__name__} is not for asyncio: its method {method} cannot be awaited. {done} Use session or "
        "FactResolver with it, or an AsyncRedisStore."
    )
