"""The keys of a namespace that a server has, listed or not in its indexes."""

from binascii import crc_hqx
from typing import Any

from runic_redis.context import Context
from runic_redis.errors import ConfigurationError
from runic_redis.keys import Keys
from runic_redis.operations.settings import FORMAT
from runic_redis.protocol.effects import Command, Operation
from runic_redis.protocol.refusals import ask, ask_all
from runic_redis.protocol.scans import AT_ONCE

_SLOTS = 16384
_LOOKS = 200

RESTORE_SETTINGS = (
    f"Stop all writers. Restore that key from a backup, or by HSET with the fields format ({FORMAT}), partitions "
    "(the number that the namespace was made with) and feed (1 if it was made with a feed, 0 if not)."
)


class KeyScan:
    """A scan for the keys that start as the namespace's do. A key may come twice.

    A single server is scanned by SCAN. In a cluster, the scan reads the keys of each slot that the namespace may use,
    from the node that has the slot. Send another command first: it learns which node has which slot.

    Attributes:
        done: whether all keys have been returned.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._cursor: Any = "0"
        self.done = False
        self._slots = _slots(context.keys) if context.many_nodes else {}

    def next_page(self) -> Operation[list[bytes]]:
        """Return some of the keys. A page may be empty although more keys follow."""
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
    """Return the slots in which the namespace may have keys, each with one such key."""
    return {_slot(key): key for key in (keys.config, *keys.indexes(), *keys.buckets())}


def _slot(key: str) -> int:
    """Return the slot of a key of a store: CRC-16 (XMODEM) of the text in its first braces, modulo 16384."""
    return crc_hqx(key[1 : key.index("}")].encode(), 0) % _SLOTS


def find_key(context: Context) -> Operation[str]:
    """Return a key of the namespace; "" if a short scan finds none, or if the user may not scan."""
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
    """Return the namespaces on the server. With very many keys, or in a cluster, a short scan may miss some."""
    found: set[str] = set()
    cursor: Any = "0"
    for _ in range(_LOOKS):
        command = Command(("SCAN", cursor, "MATCH", "{*}:config", "COUNT", "1000"), context.keys.config)
        cursor, page = yield from ask(command)
        # A copy of the settings, in the first partition, has a key that ends alike.
        found.update(key[1:-8].decode(errors="replace").removesuffix(":0") for key in page)
        if int(cursor) == 0:
            break
    return sorted(found)
