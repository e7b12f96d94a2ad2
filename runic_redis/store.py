"""The store: every operation of the contract, on a connection to Redis.

The whole API is one module because users read it from top to bottom, a method for each operation. The operations
themselves are in operations/, and drivers/ sends them to Redis.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any, Literal, NoReturn, Self, TypeVar, overload

from runic_redis.arguments import DEFAULT_QUEUE, Query, check_deadline, check_workflow_id
from runic_redis.codec import EncodedEvents, EncodedState
from runic_redis.context import Context, find_url, make_context
from runic_redis.drivers.connect import SYNC, Connected, connect_client, connect_url
from runic_redis.drivers.redis_py import now_s, opening_limit_s
from runic_redis.drivers.sync import Sender, run, run_within
from runic_redis.durability import Durability
from runic_redis.errors import InvalidType, StoreError
from runic_redis.events import EventRegistry, FactRef, UnknownEvents
from runic_redis.feeds import Feed
from runic_redis.heartbeat import HeldLease
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
from runic_redis.subscriptions import Subscription
from runic_redis.tails import Tail

__all__ = ["RedisStore", "init_store"]

T = TypeVar("T")
Hash = TypeVar("Hash", str, bytes, str | bytes)


class RedisStore:
    """An event store on Redis or Valkey, for threads and processes to share.

    Open one with `RedisStore.from_url`, or pass a redis-py client. It is a context manager, and many threads may use
    it. Opening writes nothing: the first write creates the namespace. Do not call it from a signal handler: the handler
    may have interrupted a call of the same thread, and would wait for that call. Set a flag there instead.

    Every method can raise these errors, and each method names the others:

    - `StoreUnavailable`: Redis did not answer within the deadline.
    - `InvalidArgument` or `InvalidType`: no store could take the argument; nothing was sent.
    - `DecodeError`: a key holds a foreign or damaged value; nothing was changed.
    - `WriteRefused`, on a write: the server is full, or the request is too large for it; nothing was changed.
    - `DurabilityError`, on a write: the write is stored, and its durability was not confirmed.

    The durability "memory" means that the server has the write. "fsync" means that it is on the server's disk, and
    `replicated(n)` that n replicas have it too. The round trip that carries the write also confirms it. Leases are not
    confirmed: a lease that is lost with its server is rejected later.

    Args:
        client: a redis-py client: `redis.Redis`, `redis.RedisCluster`, or one from a Sentinel's `master_for`. The store
            uses it, and neither changes nor closes it.
        namespace: the name under which this application's data is stored, separate from all else in the server.
        partitions: over how many parts the namespace spreads its workflows; fixed by the first write. None for the
            number that the namespace has, or 64 for a new one.
        deadline_s: how many seconds the store retries an operation, or queues it while the server fails, before it
            raises `StoreUnavailable`.
        unknown_events: how to read an event of a type that is not registered: "raise" `UnknownEventType`, or "wrap"
            it in an `UnknownEvent`.
        durability: how durable a write must be before its call returns, unless the call says otherwise.
        registry: the event types of this store; None for those registered by the package's `event`.
        feed: whether the namespace has a feed, which lists every commit; fixed by the first write. None for what the
            namespace has; a new one then has none.
        feed_days: for how many days the feed of a new namespace lists a commit; None for ever. `set_feed_days` changes
            it.

    Attributes:
        closed: whether the store has been closed.
        context: the settings that operations are made with, for `run`.

    Raises:
        ConfigurationError: the client, the server or the settings cannot be used.
        StoreUnavailable: the server cannot be reached.
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
        context = make_context(
            namespace, partitions, unknown_events, durability, registry, feed=feed, feed_days=feed_days
        )
        check_deadline(deadline_s)
        self._open(connect_client(client, SYNC), context, deadline_s)

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

        Args:
            url: where to connect; None for the environment's ``RUNIC_REDIS_URL``. One of ``redis://``, ``rediss://``,
                ``unix://``, ``redis+cluster://``, ``rediss+cluster://``, ``redis+sentinel://``, ``embedded://`` and
                ``memory://``, with the query options of redis-py.
            namespace: as for the class.
            partitions: as for the class.
            deadline_s: as for the class.
            unknown_events: as for the class.
            durability: as for the class.
            registry: as for the class.
            feed: as for the class.
            feed_days: as for the class.

        Raises:
            ConfigurationError: the URL, the server or the settings cannot be used; the message says what to do.
            StoreUnavailable: the server cannot be reached.
        """
        context = make_context(
            namespace, partitions, unknown_events, durability, registry, feed=feed, feed_days=feed_days
        )
        check_deadline(deadline_s)
        store = cls.__new__(cls)
        store._open(connect_url(find_url(url), SYNC, deadline_s), context, deadline_s)
        return store

    @property
    def registry(self) -> EventRegistry:
        """The event types of this store."""
        return self.context.codec.registry

    @property
    def url(self) -> str:
        """Where the store is connected, as a URL without a password."""
        return self._connected.label

    def _open(self, connected: Connected, context: Context, deadline_s: float) -> None:
        self._connected = connected
        self.context = context
        context.url = connected.label
        context.clock = time.time
        context.wait_s = connected.wait_s
        context.many_nodes = connected.many_nodes
        self._sender = Sender(connected.server, deadline_s, connected.wait_s)
        self.closed = False
        try:
            run_within(settings.open_namespace(context), self._sender, opening_limit_s(deadline_s))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the store, and the connection if the store opened it.

        A closed store rejects every call.
        """
        if not self.closed:
            self.closed = True
            self._sender.close()
            self._connected.server.close()
            for client in self._connected.others:
                client.close()
            self._connected.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        keys = self.context.keys
        state = " closed" if self.closed else ""
        return f"<RedisStore{state} {self.url} namespace={keys.namespace!r} partitions={keys.partitions}>"

    def __reduce__(self) -> NoReturn:
        raise InvalidType(
            "A RedisStore cannot be pickled or copied, because its connections belong to this process. Nothing was "
            "changed. Pass the URL and the namespace instead, and open a store there with RedisStore.from_url. Threads "
            "can share one store."
        )

    def run(self, operation: Operation[T], name: str, workflow_id: str = "") -> T:
        """Run an operation that was made with this store's `context`, and return its result.

        The store's methods use it. So do tools that bring operations of their own, such as the command line.

        Args:
            operation: from a function in `runic_redis.operations` or `runic_redis.admin`.
            name: the operation's public name. Spans and metrics carry it.
            workflow_id: the workflow that it is about, if it is about a single one.
        """
        context = self.context
        if not context.made:
            operation = settings.with_settings(context, operation)
        if context.observer is None:
            return run(operation, self._sender)
        with context.observer.observing(name, workflow_id) as take:
            result: T = take(run(operation, self._sender))
            return result

    def _write(self, operation: Operation[T], durability: Durability | None, name: str, workflow_id: str = "") -> T:
        return self.run(durably(self.context, operation, durability), name, workflow_id)

    # Events

    @overload
    def append(
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
    def append(
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

    def append(
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

        The store keeps the commit whole or not at all. A retry finds a commit whose reply was lost, and does not store
        it twice. An empty list stores nothing; the store still checks the expected cursor. A value wrapped as `Fact` is
        stored as a fact in the same step, and readers get a `FactRef` in its place.

        Args:
            workflow_id: the workflow; its first commit creates it.
            events: instances of registered classes, and plain dicts.
            expected_cursor: append only if the workflow is at exactly this cursor; 0 for a new workflow.
            commit_id: your own id for the commit. The store knows it as long as the workflow exists: a second append
                with the same id stores nothing, whatever its events, and returns the same cursor.
            metadata: a small dict to store with the commit, such as correlation and causation ids.
            lease: append only under this lease, and renew it.
            snapshot: the workflow's state after these events, stored as its snapshot in the same step.
            refs: the facts that the snapshot refers to, as for `save_snapshot`.
            queue: put the workflow in this queue, in the same step, for `claim` to find. A workflow is in one queue
                only, and leaves the one it was in. While it is parked, only the queue for `unpark` changes.
            due: from when it can be claimed: None for now, a number of seconds from now, an aware datetime, or
                `math.inf`: once there is a message in its inbox. A workflow that is leased is due when its lease ends.
            consumes: a message from `inbox`, or a list of them, that this commit answers. They are removed from the
                inbox in the same step.
            ends_timer: the timer that the workflow slept for is over. Sessions use it.
            unless_cancelled: append only if there is no request to cancel in the workflow's inbox. `work` uses it.
            expires_in: have the workflow deleted so many seconds after this commit, as `expire` does. It replaces an
                earlier lifetime. So a workflow that is created with it is at no moment without an end.
            attributes: short texts by name, such as {"customer": "7"}, by which `list` and `count` find the workflow.
                Each commit may set some, and None removes one. A workflow has at most 16, of 256 bytes each.
            parent: the workflow that started this one, for `children`. Only the first commit of a workflow takes it.
            tags: short texts, such as "step/17", by which `find` finds this commit: up to 1,000, of 130 bytes each.
            details: return more about the commit: the hashes of its facts, and its position in the feed.
            durability: how durable the commit must be before the call returns; None for the store's setting.

        Returns:
            The workflow's cursor after the commit; with `details`, an `Appended`.

        Raises:
            CursorConflict: the workflow is not at the expected cursor; nothing was stored. If it is below, the error is
                a `CommitsLost`.
            LeaseLost: the lease is outdated; nothing was stored.
            FactNotFound: an event holds a `FactRef` to a fact that is not stored, or `refs` names one; nothing was
                stored.
            WorkflowCompleted: `queue` is given, and the workflow is completed; nothing was stored.
            MessageGone: a message to consume is not in the inbox; nothing was stored.
            WorkflowCancelled: `unless_cancelled` is given, and someone has requested to cancel the workflow; nothing
                was stored.
            InvalidArgument: `parent` is given, and the workflow has events; or it would have too many attributes;
                nothing was stored.
            EncodeError: an event, or a value in one, has no encoding; nothing was sent.
        """
        return self._write(
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

    def append_many(
        self,
        items: Iterable[tuple[str, Iterable[Any]]],
        *,
        leases: Iterable[Lease] = (),
        durability: Durability | None = None,
    ) -> list[int | StoreError]:
        """Append a commit to each of many workflows, in one round trip.

        Each commit stands alone: if one fails, its error is in the list, and the others are stored. Several commits to
        one workflow are stored in their order, each in its own round trip.

        Args:
            items: pairs of a workflow id and its events.
            leases: commits to the workflows of these leases are appended under them.
            durability: as for `append`.

        Returns:
            For each item, in order: the workflow's cursor after the commit, or the `StoreError` that it failed with.
        """
        return self._write(appending.append_many(self.context, items, leases), durability, "append_many")

    @overload
    def append_all(
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
    def append_all(
        self,
        items: Iterable[Append],
        *,
        unless: Query | None = None,
        after: int | None = None,
        tracking: Tracking | None = None,
        details: Literal[True],
        durability: Durability | None = None,
    ) -> list[Appended]: ...

    def append_all(
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

        Each commit has its own expected cursor, lease, snapshot and queue. On one server the workflows can be any; in
        a cluster their ids have the same part in braces, such as ``order-{42}`` and ``payment-{42}``. A retry finds a
        group whose reply was lost, and does not store it twice. To repeat the call yourself after `StoreUnavailable`,
        give each commit a commit id: if all of them were stored before, their cursors are returned.

        Args:
            items: the commits, each for another workflow; see `Append`.
            unless: a condition, in a namespace with one partition and a feed: a query, as `read_where` takes it. If an
                event matches, nothing is stored.
            after: the position of the condition: only events after it count. Pass the head of what you have read; None
                for all events.
            tracking: how far a source has been processed, stored in the same step; see `Tracking`. The group is
                rejected unless its position is above the stored one. So results of a source are stored once, whatever
                is processed again. The list of commits may then be empty. If the commits were stored before, by their
                commit ids, the record stays as it is. In a cluster, the workflows must be in the first partition.
            details: return more about each commit, as for `append`.
            durability: as for `append`.

        Returns:
            The cursor of each workflow after its commit, in order; with `details`, an `Appended` for each; an empty
            list for no commits.

        Raises:
            ConditionFailed: an event matches the condition; nothing was stored.
            GroupRejected: a commit was rejected, and nothing of the group was stored. Its cause is the error that
                `append` would have raised.
            TrackingConflict: the position of `tracking` is not above the stored one; nothing of the group was stored.
            InvalidArgument: an item is invalid, two are for one workflow, or in a cluster the workflows are of several
                partitions; nothing was stored. Or there is a condition, and the namespace has several partitions or no
                feed.
            EncodeError: an event, or a value in one, has no encoding; nothing was sent.
        """
        operation = groups.append_all(self.context, items, tracking, unless=unless, after=after, details=details)
        return self._write(operation, durability, "append_all")

    def tracking(self, name: str) -> int | None:
        """Return up to which position a source has been processed, as `append_all` has stored it with `tracking`.

        Args:
            name: the name of the source.

        Returns:
            The position; None if there is none.
        """
        return self.run(tracking.stored_position(self.context, name), "tracking")

    def encode_events(self, events: Iterable[Any]) -> EncodedEvents:
        """Return the events of a commit, checked and encoded for a later `append`.

        Nothing is sent, and in asyncio the call is not awaited. Pass the result to `append` in place of the events, and
        the store does not encode them again. Later changes to an event have no effect on it.

        Args:
            events: as for `append`.

        Returns:
            The events, as a tuple. Its attribute ``encoded_bytes`` is the size that a commit's limit counts, and
            ``stored_bytes`` is the size after compression.

        Raises:
            EncodeError: an event, or a value in one, has no encoding, or the commit is too large.
        """
        return appending.encode_events(self.context, events)

    def encode_state(self, state: Any) -> EncodedState:
        """Return a session's state, encoded as the data of a snapshot, with the facts that it refers to.

        The state is any value that an event may hold. Nothing is sent, and in asyncio the call is not awaited.

        Raises:
            EncodeError: a part of it has no encoding.
        """
        return self.context.codec.encode_state(state)

    def decode_state(self, data: bytes) -> Any:
        """Return the session's state that `encode_state` encoded.

        Nothing is sent, and in asyncio the call is not awaited.

        Raises:
            DecodeError: the data is damaged, or is not an encoded state.
            UnknownEventType: it holds an object of a type that is not registered.
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
    ) -> Iterator[Any]:
        """Return an iterator over a workflow's events, up to its present cursor.

        The iterator reads a page at a time. It cuts the commits at both ends to the range that you ask for.

        Args:
            workflow_id: the workflow.
            after: return only events with a higher cursor.
            until: return no event with a higher cursor; None for all events.
            since: return only commits from this time on, by the server's clock; an aware `datetime`. The store finds
                the first of them by a binary search, which takes about 20 round trips for a million events. After that,
                it returns events by their cursors alone. If a server's clock was set back over this time, several
                commits begin it, and the store starts at one of them.
            reverse: newest first. Reading the last few events costs no more than those few.

        Raises:
            WorkflowNotFound: nothing was ever appended to it, raised by the call; or the workflow was deleted while you
                iterate.
            EventsTrimmed: events in the range were trimmed. The call raises it; in reverse, the iterator does when it
                reaches them. With `since`, only if the last trimmed event is from that time on.
            CommitsLost: the server lost events while you iterate.
            UnknownEventType: an event's type is not registered, see `unknown_events`.
            DecodeError: stored data is damaged.
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
    ) -> Iterator[Record]:
        """Return an iterator like `stream`, with each event in a `Record`.

        A record holds the event, its cursor, its time and its commit's metadata.
        """
        return self._read(
            reading.Reader(
                self.context, workflow_id, after=after, until=until, since=since, reverse=reverse, records=True
            ),
            "stream",
            workflow_id,
        )

    def read_many(
        self, items: Iterable[tuple[str, int, int | None]], *, facts: bool = False
    ) -> list[list[Record] | StoreError]:
        """Return the records of ranges of many workflows, in one round trip.

        A range with more than 64 commits, or with megabytes of events, takes further round trips, which such ranges
        share. In a cluster, a round trip goes to each node at the same time. Each range is read by itself: if one
        cannot be read, its error is in the list in its place.

        Args:
            items: triples: a workflow id; the cursor after which to read, 0 for all; and the last cursor to read, None
                for no limit.
            facts: return the events as they were appended, with a `Fact` in place of each `FactRef`. All facts are
                loaded together, each once, in one more round trip. Records share their values: do not change them.

        Returns:
            For each item, in order: its `Record`s, or the `StoreError` that `stream_records` raises for it. With
            `facts`, also a `FactNotFound` or `DecodeError`, which names the fact and the event that refers to it.
        """
        return self.run(reading_many.read_many(self.context, items, facts=facts), "read_many")

    def find(
        self,
        workflow_id: str,
        *,
        tag: str | None = None,
        prefix: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> list[TaggedCommit]:
        """Return the commits of a workflow that carry a tag, with their events.

        One round trip finds up to 256 commits or 1 MiB. A tag finds its commit from the moment the commit is
        acknowledged until the commit is trimmed or deleted.

        Args:
            workflow_id: the workflow.
            tag: the tag, as `append` took it; or
            prefix: the beginning of the tags. A commit with several such tags is returned for each of them.
            reverse: return the last commit first.
            limit: how many commits to return at most; None for all.

        Returns:
            The commits in the order of their tags, by UTF-8 bytes, and for one tag in the order of their cursors. An
            empty list if none carries the tag, or there is no such workflow.

        Raises:
            InvalidArgument: there is both a tag and a prefix, or neither; nothing was sent.
            DecodeError: the stored data is damaged. If only the tags are, ``verify --repair`` restores them.
        """
        operation = finding.find(self.context, workflow_id, tag=tag, prefix=prefix, reverse=reverse, limit=limit)
        return self.run(operation, "find", workflow_id)

    def read_where(self, query: Query, *, after: int = 0, limit: int | None = None) -> Matches:
        """Return the events of the namespace that match a query on their tags, in the order of their positions.

        The namespace has one partition and a feed. The events are those of all workflows, as they were at one moment.
        Trimmed and deleted events are not found. One or two round trips read a page: up to 256 commits or 4 MiB.

        Args:
            query: lists of tags. An event matches if it has all tags of one of them: ``[["a"], ["b", "c"]]`` finds
                events with a, and events with both b and c. ``[[]]`` finds every event, and reads the feed for that.
                At most 256 lists with 1,000 tags.
            after: return only events with a higher position.
            limit: how many events to return at most; None for all. It bounds the memory that the result takes.

        Returns:
            The events, and the position up to which they are complete: the `after` of the next read, or of a condition.

        Raises:
            InvalidArgument: the query is invalid, or the namespace has several partitions or no feed; nothing was sent.
            FeedTrimmed: every event is wanted, and commits after the position were trimmed from the feed.
            EventsTrimmed: every event is wanted, and some were trimmed from their workflow.
            UnknownEventType: an event is of a type that is not registered.
            DecodeError: the stored data is damaged. If only the index is, ``verify --repair`` restores it.
        """
        return self.run(queries.read_where(self.context, query, after, limit), "read_where")

    def tail(self, workflow_id: str, *, after: int = 0, wait_s: float | None = None) -> Tail[Record]:
        """Return an iterator over a workflow's events that waits for new ones.

        It starts with the stored events and goes on with new ones as they are appended. The workflow need not exist
        yet. The store reads over a separate connection.

        Args:
            workflow_id: the workflow.
            after: return only events with a higher cursor.
            wait_s: how many seconds a step waits for the next event before iteration ends; None for no limit, 0 for the
                stored events only. A later step goes on where iteration ended. While the server is unreachable, a step
                waits until the store's deadline and then raises `StoreUnavailable`.

        Returns:
            An iterator of `Record`s, which is also a context manager.

        Raises:
            EventsTrimmed: events in the range were trimmed; raised by the call, or while you iterate.
            WorkflowNotFound: the workflow was deleted while you iterate.
            CommitsLost: the server lost events while you iterate.
        """
        return self._tail(
            tailing.Tailer(self.context, {workflow_id: after}), itemgetter(1), wait_s, "tail", workflow_id
        )

    def tail_many(self, after: Mapping[str, int], *, wait_s: float | None = None) -> Tail[tuple[str, Record]]:
        """Return an iterator like `tail` over many workflows, read together.

        The events of each workflow come in order. There is no order between workflows. One server needs one blocking
        read. In a cluster a read cannot wait for several slots: a new event arrives within 50 ms, times the number of
        slots.

        Args:
            after: the workflows, each with the cursor after which to read it.
            wait_s: as for `tail`.

        Returns:
            An iterator of pairs, a workflow id and a `Record`, which is also a context manager.
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
    ) -> Feed:
        """Return an iterator over the commits of all workflows, and follow them as they are stored.

        Commits of a partition come in the order of their positions, which is the order in which the server stored
        them. So the commits of a workflow come in order. Commits of several partitions are merged by the time of the
        server; while you follow, those that arrive together are. A namespace with partitions=1 has one total order.

        Each commit is returned once, whole, and with its positions: pass those as `after` to go on later. Positions
        have no gaps, so a commit that was trimmed or lost raises an error and is never passed over silently. The events
        of a workflow that was deleted since are gone: the feed passes over them, and returns the deletion.

        Args:
            after: go on after these positions; a number does if the namespace has one partition.
            since: begin with the first commit from this time on, an aware datetime.
            start: where to begin without `after` and `since`: at the "beginning"; "now"; or "rebuild", which first
                reads everything that the workflows hold now, in no particular order of workflows, and then goes on with
                the feed from there. It returns each commit once, and also works if the feed was trimmed.
            until: end after these positions.
            prefix: only commits of workflows whose ids start with this.
            types: only commits with an event of one of these types: registered classes, or names. They come whole.
                Without it, commits without events tell of the deletion of workflows, and of the creation of workflows
                by something other than an append.
            wait_s: how many seconds a step waits for the next commit before iteration ends; None for no limit, 0 for
                the stored commits only. While the server is unreachable, a step waits until the store's deadline and
                then raises `StoreUnavailable`.

        Returns:
            An iterator of `Commit`s, which is also a context manager and has `positions`.

        Raises:
            ConfigurationError: the namespace has no feed.
            FeedTrimmed: commits in the range were trimmed from the feed; raised by the call, or while you iterate.
            EventsTrimmed: the events of a commit were trimmed from their workflow before they were read.
            CommitsLost: the server lost commits that you have read, or that the feed has.
        """
        reader = feed.FeedReader(
            self.context, feed_starts.choose_start(after, since, start), until=until, prefix=prefix, types=types
        )
        return Feed(partial(self.run, name="feed"), reader, wait_s)

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
    ) -> Subscription:
        """Return an iterator over the commits of the feed whose positions are kept in the store under a name.

        Each commit after the start is delivered to one of the consumers of the name, in the order of its partition, so
        also in the order of its workflow. `Subscription.ack` stores that it was handled. A commit that was not
        acknowledged when its consumer ended or crashed is delivered to another one. The same consumer gets it again
        after a failover that took the acknowledgement back.

        Consumers of one name share the partitions: each call makes one consumer, in any thread or process. A new one
        gets its share within the time of a lease, once the others have acknowledged what they have in hand. The
        partitions of one that crashed move to the others when its leases have ended.

        Args:
            name: the name: 1 to 100 letters, digits and ``_ . @ / + -``. The first call registers it.
            start: where to begin: at the "beginning"; "now"; with "rebuild", which first reads everything that the
                workflows hold now; with the first commit from a time on, an aware datetime; or after positions. It
                counts only for partitions that have no position stored yet, so for the first call.
            prefix: only commits of workflows whose ids start with this; fixed by the first call.
            types: only commits with an event of one of these types, as for `feed`; fixed by the first call.
            batch: store the positions once for so many acknowledgements. Up to so many acknowledged commits are
                delivered again if the consumer crashes.
            ttl: how many seconds the leases last. They are renewed three times in that time.
            later: what happens to the later commits of a workflow that has a parked commit. They "wait", and are
                delivered after it is replayed or dropped. Or "park" parks them, too.
            wait_s: how many seconds a step waits for the next commit before iteration ends; None for no limit, 0 for
                the stored commits only.

        Returns:
            An iterator of `Commit`s, which is also a context manager, and has `ack`, `park` and `run`.

        Raises:
            ConfigurationError: the namespace has no feed.
            InvalidArgument: the name is registered with another prefix or other types.
            FeedTrimmed: commits after the stored positions were trimmed from the feed; raised by the call, or while
                you iterate. With start="rebuild" they do not raise it: the subscription begins such a partition again
                with what the workflows hold now.
            EventsTrimmed: the events of a commit were trimmed from their workflow before they were read.
            CommitsLost: the server has lost the commits at the stored positions.
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
        return Subscription(run, write, consumer, wait_s)

    def subscriptions(self) -> list[SubscriptionStatus]:
        """Return where each subscription and each projection is: its positions, its lag, its consumers.

        They are in the order of their names.
        """
        return self.run(subscriptions.list_subscriptions(self.context), "subscriptions")

    def delete_subscription(self, name: str) -> None:
        """Delete a subscription, with its positions and its parked commits.

        Close its consumers first. If there is no such subscription, nothing happens.

        Raises:
            LeaseHeld: it has live consumers; nothing was deleted.
            InvalidArgument: the name is of a projection.
        """
        self.run(subscriptions.delete_subscription(self.context, name), "delete_subscription")

    def parked(self, name: str) -> list[Parked]:
        """Return the commits that a subscription has put aside, by partition and position.

        Those that wait behind a parked commit of their workflow are among them, see `Parked.state`.
        """
        return self.run(parking.list_parked(self.context, name), "parked")

    def replay_parked(self, name: str, workflow_id: str) -> int:
        """Have the parked commits of a workflow delivered again, before later commits of the workflow.

        The consumer that has their partition gets them, within a second if it waits for commits.

        Returns:
            The number of parked commits. Those that wait behind them come after them, and do not count.
        """
        return self._write(
            parking.settle_parked(self.context, name, workflow_id, "replay"), None, "replay_parked", workflow_id
        )

    def drop_parked(self, name: str, workflow_id: str) -> int:
        """Drop the parked commits of a workflow: they are not delivered again.

        Its commits that wait behind them are delivered then.

        Returns:
            The number of dropped commits.
        """
        return self._write(
            parking.settle_parked(self.context, name, workflow_id, "drop"), None, "drop_parked", workflow_id
        )

    def load_projection(self, name: str) -> SavedProjection | None:
        """Return the saved state of a projection; None if none is saved.

        Any process may call it; it takes no lease. It returns the version that is current: while another version is
        built, or the same one is rebuilt, that is the one before.

        Args:
            name: the name of the projection.

        Raises:
            UnknownEventType: the state holds an object of a type that is not registered.
        """
        return self.run(projections.load_projection(self.context, name), "load_projection")

    def delete_projection(self, name: str) -> None:
        """Delete a projection: its saved states, and its place in the feed, which trimming does not pass.

        A process that runs it gets `LeaseLost` at its next save. Nothing happens if there is none.
        """
        self.run(projections.delete_projection(self.context, name), "delete_projection")

    def cursor(self, workflow_id: str) -> int:
        """Return how many events the workflow has had since it was created; 0 if there is none."""
        return self.run(reading.cursor(self.context, workflow_id), "cursor", workflow_id)

    # Snapshots

    def save_snapshot(
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

        Args:
            workflow_id: the workflow.
            cursor: how many of its events the state covers.
            data: the state.
            lease: save only under this lease.
            refs: the facts that the state refers to, as hashes or `FactRef`s. The workflow keeps them as long as it
                keeps this snapshot; `trim` releases all others that no event refers to. None for the facts whose
                hashes `trim` finds in the data, or that `encode_state` found. Pass them if you compress or encrypt the
                data, or if it is large: one `trim` searches at most 32 MiB, so of 1 MiB of data for 32 facts.
            durability: as for `append`.

        Raises:
            FactNotFound: one of `refs` is not stored; nothing was stored.
            LeaseLost: the lease is outdated; nothing was stored.
            SnapshotConflict: the cursor is above the workflow's, or below that of the stored snapshot; nothing was
                stored.
        """
        self._write(
            snapshots.save_snapshot(self.context, workflow_id, cursor, data, lease, refs=refs),
            durability,
            "save_snapshot",
            workflow_id,
        )

    def load_snapshot(self, workflow_id: str) -> tuple[int, bytes]:
        """Return a workflow's snapshot: its cursor and its data.

        Raises:
            SnapshotNotFound: there is no snapshot.
        """
        return self.run(snapshots.load_snapshot(self.context, workflow_id), "load_snapshot", workflow_id)

    def trim(
        self, workflow_id: str, *, keep: int = 0, lease: Lease | None = None, durability: Durability | None = None
    ) -> int:
        """Trim the commits that the workflow's snapshot covers, and release the facts that only they referred to.

        Without a snapshot, nothing is trimmed. A commit that would be trimmed in part stays whole. A call releases at
        most about a thousand facts, and the next one continues. `collect` deletes released facts.

        Args:
            workflow_id: the workflow.
            keep: how many of the covered events to keep, counted from the newest.
            lease: trim only under this lease.
            durability: as for `append`.

        Returns:
            The cursor of the last trimmed event, by this trim or an earlier one; 0 if none is trimmed.

        Raises:
            WorkflowNotFound: there is no such workflow.
            LeaseLost: the lease is outdated; nothing was trimmed.
        """
        return self._write(snapshots.trim(self.context, workflow_id, keep, lease), durability, "trim", workflow_id)

    # Facts

    def save_fact(self, fact_hash: str | bytes, value: Any, *, durability: Durability | None = None) -> None:
        """Save a value under a hash that you choose; a value that is already stored there stays.

        Raises:
            EncodeError: the value has no encoding; nothing was sent.
            InvalidArgument: the hash has another value; nothing was changed.
        """
        self._write(facts.save_fact(self.context, fact_hash, value), durability, "save_fact")

    def save_facts(self, values: Mapping[Hash, Any], *, durability: Durability | None = None) -> None:
        """Save many values, each under its hash, in one round trip.

        Each value is saved as by `save_fact`.
        """
        self._write(facts.save_facts(self.context, values), durability, "save_facts")

    def put_fact(self, value: Any, *, durability: Durability | None = None) -> str:
        """Save a value under its content hash, and return the hash.

        The hash is ``sha256:`` and the hex SHA-256 of the value's canonical encoding. Equal values have equal hashes,
        in whatever order their dicts and sets are. The values 1, 1.0 and True have different hashes; so have 0.0 and
        -0.0.

        Raises:
            EncodeError: the value has no encoding; nothing was sent.
        """
        return self._write(facts.put_fact(self.context, value), durability, "put_fact")

    def fact_hash(self, value: Any) -> str:
        """Return the hash that `put_fact` returns for a value.

        Nothing is sent, and in asyncio the call is not awaited.

        Raises:
            EncodeError: the value has no encoding.
        """
        return facts.fact_hash(self.context, value)

    def load_fact(self, fact_hash: str | bytes) -> Any:
        """Return the value stored under a hash, after checking it against the hash.

        Dicts in the value are in canonical order.

        Raises:
            FactNotFound: there is no such fact.
            DecodeError: the stored value is damaged, or does not match the hash.
        """
        return self.run(facts.load_fact(self.context, fact_hash), "load_fact")

    def load_facts(self, hashes: Iterable[Hash]) -> dict[Hash, Any]:
        """Return the values stored under many hashes, by hash, in one round trip.

        Raises:
            FactNotFound: some facts are missing; the error names them all.
            DecodeError: a stored value is damaged, or does not match its hash.
        """
        return self.run(facts.load_facts(self.context, hashes), "load_facts")

    # Leases

    def acquire(self, workflow_id: str, owner: str, ttl: float = 30.0) -> HeldLease:
        """Acquire a lease: the right to write a workflow, for a limited time.

        Creates the workflow if there is none. A lease stops writers that carry an outdated lease: the script that would
        write rejects them. A writer without a lease is not checked. As a context manager, the lease renews itself by a
        heartbeat and is released at the end.

        Args:
            workflow_id: the workflow.
            owner: the name of its holder. An owner who already holds the lease gets a new one, which outdates the
                other.
            ttl: how many seconds it lasts from now, from each renewal, and from each write that carries it.

        Returns:
            The lease, with its fencing token.

        Raises:
            LeaseHeld: another owner holds it.
        """
        token, queue = self.run(leasing.acquire(self.context, workflow_id, owner, ttl), "acquire", workflow_id)
        return HeldLease(workflow_id, owner, token, float(ttl), queue, _store=self)

    def claim(
        self,
        owner: str,
        limit: int = 1,
        *,
        queues: Iterable[str] = (DEFAULT_QUEUE,),
        ttl: float = 30.0,
        wait_s: float = 0.0,
        max_attempts: int | None = None,
    ) -> list[HeldLease]:
        """Claim workflows that are due: acquire their leases.

        The workflows that have been due for longest come first, over all partitions. A workflow is in a queue from the
        commit with `queue`, or from the first lease of it, until it is completed, parked or deleted. It is due at the
        time that this commit or the last release has set, or once the lease of a worker that died has ended. Each one
        goes to a single claimer, however many claim at the same time.

        Args:
            owner: the name of the holder of the leases.
            limit: the largest number of workflows to claim.
            queues: the queues to claim from. A workflow that was leased and never put in a queue is in "default".
            ttl: how many seconds the leases last.
            wait_s: how many seconds to wait for a workflow to be due, if none is.
            max_attempts: park a workflow, instead of claiming it, that was claimed this often without a commit under
                a lease. None for no limit.

        Returns:
            The leases; an empty list if there is nothing to claim. `Lease.attempt` counts the claims since the last
            commit under a lease.
        """
        claim = claiming.Claim(
            self.context, owner, limit, queues=queues, ttl=ttl, wait_s=wait_s, max_attempts=max_attempts
        )
        claimed = self.run(claim.run(), "claim")
        return [
            HeldLease(one.workflow_id, owner, one.token, float(ttl), one.queue, one.attempt, self) for one in claimed
        ]

    def renew(self, lease: Lease) -> None:
        """Renew a lease for its full time from now.

        Raises:
            LeaseLost: it is outdated.
        """
        self.run(leasing.renew(self.context, lease), "renew")

    def release(self, lease: Lease, *, due: float | datetime | None = None) -> None:
        """Release a lease, so that others can claim the workflow once it is due.

        If the lease was lost before, nothing happens. If a message came for the workflow while it was leased, the
        workflow is due now.

        Args:
            lease: the lease.
            due: from when the workflow can be claimed: None for now, a number of seconds from now, an aware datetime,
                or `math.inf`: once it is woken.
        """
        self.run(leasing.release(self.context, lease, due), "release")

    def sleep(self, lease: Lease, until: float | datetime | None, name: str = "") -> None:
        """Release a lease until a time, and store this time as the timer of the workflow.

        If the lease was lost before, nothing happens. A message wakes the workflow before that time: then `timer` says
        how much is left. `Session.sleep` does all of this for you.

        Args:
            lease: the lease.
            until: a number of seconds from now, an aware datetime, or None: until a message wakes the workflow.
            name: the name of the timer, to tell it from others; at most 128 bytes.
        """
        self.run(timers.sleep(self.context, lease, until, name), "sleep", lease.workflow_id)

    def timer(self, workflow_id: str) -> Timer | None:
        """Return the timer of a workflow, or None if it has none.

        A commit with `ends_timer`, `complete`, and the next `sleep` remove it.
        """
        return self.run(timers.load_timer(self.context, workflow_id), "timer", workflow_id)

    def park(self, workflow: Lease | str, reason: str, *, durability: Durability | None = None) -> None:
        """Take a workflow out of its queue, until `unpark` puts it back.

        Args:
            workflow: its lease, or its id. The lease that it has is lost in both cases.
            reason: why, for those who look at it later; at most 4096 bytes.
            durability: as for `append`.

        Raises:
            WorkflowNotFound: there is no such workflow.
            WorkflowCompleted: the workflow is completed; nothing was changed.
            LeaseLost: the lease is outdated; nothing was changed.
        """
        self._write(queueing.park(self.context, workflow, reason), durability, "park")

    def unpark(
        self, workflow_id: str, *, due: float | datetime | None = None, durability: Durability | None = None
    ) -> None:
        """Put a parked workflow back in its queue, with no attempts counted. If it is not parked, nothing happens.

        Args:
            workflow_id: the workflow.
            due: from when it can be claimed, as for `append`.
            durability: as for `append`.

        Raises:
            WorkflowNotFound: there is no such workflow.
            WorkflowCompleted: the workflow is completed; nothing was changed.
        """
        self._write(queueing.unpark(self.context, workflow_id, due), durability, "unpark", workflow_id)

    def complete(self, workflow_id: str, *, lease: Lease | None = None, durability: Durability | None = None) -> None:
        """Mark a workflow as complete, so that it can no longer be claimed.

        You can still read it and write to it.

        Raises:
            WorkflowNotFound: there is no such workflow.
            LeaseLost: the lease is outdated; nothing was changed.
        """
        self._write(queueing.complete(self.context, workflow_id, lease), durability, "complete", workflow_id)

    def expire(
        self, workflow_id: str, after: float, *, sliding: bool = False, durability: Durability | None = None
    ) -> None:
        """Have a workflow deleted some seconds from now, with everything stored for it except facts.

        The workflow ends when the server's clock and the caller's clock have both reached that time. A clock that is
        set wrong, or a failover to a server with another clock, therefore deletes nothing early. From then on, reads no
        longer find the workflow, and a write starts a new one. A write under a lease from before raises `LeaseLost`.
        The store deletes the data when a read, a write, `claim`, `list`, `collect` or another `expire` meets it.

        The workflow may be in any state: it ends even if it is unfinished, leased or in a queue. A later call replaces
        the lifetime; `persist` removes it.

        Args:
            workflow_id: the workflow.
            after: how many seconds from now.
            sliding: whether writes extend the lifetime: the workflow is kept for so many seconds from now, and from
                each `append`, `save`, `checkpoint` and `save_snapshot` that stores something. Other calls, such as
                the renewal of a lease, extend nothing.
            durability: as for `append`.

        Raises:
            WorkflowNotFound: there is no such workflow.
        """
        self._write(
            lifetimes.expire(self.context, workflow_id, after, sliding=sliding), durability, "expire", workflow_id
        )

    def persist(self, workflow_id: str, *, durability: Durability | None = None) -> None:
        """Remove the end that `expire` has set: the workflow is kept until it is deleted.

        Nothing happens if the workflow has no end.

        Raises:
            WorkflowNotFound: there is no such workflow; nothing was changed.
        """
        self._write(lifetimes.persist(self.context, workflow_id), durability, "persist", workflow_id)

    # Messages

    def send(
        self,
        workflow_id: str,
        message: Any,
        *,
        message_id: str | None = None,
        missing: Literal["raise", "keep"] = "raise",
        durability: Durability | None = None,
    ) -> str:
        """Send a workflow a message, and wake the workflow.

        The message stays in the workflow's inbox until a commit consumes it. A workflow in a queue is due now; a leased
        one is due when its lease is released. A parked workflow stays parked. A retry whose reply was lost does not
        store the message twice.

        Args:
            workflow_id: the workflow.
            message: an instance of a registered class, or a plain dict, without facts in it.
            message_id: your own id for the message, of at most 512 bytes. The store knows it as long as the workflow
                exists: a second message with the same id is not stored, even if the first one was consumed.
            missing: if there is no such workflow, "raise" an error; or "keep" the message, which creates the workflow
                without events and in no queue.
            durability: as for `append`.

        Returns:
            The id of the message in the inbox; for a message that was sent before, the id that it has or had there.

        Raises:
            WorkflowNotFound: there is no such workflow; nothing was stored.
            WorkflowCompleted: the workflow is completed; nothing was stored.
            EncodeError: the message, or a value in it, has no encoding; nothing was sent.
        """
        return self._write(
            messages.send(self.context, workflow_id, message, message_id=message_id, missing=missing),
            durability,
            "send",
            workflow_id,
        )

    def request_cancel(self, workflow_id: str, reason: str = "", *, durability: Durability | None = None) -> str:
        """Ask a workflow to end early: send it the message `CancelRequested`.

        In `work`, the next `record` of the workflow's handler raises `WorkflowCancelled`. Elsewhere, the workflow reads
        the message as any other.

        Args:
            workflow_id: the workflow.
            reason: why; at most 4096 bytes.
            durability: as for `append`.

        Returns:
            The id of the message in the inbox.

        Raises:
            WorkflowNotFound: there is no such workflow; nothing was stored.
            WorkflowCompleted: the workflow is completed; nothing was stored.
        """
        operation = messages.request_cancel(self.context, workflow_id, reason)
        return self._write(operation, durability, "request_cancel", workflow_id)

    def inbox(self, workflow_id: str, *, wait_s: float = 0.0) -> list[Message]:
        """Return the messages that no commit of the workflow has consumed, the oldest first.

        Args:
            workflow_id: the workflow.
            wait_s: how many seconds to wait for a message if there is none.

        Raises:
            WorkflowNotFound: there is no such workflow, or it was deleted during the wait.
            UnknownEventType: a message is of a type that is not registered.
        """
        operation = messages.read_inbox(self.context, workflow_id, wait_s, now_s)
        return self.run(operation, "inbox", workflow_id)

    # Whole workflows

    def save(
        self, workflow_id: str, log: list[Any], *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """Save a whole list of events as the workflow's log, and replace its earlier log.

        The log is separate from the stream: `append` does not change it.

        Raises:
            EncodeError: an event has no encoding; nothing was sent.
            LeaseLost: the lease is outdated; nothing was stored.
            FactNotFound: an event holds a `FactRef` to a fact that is not stored; nothing was stored.
        """
        self._write(workflows.save(self.context, workflow_id, log, lease), durability, "save", workflow_id)

    def checkpoint(
        self, workflow_id: str, log: list[Any], *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """Save the workflow's log, as `save` does.

        Runic's runner calls it while a workflow runs.
        """
        self.save(workflow_id, log, lease=lease, durability=durability)

    def load(self, workflow_id: str) -> list[Any]:
        """Return the workflow's log, as it was last saved.

        Raises:
            WorkflowNotFound: no log was saved.
        """
        return self.run(workflows.load(self.context, workflow_id), "load", workflow_id)

    def exists(self, workflow_id: str) -> bool:
        """Return whether anything was appended, saved or snapshotted under the id."""
        return self.run(workflows.exists(self.context, workflow_id), "exists", workflow_id)

    def delete(self, workflow_id: str, *, lease: Lease | None = None, durability: Durability | None = None) -> None:
        """Delete a workflow with everything stored for it except facts.

        If there is no such workflow, nothing happens.

        Raises:
            LeaseLost: the lease is outdated; nothing was deleted.
        """
        self._write(workflows.delete(self.context, [workflow_id], lease), durability, "delete", workflow_id)

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
    ) -> Iterator[str]:
        """Return an iterator over the ids of workflows, all or those that pass the filters.

        The iterator reads a page at a time, from indexes: it reads few workflows besides those that it returns. Only
        open workflows have no index: to find them, it reads all workflows. A workflow that is written to meanwhile may
        move in the order, and be missed. Expired workflows are not listed.

        The last written comes first, with these exceptions, in this order: with `attributes`, the last created comes
        first; with the state "leased", "waiting", or a queue, or `due`, the one that is due first; with the state
        "parked" or "completed", the one that got there last.

        Args:
            prefix: only ids that start with this.
            limit: the largest number of ids.
            state: only workflows in this state: "completed"; "parked"; "leased", with a lease that has not ended;
                "waiting" in a queue, due or not; or "open", never put in a queue.
            queue: only workflows that are in this queue, waiting or leased. With the state "parked" or "completed":
                those that were in it.
            due: only workflows that are due in a queue until then, an aware datetime. A leased one is due when its
                lease ends.
            since: only workflows that were last written then or later, by the server's clock.
            until: only workflows that were last written then or earlier.
            attributes: only workflows that have all of these attributes.
        """
        wanted = check_filters(
            prefix=prefix, state=state, queue=queue, due=due, since=since, until=until, attributes=attributes
        )
        return self._read(listing.Listing(self.context, wanted, limit=limit), "list")

    def count(
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

        A count by state, by queue, by both, by the time of the last write, or by one attribute reads no ids. Any other
        combination reads the ids that `list` would read. Workflows that have expired are deleted before.

        Args:
            prefix: as for `list`, and so are the others.
            state: as above.
            queue: as above.
            due: as above.
            since: as above.
            until: as above.
            attributes: as above.

        Raises:
            DecodeError: a partition has lost an index; `runic-redis verify --repair` restores it.
        """
        wanted = check_filters(
            prefix=prefix, state=state, queue=queue, due=due, since=since, until=until, attributes=attributes
        )
        return self.run(counting.count_matching(self.context, wanted), "count")

    def children(self, workflow_id: str) -> Iterator[str]:
        """Return an iterator over the ids of a workflow's children, the first created first.

        They were started by `append` with `parent`. There need not be a workflow with the id.
        """
        wanted = Filters(parent=check_workflow_id(workflow_id))
        return self._read(listing.Listing(self.context, wanted), "children", workflow_id)

    # The namespace as a whole

    def collect(self, grace: float = 3600.0) -> int:
        """Remove facts that no workflow refers to, in bounded steps, while writers are active.

        It also deletes workflows that have expired, and trims the feed to the days of the namespace.

        A `Fact` or a `FactRef` in an event is a reference. It holds from the append until the event is trimmed, or the
        workflow is deleted or expires. A log refers to its facts as long as the workflow exists, and a snapshot until
        another one replaces it and `trim` is called: see `save_snapshot`. A hash that a program stores in another way,
        such as in a str of an event, is not a reference.

        Args:
            grace: keep facts that were written or referred to within so many seconds. Choose more time than your
                program takes from `put_fact` to the event that refers to it, and, in a cluster, more than any append
                takes.

        Returns:
            The number of facts removed.
        """
        return self.run(collecting.collect(self.context, grace), "collect")

    def trim_feed(self, *, keep: int | None = None, older_than: float | None = None, force: bool = False) -> int:
        """Trim the oldest commits from the feed. The workflows keep their events.

        A commit is trimmed only if it is older than `older_than` and is not among the last `keep`. Commits that a
        subscription or a projection has not read stay: `delete_subscription` gives up one that is not used any more.
        A reader that comes too late gets `FeedTrimmed`.

        Args:
            keep: how many of each partition's last commits to keep; None to go by age alone.
            older_than: trim only commits that are older, in seconds, by both the server's and the caller's clock; None
                to go by number alone.
            force: trim commits that a subscription has not read, too.

        Returns:
            The number of commits that were trimmed.

        Raises:
            ConfigurationError: the namespace has no feed.
        """
        return self.run(feed_trimming.trim_feed(self.context, keep, older_than, force=force), "trim_feed")

    def set_feed_days(self, days: float | None) -> None:
        """Set for how many days the feed of the namespace lists a commit; None for ever. `collect` trims the others.

        Raises:
            ConfigurationError: the namespace has no feed.
        """
        self.run(feed_trimming.set_feed_days(self.context, days), "set_feed_days")

    def memory_usage(self) -> dict[str, int]:
        """Return how many bytes of the server's memory the namespace takes, by kind of key.

        The store asks the server about every key, so use it for reports and not for every request. fakeredis does not
        support it.

        Returns:
            Bytes for each of ``events``, ``meta``, ``snapshot``, ``log``, ``commits``, ``refs``, ``inbox``,
            ``messages``, ``index``, ``leases``, ``queues``, ``parked``, ``expiring``, ``completed``, ``partition``,
            ``feed``, ``queue``, ``labels``, ``subscriptions``, ``facts`` and ``config``.
        """
        return self.run(namespace.memory_usage(self.context), "memory_usage")

    def delete_namespace(self) -> None:
        """Delete every workflow, every fact, and the namespace itself.

        Stop its other users first. Their writes during the deletion may stay, and a store that is open elsewhere does
        not notice that the namespace and its settings are gone. The next write creates a new namespace.
        """
        self.run(namespace.delete_namespace(self.context), "delete_namespace")

    def _read(self, source: reading.Reader | listing.Listing, name: str, workflow_id: str = "") -> Iterator[Any]:
        self.run(source.open(), name, workflow_id)
        return self._pages(source, name, workflow_id)

    def _tail(
        self,
        tailer: tailing.Tailer,
        form: Callable[[tuple[str, Record]], Any],
        wait_s: float | None,
        name: str,
        workflow_id: str = "",
    ) -> Tail[Any]:
        return Tail(partial(self.run, name=name, workflow_id=workflow_id), tailer, form, wait_s)

    def _pages(self, source: reading.Reader | listing.Listing, name: str, workflow_id: str) -> Iterator[Any]:
        try:
            while page := self.run(source.next_page(), name, workflow_id):
                yield from page
                page.clear()  # so that the next page takes the same memory
        finally:
            source.close()


def init_store(url: str | None = None, **options: Any) -> RedisStore:
    """Open a store by URL: the contract's name for `RedisStore.from_url`."""
    return RedisStore.from_url(url, **options)
