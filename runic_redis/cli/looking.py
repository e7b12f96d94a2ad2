"""The verbs that look: `workflows`, `show`, `events`, `facts` and `stats`."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Annotated, Any

import typer
from rich.text import Text

from runic_redis.admin.describing import (
    Description,
    State,
    count_events,
    count_workflows,
    describe,
    describe_one,
    recent_commits,
)
from runic_redis.cli.options import AsJson, Namespace, Url, WorkflowId, at_most, opened, utf_8
from runic_redis.cli.output import (
    EXIT_NO,
    bytes_text,
    note,
    out,
    print_json,
    print_pairs,
    printable,
    progress,
    table,
    time_text,
)
from runic_redis.events.plain import event_fields, event_text, event_type, to_json, value_text
from runic_redis.operations.facts import count_facts
from runic_redis.operations.namespace import memory_of
from runic_redis.operations.records import Commit, Record
from runic_redis.protocol.effects import Command
from runic_redis.protocol.refusals import ask
from runic_redis.store import RedisStore

__all__ = ["events", "facts", "print_record", "show", "stats", "workflows"]

# How many workflows are described in one round trip.
_PAGE = 100
_COUNTED = 1000
_STYLES: dict[State, str] = {"open": "", "leased": "green", "unfinished": "yellow", "completed": "dim"}
# How many commits the time line of `show` has.
_RECENT = 10
# How often each partition is asked.
_TIMES = 5


def workflows(
    prefix: Annotated[
        str, typer.Argument(help="Only those whose ids begin so.", metavar="[PREFIX]", callback=utf_8)
    ] = "",
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.", min=0)] = 50,
    count: Annotated[bool, typer.Option("--count", help="Print only how many there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """List workflows, the one written to last first."""
    with opened(url, namespace) as store:
        if count:
            _print_count(store, prefix, state, as_json=as_json)
            return
        shown = table("workflow", "state", "cursor", "last write", "snapshot", right=("cursor", "snapshot"))
        for one in islice(_described(store, prefix, state, at_most(limit)), at_most(limit)):
            if as_json:
                print_json(asdict(one))
                continue
            snapshot = "" if one.snapshot_cursor is None else str(one.snapshot_cursor)
            shown.add_row(
                Text(printable(one.workflow_id)), _state_text(one), str(one.cursor), time_text(one.written), snapshot
            )
        if not as_json:
            out.print(shown)


def _print_count(store: RedisStore, prefix: str, state: State | None, *, as_json: bool) -> None:
    if prefix or state:
        number = sum(1 for _ in (_described(store, prefix, state, None) if state else store.list(prefix=prefix)))
    else:
        number = sum(store.run(count_workflows(store.context), "count_workflows"))
    if as_json:
        print_json({"workflows": number})
    else:
        print(number)


def _described(store: RedisStore, prefix: str, state: State | None, limit: int | None) -> Iterator[Description]:
    # Where all states will do, no more are listed than are shown.
    ids = store.list(prefix=prefix, limit=None if state else limit)
    while page := list(islice(ids, _PAGE)):
        for one in store.run(describe(store.context, page), "describe"):
            if state is None or one.state == state:
                yield one


def show(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    as_json: AsJson = False,
) -> None:
    """Show what is kept of a workflow: cursor, snapshot, lease, sizes, and its last commits.

    What is damaged is said beside the rest; the exit status is 1 then.
    """
    with opened(url, namespace) as store:
        one = store.run(describe_one(store.context, workflow_id), "describe")
        sizes = store.run(memory_of(store.context, workflow_id), "memory_usage")
        commits, unreadable = store.run(recent_commits(store.context, workflow_id, _RECENT), "describe")
    line = [_commit_json(commit) for commit in commits]
    damaged = [*one.damaged, *unreadable]
    if as_json:
        print_json({**asdict(one), "damaged": damaged, "memory": sizes, "commits": line})
    else:
        _print_shown(one, damaged, sizes, line)
    if damaged:
        raise typer.Exit(EXIT_NO)


def _print_shown(one: Description, damaged: list[str], sizes: dict[str, int], line: list[dict[str, Any]]) -> None:
    print_pairs(
        [
            ("workflow", printable(one.workflow_id)),
            ("state", _state_text(one)),
            ("cursor", one.cursor),
            ("created", time_text(one.created)),
            ("last write", time_text(one.written)),
            ("completed", time_text(one.completed)),
            ("expires", time_text(one.expires)),
            ("lease", f"{printable(one.lease_owner)}, until {time_text(one.lease_until)}" if one.lease_owner else None),
            ("snapshot", _snapshot_text(one)),
            ("trimmed to", one.trimmed or None),
            ("entries", one.entries),
            ("log", bytes_text(one.log_bytes) if one.log_bytes else None),
            ("refers to", f"{one.facts} facts" if one.facts else None),
            ("commit ids", one.commit_ids or None),
            ("memory", ", ".join(f"{name} {bytes_text(size)}" for name, size in sizes.items() if size)),
            ("damaged", printable("; ".join(damaged))),
        ]
    )
    if line:
        shown = table("cursor", "time", "events", "types", right=("cursor", "events"))
        for commit in line:
            types = ", ".join(f"{name} {count}" if count > 1 else name for name, count in commit["types"].items())
            shown.add_row(
                str(commit["cursor"]), time_text(commit["time"]), str(commit["events"]), Text(printable(types))
            )
        out.print()
        out.print(shown)


def _commit_json(commit: Commit) -> dict[str, Any]:
    types = dict(Counter(map(event_type, commit.events)))
    metadata = to_json(commit.metadata)
    return {
        "cursor": commit.end,
        "time": commit.time,
        "events": len(commit.events),
        "types": types,
        "metadata": metadata,
    }


def _state_text(one: Description) -> Text:
    return Text(one.state, style=_STYLES[one.state])


def _snapshot_text(one: Description) -> str | None:
    if one.snapshot_cursor is None:
        return None
    return f"at {one.snapshot_cursor}, {bytes_text(one.snapshot_bytes)}, saved {time_text(one.snapshot_time)}"


def events(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    first: Annotated[int | None, typer.Option("--from", help="The cursor of the first event wanted.", min=1)] = None,
    last: Annotated[int | None, typer.Option("--to", help="The cursor of the last one.", min=0)] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="NAME", help="Only events of this type.", callback=utf_8)
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The newest first.")] = False,
    limit: Annotated[int, typer.Option(help="At most so many; 0 for all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a workflow's events, decoded without the application's classes. What is trimmed is passed over."""
    with opened(url, namespace) as store:
        trimmed = store.run(describe_one(store.context, workflow_id), "describe").trimmed
        after = max(trimmed, (first or 1) - 1)
        if trimmed >= (first or 1):
            note(f"The events up to {trimmed} are trimmed.")
        records = store.stream_records(workflow_id, after=after, until=last, reverse=reverse)
        wanted = (record for record in records if kind is None or event_type(record.event) == kind)
        for record in islice(wanted, at_most(limit)):
            print_record(workflow_id, record, as_json=as_json)


def print_record(workflow_id: str, record: Record, *, as_json: bool, named: bool = False) -> None:
    """Print an event, and what is kept about it; with its workflow's id, where there are several."""
    name = event_type(record.event)
    if as_json:
        fields = to_json(dict(event_fields(record.event)))
        print_json(
            {
                "workflow": workflow_id,
                "cursor": record.cursor,
                "time": record.time,
                "type": name,
                "fields": fields,
                "metadata": to_json(record.metadata),
            }
        )
        return
    line = Text.assemble(
        (f"{printable(workflow_id)} " if named else "", "cyan"),
        (f"{record.cursor:>8} ", "bold"),
        (f"{time_text(record.time)} ", "dim"),
        (printable(name), "green"),
        " ",
        printable(event_text(record.event)),
    )
    out.print(line)


def facts(
    hashes: Annotated[list[str], typer.Argument(metavar="HASH...", help="The facts' hashes.", callback=utf_8)],
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    as_json: AsJson = False,
) -> None:
    """Print the values of facts, checked against their hashes."""
    with opened(url, namespace) as store:
        values = store.load_facts(hashes)
    for fact_hash in hashes:
        if as_json:
            print_json({"hash": fact_hash, "value": to_json(values[fact_hash])})
        else:
            out.print(printable(value_text(values[fact_hash])))


def stats(*, url: Url = None, namespace: Namespace = "runic", as_json: AsJson = False) -> None:
    """Count workflows, events and facts, measure their memory, and find the slowest and the largest partition."""
    with opened(url, namespace) as store:
        counts = store.run(count_workflows(store.context), "count_workflows")
        total = sum(counts)
        had = there = seen = 0
        with progress("workflows", total, quiet=as_json) as step:
            ids = store.list()
            while page := list(islice(ids, _COUNTED)):
                more_had, more_there = store.run(count_events(store.context, page), "count_events")
                had, there, seen = had + more_had, there + more_there, seen + len(page)
                step.to(seen)
        kept = store.run(count_facts(store.context), "count_facts")
        memory = store.memory_usage()
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
            ("namespace", f"{namespace}, {len(counts)} partitions"),
            ("workflows", f"{seen:,}"),
            ("events", f"{had:,}" + (f", of which {there:,} are still there" if there != had else "")),
            ("facts", f"{kept:,}"),
            ("memory", bytes_text(sum(memory.values()))),
            *((f"  {kind}", bytes_text(size)) for kind, size in memory.items() if size),
            (
                "slowest partition",
                f"{slowest}: {times[slowest] * 1000:.2f} ms (median of all: {median(times) * 1000:.2f} ms)",
            ),
            ("largest partition", f"{largest}: {counts[largest]:,} workflows"),
        ]
    )


def _partition_times(store: RedisStore) -> list[float]:
    """How long a small question to each partition takes, in seconds: the median of some, in turns."""
    keys = store.context.keys.indexes()
    taken: list[list[float]] = [[] for _ in keys]
    for _ in range(_TIMES):
        for number, key in enumerate(keys):
            began_s = perf_counter()
            store.run(ask(Command(("ZCARD", key), key)), "stats")
            taken[number].append(perf_counter() - began_s)
    return [median(some) for some in taken]
