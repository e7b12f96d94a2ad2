"""The verbs that inspect: `workflows`, `show`, `facts` and `stats`."""

from collections.abc import Iterator
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Annotated, Any, NamedTuple

import typer

from runic_redis.admin.describing import (
    Description,
    count_events,
    count_workflows,
    describe,
    describe_one,
    measure_feed,
    recent_commits,
)
from runic_redis.arguments import check_workflow_id
from runic_redis.cli.filters import MOMENT_HELP, parse_moment, resolve_moment
from runic_redis.cli.options import AsJson, Namespace, Url, WorkflowId, at_most, opened, utf_8
from runic_redis.cli.output import (
    EXIT_NO,
    bytes_text,
    console,
    counted,
    print_json,
    print_pairs,
    progress,
    styled,
    table,
    time_text,
)
from runic_redis.errors import DecodeError, InvalidArgument, SnapshotNotFound, printable
from runic_redis.events.plain import event_text, to_json, type_counts, types_text, value_text
from runic_redis.operations.counting import count_matching
from runic_redis.operations.facts import count_facts
from runic_redis.operations.filters import check_filters
from runic_redis.operations.listing import Listing
from runic_redis.operations.namespace import memory_of
from runic_redis.operations.records import DecodedEntry
from runic_redis.operations.states import State
from runic_redis.protocol.effects import Command
from runic_redis.protocol.refusals import ask
from runic_redis.store import RedisStore

# How many workflows `workflows` reads in one round trip, and `stats`.
_PAGE = 100
_COUNTED = 1000
_STYLES: dict[State, str] = {
    "open": "",
    "waiting": "yellow",
    "leased": "green",
    "parked": "red",
    "completed": "dim",
}
# How many commits `show` lists.
_RECENT = 10
# Longer texts of states and metadata are cut, and so are bytes.
_LONGEST_TEXT = 1000
_SHOWN_BYTES = 32
# How often `stats` measures each partition.
_TIMES = 5


def workflows(
    prefix: Annotated[
        str, typer.Argument(help="List only workflows whose ids start with this.", metavar="[PREFIX]", callback=utf_8)
    ] = "",
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    state: Annotated[State | None, typer.Option(help="List only workflows in this state.")] = None,
    queue: Annotated[
        str | None, typer.Option(help="List only workflows of this queue.", metavar="NAME", callback=utf_8)
    ] = None,
    due: Annotated[
        str | None,
        typer.Option(help=f"List only workflows that are due in a queue by this time. {MOMENT_HELP}", metavar="TIME"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="List only workflows written at this time or later; written as for --due.", metavar="TIME"),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="List only workflows last written at this time or earlier.", metavar="TIME"),
    ] = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            help="List only workflows with this attribute. May be repeated.", metavar="NAME=VALUE", callback=utf_8
        ),
    ] = None,
    parent: Annotated[
        str | None, typer.Option(help="List only children of this workflow.", metavar="ID", callback=utf_8)
    ] = None,
    limit: Annotated[int, typer.Option(help="List at most this many workflows; 0 for all.", min=0)] = 50,
    count: Annotated[bool, typer.Option("--count", help="Print only the number of workflows.")] = False,
    as_json: AsJson = False,
) -> None:
    """List workflows, the most recently written one first; those of queues by when they are due."""
    moments = {"due": due, "since": since, "until": until}
    parsed = {name: parse_moment(text, f"--{name}") for name, text in moments.items() if text is not None}
    attributes = _parse_attributes(attribute or [])
    with opened(url, namespace) as store:
        times = {name: resolve_moment(store, moment) for name, moment in parsed.items()}
        filters = check_filters(prefix=prefix, state=state, queue=queue, attributes=attributes, **times)
        filters = filters._replace(parent=None if parent is None else check_workflow_id(parent))
        if count:
            number = store.run(count_matching(store.context, filters), "workflows")
            if as_json:
                print_json({"workflows": number})
            else:
                print(number)
            return
        found = _described(store, Listing(store.context, filters, limit=at_most(limit)))
        if as_json:
            for one in found:
                print_json(one._asdict())
        else:
            _print_workflows(list(found))


def _parse_attributes(conditions: list[str]) -> dict[str, str]:
    parsed = {}
    for condition in conditions:
        name, separator, value = condition.partition("=")
        if not (name and separator):
            raise InvalidArgument(f"--attribute takes NAME=VALUE, not {condition!r:.80}.")
        parsed[name] = value
    return parsed


def _print_workflows(found: list[Description]) -> None:
    with_queue, with_attributes = any(one.queue for one in found), any(one.attributes for one in found)
    columns = [
        *("workflow", "state", *(("queue", "due") if with_queue else ()), "cursor", "last write", "snapshot"),
        *(("attributes",) if with_attributes else ()),
    ]
    shown = table(*columns, right=("cursor", "snapshot"))
    for one in found:
        snapshot = "" if one.snapshot_cursor is None else str(one.snapshot_cursor)
        shown.add_row(
            printable(one.workflow_id),
            styled((one.state, _STYLES[one.state])),
            *((printable(one.queue or ""), _due_text(one) or "") if with_queue else ()),
            *(str(one.cursor), time_text(one.written), snapshot),
            *((_attributes_text(one),) if with_attributes else ()),
        )
    console().print(shown)


def _due_text(one: Description) -> str | None:
    """Return when a workflow is due; None if it is in no queue."""
    if one.state not in {"waiting", "leased"}:
        return None
    return time_text(one.due) if one.due else "once woken"


def _attributes_text(one: Description) -> str:
    return printable(", ".join(f"{name}={value}" for name, value in one.attributes.items()))


def _described(store: RedisStore, listing: Listing) -> Iterator[Description]:
    while ids := store.run(listing.next_page(), "workflows"):
        for begin in range(0, len(ids), _PAGE):
            yield from store.run(describe(store.context, ids[begin : begin + _PAGE]), "workflows")


def show(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    as_json: AsJson = False,
) -> None:
    """Show a workflow: cursor, snapshot, lease, sizes, and its last commits.

    A snapshot that a session saved is decoded. Damaged parts are named beside the rest, and the exit status is then 1.
    """
    with opened(url, namespace) as store:
        one = store.run(describe_one(store.context, workflow_id), "show")
        sizes = store.run(memory_of(store.context, workflow_id), "show")
        commits, unreadable = store.run(recent_commits(store.context, workflow_id, _RECENT), "show")
        snapshot = None if one.snapshot_cursor is None else _read_snapshot(store, workflow_id)
    damaged = [*one.damaged, *unreadable]
    if as_json:
        state = snapshot.json_form() if snapshot else None
        line = [_commit_json(commit) for commit in commits]
        print_json({**one._asdict(), "snapshot": state, "damaged": damaged, "memory": sizes, "commits": line})
    else:
        _print_shown(one, snapshot, damaged, sizes)
        _print_commits(commits)
    if damaged:
        raise typer.Exit(EXIT_NO)


class _Snapshot(NamedTuple):
    """The data of a snapshot, and the state that it holds if a session encoded it."""

    data: bytes
    state: Any
    is_state: bool

    def json_form(self) -> dict[str, Any]:
        return {"state": to_json(self.state)} if self.is_state else {"data": to_json(self.data)}

    def text(self) -> str:
        if self.is_state:
            return _shortened(value_text(self.state))
        begin = self.data[:_SHOWN_BYTES]
        try:
            shown = begin.decode()
        except UnicodeDecodeError:
            shown = begin.hex(" ")
        return f"{counted(len(self.data), 'byte')}, begins {shown}" if self.data else "empty"


def _read_snapshot(store: RedisStore, workflow_id: str) -> _Snapshot | None:
    """Return the snapshot; None if it is damaged, which its description tells, or was deleted meanwhile."""
    try:
        _, data = store.load_snapshot(workflow_id)
    except (SnapshotNotFound, DecodeError):
        return None
    try:
        return _Snapshot(data, store.context.codec.decode_state(data), is_state=True)
    except DecodeError:
        return _Snapshot(data, None, is_state=False)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _print_shown(one: Description, snapshot: _Snapshot | None, damaged: list[str], sizes: dict[str, int]) -> None:
    lease = f"{printable(one.lease_owner)}, until {time_text(one.lease_until)}" if one.lease_owner else None
    print_pairs(
        [
            ("workflow", printable(one.workflow_id)),
            ("state", styled((one.state, _STYLES[one.state]))),
            ("cursor", one.cursor),
            ("created", time_text(one.created)),
            ("last write", time_text(one.written)),
            ("completed", time_text(one.completed)),
            ("expires", _expiry_text(one)),
            ("queue", printable(one.queue) if one.queue else None),
            ("due", _due_text(one)),
            ("lease", lease),
            ("attempts", one.attempts or None),
            ("parked", time_text(one.parked)),
            ("reason", printable(one.parked_reason) if one.parked_reason else None),
            ("timer", _timer_text(one)),
            ("messages", counted(one.inbox, "message") if one.inbox else None),
            ("attributes", _attributes_text(one) or None),
            ("parent", printable(one.parent) if one.parent else None),
            ("snapshot", _snapshot_text(one)),
            ("snapshot state" if snapshot and snapshot.is_state else "snapshot data", snapshot and snapshot.text()),
            ("trimmed to", one.trimmed or None),
            ("entries", one.entries),
            ("log", bytes_text(one.log_bytes) if one.log_bytes else None),
            ("refers to", counted(one.facts, "fact") if one.facts else None),
            ("commit ids", one.commit_ids or None),
            ("memory", ", ".join(f"{name} {bytes_text(size)}" for name, size in sizes.items() if size)),
            ("damaged", "; ".join(text.rstrip(".") for text in damaged)),
        ]
    )


def _timer_text(one: Description) -> str | None:
    if one.timer is None:
        return None
    return printable(one.timer or "unnamed") + (f", until {time_text(one.timer_until)}" if one.timer_until else "")


def _expiry_text(one: Description) -> str | None:
    if one.expires is None or one.sliding_s is None:
        return time_text(one.expires)
    return f"{time_text(one.expires)}, {one.sliding_s:g} s after the last write"


def _print_commits(commits: list[DecodedEntry]) -> None:
    if not commits:
        return
    columns = ["cursor", "time", "events", "types"]
    with_metadata = any(commit.metadata for commit in commits)
    shown = table(*columns, *(["metadata"] if with_metadata else []), right=("cursor", "events"))
    for commit in commits:
        texts = [
            str(commit.end),
            time_text(commit.time),
            str(len(commit.events)),
            types_text(commit.events),
            *([_shortened(event_text(commit.metadata or {}))] if with_metadata else []),
        ]
        shown.add_row(*map(printable, texts))
    print()
    console().print(shown)


def _commit_json(commit: DecodedEntry) -> dict[str, Any]:
    return {
        "cursor": commit.end,
        "time": commit.time,
        "events": len(commit.events),
        "types": type_counts(commit.events),
        "metadata": to_json(commit.metadata),
    }


def _snapshot_text(one: Description) -> str | None:
    if one.snapshot_cursor is None:
        return None
    return f"at {one.snapshot_cursor}, {bytes_text(one.snapshot_bytes)}, saved {time_text(one.snapshot_time)}"


def facts(
    hashes: Annotated[list[str], typer.Argument(metavar="HASH...", help="The hashes of the facts.", callback=utf_8)],
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    as_json: AsJson = False,
) -> None:
    """Print the values of facts, after checking them against their hashes."""
    with opened(url, namespace) as store:
        values = store.load_facts(hashes)
    for fact_hash in hashes:
        if as_json:
            print_json({"hash": fact_hash, "value": to_json(values[fact_hash])})
        else:
            print(printable(value_text(values[fact_hash])))


def stats(*, url: Url = None, namespace: Namespace = "runic", as_json: AsJson = False) -> None:
    """Count workflows, events and facts, measure their memory, and find the slowest and the largest partition.

    Tells whether the namespace has a feed, how many entries it has, and for how long it keeps them.
    """
    with opened(url, namespace) as store:
        counts = store.run(count_workflows(store.context), "stats")
        total = sum(counts)
        had = there = seen = 0
        with progress("workflows", total, quiet=as_json) as step:
            ids = store.list()
            while page := list(islice(ids, _COUNTED)):
                more_had, more_there = store.run(count_events(store.context, page), "stats")
                had, there, seen = had + more_had, there + more_there, seen + len(page)
                step.to(seen)
        kept = store.run(count_facts(store.context), "stats")
        memory = store.memory_usage()
        feed = store.run(measure_feed(store.context), "stats")
        times = _partition_times(store)
    slowest = max(range(len(times)), key=times.__getitem__)
    largest = max(range(len(counts)), key=counts.__getitem__)
    found = {
        "namespace": namespace,
        "partitions": len(counts),
        "workflows": seen,
        "events": had,
        "events_kept": there,
        "facts": kept,
        "feed": None if feed is None else feed._asdict(),
        "memory_bytes": memory,
        "slowest_partition": {"number": slowest, "milliseconds": round(times[slowest] * 1000, 3)},
        "median_partition_milliseconds": round(median(times) * 1000, 3),
        "largest_partition": {"number": largest, "workflows": counts[largest]},
    }
    if as_json:
        print_json(found)
        return
    print_pairs(
        [
            ("namespace", f"{namespace}, {counted(len(counts), 'partition')}"),
            ("workflows", f"{seen:,}"),
            ("events", f"{had:,}" + (f", of which {there:,} are stored" if there != had else "")),
            ("facts", f"{kept:,}"),
            ("feed", "none" if feed is None else str(feed)),
            ("memory", bytes_text(sum(memory.values()))),
            *((f"  {kind}", bytes_text(size)) for kind, size in memory.items() if size),
            (
                "slowest partition",
                f"{slowest}: {times[slowest] * 1000:.2f} ms (median of all: {median(times) * 1000:.2f} ms)",
            ),
            ("largest partition", f"{largest}: {counted(counts[largest], 'workflow')}"),
        ]
    )


def _partition_times(store: RedisStore) -> list[float]:
    """Return the median time of a small command to each partition, in seconds."""
    keys = store.context.keys.indexes()
    taken: list[list[float]] = [[] for _ in keys]
    for _ in range(_TIMES):
        for number, key in enumerate(keys):
            began_s = perf_counter()
            store.run(ask(Command(("ZCARD", key), key)), "stats")
            taken[number].append(perf_counter() - began_s)
    return [median(some) for some in taken]
