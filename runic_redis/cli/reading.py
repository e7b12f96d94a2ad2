"""The verbs `events` and `find`, and how an event is printed."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from runic_redis.admin.describing import describe_one, fact_labels
from runic_redis.cli.filters import Kind, Since, Until, Where, make_filter, parse_moment, resolve_moment
from runic_redis.cli.options import AsJson, Namespace, Url, WorkflowId, at_most, opened, utf_8
from runic_redis.cli.output import console, note, print_json, styled, time_text
from runic_redis.errors import StoreError, printable
from runic_redis.events import bare_registry, refs_in
from runic_redis.events.plain import event_fields, event_text, event_type, to_json
from runic_redis.operations.finding import TaggedCommit
from runic_redis.operations.records import Record
from runic_redis.store import RedisStore

# So many events are printed together, and their facts are looked up in one round trip.
_PAGE = 100
# Facts beyond are shown without their type and size.
_MOST_LABELS = 1000


def events(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    first: Annotated[int | None, typer.Option("--from", help="The cursor of the first event to print.", min=1)] = None,
    last: Annotated[int | None, typer.Option("--to", help="The cursor of the last event to print.", min=0)] = None,
    since: Since = None,
    until: Until = None,
    kind: Kind = None,
    where: Where = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Print the newest event first.")] = False,
    limit: Annotated[int, typer.Option(help="Print at most this many events; 0 for all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a workflow's events, decoded without the application's classes.

    Trimmed events are skipped, and the command reports up to which cursor. An event is printed if all filters match.
    """
    is_wanted = make_filter(kind, where)
    begin = None if since is None else parse_moment(since, "--since")
    end = None if until is None else parse_moment(until, "--until")
    with opened(url, namespace) as store:
        trimmed = store.run(describe_one(store.context, workflow_id), "events").trimmed
        after = max(trimmed, (first or 1) - 1)
        if trimmed >= (first or 1):
            note(f"The events up to {trimmed} are trimmed.")
        earliest = None if begin is None else resolve_moment(store, begin)
        records: Iterator[Record] = store.stream_records(
            workflow_id, after=after, until=last, since=earliest, reverse=reverse
        )
        if end is not None:
            latest = resolve_moment(store, end)
            records = (record for record in records if record.time < latest)
        wanted = islice(filter(is_wanted, records), at_most(limit))
        while page := list(islice(wanted, _PAGE)):
            print_records(store, [(workflow_id, record) for record in page], as_json=as_json)


def print_records(
    store: RedisStore, records: Sequence[tuple[str, Record]], *, as_json: bool, named: bool = False
) -> None:
    """Print events with their metadata; and with their workflows' ids, if `named`."""
    if as_json:
        for workflow_id, record in records:
            print_json(_record_json(workflow_id, record))
        return
    out = console()
    labels = _labels(store, [event for _, record in records for event in (record.event, record.metadata)])
    for workflow_id, record in records:
        metadata = event_text(record.metadata, labels) if record.metadata else ""
        line = styled(
            (f"{printable(workflow_id)} " if named else "", "cyan"),
            (f"{record.cursor:>8} ", "bold"),
            (f"{time_text(record.time)} ", "dim"),
            (printable(event_type(record.event)), "green"),
            " ",
            printable(event_text(record.event, labels)),
            (printable(f"  [{metadata}]") if metadata else "", "dim"),
        )
        out.print(line)


def _record_json(workflow_id: str, record: Record) -> dict[str, Any]:
    return {
        "workflow": workflow_id,
        "cursor": record.cursor,
        "time": record.time,
        "type": event_type(record.event),
        "fields": to_json(dict(event_fields(record.event))),
        "metadata": to_json(record.metadata),
    }


def _labels(store: RedisStore, values: Sequence[Any]) -> dict[str, str]:
    """Return the types and sizes of the facts that values refer to. A damaged reference has none."""
    try:
        hashes = {ref.hash: None for value in values for ref in refs_in(value, bare_registry)}
        return store.run(fact_labels(store.context, list(hashes)[:_MOST_LABELS]), "events") if hashes else {}
    except StoreError:
        return {}


def find(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="The tag of the commits.", callback=utf_8)] = None,
    prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The beginning of their tags.", callback=utf_8)
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Print the last commit first.")] = False,
    limit: Annotated[int, typer.Option(help="Print at most this many commits; 0 for all.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the commits of a workflow that carry a tag, with their events.

    Pass --tag or --prefix. The commits are printed in the order of their tags, and for one tag in the order of their
    cursors.
    """
    with opened(url, namespace) as store:
        store.run(describe_one(store.context, workflow_id), "find")
        for commit in store.find(workflow_id, tag=tag, prefix=prefix, reverse=reverse, limit=at_most(limit)):
            if as_json:
                print_json(_commit_json(workflow_id, commit))
                continue
            console().print(styled((printable(commit.tag), "cyan")))
            first = commit.cursor - len(commit.events) + 1
            records = [Record(at, commit.time, one, commit.metadata) for at, one in enumerate(commit.events, first)]
            print_records(store, [(workflow_id, record) for record in records], as_json=False)


def _commit_json(workflow_id: str, commit: TaggedCommit) -> dict[str, Any]:
    return {
        "workflow": workflow_id,
        "tag": commit.tag,
        "cursor": commit.cursor,
        "time": commit.time,
        "events": [
            {"type": event_type(event), "fields": to_json(dict(event_fields(event)))} for event in commit.events
        ],
        "metadata": to_json(commit.metadata),
    }
