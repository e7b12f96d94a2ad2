"""The keys of a namespace, whatever the indexes say."""

from binascii import crc_hqx
from collections.abc import Iterator
from typing import Any

from runic_redis.context import Context
from runic_redis.errors import ConfigurationError
from runic_redis.keys import Keys
from runic_redis.protocol.effects import Command, Operation
from runic_redis.protocol.refusals import ask, ask_all
from runic_redis.protocol.scans import AT_ONCE

__all__ = ["KeyScan", "find_key", "find_namespaces"]

_SLOTS = 16384
_LOOKS = 200


class KeyScan:
    """The keys that begin as the namespace's do; a key may come twice.

    Attributes:
        done: whether all have been told.

    One server is scanned. In a cluster each slot that the namespace may have keys in is asked for them: that goes to
    whichever node has it, so that there must have been a command of another kind before, which learns where that is.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._cursor: Any = "0"
        self.done = False
        self._slots = _slots(context.keys) if context.many_nodes else {}

    def next_page(self) -> Operation[list[bytes]]:
        """Some of the keys; none, perhaps, though there are more."""
        if self._context.many_nodes:
            return (yield from self._next_slots())
        pattern = f"{{{self._context.keys.namespace}[:}}]*"
        command = Command(
            ("SCAN", self._cursor, "MATCH", pattern, "COUNT", str(2 * AT_ONCE)), self._context.keys.config
        )
        page: list[bytes]
        self._cursor, page = yield from ask(command)
        self.done = int(self._cursor) == 0
        return page

    def _next_slots(self) -> Operation[list[bytes]]:
        some = [self._slots.popitem() for _ in range(min(AT_ONCE, len(self._slots)))]
        self.done = not self._slots
        counts = yield from ask_all([Command(("CLUSTER", "COUNTKEYSINSLOT", str(slot)), key) for slot, key in some])
        commands = [
            Command(("CLUSTER", "GETKEYSINSLOT", str(slot), str(count)), key)
            for (slot, key), count in zip(some, counts, strict=True)
            if count
        ]
        begins = tuple(f"{{{self._context.keys.namespace}{end}".encode() for end in ":}")
        return [key for keys in (yield from ask_all(commands)) for key in keys if key.startswith(begins)]


def _slots(keys: Keys) -> dict[int, str]:
    """The slots in which the namespace may have keys, each with one of these."""
    return {_slot(key): key for key in _one_of_each_tag(keys)}


def _one_of_each_tag(keys: Keys) -> Iterator[str]:
    yield keys.config
    yield from keys.indexes()
    yield from keys.buckets()


def _slot(key: str) -> int:
    """The slot of a key of ours: CRC-16 (XMODEM) of what stands in its first braces, modulo 16384."""
    return crc_hqx(key[1 : key.index("}")].encode(), 0) % _SLOTS


def find_key(context: Context) -> Operation[str]:
    """A key of the namespace; empty if none is soon found, or to a user who may not ask for keys."""
    scan = KeyScan(context)
    for _ in range(_LOOKS):
        try:
            page = yield from scan.next_page()
        except ConfigurationError:
            break
        if page:
            return page[0].decode(errors="backslashreplace")
        if scan.done:
            break
    return ""


def find_namespaces(context: Context) -> Operation[list[str]]:
    """The namespaces that there are; of a server with very many keys, or a cluster, those that are soon found."""
    found: set[str] = set()
    cursor: Any = "0"
    for _ in range(_LOOKS):
        command = Command(("SCAN", cursor, "MATCH", "{*}:config", "COUNT", "1000"), context.keys.config)
        cursor, page = yield from ask(command)
        found.update(key[1:-8].decode(errors="replace") for key in page)
        if int(cursor) == 0:
            break
    return sorted(found)
