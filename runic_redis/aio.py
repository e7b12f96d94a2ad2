"""The store for asyncio: every operation of the contract, as in `runic_redis.store`.

The operations are written once, in operations/. The docstrings of `RedisStore`'s methods hold for both stores. The
whole API is one module because users read it from top to bottom.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NoReturn, Self, TypeVar, overload

from runic_redis.arguments import DEFAULT_QUEUE, Query, check_deadline, check_workflow_id
from runic_redis.codec import EncodedEvents, EncodedState
from runic_redis.context import Context, find_url, make_context
from runic_redis.drivers.aio import Sender, run, run_within
from runic_redis.drivers.aio_connections import drop_connections
from runic_redis.drivers.connect import AIO, Connected, connect_client, connect_url
from runic_redis.drivers.redis_py import check_open, now_s, opening_limit_s
from runic_redis.durability import Durability
from runic_redis.errors import ConfigurationError, InvalidType, StoreError
from runic_redis.events import EventRegistry, FactRef, UnknownEvents
from runic_redis.feeds import AsyncFeed
from runic_redis.heartbeat import AsyncHeldLease
from runic_redis.operations import (
    appending,
    claiming,
    collecting,
    consuming,
    counting,
    facts,
    feed,
    feed_starts,
    feed_trimming,
    finding,
    groups,
    leasing,
    lifetimes,
    listing,
    messages,
    namespace,
    parking,
    projections,
    queries,
    queueing,
    reading,
    reading_many,
    settings,
    snapshots,
    subscriptions,
    tailing,
    timers,
    tracking,
    workflows,
)
from runic_redis.operations.appending import Appended
from runic_redis.operations.confirming import durably
from runic_redis.operations.filters import Filters, check_filters
from runic_redis.operations.finding import TaggedCommit
from runic_redis.operations.groups import Append
from runic_redis.operations.leasing import Lease
from runic_redis.operations.life import Life
from runic_redis.operations.messages import Message
from runic_redis.operations.parking import Parked
from runic_redis.operations.projections import SavedProjection
from runic_redis.operations.queries import Matches
from runic_redis.operations.records import Record
from runic_redis.operations.states import State
from runic_redis.operations.subscriptions import SubscriptionStatus
from runic_redis.operations.timers import Timer
from runic_redis.operations.tracking import Tracking
from runic_redis.positions import Positions
from runic_redis.protocol.effects import Operation
from runic_redis.subscriptions import AsyncSubscription
from runic_redis.tails import AsyncPages, AsyncTail

__all__ = ["AsyncRedisStore"]

T = TypeVar("T")
Hash = TypeVar("Hash", str, bytes, str | bytes)


def _check_asyncio() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "An AsyncRedisStore needs asyncio, and no asyncio event loop is running here. trio and other libraries are "
            'not supported. Nothing was sent. Use asyncio.run or, with anyio, backend="asyncio".'
        ) from None


class AsyncRedisStore:
    """An event store on Redis or Valkey, for asyncio.

    It is an async context manager: entering opens it, as `open` does. The store belongs to the event loop that opened
    it: a call from another loop or thread raises `StoreError` and sends nothing. The calls of concurrent tasks share
    round trips. If a task is cancelled during a write, the write is stored once or not at all. An iterator continues
    after a cancelled step.

    Methods have the names, arguments, errors and guarantees of `RedisStore`'s. A method that returns an iterator there
    returns an async iterator here: errors that the call raises there come from the first step here.

    Args:
        client: a redis-py client: `redis.asyncio.Redis`, `redis.asyncio.RedisCluster`, or one from a
            `redis.asyncio` Sentinel's `master_for`. The store uses it, and neither changes nor closes it.
        namespace: as for `RedisStore`.
        partitions: as for `RedisStore`.
        deadline_s: as for `RedisStore`.
        unknown_events: as for `RedisStore`.
        durability: as for `RedisStore`.
        registry: as for `RedisStore`.
        feed: as for `RedisStore`.
        feed_days: as for `RedisStore`.

    Attributes:
        closed: whether the store has been closed.
        context: the settings that operations are made with, for `run`.

    Raises:
        ConfigurationError: the client or the settings cannot be used.
    """

    def __init__(
        self,
        client: Any,
        *,
        namespace: str = "runic",
        partitions: int | None = 64,
        deadline_s: float = 30.0,
        unknown_events: UnknownEvents = "raise",
        durability: Durability = "memory",
        registry: EventRegistry | None = None,
        feed: bool | None = None,
        feed_days: float | None = 7.0,
    ) -> None:
        self._prepare(
            make_context(namespace, partitions, unknown_events, durability, registry, feed=feed, feed_days=feed_days),
            deadline_s,
        )
        self._connected: Connected | None = connect_client(client, AIO)

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        namespace: str = "runic",
        partitions: int | None = 64,
        deadline_s: float = 30.0,
        unknown_events: UnknownEvents = "raise",
        durability: Durability = "memory",
        registry: EventRegistry | None = None,
        feed: bool | None = None,
        feed_days: float | None = 7.0,
    ) -> Self:
        """Return a store that connects to a URL, and closes the connection when it is closed.

        It connects when it is opened. See `RedisStore.from_url`.
        """
        store = cls.__new__(cls)
        store._prepare(
            make_context(namespace, partitions, unknown_events, durability, registry, feed=feed, feed_days=feed_days),
            deadline_s,
        )
        store._url = find_url(url)
        return store

    def _prepare(self, context: Context, deadline_s: float) -> None:
        check_deadline(deadline_s)
        self.context = context
        self._deadline_s = deadline_s
        self._url = ""
        self._connected = None
        self._sender: Sender | None = None
        self._opened = False
        # Closes the store, even if the task that called `close` is cancelled.
        self._closing: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def registry(self) -> EventRegistry:
        """The event types of this store."""
        return self.context.codec.registry

    @property
    def url(self) -> str:
        """Where the store is connected, as a URL without a password.

        It is empty until the store is open.
        """
        return "" if self._connected is None else self._connected.label

    async def open(self) -> Self:
        """Open the store: connect, and verify the server and the namespace.

        Opening writes nothing. Entering the store as a context manager does the same.

        Raises:
            ConfigurationError: the URL, the client, the server or the settings cannot be used.
            StoreUnavailable: the server cannot be reached.
        """
        if self._opened or self.closed:
            raise StoreError(
                "The store was opened before, and a store opens once. Nothing was sent. Make another store."
            )
        _check_asyncio()
        self._opened = True
        try:
            if self._connected is None:
                # In a thread, because an embedded server may take seconds to start.
                self._connected = await asyncio.to_thread(connect_url, self._url, AIO, self._deadline_s)
            check_open(self.closed)
            self.context.url = self._connected.label
            self.context.clock = time.time
            self.context.wait_s = self._connected.wait_s
            self.context.many_nodes = self._connected.many_nodes
            self._sender = Sender(self._connected.server, self._deadline_s, self._connected.wait_s)
            await run_within(settings.open_namespace(self.context), self._sender, opening_limit_s(self._deadline_s))
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Close the store, and the connection if the store opened it.

        A closed store rejects every call. Called in another event loop while the store's loop is open, this raises
        `StoreError`. Once that loop is closed, any loop can close the store. If this call is cancelled, the store
        closes in the background.
        """
        if self._sender is not None and self._sender.disowned:
            self.closed = True
            return
        if self._closing is None:
            is_late = self._sender is not None and self._sender.home.loop.is_closed()
            if not is_late:
                self._check_loop()
            self.closed = True
            if self._connected is None:
                return
            self._closing = asyncio.create_task(self._close(self._connected, is_late=is_late))
        if not self._closing.done():
            await asyncio.shield(self._closing)

    async def _close(self, connected: Connected, *, is_late: bool) -> None:
        if self._sender is not None:
            await self._sender.close()
        await connected.server.close()
        for client in connected.others:
            if is_late:
                drop_connections(client.connection_pool)
            await client.aclose()
        await asyncio.to_thread(connected.stop)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        keys = self.context.keys
        state = " closed" if self.closed else "" if self._sender else " not open"
        label = f" {self.url}" if self._connected else ""
        return f"<AsyncRedisStore{state}{label} namespace={keys.namespace!r} partitions={keys.partitions}>"

    def __reduce__(self) -> NoReturn:
        raise InvalidType(
            "An AsyncRedisStore cannot be pickled or copied, because its connections belong to this process and its "
            "event loop. Nothing was changed. Pass the URL and the namespace instead, and open a store there with "
            "AsyncRedisStore.from_url."
        )

    def run(self, operation: Operation[T], name: str, workflow_id: str = "") -> Coroutine[Any, Any, T]:
        """Run an operation that was made with this store's `context`, and return its result.

        See `RedisStore.run`.
        """
        context = self.context
        if self._sender is None:
            raise StoreError(
                "The store is not open. Nothing was sent. Write 'async with', or 'await store.open()' first."
            )
        self._sender.check_usable()
        if not context.made:
            operation = settings.with_settings(context, operation)
        if context.observer is None:
            return run(operation, self._sender)
        return _observed(context.observer.observing(name, workflow_id), operation, self._sender)

    def _write(
        self, operation: Operation[T], durability: Durability | None, name: str, workflow_id: str = ""
    ) -> Coroutine[Any, Any, T]:
        return self.run(durably(self.context, operation, durability), name, workflow_id)

    # Events

    @overload
    async def append(
        self,
        workflow_id: str,
        events: Iterable[Any],
        *,
        expected_cursor: int | None = None,
        commit_id: str | bytes | None = None,
        metadata: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
        snapshot: bytes | None = None,
        refs: Iterable[str | bytes | FactRef] | None = None,
        queue: str | None = None,
        due: float | datetime | None = None,
        consumes: Message | Sequence[Message] = (),
        ends_timer: bool = False,
        unless_cancelled: bool = False,
        expires_in: float | None = None,
        attributes: Mapping[str, str | None] | None = None,
        parent: str | None = None,
        tags: Sequence[str] = (),
        details: Literal[False] = False,
        durability: Durability | None = None,
    ) -> int: ...

    @overload
    async def append(
        self,
        workflow_id: str,
        events: Iterable[Any],
        *,
        expected_cursor: int | None = None,
        commit_id: str | bytes | None = None,
        metadata: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
        snapshot: bytes | None = None,
        refs: Iterable[str | bytes | FactRef] | None = None,
        queue: str | None = None,
        due: float | datetime | None = None,
        consumes: Message | Sequence[Message] = (),
        ends_timer: bool = False,
        unless_cancelled: bool = False,
        expires_in: float | None = None,
        attributes: Mapping[str, str | None] | None = None,
        parent: str | None = None,
        tags: Sequence[str] = (),
        details: Literal[True],
        durability: Durability | None = None,
    ) -> Appended: ...

    async def append(
        self,
        workflow_id: str,
        events: Iterable[Any],
        *,
        expected_cursor: int | None = None,
        commit_id: str | bytes | None = None,
        metadata: Mapping[str, Any] | None = None,
        lease: Lease | None = None,
        snapshot: bytes | None = None,
        refs: Iterable[str | bytes | FactRef] | None = None,
        queue: str | None = None,
        due: float | datetime | None = None,
        consumes: Message | Sequence[Message] = (),
        ends_timer: bool = False,
        unless_cancelled: bool = False,
        expires_in: float | None = None,
        attributes: Mapping[str, str | None] | None = None,
        parent: str | None = None,
        tags: Sequence[str] = (),
        details: bool = False,
        durability: Durability | None = None,
    ) -> int | Appended:
        """Append events to a workflow as one commit.

        See `RedisStore.append`.
        """
        return await self._write(
            appending.append(
                self.context,
                workflow_id,
                events,
                expected_cursor=expected_cursor,
                commit_id=commit_id,
                metadata=metadata,
                lease=lease,
                snapshot=snapshot,
                refs=refs,
                life=None
                if queue is None
                and due is None
                and expires_in is None
                and attributes is None
                and parent is None
                and not (consumes or ends_timer or unless_cancelled or tags)
                else Life(queue, due, consumes, ends_timer, unless_cancelled, expires_in, attributes, parent, tags),
                details=details,
            ),
            durability,
            "append",
            workflow_id,
        )

    async def append_many(
        self,
        items: Iterable[tuple[str, Iterable[Any]]],
        *,
        leases: Iterable[Lease] = (),
        durability: Durability | None = None,
    ) -> list[int | StoreError]:
        """Append a commit to each of many workflows, in one round trip.

        See `RedisStore.append_many`.
        """
        return await self._write(appending.append_many(self.context, items, leases), durability, "append_many")

    @overload
    async def append_all(
        self,
        items: Iterable[Append],
        *,
        unless: Query | None = None,
        after: int | None = None,
        tracking: Tracking | None = None,
        details: Literal[False] = False,
        durability: Durability | None = None,
    ) -> list[int]: ...

    @overload
    async def append_all(
        self,
        items: Iterable[Append],
        *,
        unless: Query | None = None,
        after: int | None = None,
        tracking: Tracking | None = None,
        details: Literal[True],
        durability: Durability | None = None,
    ) -> list[Appended]: ...

    async def append_all(
        self,
        items: Iterable[Append],
        *,
        unless: Query | None = None,
        after: int | None = None,
        tracking: Tracking | None = None,
        details: bool = False,
        durability: Durability | None = None,
    ) -> list[int] | list[Appended]:
        """Append a commit to each of several workflows, in one step: all commits are stored, or none.

        See `RedisStore.append_all`.
        """
        return await self._write(
            groups.append_all(self.context, items, tracking, unless=unless, after=after, details=details),
            durability,
            "append_all",
        )

    async def tracking(self, name: str) -> int | None:
        """Return up to which position a source has been processed, as `append_all` has stored it with `tracking`.

        See `RedisStore.tracking`.
        """
        return await self.run(tracking.stored_position(self.context, name), "tracking")

    def encode_events(self, events: Iterable[Any]) -> EncodedEvents:
        """Return the events of a commit, checked and encoded for a later `append`.

        See `RedisStore.encode_events`.
        """
        return appending.encode_events(self.context, events)

    def encode_state(self, state: Any) -> EncodedState:
        """Return a session's state, encoded as the data of a snapshot, with the facts that it refers to.

        See `RedisStore.encode_state`.
        """
        return self.context.codec.encode_state(state)

    def decode_state(self, data: bytes) -> Any:
        """Return the session's state that `encode_state` encoded.

        See `RedisStore.decode_state`.
        """
        return self.context.codec.decode_state_strictly(data)

    def stream(
        self,
        workflow_id: str,
        *,
        after: int = 0,
        until: int | None = None,
        since: datetime | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[Any]:
        """Return an iterator over a workflow's events, up to its present cursor.

        See `RedisStore.stream`.
        """
        return self._read(
            reading.Reader(self.context, workflow_id, after=after, until=until, since=since, reverse=reverse),
            "stream",
            workflow_id,
        )

    def stream_records(
        self,
        workflow_id: str,
        *,
        after: int = 0,
        until: int | None = None,
        since: datetime | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[Record]:
        """Return an iterator like `stream`, with each event in a `Record`.

        See `RedisStore.stream_records`.
        """
        return self._read(
            reading.Reader(
                self.context, workflow_id, after=after, until=until, since=since, reverse=reverse, records=True
            ),
            "stream",
            workflow_id,
        )

    async def read_many(
        self, items: Iterable[tuple[str, int, int | None]], *, facts: bool = False
    ) -> list[list[Record] | StoreError]:
        """Return the records of ranges of many workflows, in one round trip.

        See `RedisStore.read_many`.
        """
        return await self.run(reading_many.read_many(self.context, items, facts=facts), "read_many")

    async def find(
        self,
        workflow_id: str,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[TaggedCommit]:
        """Return the commits of a workflow that carry a tag, with their events.

        See `RedisStore.find`.
        """
        operation = finding.find(self.context, workflow_id, tag=tag, prefix=prefix, reverse=reverse, limit=limit)
        return await self.run(operation, "find", workflow_id)

    async def read_where(self, query: Query, *, after: int = 0, limit: int | None = None) -> Matches:
        """Return the events of the namespace that match a query on their tags, in the order of their positions.

        See `RedisStore.read_where`.
        """
        return await self.run(queries.read_where(self.context, query, after, limit), "read_where")

    def tail(self, workflow_id: str, *, after: int = 0, wait_s: float | None = None) -> AsyncTail[Record]:
        """Return an iterator over a workflow's events that waits for new ones.

        See `RedisStore.tail`.
        """
        return self._tail(
            tailing.Tailer(self.context, {workflow_id: after}), itemgetter(1), wait_s, "tail", workflow_id
        )

    def tail_many(self, after: Mapping[str, int], *, wait_s: float | None = None) -> AsyncTail[tuple[str, Record]]:
        """Return an iterator like `tail` over many workflows, read together.

        See `RedisStore.tail_many`.
        """
        return self._tail(tailing.Tailer(self.context, after), tuple, wait_s, "tail_many")

    def feed(
        self,
        *,
        after: Positions | int | None = None,
        since: datetime | None = None,
        start: Literal["beginning", "now", "rebuild"] = "beginning",
        until: Positions | int | None = None,
        prefix: str = "",
        types: Collection[str | type] | None = None,
        wait_s: float | None = 0.0,
    ) -> AsyncFeed:
        """Return an iterator over the commits of all workflows, and follow them as they are stored.

        See `RedisStore.feed`.
        """
        reader = feed.FeedReader(
            self.context, feed_starts.choose_start(after, since, start), until=until, prefix=prefix, types=types
        )
        return AsyncFeed(partial(self.run, name="feed"), self._check_loop, reader, wait_s)

    def subscribe(
        self,
        name: str,
        *,
        start: Literal["beginning", "now", "rebuild"] | datetime | Positions | int = "beginning",
        prefix: str = "",
        types: Collection[str | type] | None = None,
        batch: int = 1,
        ttl: float = 30.0,
        later: Literal["wait", "park"] = "wait",
        wait_s: float | None = None,
    ) -> AsyncSubscription:
        """Return an iterator over the commits of the feed whose positions are kept in the store under a name.

        See `RedisStore.subscribe`.
        """
        consumer = consuming.Consumer(
            self.context,
            name,
            start=start,
            prefix=prefix,
            types=types,
            batch=batch,
            ttl=ttl,
            later=later,
            clock=now_s,
        )
        run, write = partial(self.run, name="subscribe"), partial(self._write, durability=None, name="ack")
        return AsyncSubscription(run, write, self._check_loop, consumer, wait_s)

    async def subscriptions(self) -> list[SubscriptionStatus]:
        """Return where each subscription and each projection is: its positions, its lag, its consumers.

        See `RedisStore.subscriptions`.
        """
        return await self.run(subscriptions.list_subscriptions(self.context), "subscriptions")

    async def delete_subscription(self, name: str) -> None:
        """Delete a subscription, with its positions and its parked commits.

        See `RedisStore.delete_subscription`.
        """
        await self.run(subscriptions.delete_subscription(self.context, name), "delete_subscription")

    async def parked(self, name: str) -> list[Parked]:
        """Return the commits that a subscription has put aside, by partition and position.

        See `RedisStore.parked`.
        """
        return await self.run(parking.list_parked(self.context, name), "parked")

    async def replay_parked(self, name: str, workflow_id: str) -> int:
        """Have the parked commits of a workflow delivered again, before later commits of the workflow.

        See `RedisStore.replay_parked`.
        """
        return await self._write(
            parking.settle_parked(self.context, name, workflow_id, "replay"), None, "replay_parked", workflow_id
        )

    async def drop_parked(self, name: str, workflow_id: str) -> int:
        """Drop the parked commits of a workflow: they are not delivered again.

        See `RedisStore.drop_parked`.
        """
        return await self._write(
            parking.settle_parked(self.context, name, workflow_id, "drop"), None, "drop_parked", workflow_id
        )

    async def load_projection(self, name: str) -> SavedProjection | None:
        """Return the saved state of a projection; None if none is saved.

        See `RedisStore.load_projection`.
        """
        return await self.run(projections.load_projection(self.context, name), "load_projection")

    async def delete_projection(self, name: str) -> None:
        """Delete a projection: its saved states, and its place in the feed, which trimming does not pass.

        See `RedisStore.delete_projection`.
        """
        await self.run(projections.delete_projection(self.context, name), "delete_projection")

    async def cursor(self, workflow_id: str) -> int:
        """Return how many events the workflow has had since it was created; 0 if there is none."""
        return await self.run(reading.cursor(self.context, workflow_id), "cursor", workflow_id)

    # Snapshots

    async def save_snapshot(
        self,
        workflow_id: str,
        cursor: int,
        data: bytes,
        *,
        lease: Lease | None = None,
        refs: Iterable[str | bytes | FactRef] | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Save a workflow's state as of a cursor, and replace its earlier snapshot.

        See `RedisStore.save_snapshot`.
        """
        await self._write(
            snapshots.save_snapshot(self.context, workflow_id, cursor, data, lease, refs=refs),
            durability,
            "save_snapshot",
            workflow_id,
        )

    async def load_snapshot(self, workflow_id: str) -> tuple[int, bytes]:
        """Return a workflow's snapshot: its cursor and its data.

        See `RedisStore.load_snapshot`.
        """
        return await self.run(snapshots.load_snapshot(self.context, workflow_id), "load_snapshot", workflow_id)

    async def trim(
        self, workflow_id: str, *, keep: int = 0, lease: Lease | None = None, durability: Durability | None = None
    ) -> int:
        """Trim the commits that the workflow's snapshot covers, and release the facts that only they referred to.

        See `RedisStore.trim`.
        """
        return await self._write(
            snapshots.trim(self.context, workflow_id, keep, lease), durability, "trim", workflow_id
        )

    # Facts

    async def save_fact(self, fact_hash: str | bytes, value: Any, *, durability: Durability | None = None) -> None:
        """Save a value under a hash that you choose; a value that is already stored there stays.

        See `RedisStore.save_fact`.
        """
        await self._write(facts.save_fact(self.context, fact_hash, value), durability, "save_fact")

    async def save_facts(self, values: Mapping[Hash, Any], *, durability: Durability | None = None) -> None:
        """Save many values, each under its hash, in one round trip.

        See `RedisStore.save_facts`.
        """
        await self._write(facts.save_facts(self.context, values), durability, "save_facts")

    async def put_fact(self, value: Any, *, durability: Durability | None = None) -> str:
        """Save a value under its content hash, and return the hash.

        See `RedisStore.put_fact`.
        """
        return await self._write(facts.put_fact(self.context, value), durability, "put_fact")

    def fact_hash(self, value: Any) -> str:
        """Return the hash that `put_fact` returns for a value.

        See `RedisStore.fact_hash`.
        """
        return facts.fact_hash(self.context, value)

    async def load_fact(self, fact_hash: str | bytes) -> Any:
        """Return the value stored under a hash, after checking it against the hash.

        See `RedisStore.load_fact`.
        """
        return await self.run(facts.load_fact(self.context, fact_hash), "load_fact")

    async def load_facts(self, hashes: Iterable[Hash]) -> dict[Hash, Any]:
        """Return the values stored under many hashes, by hash, in one round trip.

        See `RedisStore.load_facts`.
        """
        return await self.run(facts.load_facts(self.context, hashes), "load_facts")

    # Leases

    async def acquire(self, workflow_id: str, owner: str, ttl: float = 30.0) -> AsyncHeldLease:
        """Acquire a lease: the right to write a workflow, for a limited time.

        See `RedisStore.acquire`.
        """
        token, queue = await self.run(leasing.acquire(self.context, workflow_id, owner, ttl), "acquire", workflow_id)
        return self._held(Lease(workflow_id, owner, token, float(ttl), queue))

    async def claim(
        self,
        owner: str,
        limit: int = 1,
        *,
        queues: Iterable[str] = (DEFAULT_QUEUE,),
        ttl: float = 30.0,
        wait_s: float = 0.0,
        max_attempts: int | None = None,
    ) -> list[AsyncHeldLease]:
        """Claim workflows that are due: acquire their leases.

        See `RedisStore.claim`.
        """
        claim = claiming.Claim(
            self.context, owner, limit, queues=queues, ttl=ttl, wait_s=wait_s, max_attempts=max_attempts
        )
        claimed = await self.run(claim.run(), "claim")
        return [
            self._held(Lease(one.workflow_id, owner, one.token, float(ttl), one.queue, one.attempt)) for one in claimed
        ]

    def _held(self, lease: Lease) -> AsyncHeldLease:
        home = None if self._sender is None else self._sender.home
        return AsyncHeldLease(
            *(lease.workflow_id, lease.owner, lease.token, lease.ttl, lease.queue, lease.attempt), self, home
        )

    async def renew(self, lease: Lease) -> None:
        """Renew a lease for its full time from now.

        See `RedisStore.renew`.
        """
        await self.run(leasing.renew(self.context, lease), "renew")

    async def release(self, lease: Lease, *, due: float | datetime | None = None) -> None:
        """Release a lease, so that others can claim the workflow once it is due.

        See `RedisStore.release`.
        """
        await self.run(leasing.release(self.context, lease, due), "release")

    async def sleep(self, lease: Lease, until: float | datetime | None, name: str = "") -> None:
        """Release a lease until a time, and store this time as the timer of the workflow.

        See `RedisStore.sleep`.
        """
        await self.run(timers.sleep(self.context, lease, until, name), "sleep", lease.workflow_id)

    async def timer(self, workflow_id: str) -> Timer | None:
        """Return the timer of a workflow, or None if it has none.

        See `RedisStore.timer`.
        """
        return await self.run(timers.load_timer(self.context, workflow_id), "timer", workflow_id)

    async def park(self, workflow: Lease | str, reason: str, *, durability: Durability | None = None) -> None:
        """Take a workflow out of its queue, until `unpark` puts it back.

        See `RedisStore.park`.
        """
        await self._write(queueing.park(self.context, workflow, reason), durability, "park")

    async def unpark(
        self, workflow_id: str, *, due: float | datetime | None = None, durability: Durability | None = None
    ) -> None:
        """Put a parked workflow back in its queue, with no attempts counted. If it is not parked, nothing happens.

        See `RedisStore.unpark`.
        """
        await self._write(queueing.unpark(self.context, workflow_id, due), durability, "unpark", workflow_id)

    async def complete(
        self, workflow_id: str, *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """Mark a workflow as complete, so that it can no longer be claimed.

        See `RedisStore.complete`.
        """
        await self._write(queueing.complete(self.context, workflow_id, lease), durability, "complete", workflow_id)

    async def expire(
        self, workflow_id: str, after: float, *, sliding: bool = False, durability: Durability | None = None
    ) -> None:
        """Have a workflow deleted some seconds from now, with everything stored for it except facts.

        See `RedisStore.expire`.
        """
        await self._write(
            lifetimes.expire(self.context, workflow_id, after, sliding=sliding), durability, "expire", workflow_id
        )

    async def persist(self, workflow_id: str, *, durability: Durability | None = None) -> None:
        """Remove the end that `expire` has set: the workflow is kept until it is deleted.

        See `RedisStore.persist`.
        """
        await self._write(lifetimes.persist(self.context, workflow_id), durability, "persist", workflow_id)

    # Messages

    async def send(
        self,
        workflow_id: str,
        message: Any,
        *,
        message_id: str | None = None,
        missing: Literal["raise", "keep"] = "raise",
        durability: Durability | None = None,
    ) -> str:
        """Send a workflow a message, and wake the workflow.

        See `RedisStore.send`.
        """
        return await self._write(
            messages.send(self.context, workflow_id, message, message_id=message_id, missing=missing),
            durability,
            "send",
            workflow_id,
        )

    async def request_cancel(self, workflow_id: str, reason: str = "", *, durability: Durability | None = None) -> str:
        """Ask a workflow to end early: send it the message `CancelRequested`.

        See `RedisStore.request_cancel`.
        """
        operation = messages.request_cancel(self.context, workflow_id, reason)
        return await self._write(operation, durability, "request_cancel", workflow_id)

    async def inbox(self, workflow_id: str, *, wait_s: float = 0.0) -> list[Message]:
        """Return the messages that no commit of the workflow has consumed, the oldest first.

        See `RedisStore.inbox`.
        """
        operation = messages.read_inbox(self.context, workflow_id, wait_s, now_s)
        return await self.run(operation, "inbox", workflow_id)

    # Whole workflows

    async def save(
        self, workflow_id: str, log: list[Any], *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """Save a whole list of events as the workflow's log, and replace its earlier log.

        See `RedisStore.save`.
        """
        await self._write(workflows.save(self.context, workflow_id, log, lease), durability, "save", workflow_id)

    async def checkpoint(
        self, workflow_id: str, log: list[Any], *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """Save the workflow's log, as `save` does.

        See `RedisStore.checkpoint`.
        """
        await self.save(workflow_id, log, lease=lease, durability=durability)

    async def load(self, workflow_id: str) -> list[Any]:
        """Return the workflow's log, as it was last saved.

        See `RedisStore.load`.
        """
        return await self.run(workflows.load(self.context, workflow_id), "load", workflow_id)

    async def exists(self, workflow_id: str) -> bool:
        """Return whether anything was appended, saved or snapshotted under the id."""
        return await self.run(workflows.exists(self.context, workflow_id), "exists", workflow_id)

    async def delete(
        self, workflow_id: str, *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """Delete a workflow with everything stored for it except facts.

        See `RedisStore.delete`.
        """
        await self._write(workflows.delete(self.context, [workflow_id], lease), durability, "delete", workflow_id)

    def list(
        self,
        *,
        prefix: str = "",
        limit: int | None = None,
        state: State | None = None,
        queue: str | None = None,
        due: datetime | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> AsyncIterator[str]:
        """Return an iterator over the ids of workflows, all or those that pass the filters.

        See `RedisStore.list`.
        """
        wanted = check_filters(
            prefix=prefix, state=state, queue=queue, due=due, since=since, until=until, attributes=attributes
        )
        return self._read(listing.Listing(self.context, wanted, limit=limit), "list")

    async def count(
        self,
        *,
        prefix: str = "",
        state: State | None = None,
        queue: str | None = None,
        due: datetime | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> int:
        """Return how many workflows pass the filters, which are those of `list`.

        See `RedisStore.count`.
        """
        wanted = check_filters(
            prefix=prefix, state=state, queue=queue, due=due, since=since, until=until, attributes=attributes
        )
        return await self.run(counting.count_matching(self.context, wanted), "count")

    def children(self, workflow_id: str) -> AsyncIterator[str]:
        """Return an iterator over the ids of a workflow's children, the first created first.

        See `RedisStore.children`.
        """
        wanted = Filters(parent=check_workflow_id(workflow_id))
        return self._read(listing.Listing(self.context, wanted), "children", workflow_id)

    # The namespace as a whole

    async def collect(self, grace: float = 3600.0) -> int:
        """Remove facts that no workflow refers to, in bounded steps, while writers are active.

        See `RedisStore.collect`.
        """
        return await self.run(collecting.collect(self.context, grace), "collect")

    async def trim_feed(self, *, keep: int | None = None, older_than: float | None = None, force: bool = False) -> int:
        """Trim the oldest commits from the feed. The workflows keep their events.

        See `RedisStore.trim_feed`.
        """
        return await self.run(feed_trimming.trim_feed(self.context, keep, older_than, force=force), "trim_feed")

    async def set_feed_days(self, days: float | None) -> None:
        """Set for how many days the feed of the namespace lists a commit; None for ever. `collect` trims the others.

        See `RedisStore.set_feed_days`.
        """
        await self.run(feed_trimming.set_feed_days(self.context, days), "set_feed_days")

    async def memory_usage(self) -> dict[str, int]:
        """Return how many bytes of the server's memory the namespace takes, by kind of key.

        See `RedisStore.memory_usage`.
        """
        return await self.run(namespace.memory_usage(self.context), "memory_usage")

    async def delete_namespace(self) -> None:
        """Delete every workflow, every fact, and the namespace itself.

        See `RedisStore.delete_namespace`.
        """
        await self.run(namespace.delete_namespace(self.context), "delete_namespace")

    def _tail(
        self,
        tailer: tailing.Tailer,
        form: Callable[[tuple[str, Record]], Any],
        wait_s: float | None,
        name: str,
        workflow_id: str = "",
    ) -> AsyncTail[Any]:
        run_page = partial(self.run, name=name, workflow_id=workflow_id)
        return AsyncTail(run_page, self._check_loop, tailer, form, wait_s)

    def _read(self, source: reading.Reader | listing.Listing, name: str, workflow_id: str = "") -> AsyncPages[Any]:
        return AsyncPages(partial(self.run, name=name, workflow_id=workflow_id), self._check_loop, source)

    def _check_loop(self) -> None:
        if self._sender is not None:
            self._sender.home.check_loop()


async def _observed(observing: AbstractContextManager[Callable[[T], T]], operation: Operation[T], sender: Sender) -> T:
    with observing as take:
        return take(await run(operation, sender))
