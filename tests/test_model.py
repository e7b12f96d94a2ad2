"""The store against a plain model in memory: after any operations in any order, both agree."""

import itertools
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from runic_redis import (
    CancelRequested,
    CursorConflict,
    EventsTrimmed,
    Fact,
    FactNotFound,
    FactRef,
    Lease,
    LeaseHeld,
    LeaseLost,
    Message,
    MessageGone,
    Positions,
    RedisStore,
    SnapshotConflict,
    SnapshotNotFound,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowNotFound,
)
from runic_redis.testing.examples import OrderPlaced
from tests.clocks import Clock, shifted

IDS = st.sampled_from(["a", "b", "c"])
# How a snapshot refers to facts: not at all, by its data, or by `refs`.
NAMED = st.none() | st.just("data") | st.lists(st.integers(0, 4), max_size=3)
# In seconds: no sum of steps comes near a lifetime, or to the days of the feed.
LIFETIMES = st.sampled_from([10_000, 20_000, 50_000])
STEPS = st.sampled_from([3_300, 6_600, 13_200])
TAGS = st.lists(st.sampled_from(["a", "ab", "b/1", "b/2", "ü"]), max_size=3)
SIZES = st.integers(0, 6) | st.just(40)
_names = itertools.count()


class Workflow:
    """The model of a workflow."""

    def __init__(self) -> None:
        self.commits: list[list[Any]] = []
        self.trimmed = 0
        self.commit_ids: dict[str, int] = {}
        self.snapshot: tuple[int, bytes] | None = None
        self.log: list[Any] | None = None
        self.lease: Lease | None = None
        # An unfinished workflow can be claimed while it has no lease.
        self.unfinished = False
        self.completed = False
        # The facts by the last cursor that refers to them, and those that the snapshot refers to.
        self.refs: dict[str, int] = {}
        self.named: set[str] = set()
        # When it ends, in the model's time; and how long it lives from each write on, if its lifetime slides.
        self.ends: int | None = None
        self.sliding: int | None = None
        # The messages that no commit has consumed, and some that one has; the ids in the inbox by message id.
        self.inbox: list[Message] = []
        self.consumed: list[Message] = []
        self.message_ids: dict[str, str] = {}
        # The tags, each with the cursor after a commit that has it.
        self.tags: set[tuple[str, int]] = set()

    @property
    def is_cancelled(self) -> bool:
        return any(isinstance(message.body, CancelRequested) for message in self.inbox)

    @property
    def events(self) -> list[Any]:
        return [event for commit in self.commits for event in commit]

    @property
    def cursor(self) -> int:
        return len(self.events)

    def tagged(self) -> list[tuple[str, int, list[Any]]]:
        """Return the tags of the commits that are not trimmed, in order, each with the cursor and the events."""
        commits = dict(zip(itertools.accumulate(map(len, self.commits)), self.commits, strict=True))
        return [(tag, cursor, commits[cursor]) for tag, cursor in sorted(self.tags) if cursor > self.trimmed]


class Entry(NamedTuple):
    """An entry of the feed's model. `workflow` is the life of the workflow that it is of."""

    position: int
    workflow_id: str
    cursor: int
    events: list[Any]
    deleted: bool
    workflow: Workflow | None


class StoreMachine(RuleBasedStateMachine):
    """Every operation, on a few workflows, by one of two clients."""

    open_store: Callable[[str], RedisStore]
    # Sets the clocks of the server and of all clients forward.
    step_clocks: Callable[[int], None]

    def __init__(self) -> None:
        super().__init__()
        namespace = f"model-{next(_names)}"
        self.clients = [type(self).open_store(namespace) for _ in range(2)]
        # The model's time, in seconds.
        self.now = 0
        self.workflows: dict[str, Workflow] = {}
        self.order: list[str] = []
        self.numbers = itertools.count(1)
        self.outdated: list[Lease] = []
        self.facts: dict[str, Any] = {}
        # By partition, the entries of the feed: the position, the workflow, its cursor, the events of its model or
        # none, and whether it is a deletion.
        self.feed: dict[int, list[Entry]] = {}
        self.readers = [self.clients[0].feed(), self.clients[1].feed()]
        self.read: list[dict[int, int]] = [{}, {}]

    def teardown(self) -> None:
        for client in self.clients:
            client.close()

    def touched(self, workflow_id: str) -> Workflow:
        if workflow_id in self.order:
            self.order.remove(workflow_id)
        self.order.insert(0, workflow_id)
        workflow = self.workflows.setdefault(workflow_id, Workflow())
        if workflow.sliding is not None and workflow.ends is not None:
            workflow.ends = max(workflow.ends, self.now + workflow.sliding)
        return workflow

    def fed(self, workflow_id: str, events: list[Any], *, deleted: bool = False) -> None:
        """Record a change in the model of the feed, after it was made in that of the workflow."""
        entries = self.feed.setdefault(self.clients[0].context.keys.partition_of(workflow_id), [])
        position = (entries[-1].position if entries else 0) + (len(events) or 1)
        cursor = self.cursor_of(workflow_id) if events else 0
        entries.append(Entry(position, workflow_id, cursor, events, deleted, self.workflows.get(workflow_id)))

    def created(self, workflow_id: str) -> Workflow:
        """Touch a workflow; if it is new, record its creation without events."""
        is_new = workflow_id not in self.workflows
        workflow = self.touched(workflow_id)
        if is_new:
            self.fed(workflow_id, [])
        return workflow

    def cursor_of(self, workflow_id: str) -> int:
        return self.workflows[workflow_id].cursor if workflow_id in self.workflows else 0

    @rule(
        workflow_id=IDS,
        size=SIZES,
        off_by=st.sampled_from([None, None, 0, 0, 1, -1]),
        commit_id=st.sampled_from([None, None, "x", "y"]),
        client=st.integers(0, 1),
        large=st.booleans(),
        snapshot=st.none() | st.binary(max_size=3),
        named=NAMED,
        fact=st.none() | st.integers(0, 4),
        tags=TAGS,
    )
    def append(
        self,
        workflow_id: str,
        size: int,
        off_by: int | None,
        commit_id: str | None,
        client: int,
        large: bool,
        snapshot: bytes | None,
        named: list[int] | str | None,
        fact: int | None,
        tags: list[str],
    ) -> None:
        events: list[Any] = [OrderPlaced("Ada", next(self.numbers)) for _ in range(size)]
        if large and events:
            events = [{"number": next(self.numbers), "text": "x" * 300_000} for _ in range(min(size, 6))]
            size = len(events)
        appended, options = events, {}
        if events and snapshot is not None:
            options = self.snapshot_options(snapshot, named)
        if events and fact is not None:
            appended = [*events, {"fact": Fact(fact)}]
            events = [*events, {"fact": FactRef(self.hash_of(fact))}]
            size += 1
        options |= {"tags": tags} if events else {}
        cursor = self.cursor_of(workflow_id)
        expected = None if off_by is None else max(0, cursor + off_by)
        known = self.workflows[workflow_id].commit_ids.get(commit_id or "") if workflow_id in self.workflows else None
        store = self.clients[client]
        options |= {"expected_cursor": expected, "commit_id": commit_id}
        if known is not None:
            assert store.append(workflow_id, appended, **options) == known
        elif expected is not None and expected != cursor:
            with pytest.raises(CursorConflict) as caught:
                store.append(workflow_id, appended, **options)
            assert caught.value.actual == cursor
        elif self.is_unknown(workflow_id, options, fact):
            with pytest.raises(FactNotFound):
                store.append(workflow_id, appended, **options)
        else:
            result = store.append(workflow_id, appended, **options)
            assert result == cursor + size
            if events:
                workflow = self.touched(workflow_id)
                workflow.commits.append(events)
                workflow.tags |= {(tag, result) for tag in tags}
                self.fed(workflow_id, events)
                if commit_id is not None:
                    workflow.commit_ids[commit_id] = result
                refs = options.get("refs") or ()
                new = set() if fact is None else {self.hash_of(fact)}
                if not workflow.refs.keys() | new >= set(refs):
                    new |= set(refs)  # then the commit refers to them, too
                workflow.refs |= dict.fromkeys(new, result)
                if snapshot is not None:
                    self.take_snapshot(workflow, result, options["snapshot"], refs)
                if fact is not None:
                    self.facts[self.hash_of(fact)] = fact

    def snapshot_options(self, data: bytes, named: list[int] | str | None) -> dict[str, Any]:
        """Return a snapshot, and the facts that it refers to; "data" for those that are told by its data only."""
        hashes = [self.hash_of(fact) for fact in (named if isinstance(named, list) else range(3))]
        if named == "data":
            return {"snapshot": b" ".join([data, *map(str.encode, hashes)])}
        return {"snapshot": data} if named is None else {"snapshot": data, "refs": hashes}

    def is_unknown(self, workflow_id: str, options: dict[str, Any], fact: int | None = None) -> bool:
        """Return whether a snapshot refers to a fact that is not stored."""
        known = self.facts.keys() | (set() if fact is None else {self.hash_of(fact)})
        return not known >= set(options.get("refs") or ())

    def take_snapshot(self, workflow: Workflow, cursor: int, data: bytes, refs: Iterable[str]) -> None:
        workflow.snapshot = (cursor, data)
        workflow.named = {*refs} | {self.hash_of(fact) for fact in range(5) if self.hash_of(fact).encode() in data}
        for fact_hash in refs:
            workflow.refs.setdefault(fact_hash, 0)

    def hash_of(self, fact: int) -> str:
        return self.clients[0].context.codec.encode_own_fact(fact)[0]

    @invariant()
    def what_is_stored_refers_to_facts(self) -> None:
        """Check the model: it keeps the facts to which events refer."""
        for workflow in self.workflows.values():
            for event in workflow.events[workflow.trimmed :]:
                assert not isinstance(event, dict) or "fact" not in event or event["fact"].hash in workflow.refs

    @rule(fact=st.integers(0, 8))
    def put_fact(self, fact: int) -> None:
        self.facts[self.clients[0].put_fact(fact)] = fact

    @rule()
    def collect(self) -> None:
        living = {fact_hash for workflow in self.workflows.values() for fact_hash in workflow.refs}
        gone = self.facts.keys() - living
        assert self.clients[1].collect(0) == len(gone)
        for fact_hash in gone:
            del self.facts[fact_hash]
            with pytest.raises(FactNotFound):
                self.clients[0].load_fact(fact_hash)

    @rule(workflow_id=IDS, owner=st.sampled_from(["p", "q"]), client=st.integers(0, 1))
    def acquire(self, workflow_id: str, owner: str, client: int) -> None:
        workflow = self.workflows.get(workflow_id)
        held = workflow.lease if workflow else None
        if held is not None and held.owner != owner:
            with pytest.raises(LeaseHeld) as caught:
                self.clients[client].acquire(workflow_id, owner, 10**9)
            assert caught.value.owner == held.owner
            return
        self.take(workflow_id, self.clients[client].acquire(workflow_id, owner, 10**9))

    def take(self, workflow_id: str, lease: Lease) -> None:
        """Record a new lease in the model."""
        workflow = self.workflows[workflow_id] if workflow_id in self.workflows else self.created(workflow_id)
        if workflow.lease is not None:
            self.outdated.append(workflow.lease)
        assert all(lease.token > one.token for one in self.outdated if one.workflow_id == workflow_id)
        workflow.lease = lease
        workflow.unfinished = not workflow.completed

    @rule(workflow_id=IDS)
    def release(self, workflow_id: str) -> None:
        workflow = self.workflows.get(workflow_id)
        if workflow is not None and workflow.lease is not None:
            self.clients[1].release(workflow.lease)
            self.outdated.append(workflow.lease)
            workflow.lease = None

    @rule(limit=st.integers(0, 3))
    def claim(self, limit: int) -> None:
        free = {one for one, workflow in self.workflows.items() if workflow.unfinished and workflow.lease is None}
        claimed = self.clients[0].claim("r", limit, ttl=10**9)
        assert len(claimed) == min(limit, len(free))
        assert {lease.workflow_id for lease in claimed} <= free
        for lease in claimed:
            self.take(lease.workflow_id, lease)

    @rule(workflow_id=IDS, by_lease=st.booleans())
    def complete(self, workflow_id: str, by_lease: bool) -> None:
        workflow = self.workflows.get(workflow_id)
        if workflow is None:
            with pytest.raises(WorkflowNotFound):
                self.clients[0].complete(workflow_id)
            return
        self.clients[0].complete(workflow_id, lease=workflow.lease if by_lease else None)
        workflow.completed, workflow.unfinished = True, False

    @rule(workflow_id=IDS, after=LIFETIMES, sliding=st.booleans())
    def expire(self, workflow_id: str, after: int, sliding: bool) -> None:
        workflow = self.workflows.get(workflow_id)
        if workflow is None:
            with pytest.raises(WorkflowNotFound):
                self.clients[0].expire(workflow_id, after, sliding=sliding)
            return
        self.clients[0].expire(workflow_id, after, sliding=sliding)
        workflow.ends, workflow.sliding = self.now + after, after if sliding else None

    @rule(workflow_id=IDS, size=st.integers(0, 1))
    def slide(self, workflow_id: str, size: int) -> None:
        """Write, or not, in a lifetime that slides. The other rules rarely come in this order."""
        self.expire(workflow_id, 10_000, sliding=True)
        self.wait(6_600)
        if workflow_id in self.workflows:
            self.save(workflow_id, size)
        self.wait(6_600)

    @rule(workflow_id=IDS, expires_in=LIFETIMES, client=st.integers(0, 1))
    def append_with_a_lifetime(self, workflow_id: str, expires_in: int, client: int) -> None:
        events = [OrderPlaced("lifetime", next(self.numbers))]
        cursor = self.cursor_of(workflow_id)
        assert self.clients[client].append(workflow_id, events, expires_in=expires_in) == cursor + 1
        workflow = self.touched(workflow_id)
        workflow.commits.append(events)
        self.fed(workflow_id, events)
        workflow.ends, workflow.sliding = self.now + expires_in, None

    @rule(workflow_id=IDS)
    def persist(self, workflow_id: str) -> None:
        workflow = self.workflows.get(workflow_id)
        if workflow is None:
            with pytest.raises(WorkflowNotFound):
                self.clients[1].persist(workflow_id)
            return
        self.clients[1].persist(workflow_id)
        workflow.ends = workflow.sliding = None

    @rule(seconds=STEPS)
    def wait(self, seconds: int) -> None:
        """Let time pass on all clocks, and meet the workflows that are over."""
        type(self).step_clocks(seconds)
        self.now += seconds
        over = [name for name, one in self.workflows.items() if one.ends is not None and one.ends <= self.now]
        for workflow_id in over:
            assert not self.clients[0].exists(workflow_id)
            self.forget(workflow_id)

    @rule(workflow_id=IDS, size=st.integers(0, 2))
    def append_by_the_lease(self, workflow_id: str, size: int) -> None:
        workflow = self.workflows.get(workflow_id)
        if workflow is not None and workflow.lease is not None:
            events = [OrderPlaced("lease", next(self.numbers)) for _ in range(size)]
            assert self.clients[0].append(workflow_id, events, lease=workflow.lease) == workflow.cursor + size
            if events:
                self.touched(workflow_id).commits.append(events)
                self.fed(workflow_id, events)

    @precondition(lambda self: self.outdated)
    @rule(data=st.data())
    def write_by_an_outdated_lease(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.outdated))
        with pytest.raises(LeaseLost):
            self.clients[1].append(lease.workflow_id, [{"stale": True}], lease=lease)
        with pytest.raises(LeaseLost):
            self.clients[1].renew(lease)

    @rule(
        workflow_id=IDS,
        message_id=st.sampled_from([None, None, "x", "y"]),
        keep=st.booleans(),
        cancel=st.booleans(),
        client=st.integers(0, 1),
    )
    def send(self, workflow_id: str, message_id: str | None, keep: bool, cancel: bool, client: int) -> None:
        workflow = self.workflows.get(workflow_id)
        body = CancelRequested(f"{next(self.numbers)}") if cancel else OrderPlaced("message", next(self.numbers))
        send = partial(
            self.clients[client].send, workflow_id, body, message_id=message_id, missing="keep" if keep else "raise"
        )
        if workflow is not None and message_id in workflow.message_ids:
            assert send() == workflow.message_ids[message_id]
        elif workflow is None and not keep:
            with pytest.raises(WorkflowNotFound):
                send()
        elif workflow is not None and workflow.completed:
            with pytest.raises(WorkflowCompleted):
                send()
        else:
            sent = send()
            workflow = self.created(workflow_id)
            stored = self.clients[client].inbox(workflow_id)[-1]
            assert (stored.id, stored.message_id, stored.body) == (sent, message_id, body)
            assert all(stored.id != one.id for one in workflow.inbox + workflow.consumed)
            workflow.inbox.append(stored)
            if message_id is not None:
                workflow.message_ids[message_id] = sent

    @rule(workflow_id=IDS, data=st.data(), unless_cancelled=st.booleans(), client=st.integers(0, 1))
    def consume(self, workflow_id: str, data: st.DataObject, unless_cancelled: bool, client: int) -> None:
        workflow = self.workflows.get(workflow_id)
        if workflow is None or not workflow.inbox + workflow.consumed:
            return
        some = data.draw(st.lists(st.sampled_from(workflow.inbox + workflow.consumed), max_size=4))
        event = OrderPlaced("answer", next(self.numbers))
        append = partial(
            self.clients[client].append, workflow_id, [event], consumes=some, unless_cancelled=unless_cancelled
        )
        if unless_cancelled and workflow.is_cancelled:
            with pytest.raises(WorkflowCancelled):
                append()
        elif gone := [message.id for message in some if message in workflow.consumed]:
            with pytest.raises(MessageGone) as caught:
                append()
            assert caught.value.id == gone[0]
        else:
            assert append() == workflow.cursor + 1
            self.touched(workflow_id).commits.append([event])
            self.fed(workflow_id, [event])
            workflow.inbox = [message for message in workflow.inbox if message not in some]
            workflow.consumed = (workflow.consumed + list(dict.fromkeys(some)))[-3:]

    @rule(workflow_id=IDS, share=st.floats(0, 1.2), data=st.binary(max_size=5), named=NAMED, client=st.integers(0, 1))
    def save_snapshot(
        self, workflow_id: str, share: float, data: bytes, named: list[int] | str | None, client: int
    ) -> None:
        options = self.snapshot_options(data, named)
        data = options.pop("snapshot")
        cursor = self.cursor_of(workflow_id)
        wanted = round(cursor * share)
        present = self.workflows[workflow_id].snapshot if workflow_id in self.workflows else None
        if wanted > cursor or (present is not None and wanted < present[0]):
            with pytest.raises(SnapshotConflict):
                self.clients[client].save_snapshot(workflow_id, wanted, data)
        elif self.is_unknown(workflow_id, options):
            with pytest.raises(FactNotFound):
                self.clients[client].save_snapshot(workflow_id, wanted, data, **options)
        else:
            self.clients[client].save_snapshot(workflow_id, wanted, data, **options)
            self.take_snapshot(self.created(workflow_id), wanted, data, options.get("refs", ()))

    @rule(workflow_id=IDS, keep=st.sampled_from([0, 0, 1, 3]))
    def trim(self, workflow_id: str, keep: int) -> None:
        if workflow_id not in self.workflows:
            with pytest.raises(WorkflowNotFound):
                self.clients[0].trim(workflow_id)
            return
        workflow = self.workflows[workflow_id]
        covered = max(0, workflow.snapshot[0] - keep) if workflow.snapshot else 0
        end = 0
        for commit in workflow.commits:
            if end + len(commit) > covered:
                break
            end += len(commit)
        workflow.trimmed = max(workflow.trimmed, end)
        assert self.clients[0].trim(workflow_id, keep=keep) == workflow.trimmed
        if workflow.snapshot is not None:
            workflow.refs = {
                fact_hash: cursor
                for fact_hash, cursor in workflow.refs.items()
                if cursor > workflow.trimmed or fact_hash in workflow.named
            }

    @rule(workflow_id=IDS, size=st.integers(0, 3))
    def save(self, workflow_id: str, size: int) -> None:
        log = [OrderPlaced("log", next(self.numbers)) for _ in range(size)]
        self.clients[0].save(workflow_id, log)
        self.created(workflow_id).log = log

    @rule(workflow_id=IDS, client=st.integers(0, 1))
    def delete(self, workflow_id: str, client: int) -> None:
        self.clients[client].delete(workflow_id)
        self.forget(workflow_id)

    def forget(self, workflow_id: str) -> None:
        """Record in the model that a workflow was deleted, or has ended."""
        workflow = self.workflows.pop(workflow_id, None)
        if workflow is not None:
            self.order.remove(workflow_id)
            self.fed(workflow_id, [], deleted=True)
            if workflow.lease is not None:
                self.outdated.append(workflow.lease)

    @rule(workflow_id=IDS, first=st.floats(0, 1.1), last=st.none() | st.floats(0, 1.1), reverse=st.booleans())
    def read_range(self, workflow_id: str, first: float, last: float | None, reverse: bool) -> None:
        cursor = self.cursor_of(workflow_id)
        after = round(cursor * first)
        until = None if last is None else round(cursor * last)
        end = cursor if until is None else min(cursor, until)
        workflow = self.workflows.get(workflow_id)
        if workflow is None or not cursor:
            with pytest.raises(WorkflowNotFound):
                self.clients[1].stream(workflow_id, after=after, until=until, reverse=reverse)
            return
        if after < min(workflow.trimmed, end):
            with pytest.raises(EventsTrimmed) as caught:
                list(self.clients[1].stream(workflow_id, after=after, until=until, reverse=reverse))
            assert caught.value.first == workflow.trimmed + 1
            return
        expected = workflow.events[after:end]
        records = list(self.clients[1].stream_records(workflow_id, after=after, until=until, reverse=reverse))
        assert [record.event for record in records] == (expected[::-1] if reverse else expected)
        cursors = list(range(after + 1, end + 1))
        assert [record.cursor for record in records] == (cursors[::-1] if reverse else cursors)

    @rule(
        workflow_id=IDS,
        tag=st.sampled_from(["a", "ab", "b/1"]),
        prefix=st.sampled_from(["", "a", "b/"]),
        reverse=st.booleans(),
        limit=st.none() | st.integers(0, 2),
    )
    def find(self, workflow_id: str, tag: str, prefix: str, reverse: bool, limit: int | None) -> None:
        tagged = self.workflows[workflow_id].tagged() if workflow_id in self.workflows else []
        exact = [one for one in tagged if one[0] == tag]
        beginning = [one for one in tagged if one[0].startswith(prefix)]
        for query, matching in (({"tag": tag}, exact), ({"prefix": prefix}, beginning)):
            found = self.clients[0].find(workflow_id, **query, reverse=reverse, limit=limit)  # type: ignore[arg-type]
            expected = (matching[::-1] if reverse else matching)[:limit]
            assert [(one.tag, one.cursor, one.events) for one in found] == expected

    @rule(reader=st.integers(0, 1), resume=st.booleans())
    def read_feed(self, reader: int, resume: bool) -> None:
        """Read the feed to its end with one of two readers, or with a new one from its positions on."""
        if resume:
            positions = Positions.parse(str(self.readers[reader].positions))
            self.readers[reader].close()
            self.readers[reader] = self.clients[reader].feed(after=positions)
        read = self.read[reader]
        expected: dict[int, list[Entry]] = {}
        blocked = False
        for partition, entries in self.feed.items():
            for entry in entries:
                workflow = entry.workflow
                if entry.position <= read.get(partition, 0):
                    continue
                if entry.events and workflow is not self.workflows.get(entry.workflow_id):
                    continue  # its events are gone
                if entry.events and workflow is not None and entry.cursor <= workflow.trimmed:
                    blocked = True
                expected.setdefault(partition, []).append(entry)
        found = []
        try:
            for commit in self.readers[reader]:
                found.append(commit)  # noqa: PERF402 - the error ends it
        except EventsTrimmed:
            assert blocked
            for commit in found:
                read[commit.partition] = commit.position
            self.skip_trimmed(reader)
        else:
            assert not blocked
            read |= {partition: entries[-1].position for partition, entries in self.feed.items()}
        for partition in self.feed:
            of_it = [one for one in found if one.partition == partition]
            assert [(one.position, one.workflow_id, one.cursor, one.events, one.deleted) for one in of_it] == [
                entry[:5] for entry in expected.get(partition, [])[: len(of_it)]
            ]
            assert blocked or len(of_it) == len(expected.get(partition, []))

    def skip_trimmed(self, reader: int) -> None:
        """Begin at the end of the feed: the events in between are trimmed."""
        self.readers[reader].close()
        self.readers[reader] = self.clients[reader].feed(start="now")
        self.read[reader] = {partition: entries[-1].position for partition, entries in self.feed.items()}

    @precondition(lambda self: self.workflows)
    @invariant()
    def everything_agrees(self) -> None:
        store = self.clients[1]
        for workflow_id in ("a", "b", "c"):
            workflow = self.workflows.get(workflow_id)
            assert store.exists(workflow_id) == (workflow is not None)
            assert store.cursor(workflow_id) == self.cursor_of(workflow_id)
            if workflow is None:
                continue
            assert store.inbox(workflow_id) == workflow.inbox
            found = store.find(workflow_id, prefix="")
            assert [(one.tag, one.cursor, one.events) for one in found] == workflow.tagged()
            if workflow.commits:
                left = list(store.stream(workflow_id, after=workflow.trimmed))
                assert left == workflow.events[workflow.trimmed :]
            if workflow.snapshot is None:
                with pytest.raises(SnapshotNotFound):
                    store.load_snapshot(workflow_id)
            else:
                assert store.load_snapshot(workflow_id) == workflow.snapshot
            if workflow.log is None:
                with pytest.raises(WorkflowNotFound):
                    store.load(workflow_id)
            else:
                assert store.load(workflow_id) == workflow.log

    @precondition(lambda self: self.facts)
    @invariant()
    def every_fact_is_there(self) -> None:
        assert self.clients[1].load_facts(list(self.facts)) == self.facts

    @invariant()
    def the_listing_agrees(self) -> None:
        assert list(self.clients[0].list()) == self.order


def check(url: str, clock: Clock, examples: int) -> None:
    passed = 0

    def open_store(namespace: str) -> RedisStore:
        here = f"memory://{namespace}" if url.startswith("memory:") else url
        store = RedisStore.from_url(here, namespace=namespace, partitions=2, feed=True)
        store.context.clock = lambda: time.time() + passed
        return store

    def step_clocks(seconds: int) -> None:
        nonlocal passed
        passed += seconds
        clock.step(seconds)

    class Machine(StoreMachine):
        pass

    Machine.open_store = staticmethod(open_store)  # type: ignore[method-assign]
    Machine.step_clocks = staticmethod(step_clocks)  # type: ignore[method-assign]
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_the_store_agrees_with_its_model_on_fakeredis(few_buckets: None) -> None:
    with shifted("memory://model") as clock:
        check("memory://model", clock, examples=20)


def test_the_store_agrees_with_its_model_on_valkey(valkey: Any, few_buckets: None) -> None:
    with shifted(valkey) as clock:
        check(clock.url, clock, examples=50)
