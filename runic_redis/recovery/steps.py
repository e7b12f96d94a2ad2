"""How one logic runs on both kinds of store: a generator yields which method to call, and is sent the result."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

__all__ = ["Ask", "Steps", "run", "run_async"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """A call of a method of the store.

    Attributes:
        method: its name.
        args: its arguments.
        kwargs: its keyword arguments.
        take: for a method that gives an iterator, what is called with each item; the result is then None.
    """

    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    take: Callable[[Any], None] | None = None


Steps: TypeAlias = Generator[Ask, Any, T]


def run(steps: Steps[T], store: Any) -> T:
    """Carry steps out on a store for threads; their result."""
    try:
        step = next(steps)
        while True:
            result = None
            try:
                called = getattr(store, step.method)(*step.args, **step.kwargs)
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


async def run_async(steps: Steps[T], store: Any) -> T:
    """Carry steps out on a store for asyncio; their result."""
    try:
        step = next(steps)
        while True:
            result = None
            try:
                called = getattr(store, step.method)(*step.args, **step.kwargs)
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
