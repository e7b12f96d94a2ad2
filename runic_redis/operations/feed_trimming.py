"""Trimming the feed: how long it lists commits.

Entries are trimmed by their number and their age, and never past what a subscription or a projection has read. Two
clocks measure an age: now is the earlier one of the server's and the caller's. So a clock that is set wrong trims
nothing early.
"""

from datetime import timedelta

from runic_redis.arguments import check_count, check_days, check_seconds
from runic_redis.context import Context
from runic_redis.errors import ConfigurationError, InvalidArgument
from runic_redis.operations.feed_losses import read_horizon
from runic_redis.operations.feed_starts import require_feed
from runic_redis.operations.records import read_cursor
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.subscriptions import lowest_places
from runic_redis.operations.time_search import find_positions
from runic_redis.protocol.effects import Batch, Operation, call_script, key_command
from runic_redis.protocol.refusals import ask, ask_all, checked, server_us

# How many entries one call of a script trims.
_AT_ONCE = 1000
_DAY_S = timedelta(days=1).total_seconds()


def trim_feed(context: Context, keep: int | None, older_than: float | None, *, force: bool) -> Operation[int]:
    """Trim the feed. Return how many entries were trimmed.

    Args:
        context: the store's.
        keep: how many entries of each partition to keep at least; None for no number.
        older_than: trim only entries that are older, in seconds; None for any age.
        force: whether to trim entries that a subscription has not read.
    """
    if keep is None and older_than is None:
        raise InvalidArgument("Pass keep, or older_than, or both; nothing was sent. keep=0 trims all entries.")
    keep = 0 if keep is None else check_count(keep, "keep")
    age_s = None if older_than is None else check_seconds(older_than, "older_than")
    require_feed(context.keys)
    keys = context.keys
    numbers = keys.partition_numbers()
    commands = [key_command("HMGET", keys.partition(number), "position", "feed_trimmed") for number in numbers]
    upto: dict[int, int] = {}
    horizons: dict[int, int] = {}
    for number, (position, trimmed) in zip(numbers, checked((yield Batch(commands)), commands), strict=True):
        upto[number] = read_cursor(position, keys.partition(number))
        horizons[number] = read_horizon(trimmed, keys.partition(number)).position
    if age_s is not None:
        now_us = min((yield from server_us(keys.config)), int(context.clock() * 1_000_000))
        ranges = {keys.feed(number): (horizons[number], max(horizons[number], upto[number])) for number in numbers}
        found = yield from find_positions(ranges, max(0, now_us // 1000 - round(age_s * 1000)))
        upto = {number: found[keys.feed(number)] for number in numbers}
    if not force:
        for number, place in (yield from lowest_places(context)).items():
            upto[number] = min(upto[number], place.position)
    removed = 0
    left = [number for number in numbers if upto[number] > horizons[number]]
    while left:
        calls = [
            call_script(
                "trim_feed", [keys.feed(number), keys.partition(number)], [str(upto[number]), str(keep), str(_AT_ONCE)]
            )
            for number in left
        ]
        counts = yield from ask_all(calls)
        removed += sum(counts)
        left = [number for number, count in zip(left, counts, strict=True) if count == _AT_ONCE]
    return removed


def expire_feed(context: Context) -> Operation[None]:
    """Trim the entries that the feed has kept for the days of the namespace."""
    if not context.keys.has_feed:
        return
    days = yield from feed_days(context)
    if days is not None:
        yield from trim_feed(context, None, days * _DAY_S, force=False)


def feed_days(context: Context) -> Operation[float | None]:
    """Return for how many days the feed lists a commit; None for ever."""
    text = yield from ask(key_command("HGET", context.keys.config, "feed_days"))
    try:
        return float(text) if text else None
    except ValueError as error:
        raise ConfigurationError(
            f"The setting feed_days, at the key {context.keys.config!r}, is damaged: {text!r:.40}. Nothing was "
            "changed. Set it again, with set_feed_days."
        ) from error


def set_feed_days(context: Context, days: float | None) -> Operation[None]:
    """Set for how many days the feed lists a commit; None for ever."""
    text = "" if days is None else f"{check_days(days, 'days'):g}"
    yield from make_namespace(context)
    require_feed(context.keys)
    keys = context.keys
    yield from ask_all([key_command("HSET", key, "feed_days", text) for key in (keys.config, keys.config_copy)])
