"""Reading ranges of many workflows at once.

Each item has its own `Reader`. All readers go on together: the batches that they ask for at the same time are sent as
one.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from runic_redis.arguments import check_cursor, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import DecodeError, FactNotFound, InvalidType, StoreError, short_repr
from runic_redis.events import refs_in
from runic_redis.events.references import with_facts
from runic_redis.operations.facts import load_each
from runic_redis.operations.reading import Reader
from runic_redis.operations.records import Record
from runic_redis.protocol.effects import Batch, Operation

T = TypeVar("T")
Result: TypeAlias = list[Record] | StoreError


def read_many(
    context: Context, items: Iterable[tuple[str, int, int | None]], *, facts: bool = False
) -> Operation[list[Result]]:
    """Return the records of ranges of workflows, in order; for a range that cannot be read, its error."""
    readers = [
        Reader(context, workflow_id, after=after, until=until, records=True, whole=True)
        for workflow_id, after, until in _ranges(items)
    ]
    results = yield from run_together([_records(reader) for reader in readers])
    if not facts:
        return results
    return (yield from _fill_in(context, [reader.workflow_id for reader in readers], results))


def _ranges(items: Iterable[tuple[str, int, int | None]]) -> list[tuple[str, int, int | None]]:
    """Return the items, checked. A malformed one is an error of the whole call."""
    if not isinstance(items, Iterable):
        raise InvalidType(f"items is a list of ranges, not a {type(items).__qualname__}; nothing was sent.")
    ranges = []
    for place, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise InvalidType(
                f"items[{place}] is not a workflow id with two cursors, after and until: {short_repr(item)}; nothing "
                "was sent."
            )
        workflow_id, after, until = item
        until = None if until is None else check_cursor(until, "until")
        ranges.append((check_workflow_id(workflow_id), check_cursor(after, "after"), until))
    return ranges


def _records(reader: Reader) -> Operation[list[Record]]:
    """Return all records of a reader."""
    records: list[Record] = []
    yield from reader.open()
    while page := (yield from reader.next_page()):
        records += page
    return records


def run_together(readings: Sequence[Operation[T]]) -> Operation[list[T | StoreError]]:
    """Return what each reading returns or raises. Batches that are sent alike, and asked for at once, become one.

    The readings yield batches only: they read nothing ahead.
    """
    results: list[Any] = [None] * len(readings)
    waiting: dict[int, Batch] = {}

    def go_on(place: int, replies: list[Any] | None) -> None:
        try:
            effect = readings[place].send(replies)
            assert isinstance(effect, Batch)  # noqa: S101 - a reading that reads ahead is a mistake of its caller
            waiting[place] = effect
        except StopIteration as stop:
            results[place] = stop.value
        except StoreError as error:
            results[place] = error

    for place in range(len(readings)):
        go_on(place, None)
    while waiting:
        alike: dict[tuple[bool, bool], list[tuple[int, Batch]]] = {}
        for place, batch in waiting.items():
            alike.setdefault((batch.own_connection, batch.all_or_none), []).append((place, batch))
        waiting.clear()
        for (own_connection, all_or_none), batches in alike.items():
            commands = [command for _, batch in batches for command in batch.commands]
            replies = iter((yield Batch(commands, own_connection=own_connection, all_or_none=all_or_none)))
            for place, batch in batches:
                go_on(place, [next(replies) for _ in batch.commands])
    return results


def _fill_in(context: Context, workflow_ids: Sequence[str], results: Sequence[Result]) -> Operation[list[Result]]:
    """Return the results with facts in place of references. All facts are loaded together, each of them once."""
    registry = context.codec.registry
    # For each result, the hashes that its records refer to, each with the cursor of the first record that does.
    referred: list[dict[str, int]] = []
    filled: list[Result] = list(results)
    for place, result in enumerate(results):
        hashes: dict[str, int] = {}
        referred.append(hashes)
        if isinstance(result, StoreError):
            continue
        try:
            for record in result:
                for ref in refs_in(record.event, registry):
                    hashes.setdefault(ref.hash, record.cursor)
        except DecodeError as error:
            filled[place] = error
    loaded = yield from load_each(context, {fact_hash for hashes in referred for fact_hash in hashes})
    for place, (workflow_id, hashes, result) in enumerate(zip(workflow_ids, referred, filled, strict=True)):
        if isinstance(result, StoreError) or not hashes:
            continue
        problem = next((fact_hash for fact_hash in hashes if isinstance(loaded[fact_hash], StoreError)), None)
        if problem is not None:
            filled[place] = _with_referrer(loaded[problem], problem, workflow_id, hashes[problem])
            continue
        filled[place] = [record._replace(event=with_facts(record.event, loaded, registry)) for record in result]
    return filled


def _with_referrer(error: StoreError, fact_hash: str, workflow_id: str, cursor: int) -> StoreError:
    """Return the error of a fact that cannot be loaded, with the event that refers to it."""
    where = f" The event at cursor {cursor} of the workflow {workflow_id!r} refers to it."
    if isinstance(error, FactNotFound):
        return FactNotFound(f"{error}{where}", hashes=[fact_hash])
    return type(error)(f"{error}{where}") if type(error) is DecodeError else error
