"""Subscriptions as a whole: their settings, where they are, and their deletion."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from runic_redis.arguments import check_name, check_prefix
from runic_redis.context import Context
from runic_redis.errors import DecodeError, FeedTrimmed, InvalidArgument, LeaseHeld, StoreError, short_repr
from runic_redis.operations.feed_starts import Start
from runic_redis.operations.feed_types import TypeFilter
from runic_redis.operations.records import cursor_or_zero
from runic_redis.positions import Place, Positions
from runic_redis.protocol.effects import Batch, Command, Operation, key_command
from runic_redis.protocol.refusals import ask, ask_all, checked, time_us
from runic_redis.protocol.resp import pairs

Kind: TypeAlias = Literal["subscription", "projection"]


class Settings(NamedTuple):
    """What a subscription or a projection is registered with.

    Attributes:
        kind: which of both it is.
        start: where it began, as text.
        prefix: only commits of workflows whose ids start with this are wanted.
        types: the names of the types of events that are wanted, sorted; None for all.
        created: when it was registered, in Unix milliseconds.
    """

    kind: Kind
    start: str
    prefix: str
    types: tuple[str, ...] | None
    created: int

    def encode(self) -> str:
        """Return them as JSON."""
        return json.dumps(self._asdict(), separators=(",", ":"))

    @property
    def filter(self) -> tuple[Kind, str, tuple[str, ...] | None]:
        """The part that stays the same for as long as there is the subscription."""
        return self.kind, self.prefix, self.types


def make_settings(
    context: Context, kind: Kind, start: Start, prefix: str, types: Collection[str | type] | None
) -> Settings:
    """Return the settings of a subscription, checked.

    Raises:
        InvalidArgument: the store does not accept one of them.
    """
    names = None if types is None else tuple(sorted(TypeFilter(context, types).names))
    return Settings(kind, str(start), check_prefix(prefix), names, context.now_ms())


def read_settings(name: str, text: bytes, key: str) -> Settings:
    """Return stored settings.

    Raises:
        DecodeError: they are damaged.
    """
    try:
        given = json.loads(text)
        types = given.get("types")
        return Settings(
            *(given["kind"], given.get("start", ""), given.get("prefix", "")),
            *(None if types is None else tuple(types), given["created"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DecodeError(
            f"The settings of the subscription {name!r}, at the key {key!r}, are damaged: {short_repr(text)}. Nothing "
            "was changed. Restore them from a backup, or delete the subscription and subscribe again."
        ) from error


def check_same(name: str, wanted: Settings, stored: Settings) -> None:
    """Check that a subscription is used as it was registered.

    Raises:
        InvalidArgument: it is not.
    """
    if wanted.filter == stored.filter:
        return
    if wanted.kind != stored.kind:
        raise InvalidArgument(
            f"{name!r} is the name of a {stored.kind}. Nothing was changed. Choose another name for the {wanted.kind}."
        )
    raise InvalidArgument(
        f"The subscription {name!r} has prefix={stored.prefix!r} and types={_listed(stored.types)}, and this call asks "
        f"for prefix={wanted.prefix!r} and types={_listed(wanted.types)}. They are fixed by the first subscribe. "
        "Nothing was changed. Choose another name, or delete the subscription first."
    )


def cannot_go_on(name: str, error: StoreError) -> StoreError:
    """Return the error for a subscription whose stored positions cannot be read from, with the remedy."""
    message = f"The subscription {name!r} cannot go on from its stored positions. {error}"
    if not isinstance(error, FeedTrimmed):
        message += " A subscription begins again after store.delete_subscription."
    return type(error)(message, **vars(error))


def _listed(types: Sequence[str] | None) -> list[str] | None:
    return None if types is None else list(types)


@dataclass(frozen=True, slots=True)
class SubscriptionStatus:
    """Where a subscription or a projection is.

    Attributes:
        name: its name.
        kind: "subscription" or "projection".
        prefix: only commits of workflows whose ids start with this are delivered.
        types: the names of the types of events that it wants, sorted; None for all.
        positions: the positions that are stored: what it has acknowledged.
        lag_events: how many positions the feed has after these. Each event takes one, and so does a change without
            events. Those that the prefix or the types leave out count too.
        lag_s: the age of the oldest commit after the positions, in seconds by the server's clock; 0 if there is none.
        consumers: how many partitions each live consumer has, by its id.
        parked: how many commits are put aside, those that wait included.
        failing: the partitions whose next commit has failed before, by number: how often, and the last reason.
    """

    name: str
    kind: Kind
    prefix: str
    types: tuple[str, ...] | None
    positions: Positions
    lag_events: int
    lag_s: float
    consumers: Mapping[str, int]
    parked: int
    failing: Mapping[int, tuple[int, str]]


def list_subscriptions(context: Context) -> Operation[list[SubscriptionStatus]]:
    """Return where each subscription and each projection is, by name."""
    settings = yield from _registered(context)
    stored: dict[str, _Stored] = {}
    for name, one in settings.items():
        stored[name] = yield from _read_stored(context, name, one.kind)
    return (yield from _statuses(context, settings, stored))


def lowest_places(context: Context) -> Operation[dict[int, Place]]:
    """Return the lowest place in each partition of all subscriptions and projections; nothing if there are none.

    The commits after it are still to be read.
    """
    lowest: dict[int, Place] = {}
    for name, settings in (yield from _registered(context)).items():
        known = [(yield from _read_stored(context, name, settings.kind)).places]
        if settings.kind == "projection":
            text = yield from ask(key_command("HGET", context.keys.next_projection(name), "positions"))
            known += [] if text is None else [Positions.parse(text.decode()).places]
        for places in known:
            for number, place in enumerate(places):
                lowest[number] = min(lowest.get(number, place), place, key=lambda one: one.position)
    return lowest


def delete_subscription(context: Context, name: str) -> Operation[None]:
    """Delete a subscription, with its positions and its parked commits."""
    name = check_name(name, "The name of a subscription")
    keys = context.keys
    commands = [
        key_command("HGET", keys.subscriptions, name),
        Command(("TIME",), keys.config),
        key_command("ZRANGE", keys.consumers(name), "0", "-1", "WITHSCORES"),
    ]
    text, clock, consumers = yield from ask_all(commands)
    if text is not None and (kind := read_settings(name, text, keys.subscriptions).kind) != "subscription":
        raise InvalidArgument(f"{name!r} is the name of a {kind}, not of a subscription. Nothing was changed.")
    left_ms = max((float(score) for _, score in pairs(consumers)), default=0) - time_us(clock) / 1000
    if left_ms > 0:
        raise LeaseHeld(
            f"The subscription {name!r} has {len(pairs(consumers))} live consumers. Nothing was changed. Close them, "
            "and delete it then. One that has crashed counts for as long as its leases last.",
            owner=pairs(consumers)[0][0].decode().partition("-")[0],
            left_s=left_ms / 1000,
        )
    # The settings come last, so that a deletion that is interrupted can be repeated.
    yield from ask_all(
        [
            Command(("UNLINK", keys.subscription(name, number), keys.parked(name, number)), keys.parked(name, number))
            for number in keys.partition_numbers()
        ]
    )
    yield from ask(key_command("UNLINK", keys.consumers(name)))
    yield from ask(key_command("HDEL", keys.subscriptions, name))


def keys_of_subscriptions(context: Context) -> Operation[list[str]]:
    """Return the keys of all subscriptions and projections. That of their settings comes last, so a delete can resume.

    Those of both kinds are returned for each name. Nothing is at the keys of the other kind.
    """
    keys = context.keys
    names = [name.decode() for name in (yield from ask(key_command("HKEYS", keys.subscriptions)))]
    found: list[str] = []
    for name in names:
        found += [keys.projection(name), keys.next_projection(name), keys.consumers(name)]
        for number in keys.partition_numbers():
            found += [keys.subscription(name, number), keys.parked(name, number)]
    return [*found, keys.subscriptions]


class _Stored(NamedTuple):
    """What is stored of a subscription: where it is in each partition, who has it, and what is put aside."""

    places: tuple[Place, ...]
    owners: tuple[str | None, ...]
    consumers: tuple[str, ...]
    parked: int
    failing: dict[int, tuple[int, str]]


def _registered(context: Context) -> Operation[dict[str, Settings]]:
    key = context.keys.subscriptions
    found = pairs((yield from ask(key_command("HGETALL", key))))
    names = {name.decode(errors="replace"): text for name, text in found}
    return {name: read_settings(name, names[name], key) for name in sorted(names)}


def _read_stored(context: Context, name: str, kind: Kind) -> Operation[_Stored]:
    keys = context.keys
    if kind == "projection":
        key = keys.projection(name)
        text, owner = yield from ask(key_command("HMGET", key, "positions", "owner"))
        places = (Place(),) * keys.partitions if text is None else Positions.parse(text.decode()).places
        owners = (None if owner is None else owner.decode(errors="replace"),)
        return _Stored(places, owners, (), 0, {})
    numbers = keys.partition_numbers()
    commands = [
        key_command("HMGET", keys.subscription(name, number), "position", "owner", "attempts", "reason")
        for number in numbers
    ]
    commands += [key_command("HLEN", keys.parked(name, number)) for number in numbers]
    commands.append(key_command("ZRANGE", keys.consumers(name), "0", "-1"))
    replies = checked((yield Batch(commands)), commands)
    states = replies[: len(numbers)]
    return _Stored(
        tuple(Place() if state[0] is None else Place.parse(state[0].decode()) for state in states),
        tuple(None if state[1] is None else state[1].decode(errors="replace") for state in states),
        tuple(member.decode(errors="replace").partition("-")[0] for member in replies[-1]),
        sum(replies[len(numbers) : -1]),
        {
            number: (cursor_or_zero(state[2]), (state[3] or b"").decode(errors="replace"))
            for number, state in enumerate(states)
            if cursor_or_zero(state[2])
        },
    )


def _statuses(
    context: Context, settings: Mapping[str, Settings], stored: Mapping[str, _Stored]
) -> Operation[list[SubscriptionStatus]]:
    keys = context.keys
    numbers = keys.partition_numbers()
    commands = [Command(("TIME",), keys.config)]
    commands += [key_command("HGET", keys.partition(number), "position") for number in numbers]
    clock, *lasts = checked((yield Batch(commands)), commands)
    now_ms = time_us(clock) // 1000
    found: list[SubscriptionStatus] = []
    for name, one in stored.items():
        behind = {
            number: cursor_or_zero(last) - place.position
            for number, last, place in zip(numbers, lasts, one.places, strict=True)
        }
        late = [number for number, lag in behind.items() if lag > 0]
        firsts = [
            key_command("XRANGE", keys.feed(number), f"{one.places[number].position + 1}-0", "+", "COUNT", "1")
            for number in late
        ]
        entries = checked((yield Batch(firsts)), firsts) if firsts else []
        times = [int(reply[0][0].partition(b"-")[2]) for reply in entries if reply]
        consumers = dict.fromkeys(one.consumers, 0)
        for owner in filter(None, one.owners):
            if settings[name].kind == "projection" or owner in consumers:
                consumers[owner] = consumers.get(owner, 0) + 1
        found.append(
            SubscriptionStatus(
                *(name, *settings[name].filter, Positions(one.places), sum(max(0, lag) for lag in behind.values())),
                *(max(0.0, (now_ms - min(times, default=now_ms)) / 1000), consumers, one.parked, one.failing),
            )
        )
    return found
