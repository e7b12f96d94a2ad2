"""How the consumers of a subscription share its partitions: by leases, which a beat renews and moves.

A beat, a few times per lease time, renews a consumer's leases, counts the live consumers, marks what is more than its
share, and leases what is free. It may run beside the iteration, in another thread: both change the same attributes only
while they hold the lock, which nobody holds while waiting for a reply.
"""

import math
import os
import random
from collections.abc import Callable, Iterable
from threading import Lock

from runic_redis.context import Context
from runic_redis.errors import InvalidArgument
from runic_redis.operations.feed_starts import Start, find_places, require_feed
from runic_redis.operations.leasing import milliseconds
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.shares import Share, free_fence, look_call, read_lease
from runic_redis.operations.subscriptions import Settings, check_same, read_settings
from runic_redis.positions import Place
from runic_redis.protocol.effects import Batch, Command, Operation, call_script, key_command
from runic_redis.protocol.refusals import answer, ask, ask_all, checked, time_us

_ID_BYTES = 8


class Leases:
    """The leases of one consumer.

    Args:
        context: the store's.
        name: the subscription's name.
        settings: what it is registered with.
        ttl: how many seconds a lease lasts.
        clock: the monotonic time of this process, in seconds.

    Raises:
        InvalidArgument: no lease would last.

    Attributes:
        lock: held while the shares, or what is to be stored of them, are used.
        consumer_id: the id of the consumer.
        shares: the partitions that it has, by number.
        saving: the partitions of which something is being stored. Their stored places cannot be read.
        lost: those that were lost while acknowledgements were not stored, as far as nobody was told.
        has_leaving: whether some of them are to be released.
        is_closed: whether it leases no more.
    """

    def __init__(self, context: Context, name: str, settings: Settings, ttl: float, clock: Callable[[], float]) -> None:
        if not ttl:
            raise InvalidArgument("ttl is 0 seconds, so no lease would last; nothing was sent.")
        self._context = context
        self._name = name
        self._settings = settings
        self._ttl = ttl
        self._ttl_ms = milliseconds(ttl)
        self._clock = clock
        self.lock = Lock()
        self.consumer_id = os.urandom(_ID_BYTES).hex()
        self.shares: dict[int, Share] = {}
        self.saving: set[int] = set()
        self.lost: list[Share] = []
        self.has_leaving = False
        self.is_closed = False
        self._starts: dict[int, Place] = {}
        self._live = 1

    def open(self, start: Start) -> Operation[None]:
        """Register the subscription and this consumer, and lease its first partitions.

        Args:
            start: where to begin in partitions of which no position is stored.

        Raises:
            ConfigurationError: the namespace has no feed.
            InvalidArgument: the subscription has another prefix or other types.
            FeedTrimmed: the commits from the start on were trimmed from the feed.
        """
        context, keys = self._context, self._context.keys
        require_feed(keys)
        yield from make_namespace(context)
        commands = [
            key_command("HSETNX", keys.subscriptions, self._name, self._settings.encode()),
            key_command("HGET", keys.subscriptions, self._name),
        ]
        numbers = keys.partition_numbers()
        commands += [key_command("HGET", keys.subscription(self._name, number), "position") for number in numbers]
        _, text, *stored = yield from ask_all(commands)
        check_same(self._name, self._settings, read_settings(self._name, text, keys.subscriptions))
        if None in stored:
            self._starts = yield from find_places(context, start)
            yield from ask_all(
                [
                    key_command("HSETNX", keys.subscription(self._name, number), "position", str(self._starts[number]))
                    for number, position in zip(numbers, stored, strict=True)
                    if position is None
                ]
            )
        yield from self.beat()

    def beat(self) -> Operation[None]:
        """Renew the leases, and give up or lease partitions, so that each live consumer has its share."""
        sent_s = self._clock()
        held = list(self.shares.values())
        commands = [self._join(str(self._ttl_ms))]
        commands += [self._lease(share.partition, share.token) for share in held]
        membership, *replies = yield Batch(commands)
        if not held:
            answer(membership, commands[0])
        if isinstance(membership, list):
            self._live = max(1, membership[1])
        with self.lock:
            for share, reply in zip(held, replies, strict=True):
                if isinstance(reply, list) and reply[0] == share.token:
                    share.valid_until_s = sent_s + self._ttl
                elif reply is None or isinstance(reply, list):
                    self.lose(share)
            wanted = math.ceil(self._context.keys.partitions / self._live)
            staying = [share for share in self.shares.values() if not share.is_leaving]
            random.shuffle(staying)
            staying.sort(key=lambda share: share.given)
            for share in staying[: max(0, len(staying) - wanted)]:
                share.is_leaving = self.has_leaving = True
        if len(staying) < wanted and not self.is_closed:
            yield from self._lease_more(wanted - len(staying))

    def _lease_more(self, count: int) -> Operation[None]:
        """Lease partitions that are free, at most so many."""
        context, keys = self._context, self._context.keys
        ours = self.saving.union(self.shares)
        others = [number for number in keys.partition_numbers() if number not in ours]
        commands = [Command(("TIME",), keys.config)]
        commands += [look_call(context, self._name, number) for number in others]
        clock, *looks = checked((yield Batch(commands)), commands)
        now_ms = time_us(clock) // 1000
        free = []
        for number, look in zip(others, looks, strict=True):
            fence = free_fence(look, self.consumer_id, now_ms, keys.subscription(self._name, number))
            if fence is not None:
                free.append((number, fence))
        # Other consumers lease now, too.
        random.shuffle(free)
        sent_s = self._clock()
        commands = [self._lease(*one) for one in free[:count]]
        replies = checked((yield Batch(commands)), commands) if commands else []
        with self.lock:
            for (number, _), reply in zip(free, replies, strict=False):
                if reply is not None and number not in self.shares:
                    self.shares[number] = read_lease(number, reply, sent_s + self._ttl)

    def _lease(self, partition: int, seen: int) -> Command:
        start = self._starts.get(partition, Place())
        keys = self._context.keys
        touched = [keys.subscription(self._name, partition), keys.parked(self._name, partition)]
        return call_script("lease_subscription", touched, [self.consumer_id, str(self._ttl_ms), str(seen), str(start)])

    def keep(self, share: Share) -> None:
        """Note that a lease is not lost. The lock is held."""
        share.is_lost = self.shares.setdefault(share.partition, share) is not share

    def leave(self) -> Operation[None]:
        """Count this consumer among the live ones no more."""
        yield from ask(self._join(""))

    def _join(self, ttl_ms: str) -> Command:
        keys = self._context.keys
        member = f"{self.consumer_id}-{self._ttl_ms}"
        arguments = [self._name, self._settings.encode(), member, ttl_ms]
        return call_script("join_subscription", [keys.subscriptions, keys.consumers(self._name)], arguments)

    def lose(self, share: Share) -> None:
        """Note that a lease is lost. The lock is held."""
        share.is_lost = True
        if self.shares.get(share.partition) is share:
            del self.shares[share.partition]
        if share.acked:
            self.lost.append(share)

    def lose_all(self, shares: Iterable[Share]) -> None:
        """Note that leases are lost."""
        with self.lock:
            for share in shares:
                self.lose(share)

    def pop_lost(self) -> list[int]:
        """Return the partitions that were lost with acknowledgements that were not stored, once. The lock is held."""
        lost, self.lost = self.lost, []
        return [share.partition for share in lost if share.is_lost and share.acked]
