"""Finding the place in a stream where a time begins, by binary search over the IDs of its entries.

An ID is `<position>-<ms>`: the first part only grows, and so does the server's time, unless a clock is set back.
"""

from collections.abc import Mapping

from runic_redis.operations.records import entry_cursor, entry_ms
from runic_redis.protocol.effects import Operation, key_command
from runic_redis.protocol.refusals import ask_all


def find_positions(streams: Mapping[str, tuple[int, int]], since_ms: int) -> Operation[dict[str, int]]:
    """Return for each stream where to start to read the entries from a time on.

    The result is a value for `after`: the first part of the last entry before the time, or `low` if no entry after
    `low` is before the time. A result never exceeds `high`. Each step halves the ranges of all streams in one round
    trip.

    The search relies on times that grow. The entry at a result is before the time, and the next entry up to `high` is
    not, whatever the clocks did. If no clock was set back over this time, no other place has that property, and the
    entries after the result are exactly those from the time on. Otherwise there are several such places, and the result
    is one of them: earlier entries may be from the time on, and later ones from before it.

    Args:
        streams: for each stream's key, the range of first parts to search: the entries above `low`, up to `high`.
        since_ms: the time, in Unix milliseconds.

    Raises:
        DecodeError: the ID of an entry is not one of the store.
    """
    ranges = dict(streams)
    while middles := {key: (low + high) // 2 for key, (low, high) in ranges.items() if low < high}:
        commands = [key_command("XRANGE", key, f"{middle + 1}-0", "+", "COUNT", "1") for key, middle in middles.items()]
        for (key, middle), entries in zip(middles.items(), (yield from ask_all(commands)), strict=True):
            low, high = ranges[key]
            if entries and entry_ms(entries[0], key) < since_ms:
                ranges[key] = min(entry_cursor(entries[0], key), high), high
            else:
                ranges[key] = low, middle
    return {key: low for key, (low, _) in ranges.items()}
