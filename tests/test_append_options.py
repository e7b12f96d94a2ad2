"""Commits with any options, joined in one call of the script, against a plain model."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runic_redis import Fact, FactNotFound, FactRef, Lease, LeaseLost, RedisStore
from runic_redis.codec import EncodedEvents
from runic_redis.operations.appending import _RETRY_AT, append_call
from runic_redis.protocol.effects import Batch, Command, ErrorReply
from runic_redis.protocol.resp import pairs
from runic_redis.protocol.scripts import load_script
from tests.servers import RunningServer

# In one partition: their calls share keys.
IDS = ["w-{1}", "v-{1}", "new-{1}"]
FACTS = ["a", "b", "c"]
_names = itertools.count()
MISSING = FactRef("sha256:" + 64 * "0")


@dataclass
class Commit:
    """A commit to append, by what it is made of."""

    workflow_id: str
    # The events of each entry: the facts to which each event refers.
    entries: list[list[list[Any]]]
    commit_id: str | None
    expected: int | None
    metadata: dict[str, Any] | None
    lease: str
    snapshot: bytes | None


@dataclass
class Workflow:
    """The model of a workflow."""

    # The commit id, the events, and the metadata of each entry, by its cursor.
    entries: dict[int, tuple[bytes, list[Any], Any]] = field(default_factory=dict)
    commit_ids: dict[bytes, int] = field(default_factory=dict)
    refs: dict[str, float] = field(default_factory=dict)
    snapshot: tuple[int, bytes] | None = None
    is_there: bool = False
    # Whether replies to retries are kept for it.
    retried: bool = False

    @property
    def cursor(self) -> int:
        return max(self.entries, default=0)


@dataclass
class Model:
    """The model of a partition, and of the facts."""

    ahead: bool
    workflows: dict[str, Workflow] = field(default_factory=lambda: {name: Workflow() for name in IDS})
    facts: set[str] = field(default_factory=set)
    # The replies to retries, by the ids of the calls.
    kept: dict[bytes, int | str] = field(default_factory=dict)

    def append(self, commit: Commit, events: list[list[Any]], facts: dict[str, bytes], ids: tuple[Any, ...]) -> Any:
        """Append a commit. Return the cursor after it, or its error.

        Args:
            commit: the commit.
            events: the events of its entries.
            facts: its facts, by hash.
            ids: its id; the id of the call, if the caller gave the commit's id; whether this is a retry.
        """
        own, call, tried = ids
        workflow = self.workflows[commit.workflow_id]
        retried = workflow.retried if workflow.is_there else bool(self.kept)
        reply: Any = self.kept.get(call or own) if tried or retried else None
        was_kept = reply is not None
        if reply is None and call:
            reply = workflow.commit_ids.get(own)
        if reply is None and tried and not call and events:
            stored = [place for place, (commit_id, *_) in workflow.entries.items() if commit_id == own]
            reply = max(stored, default=None)
        if reply is None:
            reply = self._store(workflow, commit, events, facts, own)
        if tried and events and not was_kept:
            self.kept[call or own] = reply
            workflow.retried = workflow.retried or workflow.is_there
        # A workflow that is created while replies are kept has them looked for.
        workflow.retried = workflow.retried or (workflow.is_there and retried)
        return reply

    def _store(
        self, workflow: Workflow, commit: Commit, events: list[list[Any]], facts: dict[str, bytes], own: bytes
    ) -> int | str:
        if commit.lease == "lost":
            return "LEASE_LOST"
        if commit.expected not in {None, workflow.cursor}:
            return f"CURSOR_CONFLICT {workflow.cursor}"
        if MISSING.hash in facts and not self.ahead:
            return f"FACT_MISSING {MISSING.hash}"
        for part in events:
            workflow.entries[workflow.cursor + len(part)] = (own, part, commit.metadata)
            workflow.is_there = True
        cursor = workflow.cursor
        if events and commit.commit_id is not None:
            workflow.commit_ids[own] = cursor
        for fact in facts:
            workflow.refs[fact] = cursor
        self.facts |= facts.keys() - {MISSING.hash}
        if commit.snapshot is not None:
            workflow.snapshot = (cursor, commit.snapshot)
        return cursor


events_of_entries = st.lists(
    st.lists(st.lists(st.sampled_from([*FACTS, *FACTS, MISSING]), max_size=2), min_size=1, max_size=3), max_size=3
)
commits = st.builds(
    Commit,
    st.sampled_from(IDS),
    events_of_entries | st.just([[[]]]) | st.just([]),
    st.none() | st.sampled_from(["", "one", "two"]),
    st.none() | st.integers(0, 9),
    st.none() | st.just({}) | st.just({"by": "web"}),
    st.sampled_from(["", "", "held", "lost"]),
    st.none() | st.just(b"") | st.just(b"state"),
)
# Each step of a call: a new commit; or the number of an earlier one, sent again, as a retry or as a late first try.
steps = commits | st.tuples(st.integers(0, 20), st.booleans())
calls = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=1, max_size=5)


@dataclass
class Sent:
    """A commit that was sent, with all that the model needs."""

    commit: Commit
    command: Command
    events: list[list[Any]]
    facts: dict[str, bytes]


def prepared(store: RedisStore, commit: Commit, leases: dict[str, Lease]) -> Sent:
    """Return a commit as `append` sends it, with the entries that the test wants."""
    lease = leases.get(commit.lease) if commit.workflow_id == IDS[0] else None
    if lease is None:
        commit.lease = ""
    if not commit.entries:
        commit.snapshot = None
    commit.commit_id = commit.commit_id or None
    events: list[list[Any]] = [
        [{"at": at, "facts": [one if isinstance(one, FactRef) else Fact(one) for one in facts]} for at, facts in part]
        for part in map(enumerate, commit.entries)
    ]
    together: dict[str, bytes] = {}
    entries = [store.context.codec.encode_commit(part, together)[0] for part in events]
    facts: dict[str, bytes] = {}
    command = append_call(
        store.context,
        commit.workflow_id,
        EncodedEvents([one for part in events for one in part], entries, together),
        facts,
        expected_cursor=commit.expected,
        commit_id=commit.commit_id,
        metadata=commit.metadata,
        lease=lease,
        snapshot=commit.snapshot,
    )
    return Sent(commit, command, events, facts)


def ids_of(sent: Sent, *, is_retry: bool) -> tuple[Any, ...]:
    """Return the ids of a commit and of its call, and whether it is a retry."""
    args = sent.command.args
    options = str(args[4])
    return args[1], args[5 + options.index("c")] if "c" in options else None, is_retry


def send(store: RedisStore, sent: list[tuple[Sent, bool]], *, by_driver: bool) -> list[Any]:
    """Send commits in one call of the script, which the driver joins if it can: retries it makes by itself only."""
    if by_driver and not any(is_retry for _, is_retry in sent):
        return list(store._sender.ask(Batch([one.command for one, _ in sent])))
    keys: list[Any] = []
    args: list[Any] = []
    for one, is_retry in sent:
        own = list(one.command.args)
        own[_RETRY_AT] = "1" if is_retry else ""
        keys += one.command.keys
        args += own
    call = Command(("EVAL", load_script("append").text, str(len(keys)), *keys, *args), keys[0])
    return list(store._sender.ask(Batch([call]))[0])


def simple(reply: Any) -> Any:
    """Return a reply of the script as the model has it."""
    if isinstance(reply, ErrorReply):
        reply = reply.text.encode()
    if type(reply) is not bytes:
        return reply
    text = reply.decode().strip()
    if text[:1].isdigit():
        return int(text.partition("-")[0])
    return "LEASE_LOST" if text.startswith("LEASE_LOST") else text


def tell(store: RedisStore, *args: str) -> Any:
    return store._sender.ask(Batch([Command(args, args[1])]))[0]


def compare(store: RedisStore, workflow_id: str, model: Workflow) -> None:
    """Assert that the server holds what the model holds."""
    keys = store.context.keys.workflow(workflow_id)
    entries = {}
    for entry_id, fields in tell(store, "XRANGE", keys.events, "-", "+"):
        header, payload, name, commit_id, *more = fields
        assert name == b"i"
        metadata = store.context.codec.decode_metadata(more[1]) if more else None
        assert more[:1] == [b"m"][: len(more)]
        entries[int(entry_id.partition(b"-")[0])] = (
            commit_id,
            store.context.codec.decode_entry(header, payload),
            metadata,
        )
    assert entries == {place: (own, as_read(store, part), about) for place, (own, part, about) in model.entries.items()}
    meta = dict(pairs(tell(store, "HGETALL", keys.meta)))
    assert int(meta.get(b"cursor", 0)) == model.cursor
    assert {one: int(place) for one, place in pairs(tell(store, "HGETALL", keys.commits))} == model.commit_ids
    assert int(meta.get(b"ids", 0)) == len(model.commit_ids)
    refs = {
        fact.decode(): float(score) for fact, score in pairs(tell(store, "ZRANGE", keys.refs, "0", "-1", "WITHSCORES"))
    }
    assert refs == model.refs
    assert int(meta.get(b"refs", 0)) == len(model.refs)
    snapshot = dict(pairs(tell(store, "HGETALL", keys.snapshot)))
    found = (int(snapshot[b"cursor"]), snapshot[b"data"]) if snapshot else None
    assert found == model.snapshot
    assert int(meta.get(b"snapshot", 0)) == (model.snapshot[0] if model.snapshot else 0)
    assert (b"created" in meta) == model.is_there
    assert (tell(store, "ZSCORE", keys.index, workflow_id) is not None) == model.is_there
    assert (b"retried" in meta) == model.retried


def as_read(store: RedisStore, events: list[Any]) -> list[Any]:
    (entry,) = store.context.codec.encode_commit(events, {})
    return store.context.codec.decode_entry(entry.header, entry.payload)


@pytest.mark.parametrize("ahead", [False, True], ids=["with", "ahead"])
def test_commits_with_any_options_in_one_call_do_what_each_does(
    valkey: RunningServer, namespace: str, *, ahead: bool
) -> None:
    numbers = itertools.count()

    @given(calls)
    def check(calls: list[list[Any]]) -> None:
        with RedisStore.from_url(valkey.url(), namespace=f"{namespace}-{next(numbers)}", partitions=1) as store:
            run_calls(store, calls, Model(ahead))

    check()


def run_calls(store: RedisStore, calls: list[list[Any]], model: Model) -> None:
    """Assert that the script does with each call what the model does."""
    lost = store.acquire(IDS[0], "me")
    store.release(lost)
    leases = {"lost": lost, "held": store.acquire(IDS[0], "me")}
    model.workflows[IDS[0]].is_there = True
    store.context.slots_matter = model.ahead
    history: list[Sent] = []
    for number, call in enumerate(calls):
        sent: list[tuple[Sent, bool]] = []
        for step in call:
            if isinstance(step, Commit):
                history.append(prepared(store, step, leases))
                sent.append((history[-1], False))
            elif step[0] < len(history):
                sent.append((history[step[0]], step[1]))
        if sent:
            expected = [
                model.append(one.commit, one.events, one.facts, ids_of(one, is_retry=is_retry))
                for one, is_retry in sent
            ]
            assert list(map(simple, send(store, sent, by_driver=number % 2 == 0))) == expected
    for workflow_id, workflow in model.workflows.items():
        compare(store, workflow_id, workflow)
    if not model.ahead:
        hashes = [store.context.codec.encode_own_fact(value)[0] for value in FACTS]
        facts = {one for one in hashes if tell(store, "HEXISTS", store.context.keys.fact(one.encode())[0], one)}
        assert facts == model.facts


items = st.lists(
    st.tuples(st.sampled_from(IDS), st.lists(st.lists(st.sampled_from([*FACTS, MISSING]), max_size=1), max_size=3)),
    max_size=8,
)


@given(items, st.sets(st.sampled_from(IDS)), st.sampled_from([*IDS, None]))
def test_each_item_of_append_many_is_checked_by_the_lease_of_its_workflow(
    valkey: RunningServer, items: list[tuple[str, list[list[Any]]]], held: set[str], lost: str | None
) -> None:
    with RedisStore.from_url(valkey.url(), namespace=f"test-many-{next(_names)}", partitions=1) as store:
        leases = [store.acquire(workflow_id, "me") for workflow_id in sorted(held)]
        if lost in held:
            store.release(next(lease for lease in leases if lease.workflow_id == lost))
            store.acquire(lost, "another")
        cursors = dict.fromkeys(IDS, 0)
        expected: list[Any] = []
        for workflow_id, events in items:
            if workflow_id == lost and lost in held:
                expected.append(LeaseLost)
            elif any(MISSING in facts for facts in events):
                expected.append(FactNotFound)
            else:
                cursors[workflow_id] += len(events)
                expected.append(cursors[workflow_id])
        results = store.append_many(
            [
                (name, [{"facts": [one if one is MISSING else Fact(one) for one in facts]} for facts in events])
                for name, events in items
            ],
            leases=leases,
        )
        assert [one if type(one) is int else type(one) for one in results] == expected
        assert {name: store.cursor(name) for name in IDS if cursors[name]} == {
            name: cursor for name, cursor in cursors.items() if cursor
        }
