"""The entries of a partition's feed, one for each commit. docs/data-format.md describes them."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from runic_redis.arguments import is_cursor
from runic_redis.codec import event_count
from runic_redis.errors import DecodeError
from runic_redis.operations.entry_fields import metadata_field
from runic_redis.positions import Place

# The kinds of entries.
COMMIT, CREATED, IMPORTED, DELETED, VOID = "commit", "created", "imported", "deleted", "void"


class FeedEntry(NamedTuple):
    """An entry of a feed.

    Attributes:
        position: the partition's position after it.
        ms: its time, in Unix milliseconds.
        kind: what it stands for.
        span: how many positions it takes: one for each event, and one for any other change.
        cursor: the workflow's cursor after it.
        workflow_id: the workflow.
        size: how many bytes its events take, encoded; 0 if that is little.
        rebuilding: how far a rebuild is with it, as in `Place`; None for an entry of the feed.
        end_id: the ID of the last entry of a commit in its workflow's stream.
    """

    position: int
    ms: int
    kind: str
    span: int
    cursor: int
    workflow_id: str
    size: int
    rebuilding: tuple[int, str] | None = None
    end_id: bytes = b""

    @property
    def start(self) -> int:
        """The partition's position before it."""
        return self.position - self.span

    @property
    def place(self) -> Place:
        """The place of a reader after it."""
        return Place(self.position, self.ms, self.rebuilding)


def read_entry(entry: Any, key: str) -> FeedEntry:
    """Return an entry of the feed at a key.

    Raises:
        DecodeError: it is damaged.
    """
    try:
        entry_id, (name, value) = entry
        position, _, ms = entry_id.partition(b"-")
        kind, span, size = _change(name)
        cursor, _, workflow_id = value.partition(b" ")
        numbers = int(position), int(ms), kind, span, int(cursor)
        return FeedEntry(*numbers, workflow_id.decode(), size, None, cursor + b"-" + ms)
    except (ValueError, TypeError, AttributeError) as error:
        raise DecodeError(
            f"The entry {short_id(entry)} of the feed at the key {key!r} is damaged. Nothing was changed. "
            "runic-redis verify reports the damage; with --repair it begins the feed again."
        ) from error


def whole_commits(entries: Sequence[Any], *, is_last: bool) -> Iterator[Sequence[Any]]:
    """Yield the entries of each whole commit. Without `is_last`, those of the last commit may not all be there."""
    begin = 0
    for at in range(1, len(entries)):
        if entries[at][1][3] != entries[at - 1][1][3]:
            yield entries[begin:at]
            begin = at
    if is_last and entries:
        yield entries[begin:]


def entry_parts(entry: Any) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the ID, the header, the payload and the metadata of an entry of a workflow's stream; b"" for none."""
    fields = entry[1]
    return entry[0], fields[0], fields[1], metadata_field(fields) or b""


def imported_commit(
    entry: FeedEntry, cursor: int, after: int, entries: Sequence[Any], *, is_first: bool
) -> tuple[FeedEntry, list[tuple[bytes, bytes, bytes, bytes]]]:
    """Return what an entry of the feed would say of a commit of an imported workflow, and its parts.

    Args:
        entry: the entry of the import.
        cursor: the workflow's cursor after the commit.
        after: the cursor up to which the reader has read the workflow.
        entries: its entries.
        is_first: whether it is the first commit that is read: the reader's place may be inside of it.

    Raises:
        DecodeError: an entry is damaged.
    """
    parts = [entry_parts(one) for one in entries]
    position = entry.position - (entry.cursor - cursor)
    span = cursor - after
    if is_first:
        # With fewer events than that, some are lost: the caller notices that they do not fit.
        span = max(span, sum(event_count(payload) for _, _, payload, _ in parts))
    ms = entry.ms if position == entry.position else 0
    return FeedEntry(position, ms, COMMIT, span, cursor, entry.workflow_id, 0), parts


def short_id(entry: Any) -> str:
    """Return the ID of an entry for a message."""
    return repr(entry[0] if isinstance(entry, list | tuple) and entry else entry)[:60]


@lru_cache(maxsize=4096)
def _change(name: bytes) -> tuple[str, int, int]:
    """Return what the name of an entry's field says: the kind of change, its positions, its size in bytes."""
    if name == b"0":
        return CREATED, 1, 0
    if name == b"deleted":
        return DELETED, 1, 0
    kind, rest = COMMIT, name
    if name[:1] == b"+":
        kind, rest = IMPORTED, name[1:]
    elif name[:5] == b"void ":
        kind, rest = VOID, name[5:]
    count, _, size = rest.partition(b" ")
    if not is_cursor(count) or not int(count) or not (not size or is_cursor(size)):
        raise ValueError(f"{name!r:.40} names no change")
    return kind, int(count), int(size or 0)
