"""Decoding the commits of the feed."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from runic_redis.codec import Multiplied, expanded
from runic_redis.context import Context
from runic_redis.errors import StoreError
from runic_redis.operations.commits import Commit, Track
from runic_redis.operations.feed_entries import DELETED, VOID, FeedEntry
from runic_redis.operations.feed_losses import events_lost
from runic_redis.operations.feed_pages import Source
from runic_redis.operations.feed_types import TypeFilter
from runic_redis.operations.records import EPOCH, decode_commit


class CommitDecoder:
    """Decodes commits, and leaves out those that the reader does not want.

    Args:
        context: the store's.
        prefix: what the ids of the wanted workflows begin with.
        types: only commits with an event of one of these types; None for all.
    """

    def __init__(self, context: Context, prefix: str, types: Collection[str | type] | None) -> None:
        self._context = context
        self._prefix = prefix
        self._types = None if types is None else TypeFilter(context, types)
        # The time of the last commit: others often have the same.
        self._ms, self._time = 0, EPOCH

    def commit(self, source: Source, entry: FeedEntry, parts: Any, track: Track, step: int) -> Commit | None:
        """Return a commit from its entry, or its entries; None if it has no event of a wanted type."""
        if type(parts) is list:
            return self.whole_commit(source, entry, parts, track, step)
        header, payload, about = parts
        if self._types is not None and not self._types.may_fit(header):
            return None
        metadata = None
        try:
            events = self._context.codec.decode_entry(header, payload)
            if about:
                metadata = self._context.codec.decode_metadata(about)
            is_right = len(events) == entry.span
        except StoreError:
            is_right = False
        if not is_right or (about and self._context.observer is not None):
            whole = [b"%d-%d" % (entry.cursor, entry.ms), header, payload, about]
            return self.whole_commit(source, entry, [whole], track, step)
        if type(events) is Multiplied:
            events = expanded(events)
        if self._types is not None and not self._types.fits(events):
            return None
        if entry.ms != self._ms:
            self._ms = entry.ms
            self._time = EPOCH + timedelta(milliseconds=entry.ms)
        return Commit(
            *(entry.workflow_id, entry.cursor, events, self._time, metadata),
            *(source.number, entry.position, False, track, step),
        )

    def whole_commit(
        self, source: Source, entry: FeedEntry, parts: Sequence[Sequence[Any]], track: Track, step: int
    ) -> Commit | None:
        """Return a commit of several entries; or of one that is damaged, by the error that says so."""
        if self._types is not None and not any(self._types.may_fit(header) for _, header, _, _ in parts):
            return None
        events: list[Any] = []
        count = 0
        time, metadata = EPOCH, None
        for entry_id, header, payload, about in parts:
            raw = entry_id, (header, payload, b"i", b"", b"m", about) if about else (header, payload, b"i", b"")
            decoded = decode_commit(self._context, entry.workflow_id, raw, with_records=True)
            count += len(decoded.events)
            events += expanded(decoded.events) if decoded.multiplied else decoded.events
            time, metadata = decoded.time, decoded.metadata
        if count != entry.span:
            raise events_lost(source.number, entry, entry.cursor - count)
        if self._types is not None and not self._types.fits(events):
            return None
        return Commit(
            *(entry.workflow_id, entry.cursor, events, time, metadata),
            *(source.number, entry.position, False, track, step),
        )

    def change(self, source: Source, entry: FeedEntry, track: Track, step: int) -> Commit | None:
        """Return the commit that stands for a change without events; None if it is not wanted."""
        if entry.kind is VOID or self._types is not None or not entry.workflow_id.startswith(self._prefix):
            return None
        time = EPOCH + timedelta(milliseconds=entry.ms)
        is_deletion = entry.kind is DELETED
        return Commit(entry.workflow_id, 0, [], time, None, source.number, entry.position, is_deletion, track, step)
