"""Where a reader of the feed begins."""

from datetime import datetime
from typing import Literal, TypeAlias

from runic_redis.arguments import check_since
from runic_redis.context import Context
from runic_redis.errors import ConfigurationError, InvalidArgument, InvalidType, short_repr
from runic_redis.keys import Keys
from runic_redis.operations.feed_losses import feed_trimmed, read_horizon
from runic_redis.operations.records import read_cursor
from runic_redis.operations.time_search import find_positions
from runic_redis.positions import Place, Positions, check_positions
from runic_redis.protocol.effects import Batch, Operation, key_command
from runic_redis.protocol.refusals import checked

# Where to begin: with the first commit ever; with the next one; with all that the workflows hold now, and then the
# feed; with the first commit from a time on; or after positions, given as one number if there is one partition.
Start: TypeAlias = Literal["beginning", "now", "rebuild"] | datetime | Positions | int

_WORDS = ("beginning", "now", "rebuild")


def check_start(start: Start) -> Start:
    """Return where to begin, as far as it can be checked without the namespace.

    Raises:
        InvalidArgument: it is no place to begin.
    """
    if isinstance(start, datetime):
        check_since(start)
    elif isinstance(start, str) and start not in _WORDS:
        raise InvalidArgument(f"start is one of {', '.join(_WORDS)}, not {short_repr(start)}; nothing was sent.")
    elif not isinstance(start, str | Positions | int) or isinstance(start, bool):
        raise InvalidType(
            f'start is "beginning", "now", "rebuild", a datetime or Positions, not {short_repr(start)}; nothing was '
            "sent."
        )
    return start


def choose_start(after: Positions | int | None, since: datetime | None, start: Start) -> Start:
    """Return where to begin, from the arguments that say so.

    Raises:
        InvalidArgument: more than one of them does.
    """
    given = [one for one in (after, since, None if start == "beginning" else start) if one is not None]
    if len(given) > 1:
        raise InvalidArgument("Pass one of after, since and start; nothing was sent.")
    if since is not None:
        check_since(since)
    return given[0] if given else start


def require_feed(keys: Keys) -> None:
    """Check that a namespace has a feed.

    Raises:
        ConfigurationError: it has none.
    """
    if not keys.has_feed:
        raise ConfigurationError(
            f"The namespace {keys.namespace!r} has no feed, so its commits cannot be followed. Nothing was changed. "
            "Make a namespace with feed=True, and copy the workflows with 'runic-redis copy'."
        )


def find_places(context: Context, start: Start) -> Operation[dict[int, Place]]:
    """Return the places, by partition, from which to read.

    Raises:
        ConfigurationError: the namespace has no feed.
        FeedTrimmed: commits from the time on were trimmed from the feed.
    """
    keys = context.keys
    require_feed(keys)
    numbers = keys.partition_numbers()
    if isinstance(start, Positions | int):
        return dict(enumerate(check_positions(start, keys.partitions, "after").places))
    if start == "beginning":
        return dict.fromkeys(numbers, Place())
    commands = [key_command("XREVRANGE", keys.feed(number), "+", "-", "COUNT", "1") for number in numbers]
    commands += [key_command("HMGET", keys.partition(number), "position", "feed_trimmed") for number in numbers]
    replies = checked((yield Batch(commands)), commands)
    lasts: dict[int, Place] = {}
    horizons: dict[int, Place] = {}
    for number, entries, (position, trimmed) in zip(
        numbers, replies[: len(numbers)], replies[len(numbers) :], strict=True
    ):
        horizons[number] = read_horizon(trimmed, keys.partition(number))
        lasts[number] = Place.parse(entries[0][0].decode()) if entries else horizons[number]
        if not entries and horizons[number].position < read_cursor(position, keys.partition(number)):
            # Commits are lost: the reader notices it at its first step.
            lasts[number] = Place(read_cursor(position, keys.partition(number)))
    if start == "now":
        return lasts
    if start == "rebuild":
        return {number: last._replace(rebuilding=(0, "")) for number, last in lasts.items()}
    return (yield from _places_at(context, check_since(start), lasts, horizons))


def _places_at(
    context: Context, since_ms: int, lasts: dict[int, Place], horizons: dict[int, Place]
) -> Operation[dict[int, Place]]:
    """Return the places from which commits are from a time on."""
    keys = context.keys
    ranges = {keys.feed(number): (horizons[number].position, last.position) for number, last in lasts.items()}
    found = yield from find_positions(ranges, since_ms)
    places: dict[int, Place] = {}
    for number, horizon in horizons.items():
        position = found[keys.feed(number)]
        if position == horizon.position > 0 and horizon.ms >= since_ms:
            raise feed_trimmed(number, horizon, "The commits from that time on")
        places[number] = horizon if position == horizon.position else Place(position)
    return places
