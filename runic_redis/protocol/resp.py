"""Pairs in replies: the fields of hashes, and the members of sorted sets with their scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from runic_redis.errors import DecodeError


def pairs(reply: Sequence[Any] | Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """Return the pairs in a reply: flat in RESP2, pairs or a map in RESP3."""
    if isinstance(reply, Mapping):
        return list(reply.items())
    if reply and isinstance(reply[0], list | tuple):
        return [(one, other) for one, other in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))


def scored_ids(reply: Sequence[Any], key: str) -> list[tuple[str, float]]:
    """Return the workflow ids in the reply of a sorted set, with their scores.

    Raises:
        DecodeError: a member is no workflow id.
    """
    try:
        return [(member.decode(), float(score)) for member, score in pairs(reply)]
    except UnicodeDecodeError as error:
        raise DecodeError(
            f"The sorted set at the key {key!r} holds {error.object!r:.80}, which is no workflow id. Nothing was "
            "changed. To remove it, run runic-redis verify --repair."
        ) from None
