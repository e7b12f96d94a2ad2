"""Workflow ids with scores, as the partitions' sorted sets are read."""

from collections.abc import Sequence
from typing import Any

from runic_redis.errors import DecodeError

__all__ = ["scored_ids"]


def scored_ids(reply: Sequence[Any], key: str) -> list[tuple[str, float]]:
    """Ids and scores: the reply is flat in RESP2, in pairs in RESP3.

    Raises:
        DecodeError: something in it is no workflow id.
    """
    flat = [part for pair in reply for part in pair] if reply and isinstance(reply[0], list) else reply
    try:
        return [(flat[at].decode(), float(flat[at + 1])) for at in range(0, len(flat), 2)]
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"What is at the key {key!r} holds {error.object!r:.80}, which is no workflow id. Nothing was changed."
        ) from None
