"""Both stores have the same methods, with the same parameters, defaults, results and summaries."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from runic_redis import (
    AsyncFeed,
    AsyncProjection,
    AsyncRedisStore,
    AsyncSession,
    AsyncSubscription,
    AsyncTail,
    Feed,
    Projection,
    RedisStore,
    Session,
    Subscription,
    Tail,
)

PAIRS = [
    (RedisStore, AsyncRedisStore),
    (Session, AsyncSession),
    (Subscription, AsyncSubscription),
    (Projection, AsyncProjection),
    (Tail, AsyncTail),
    (Feed, AsyncFeed),
]
# An asynchronous store connects when it is opened, and an asynchronous iterator is closed as Python's are.
ASYNC_ONLY = {AsyncRedisStore: {"open"}, AsyncSubscription: {"aclose"}, AsyncTail: {"aclose"}, AsyncFeed: {"aclose"}}
SYNC_ONLY = {Subscription: {"close"}, Tail: {"close"}, Feed: {"close"}}
# How an asynchronous type is written: the name of the plain one with Async before it, or what a coroutine returns.
PLAIN = re.compile(r"\bAsync(?=[A-Z])|collections\.abc\.Coroutine\[typing\.Any, typing\.Any, ([^\[\]]*)\]")


def members(kind: type) -> dict[str, Any]:
    return {name: member for name, member in vars(kind).items() if not name.startswith("_")}


def signature(member: Callable[..., Any]) -> str:
    """Return a signature, with the names of asynchronous types made plain."""
    plain = getattr(member, "fget", None) or getattr(member, "__func__", member)
    return PLAIN.sub(lambda found: found[1] or "", str(inspect.signature(plain)))


def summary(member: Any) -> str:
    return (inspect.getdoc(member) or "").partition("\n")[0]


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_both_have_the_same_names(sync: type, asynchronous: type) -> None:
    assert members(sync).keys() - SYNC_ONLY.get(sync, set()) == (
        members(asynchronous).keys() - ASYNC_ONLY.get(asynchronous, set())
    )


@pytest.mark.parametrize(
    ("sync", "asynchronous", "name"),
    [
        (sync, asynchronous, name)
        for sync, asynchronous in PAIRS
        for name in ("__init__", *sorted(members(sync).keys() & members(asynchronous).keys()))
        if not (name == "__init__" and sync is not RedisStore)
    ],
)
def test_both_take_the_same_arguments(sync: type, asynchronous: type, name: str) -> None:
    one, other = inspect.getattr_static(sync, name), inspect.getattr_static(asynchronous, name)
    assert type(one) is type(other)
    assert signature(one) == signature(other)


@pytest.mark.parametrize(
    ("sync", "asynchronous", "name"),
    [
        (sync, asynchronous, name)
        for sync, asynchronous in PAIRS
        for name in sorted(members(sync).keys() & members(asynchronous).keys())
    ],
)
def test_both_say_the_same_of_a_method(sync: type, asynchronous: type, name: str) -> None:
    said = summary(getattr(sync, name))
    assert said
    assert said == summary(getattr(asynchronous, name))
