"""The store: every operation of the contract, on a connection to Redis.

This is the whole API in one place. What an operation does is in operations/, how it reaches Redis in drivers/.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from operator import itemgetter
from typing import Any, NoReturn, Self, TypeVar

from runic_redis.arguments import check_deadline
from runic_redis.codec import EncodedEvents
from runic_redis.context import Context, find_url, make_context
from runic_redis.drivers.connect import SYNC, Connected, connect_client, connect_url
from runic_redis.drivers.redis_py import opening_limit_s
from runic_redis.drivers.sync import Sender, run, run_within
from runic_redis.durability import Durability
from runic_redis.errors import InvalidType, StoreError
from runic_redis.events import EventRegistry, UnknownEvents
from runic_redis.heartbeat import HeldLease
from runic_redis.operations import (
    appending,
    collecting,
    facts,
    leasing,
    listing,
    namespace,
    reading,
    settings,
    snapshots,
    tailing,
    workflows,
)
from runic_redis.operations.confirming import durably
from runic_redis.operations.leasing import Lease
from runic_redis.operations.records import Record
from runic_redis.protocol.effects import Operation
from runic_redis.tails import Tail

__all__ = ["RedisStore", "init_store"]

T = TypeVar("T")
Hash = TypeVar("Hash", str, bytes, str | bytes)


class RedisStore:
    """An event store on Redis or Valkey, for threads and processes to share.

    Make one with `RedisStore.from_url`, or over a redis-py client of your own. It is a context manager, and safe to
    use from many threads. Opening it writes nothing: the first write makes the namespace. Do not call it from a signal
    handler, which may have interrupted a call of the same thread, and would wait for it: set a flag there.

    Every method raises `StoreUnavailable` when Redis does not answer within the deadline, `InvalidArgument` (or
    `InvalidType`) for an argument that no store could take, before anything is sent, and `DecodeError` for a foreign
    value at one of its keys, changing nothing. Every method that writes raises `WriteRefused` when the server is full,
    or the request too large for it, and `DurabilityError` when what was written was not confirmed to be as durable as
    was asked for. Other errors are named where they belong.

    Durability is "memory", the server has it; "fsync", it is on the server's disk; or `replicated(n)`, so many replicas
    have it too. It is confirmed in the same round trip. Leases are not: one that is lost with its server is refused.

    Args:
        client: a redis-py client: `redis.Redis`, `redis.RedisCluster`, or one from a Sentinel's `master_for`. It is
            used, but neither changed nor closed.
        namespace: what this application keeps is under this name, apart from everything else in the server.
        partitions: how many parts the namespace's workflows are spread over; fixed when the first write makes it. None
            for as many as it was made with, or 256.
        deadline_s: for how many seconds an operation is tried, or waits to be tried while the server fails, before
            `StoreUnavailable`.
        unknown_events: what to do on reading an event of a type that is not registered: "raise" `UnknownEventType`,
            or "wrap" it in an `UnknownEvent`.
        durability: how durable a write is before it counts as done, unless its call says otherwise.
        registry: the event types of this store; None for those registered by the package's `event`.

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
        partitions: int | None = 256,
        deadline_s: float = 30.0,
        unknown_events: UnknownEvents = "raise",
        durability: Durability = "memory",
        registry: EventRegistry | None = None,
    ) -> None:
        context = make_context(namespace, partitions, unknown_events, durability, registry)
        check_deadline(deadline_s)
        self._open(connect_client(client, SYNC), context, deadline_s)

    @classmethod
    def from_url(
        cls,
        url: str | None = None,
        *,
        namespace: str = "runic",
        partitions: int | None = 256,
        deadline_s: float = 30.0,
        unknown_events: UnknownEvents = "raise",
        durability: Durability = "memory",
        registry: EventRegistry | None = None,
    ) -> Self:
        """Connect to a URL; the store closes the connection with itself.

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

        Raises:
            ConfigurationError: the URL, the server or the settings cannot be used; the message says what to do.
            StoreUnavailable: the server cannot be reached.
        """
        context = make_context(namespace, partitions, unknown_events, durability, registry)
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
        """Close the connection, if the store made it. A closed store can do nothing more."""
        if not self.closed:
            self.closed = True
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
            "A RedisStore cannot be pickled or copied: it has connections, which belong to its process. Nothing was "
            "changed. Pass the URL and the namespace instead, and open a store with RedisStore.from_url where it is "
            "needed. Threads share one store."
        )

    def run(self, operation: Operation[T], name: str, workflow_id: str = "") -> T:
        """Run an operation that was made with this store's `context`, and return its result.

        The methods of the store use it, and so do tools that have operations of their own, such as the command line.

        Args:
            operation: from a function of `runic_redis.operations` or `runic_redis.admin`.
            name: the public name of the operation. Spans and metrics carry it.
            workflow_id: the workflow that it is about, if it is about one.
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
        durability: Durability | None = None,
    ) -> int:
        """Append events to a workflow as one commit, which is stored whole or not at all.

        A commit whose reply was lost is found again by its id and not stored twice. With no events, nothing is
        stored; the expected cursor is still checked. A value in an event that is wrapped as `Fact` is kept as a fact,
        in the same step, and comes back as a `FactRef`.

        Args:
            workflow_id: the workflow; made by its first commit.
            events: instances of registered classes, and plain dicts.
            expected_cursor: append only if the workflow is at exactly this cursor; 0 for a new one.
            commit_id: an id of your own, known as long as the workflow is: appending again with it stores nothing,
                whatever the events, and returns the same cursor.
            metadata: a small dict to keep with the commit, such as correlation and causation ids.
            lease: append only by this lease, and have it last on.
            snapshot: the workflow's state after these events, to be saved as its snapshot in the same step.
            durability: how durable it must be before it counts as done; None for as the store has it.

        Returns:
            The workflow's cursor after the commit.

        Raises:
            CursorConflict: the workflow is not at the expected cursor; nothing was stored. If it is below, this is a
                `CommitsLost`.
            LeaseLost: the lease is outdated; nothing was stored.
            FactNotFound: an event holds a `FactRef` to a fact that is not kept; nothing was stored.
            EncodeError: an event, or a value in one, cannot be kept; nothing was sent.
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

        Each commit stands alone: one that fails has its error in the list, and the others are stored. Several commits
        to one workflow are stored in their order, in a round trip each.

        Args:
            items: pairs of a workflow id and its events.
            leases: what is appended to the workflows of these is appended by them only.
            durability: as for `append`.

        Returns:
            For each item, in order, the workflow's cursor after it, or the `StoreError` that it failed with.
        """
        return self._write(appending.append_many(self.context, items, leases), durability, "append_many")

    def encode_events(self, events: Iterable[Any]) -> EncodedEvents:
        """The events of a commit, checked and encoded ahead of their `append`; nothing is sent.

        Pass the result to `append` in place of the events, and they are not encoded again. Later changes to an event
        have no effect on it.

        Args:
            events: as for `append`.

        Returns:
            The events, as a tuple with the attributes ``encoded_bytes`` (what the limit of a commit counts) and
            ``stored_bytes`` (after compression).

        Raises:
            EncodeError: an event, or a value in one, cannot be stored, or the commit is too large.
        """
        return appending.encode_events(self.context, events)

    def encode_state(self, state: Any) -> bytes:
        """A session's state as the data of a snapshot: any value that an event may hold; nothing is sent.

        Raises:
            EncodeError: a part of it cannot be stored.
        """
        return self.context.codec.encode_state(state)

    def decode_state(self, data: bytes) -> Any:
        """A session's state, from the data of a snapshot that `encode_state` made; nothing is sent.

        Raises:
            DecodeError: the data is damaged, or something else.
            UnknownEventType: it holds an object of an unregistered type.
        """
        return self.context.codec.decode_state_strictly(data)

    def stream(
        self, workflow_id: str, *, after: int = 0, until: int | None = None, reverse: bool = False
    ) -> Iterator[Any]:
        """A workflow's events, up to the cursor that it has now.

        They are read a page at a time. The commit at either end is cut to the range asked for.

        Args:
            workflow_id: the workflow.
            after: give the events with a higher cursor than this.
            until: and at most this; None for all there are.
            reverse: newest first. The last few cost no more than those few.

        Returns:
            An iterator of events.

        Raises:
            WorkflowNotFound: no event was ever appended to it; raised by the call. Or, while iterating, the workflow
                was deleted.
            EventsTrimmed: events asked for have been trimmed; raised by the call, or, in reverse, where they would
                have come.
            CommitsLost: while iterating, the server was found to have lost events.
            UnknownEventType: an event's type is not registered, see `unknown_events`.
            DecodeError: what is kept is damaged.
        """
        return self._read(
            reading.Reader(self.context, workflow_id, after=after, until=until, reverse=reverse), "stream", workflow_id
        )

    def stream_records(
        self, workflow_id: str, *, after: int = 0, until: int | None = None, reverse: bool = False
    ) -> Iterator[Record]:
        """As `stream`, but each event in a `Record`, with its cursor, its time and its commit's metadata."""
        return self._read(
            reading.Reader(self.context, workflow_id, after=after, until=until, reverse=reverse, records=True),
            "stream",
            workflow_id,
        )

    def tail(self, workflow_id: str, *, after: int = 0, wait_s: float | None = None) -> Tail[Record]:
        """A workflow's events, what is there and then what comes, as it comes, until stopped.

        The workflow need not be there yet. It is read over a connection of its own.

        Args:
            workflow_id: the workflow.
            after: give the events with a higher cursor than this.
            wait_s: for how many seconds a step waits for the next event before iteration ends; None for ever, and 0
                for the events that are there. A later step goes on where it ended. A server that does not answer is
                waited for as long as the deadline says, and raises.

        Returns:
            An iterator of `Record`s, which is also a context manager.

        Raises:
            EventsTrimmed: events asked for have been trimmed; raised by the call, or while iterating.
            WorkflowNotFound: while iterating, the workflow was deleted.
            CommitsLost: while iterating, the server was found to have lost events.
        """
        return self._tail(
            tailing.Tailer(self.context, {workflow_id: after}), itemgetter(1), wait_s, "tail", workflow_id
        )

    def tail_many(self, after: Mapping[str, int], *, wait_s: float | None = None) -> Tail[tuple[str, Record]]:
        """As `tail`, of many workflows at once, by one blocking read.

        The events of each come in order; between workflows there is no order. In a cluster, where one read cannot
        wait for several slots, what comes is seen within 50 ms, or as many times that as there are slots.

        Args:
            after: the workflows, each with the cursor after which to read it.
            wait_s: as for `tail`.

        Returns:
            An iterator of pairs, of a workflow id and a `Record`, as that of `tail`.
        """
        return self._tail(tailing.Tailer(self.context, after), tuple, wait_s, "tail_many")

    def cursor(self, workflow_id: str) -> int:
        """How many events the workflow has had since it was made; 0 if there is none."""
        return self.run(reading.cursor(self.context, workflow_id), "cursor", workflow_id)

    # Snapshots

    def save_snapshot(
        self,
        workflow_id: str,
        cursor: int,
        data: bytes,
        *,
        lease: Lease | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Save a workflow's state as of a cursor, over the snapshot before it.

        Raises:
            LeaseLost: the lease is outdated; nothing was stored.
            SnapshotConflict: the cursor is above the workflow's, or below that of the snapshot already there; nothing
                was stored.
        """
        self._write(
            snapshots.save_snapshot(self.context, workflow_id, cursor, data, lease),
            durability,
            "save_snapshot",
            workflow_id,
        )

    def load_snapshot(self, workflow_id: str) -> tuple[int, bytes]:
        """A workflow's snapshot: the cursor that it stands for, and the data.

        Raises:
            SnapshotNotFound: there is none.
        """
        return self.run(snapshots.load_snapshot(self.context, workflow_id), "load_snapshot", workflow_id)

    def trim(
        self, workflow_id: str, *, keep: int = 0, lease: Lease | None = None, durability: Durability | None = None
    ) -> int:
        """Remove the commits that the workflow's snapshot covers; without a snapshot, none.

        A commit that is to go in part stays whole.

        Args:
            workflow_id: the workflow.
            keep: how many of the events that the snapshot covers to keep, the last ones.
            lease: trim only by this lease.
            durability: as for `append`.

        Returns:
            The cursor of the last event that is gone, now or by an earlier trim; 0 if none is.

        Raises:
            WorkflowNotFound: there is no such workflow.
            LeaseLost: the lease is outdated; nothing was removed.
        """
        return self._write(snapshots.trim(self.context, workflow_id, keep, lease), durability, "trim", workflow_id)

    # Facts

    def save_fact(self, fact_hash: str | bytes, value: Any, *, durability: Durability | None = None) -> None:
        """Keep a value under a hash of the caller's; if it is there already, nothing changes.

        Raises:
            EncodeError: the value cannot be kept; nothing was sent.
            InvalidArgument: another value is kept under the hash, and stays.
        """
        self._write(facts.save_fact(self.context, fact_hash, value), durability, "save_fact")

    def save_facts(self, values: Mapping[Hash, Any], *, durability: Durability | None = None) -> None:
        """Keep many values, each under its hash, in one round trip; as `save_fact`."""
        self._write(facts.save_facts(self.context, values), durability, "save_facts")

    def put_fact(self, value: Any, *, durability: Durability | None = None) -> str:
        """Keep a value under its content hash.

        The hash is ``sha256:`` and the hex SHA-256 of the value's canonical encoding: equal values have equal hashes,
        whatever the order of their dicts and sets. (1, 1.0 and True are values of their own, and so are 0.0 and -0.0.)

        Returns:
            The hash.

        Raises:
            EncodeError: the value cannot be kept; nothing was sent.
        """
        return self._write(facts.put_fact(self.context, value), durability, "put_fact")

    def load_fact(self, fact_hash: str | bytes) -> Any:
        """The value that is kept under a hash, checked against it. Its dicts are in canonical order.

        Raises:
            FactNotFound: there is none.
            DecodeError: what is kept is damaged, or does not match the hash.
        """
        return self.run(facts.load_fact(self.context, fact_hash), "load_fact")

    def load_facts(self, hashes: Iterable[Hash]) -> dict[Hash, Any]:
        """The values kept under many hashes, by hash, in one round trip.

        Raises:
            FactNotFound: some are missing; the error names them all.
            DecodeError: what is kept is damaged, or does not match its hash.
        """
        return self.run(facts.load_facts(self.context, hashes), "load_facts")

    # Leases

    def acquire(self, workflow_id: str, owner: str, ttl: float = 30.0) -> HeldLease:
        """Get the right to write a workflow, for a time. Makes the workflow, if there is none.

        A lease keeps out those who write by a lease too: a write that carries one is refused, in the script that would
        have written, once another was given. (A write without one is not refused.) As a context manager a lease is
        renewed by a heartbeat, and given back at the end.

        Args:
            workflow_id: the workflow.
            owner: who it is for. An owner who has the lease gets another; the one before is outdated.
            ttl: for how many seconds it lasts, from now and from each renewal; a write that carries it renews it.

        Returns:
            The lease, with its fencing token.

        Raises:
            LeaseHeld: somebody else has it.
        """
        token = self.run(leasing.acquire(self.context, workflow_id, owner, ttl), "acquire", workflow_id)
        return HeldLease(workflow_id, owner, token, float(ttl), self)

    def claim(self, owner: str, limit: int = 1, *, ttl: float = 30.0) -> list[HeldLease]:
        """Get the leases of workflows that somebody has left unfinished, each for one claimer, however many ask.

        Left unfinished is what was leased, is not complete, and whose lease has run out or was given back.

        Args:
            owner: who they are for.
            limit: at most this many.
            ttl: for how many seconds they last.

        Returns:
            The leases; none if nothing is left unfinished.
        """
        claimed = self.run(leasing.claim(self.context, owner, limit, ttl), "claim")
        return [HeldLease(workflow_id, owner, token, float(ttl), self) for workflow_id, token in claimed]

    def renew(self, lease: Lease) -> None:
        """Have a lease last for its time from now on.

        Raises:
            LeaseLost: it is outdated.
        """
        self.run(leasing.renew(self.context, lease), "renew")

    def release(self, lease: Lease) -> None:
        """Give a lease back: what is unfinished can be claimed at once. If the lease was lost, nothing happens."""
        self.run(leasing.release(self.context, lease), "release")

    def complete(self, workflow_id: str, *, lease: Lease | None = None, durability: Durability | None = None) -> None:
        """Mark a workflow as finished: nobody can claim it any more. It can still be read, and written.

        Raises:
            WorkflowNotFound: there is no such workflow.
            LeaseLost: the lease is outdated; nothing was changed.
        """
        self._write(leasing.complete(self.context, workflow_id, lease), durability, "complete", workflow_id)

    def expire(self, workflow_id: str, after: float, *, durability: Durability | None = None) -> None:
        """Have a finished workflow deleted so many seconds from now, with all that is kept for it, facts aside.

        It is over once the server's clock and the caller's have both reached that time. So one clock that is set, or a
        failover to a server with another clock, deletes nothing early. From then on, reads take it for gone, and a
        write begins another workflow. The store deletes it when a read, a write, `list`, `collect` or another `expire`
        meets it.

        Raises:
            WorkflowNotFound: there is no such workflow.
            InvalidArgument: it is not complete; nothing was changed.
        """
        self._write(leasing.expire(self.context, workflow_id, after), durability, "expire", workflow_id)

    # Whole workflows

    def save(
        self, workflow_id: str, log: list[Any], *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """Save a whole list of events as the workflow's log, over the one before. The stream is another thing.

        Raises:
            EncodeError: an event cannot be kept; nothing was sent.
            LeaseLost: the lease is outdated; nothing was stored.
            FactNotFound: an event holds a `FactRef` to a fact that is not kept; nothing was stored.
        """
        self._write(workflows.save(self.context, workflow_id, log, lease), durability, "save", workflow_id)

    def checkpoint(
        self, workflow_id: str, log: list[Any], *, lease: Lease | None = None, durability: Durability | None = None
    ) -> None:
        """The same as `save`: what Runic's runner calls while a workflow runs."""
        self.save(workflow_id, log, lease=lease, durability=durability)

    def load(self, workflow_id: str) -> list[Any]:
        """The log that was saved.

        Raises:
            WorkflowNotFound: none was.
        """
        return self.run(workflows.load(self.context, workflow_id), "load", workflow_id)

    def exists(self, workflow_id: str) -> bool:
        """Whether anything has been appended, saved or snapshotted under the id."""
        return self.run(workflows.exists(self.context, workflow_id), "exists", workflow_id)

    def delete(self, workflow_id: str, *, lease: Lease | None = None, durability: Durability | None = None) -> None:
        """Delete a workflow with all that is kept for it, facts aside; if there is none, nothing happens.

        Raises:
            LeaseLost: the lease is outdated; nothing was deleted.
        """
        self._write(workflows.delete(self.context, [workflow_id], lease), durability, "delete", workflow_id)

    def list(self, *, prefix: str = "", limit: int | None = None) -> Iterator[str]:
        """The ids of all workflows, the one written to last first, read a page at a time.

        A workflow that is written to while the listing is under way moves to the front and may be passed over.

        Args:
            prefix: only ids that start with this.
            limit: at most this many.

        Returns:
            An iterator of ids.
        """
        return self._read(listing.Listing(self.context, prefix=prefix, limit=limit), "list")

    # The namespace as a whole

    def collect(self, grace: float = 3600.0) -> int:
        """Remove the facts that no workflow refers to, in bounded steps, while writers go on.

        A workflow refers to a fact by a `Fact` or a `FactRef` in an event, from when that is appended until the
        workflow is deleted or expires, also when the event is trimmed. A hash that a program keeps in any other way,
        such as in a str, is no reference.

        Args:
            grace: only facts that nobody has written, or referred to anew, for so many seconds: longer than it takes
                from `put_fact` to the event that refers to it, and, in a cluster, than any append takes.

        Returns:
            How many were removed.
        """
        return self.run(collecting.collect(self.context, grace), "collect")

    def memory_usage(self) -> dict[str, int]:
        """How many bytes of the server's memory the namespace takes, by kind of key.

        Asks for every key by name: meant for people and reports, not for every request. (fakeredis cannot tell.)

        Returns:
            Bytes for each of ``events``, ``meta``, ``snapshot``, ``log``, ``commits``, ``refs``, ``index``, ``leases``,
            ``expiring``, ``facts`` and ``config``.
        """
        return self.run(namespace.memory_usage(self.context), "memory_usage")

    def delete_namespace(self) -> None:
        """Delete every workflow and every fact of the namespace, and the namespace itself.

        Stop its other users first: what they write meanwhile may stay, and a store that is open elsewhere does not
        notice that the namespace, with its settings, is gone. The next write makes it anew.
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
                page.clear()  # before the next one is made, which then takes the same memory
        finally:
            source.close()


def init_store(url: str | None = None, **options: Any) -> RedisStore:
    """Open a store by URL: `RedisStore.from_url`, under the name that the contract gives it."""
    return RedisStore.from_url(url, **options)
