"""A store and its sessions with one blocking face, for threads or asyncio: each test is written once for both."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from runic_redis import (
    AsyncFactResolver,
    AsyncRedisStore,
    FactResolver,
    RedisStore,
    async_session,
    async_work,
    handler,
    session,
    work,
)


class Face:
    """Opens sessions and resolvers of one flavour. `store` is always a `RedisStore`, for the checks of a test."""

    def __init__(self, url: str, namespace: str, *, asynchronous: bool) -> None:
        self.url = url
        self.store = RedisStore.from_url(url, namespace=namespace)
        self._runner = asyncio.Runner() if asynchronous else None
        self.used: Any = self.store
        if self._runner is not None:
            self.used = AsyncRedisStore.from_url(url, namespace=namespace)
            self._runner.run(self.used.open())

    def close(self) -> None:
        if self._runner is not None:
            self._runner.run(self.used.close())
            self._runner.close()
        self.store.close()

    @contextmanager
    def session(self, *args: Any, **options: Any) -> Iterator[Any]:
        """Enter a session of the workflow "w"."""
        if self._runner is None:
            with session(self.store, "w", *args, **options) as entered:
                yield entered
            return
        run = self._runner.run
        awaited = async_session(self.used, "w", *args, **options)
        run(awaited.__aenter__())
        try:
            yield _Blocking(awaited, run)
        except BaseException as error:
            if not run(awaited.__aexit__(type(error), error, error.__traceback__)):
                raise
            return
        run(awaited.__aexit__(None, None, None))

    def work(self, function: Callable[[Any], Coroutine[Any, Any, object]], **options: Any) -> None:
        """Call `work` or `async_work` with a coroutine function, until no workflow is due.

        The keyword `apply` is that of `handler`; the state is then a list. So are further options of `handler`.
        """
        asynchronous = self._runner is not None
        called: Any = function if asynchronous else lambda session: _finished(function(_Awaited(session)))
        if "apply" in options:
            called = handler(apply=options.pop("apply"), initial=list)(called)
        options = {"until_idle": True, "first_delay": 0, **options}
        if self._runner is None:
            work(self.store, called, **options)
        else:
            self._runner.run(async_work(self.used, called, **options))

    def run(self, awaited: Any) -> Any:
        """Return the result of an awaitable."""
        assert self._runner is not None
        return self._runner.run(awaited)

    def rehydrate(self, events: list[Any], hot: Any) -> list[Any]:
        """Return the events as a resolver of this flavour rehydrates them."""
        if self._runner is None:
            return FactResolver(self.store).rehydrate(events, hot)
        return self._runner.run(AsyncFactResolver(self.used).rehydrate(events, hot))


class _Awaited:
    """A `Session` whose methods are coroutine functions."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._session, name)
        if not callable(attribute):
            return attribute

        async def call(*args: Any, **options: Any) -> Any:
            return attribute(*args, **options)

        return call


def _finished(coroutine: Coroutine[Any, Any, object]) -> object:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine waits")


class _Blocking:
    """An `AsyncSession` with blocking calls."""

    def __init__(self, awaited: Any, run: Any) -> None:
        self._awaited = awaited
        self._run = run

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._awaited, name)
        if name not in ("record", "checkpoint", "complete", "inbox", "sleep"):
            return attribute
        return lambda *args, **options: self._run(attribute(*args, **options))
