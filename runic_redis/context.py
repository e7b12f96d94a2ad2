"""The context that all operations of one store share: its namespace, its codec, its settings."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from runic_redis.arguments import check_days, check_namespace, check_partitions
from runic_redis.codec import Codec
from runic_redis.durability import Durability, check_durability
from runic_redis.errors import ConfigurationError, InvalidArgument, InvalidType, short_repr
from runic_redis.events import EventRegistry, UnknownEvents, bare_registry, default_registry
from runic_redis.keys import Keys
from runic_redis.observing import Observer

URL_VARIABLE = "RUNIC_REDIS_URL"
DEFAULT_PARTITIONS = 64
DEFAULT_FEED = False
DEFAULT_FEED_DAYS = 7.0
# How many workflows' last entries are kept. They shorten the scan of a retry; nothing depends on them.
_MOST_SEEN = 16_384


@dataclass(slots=True)
class Context:
    """The settings of one open store.

    Attributes:
        keys: the namespace's key names.
        codec: encodes and decodes.
        url: where the store is connected, without a password.
        made: whether the namespace is known to exist with these settings.
        any_partitions: whether to use the namespace with the number of partitions that it has.
        any_feed: whether to use the namespace with or without a feed, as it was made.
        feed_days: for how many days the feed of a namespace keeps its entries if this store makes the namespace; None
            for ever.
        durability: the durability of writes whose call names none.
        confirmations: how the server confirms each durability, once that is known.
        wait_s: how long a blocking command may wait on the server.
        many_nodes: whether keys of different slots may be on different nodes.
        slots_matter: whether the server is known to reject a command with keys of several slots. The first rejection
            sets it.
        at_replica: whether the server was a replica when the store was opened.
        observer: observes the operations, if there is one.
        clock: the caller's time, in seconds since 1970. Without a clock, nothing is old enough to be deleted for its
            age.
        seen: by workflow, the ID of the last entry that this store has written or read. The scan of a retry can stop
            there.
        matched: the workflows in which the last query found events. The next one passes their keys.
    """

    keys: Keys
    codec: Codec
    url: str = ""
    made: bool = False
    any_partitions: bool = False
    any_feed: bool = False
    feed_days: float | None = None
    durability: Durability = "memory"
    confirmations: dict[Durability, Any] = field(default_factory=dict)
    wait_s: float = 1.0
    many_nodes: bool = False
    slots_matter: bool = False
    at_replica: bool = False
    observer: Observer | None = None
    clock: Callable[[], float] = float
    seen: dict[str, bytes] = field(default_factory=dict)
    matched: tuple[str, ...] = ()

    def now_ms(self) -> int:
        """Return the caller's time in milliseconds since 1970."""
        return int(self.clock() * 1000)

    def now_us(self) -> str:
        """Return the caller's time in microseconds since 1970, as an argument of a script."""
        return str(int(self.clock() * 1_000_000))

    def note_seen(self, workflow_id: str, entry_id: bytes) -> None:
        """Note the ID of the last known entry of a workflow."""
        if len(self.seen) >= _MOST_SEEN:
            self.seen.clear()
        self.seen[workflow_id] = entry_id


def make_context(
    namespace: str,
    partitions: int | None,
    unknown_events: UnknownEvents,
    durability: Durability = "memory",
    registry: EventRegistry | None = None,
    *,
    feed: bool | None = None,
    feed_days: float | None = DEFAULT_FEED_DAYS,
) -> Context:
    """Return the context of a store with these settings.

    Raises:
        InvalidArgument: the store does not accept one of them.
    """
    if unknown_events not in ("raise", "wrap"):
        raise InvalidArgument(
            f'unknown_events is "raise" or "wrap", not {short_repr(unknown_events)}; nothing was sent.'
        )
    if registry is not None and not isinstance(registry, EventRegistry):
        raise InvalidType(f"registry is an EventRegistry, not {short_repr(registry)}; nothing was sent.")
    if feed is not None and not isinstance(feed, bool):
        raise InvalidType(f"feed is True, False or None, not {short_repr(feed)}; nothing was sent.")
    keys = Keys(
        check_namespace(namespace),
        DEFAULT_PARTITIONS if partitions is None else check_partitions(partitions),
        DEFAULT_FEED if feed is None else feed,
    )
    return Context(
        keys,
        Codec(default_registry if registry is None else registry, unknown_events),
        any_partitions=partitions is None,
        any_feed=feed is None,
        feed_days=None if feed_days is None else check_days(feed_days, "feed_days"),
        durability=check_durability(durability),
    )


def without_classes(context: Context) -> Context:
    """Return the same context, which decodes every event to an `UnknownEvent` or a dict, whatever is registered."""
    return replace(context, codec=Codec(bare_registry, "wrap"))


def find_url(url: str | None) -> str:
    """Return the URL to connect to: the given one, or the one in the environment.

    Raises:
        ConfigurationError: there is none.
    """
    found = url if url is not None else os.environ.get(URL_VARIABLE)
    if not found:
        raise ConfigurationError(f"No URL: pass one, or set {URL_VARIABLE}.")
    return found
