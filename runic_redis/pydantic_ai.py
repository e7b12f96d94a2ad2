"""Conversations of Pydantic AI, with optimistic revisions and forks. Needs the extra ``pydantic-ai``.

A conversation is a workflow. A save is a commit of one event: the record, and the ids of the new entries with those of
their parents. Each entry is a fact under its id, which forks share.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar, cast

try:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic_ai import conversation_store
    from pydantic_ai.conversation_store import ConversationConflict, ConversationEntry, ConversationRecord
    from pydantic_ai.messages import ModelMessagesTypeAdapter
except ImportError as error:
    raise ImportError(f"Pydantic AI needs an extra: pip install 'runic-redis[pydantic-ai]' ({error}).") from error

from runic_redis.aio import AsyncRedisStore
from runic_redis.errors import CursorConflict, EventsTrimmed, FactNotFound, WorkflowNotFound
from runic_redis.events import FactRef

__all__ = ["RunicConversationStore"]

T = TypeVar("T")
_Path = list[tuple[str, str | None]]  # the ids of entries, each with the id of its parent

# A deleted conversation leaves this for a day, so that no new one of its id reaches a cursor that a writer has read.
_NO_RECORD: dict[str, Any] = {"record": None, "entries": []}
_AS_DELETED: dict[str, Any] = {"attributes": {"scope": None}, "expires_in": 86_400.0, "snapshot": b""}
_READ_TOGETHER = 64
# The framework serializes messages with this configuration: bytes in a field of any type become base64.
_records = TypeAdapter(list[ConversationRecord], config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"))


class RunicConversationStore(conversation_store.ConversationStore):
    """A `ConversationStore` of Pydantic AI. Its methods `load`, `save`, `branch`, `fork` and others are inherited.

    Of writers that race for a conversation, one succeeds. The others get `ConversationConflict`, and the conversation
    has nothing of theirs. A save whose reply was lost is stored once. Errors of the store are raised as they are.

    `delete` takes effect at once. The store's `collect` then removes the messages that no other conversation shares.

    Args:
        store: the store. Its namespace has no workflows but conversations. A conversation's id takes at most 512 bytes,
            and a scope 256.
        expires_in: delete a conversation so many seconds after its last save; None to keep it.
    """

    def __init__(self, store: AsyncRedisStore, *, expires_in: float | None = None) -> None:
        self._store = store
        self._expires_in = expires_in

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation; None if the store does not have it."""
        return (await self._newest(conversation_id))[0]

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        """Return the records of the conversations, or of a scope's, the last saved first."""
        found: list[ConversationRecord] = []
        async with _closing(self._store.list(attributes=None if scope is None else {"scope": scope})) as ids:
            # A list by attributes is in the order of creation, so it is read to its end.
            while scope is not None or limit is None or len(found) < limit:
                some = [one for _ in range(_READ_TOGETHER) if (one := await anext(ids, None)) is not None]
                records = await asyncio.gather(*map(self.read_record, some))
                found += [one for one in records if one is not None and scope in (None, one.scope)]
                if len(some) < _READ_TOGETHER:
                    break
        return sorted(found, key=lambda record: record.updated_at, reverse=True)[:limit]

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record with its new entries, in place of the record of a revision.

        Raises:
            ConversationConflict: the stored record has another revision, or an entry that the record needs is not
                stored. The conversation was not changed. `collect` removes what was stored of the new entries.
        """
        conversation_id = record.conversation_id
        while True:
            stored, cursor = await self._expected(conversation_id, expected_revision)
            path = [(entry.id, entry.parent_id) for entry in new_entries]
            try:
                path = [*await self._shared(stored, record, path), *path]
                await self._store.save_facts({one.id: _encoded(conversation_id, one) for one in new_entries})
                if stored is None and cursor and self._expires_in is None:
                    await self._store.persist(conversation_id)  # a deleted conversation expires
                await self._store.append(
                    conversation_id,
                    [
                        {
                            "record": _dumped(_records, record),
                            "entries": [[FactRef(one), parent] for one, parent in path],
                        }
                    ],
                    expected_cursor=cursor,
                    expires_in=self._expires_in,
                    attributes={"scope": record.scope},
                )
            except FactNotFound:
                raise ConversationConflict(conversation_id) from None
            except (CursorConflict, WorkflowNotFound):
                continue  # someone else has written, or the conversation has expired
            return

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a conversation that has a record of a revision; raise `ConversationConflict` if it has not."""
        while True:
            _, cursor = await self._expected(conversation_id, expected_revision)
            try:
                await self._store.append(conversation_id, [_NO_RECORD], expected_cursor=cursor, **_AS_DELETED)
            except CursorConflict:
                continue
            await self._store.trim(conversation_id, keep=1)
            return

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return an entry; raise `FactNotFound`, which is a `LookupError`, if the store does not have it."""
        return _decoded(entry_id, await self._store.load_fact(entry_id))

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        """Return the entries up to one, or the last `limit` of them. Raise as `read_entry` does."""
        ids = [entry_id for entry_id, _ in await self._path(head_id, limit)]
        facts = await self._store.load_facts(ids)
        return [_decoded(one, facts[one]) for one in ids]

    async def _newest(self, conversation_id: str) -> tuple[ConversationRecord | None, int]:
        """Return the record, None if there is none or it is deleted, and the cursor."""
        async with _closing(self._store.stream_records(conversation_id, reverse=True)) as commits:
            try:
                newest = await anext(commits)
            except WorkflowNotFound:
                return None, 0
        text = newest.event["record"]
        return None if text is None else _records.validate_json(f"[{text}]")[0], newest.cursor

    async def _expected(self, conversation_id: str, revision: str | None) -> tuple[ConversationRecord | None, int]:
        stored, cursor = await self._newest(conversation_id)
        if (stored and stored.revision) != revision:
            raise ConversationConflict(conversation_id)
        return stored, cursor

    async def _shared(self, stored: ConversationRecord | None, record: ConversationRecord, new: _Path) -> _Path:
        """Return the entries of other conversations that a record takes over."""
        base = new[0][1] if new else record.head_id
        if stored and base and (base == stored.head_id or await self._scan(stored.conversation_id, base, 1)):
            return []
        return await self._path(base)

    async def _path(self, head_id: str | None, limit: int | None = None) -> _Path:
        """Return the ids of the entries up to one, in few round trips."""
        if head_id is None or limit == 0:
            return []
        fact = await self._store.load_fact(head_id)
        if found := await self._scan(fact["conversation"], head_id, limit):
            return found
        # The conversation that the last entry was saved in has been deleted. A fork of it is read entry by entry.
        path: _Path = [(head_id, fact["parent"])]
        while (parent_id := path[-1][1]) is not None and len(path) != limit:
            path.append((parent_id, (await self._store.load_fact(parent_id))["parent"]))
        return path[::-1]

    async def _scan(self, conversation_id: str, wanted: str | None, limit: int | None) -> _Path:
        """Return the entries up to one as a conversation lists them; none if it does not list them all."""
        found: _Path = []
        async with _closing(self._store.stream(conversation_id, reverse=True)) as commits:
            with suppress(WorkflowNotFound, EventsTrimmed):  # it was deleted
                async for commit in commits:
                    for entry, parent_id in reversed(commit["entries"]):  # a parent is stored before its child
                        if entry.hash == wanted:
                            found.append((entry.hash, parent_id))
                            wanted = parent_id
                            if wanted is None or len(found) == limit:
                                return found[::-1]
        return []


def _dumped(adapter: TypeAdapter[list[T]], one: T) -> str:
    return adapter.dump_json([one])[1:-1].decode()


def _encoded(conversation_id: str, entry: ConversationEntry) -> dict[str, str | None]:
    message = _dumped(ModelMessagesTypeAdapter, entry.message)
    return {"conversation": conversation_id, "parent": entry.parent_id, "message": message}


def _decoded(entry_id: str, fact: dict[str, Any]) -> ConversationEntry:
    (message,) = ModelMessagesTypeAdapter.validate_json(f"[{fact['message']}]")
    return ConversationEntry(id=entry_id, parent_id=fact["parent"], message=message)


def _closing(items: AsyncIterator[T]) -> aclosing[AsyncGenerator[T, None]]:
    return aclosing(cast("AsyncGenerator[T, None]", aiter(items)))
