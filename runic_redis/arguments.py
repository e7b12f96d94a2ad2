"""What callers may pass: each check returns the argument as it is used inside, or refuses it before a send."""

import re
from typing import Any

from runic_redis.errors import InvalidArgument, InvalidType, short_repr

__all__ = [
    "MAX_COMMIT_ID_BYTES",
    "MAX_CURSOR",
    "MAX_HASH_BYTES",
    "MAX_ID_BYTES",
    "MAX_PARTITIONS",
    "check_commit_id",
    "check_count",
    "check_cursor",
    "check_data",
    "check_deadline",
    "check_hash",
    "check_namespace",
    "check_owner",
    "check_partitions",
    "check_prefix",
    "check_seconds",
    "check_workflow_id",
    "is_cursor",
]

MAX_ID_BYTES = 512
MAX_HASH_BYTES = 512
MAX_COMMIT_ID_BYTES = 512
# Scripts count in doubles, which are exact up to here: a million events a second for 285 years.
MAX_CURSOR = 2**53 - 1
MAX_PARTITIONS = 4096
# So that no time of Redis overflows.
MAX_SECONDS = 10**11
# A thread or a loop cannot wait for longer than some centuries.
MAX_DEADLINE_S = 10**9
# Snapshots, facts and logs: half of what a Redis string can hold, so that a request always fits the server's limits.
MAX_DATA_BYTES = 256 * 1024 * 1024

_NAMESPACE = re.compile(r"[A-Za-z0-9_.@/+-]{1,100}")


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} {text!r} holds a lone surrogate, which UTF-8 cannot encode; nothing was sent."
        ) from None


def check_workflow_id(workflow_id: Any) -> str:
    """A workflow id: a non-empty `str` of at most `MAX_ID_BYTES` UTF-8 bytes, as a plain one if it is of a subclass."""
    if not isinstance(workflow_id, str):
        raise InvalidType(
            f"A workflow id is a str, not {type(workflow_id).__name__}: {short_repr(workflow_id)}; nothing was sent."
        )
    if not workflow_id:
        raise InvalidArgument("A workflow id may not be empty; nothing was sent.")
    size = len(_utf8(workflow_id, "The workflow id"))
    if size > MAX_ID_BYTES:
        raise InvalidArgument(
            f"A workflow id is at most {MAX_ID_BYTES} UTF-8 bytes, this one ({workflow_id[:40]!r}…) is {size}; "
            "nothing was sent."
        )
    # A subclass, such as a str Enum, may be another text where it is formatted.
    return str.__str__(workflow_id)


def check_deadline(deadline_s: Any) -> None:
    """A number of seconds, from 0 to thirty years."""
    if not isinstance(deadline_s, int | float) or isinstance(deadline_s, bool):
        raise InvalidType(f"deadline_s is a number of seconds, not {short_repr(deadline_s)}.")
    if not 0 <= deadline_s <= MAX_DEADLINE_S:
        raise InvalidArgument(
            f"deadline_s is a number of seconds from 0 to {MAX_DEADLINE_S}, not {short_repr(deadline_s)}."
        )


def check_seconds(seconds: Any, name: str) -> float:
    """A number of seconds, from 0 up to some thousand years."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise InvalidType(f"{name} is a number of seconds, not {short_repr(seconds)}; nothing was sent.")
    if not 0 <= seconds <= MAX_SECONDS:
        raise InvalidArgument(
            f"{name} is a number of seconds from 0 to {MAX_SECONDS}, not {short_repr(seconds)}; nothing was sent."
        )
    return float(seconds)


def check_owner(owner: Any) -> str:
    """Who a lease is for: a non-empty `str` of at most `MAX_ID_BYTES` UTF-8 bytes."""
    if not isinstance(owner, str):
        raise InvalidType(f"An owner is a str, not {type(owner).__name__}: {short_repr(owner)}; nothing was sent.")
    if not 0 < len(_utf8(owner, "The owner")) <= MAX_ID_BYTES:
        raise InvalidArgument(
            f"An owner is 1 to {MAX_ID_BYTES} UTF-8 bytes, not {short_repr(owner)}; nothing was sent."
        )
    return str.__str__(owner)


def check_prefix(prefix: Any) -> str:
    """A prefix of workflow ids: any `str`, the empty one too."""
    if not isinstance(prefix, str):
        raise InvalidType(f"A prefix is a str, not {type(prefix).__name__}: {short_repr(prefix)}; nothing was sent.")
    _utf8(prefix, "The prefix")
    return str.__str__(prefix)


def check_cursor(cursor: Any, name: str = "cursor") -> int:
    """A cursor: an `int` from 0 up."""
    if type(cursor) is not int:
        raise InvalidType(f"{name} is an int, not {type(cursor).__name__}: {short_repr(cursor)}; nothing was sent.")
    if not 0 <= cursor <= MAX_CURSOR:
        raise InvalidArgument(f"{name} is from 0 to {MAX_CURSOR}, not {short_repr(cursor)}; nothing was sent.")
    return cursor


def is_cursor(text: bytes) -> bool:
    """Whether bytes that were read are a cursor."""
    return len(text) <= len(str(MAX_CURSOR)) and text.isdigit()


def check_count(count: Any, name: str) -> int:
    """A count of things: an `int` from 0 up."""
    return check_cursor(count, name)


def check_hash(fact_hash: Any) -> bytes:
    """A fact's hash: non-empty `bytes` or `str` (the same as its UTF-8 bytes), at most `MAX_HASH_BYTES`."""
    if isinstance(fact_hash, str):
        raw = _utf8(fact_hash, "The fact hash")
    elif isinstance(fact_hash, bytes):
        raw = fact_hash
    else:
        raise InvalidType(
            f"A fact hash is bytes or str, not {type(fact_hash).__name__}: {short_repr(fact_hash)}; nothing was sent."
        )
    if not 0 < len(raw) <= MAX_HASH_BYTES:
        raise InvalidArgument(f"A fact hash is 1 to {MAX_HASH_BYTES} bytes, this one is {len(raw)}; nothing was sent.")
    return raw


def check_commit_id(commit_id: Any) -> bytes:
    """A caller's commit id: non-empty `bytes` or `str` (the same as its UTF-8 bytes)."""
    if isinstance(commit_id, str):
        raw = _utf8(commit_id, "The commit id")
    elif isinstance(commit_id, bytes):
        raw = commit_id
    else:
        raise InvalidType(
            f"A commit id is bytes or str, not {type(commit_id).__name__}: {short_repr(commit_id)}; nothing was sent."
        )
    if not 0 < len(raw) <= MAX_COMMIT_ID_BYTES:
        raise InvalidArgument(
            f"A commit id is 1 to {MAX_COMMIT_ID_BYTES} bytes, this one is {len(raw)}; nothing was sent."
        )
    return raw


def check_data(data: Any) -> bytes:
    """A snapshot's data: `bytes` that fit a Redis string."""
    if type(data) is not bytes:
        raise InvalidType(
            f"A snapshot's data is bytes, not {type(data).__name__}: encode the state first; nothing was sent."
        )
    check_size(len(data), "A snapshot's data")
    return data


def check_size(size: int, what: str) -> None:
    """Refuse what is too large for one Redis string."""
    if size > MAX_DATA_BYTES:
        raise InvalidArgument(f"{what} is at most {MAX_DATA_BYTES} bytes, this is {size}; nothing was sent.")


def check_namespace(namespace: Any) -> str:
    """A namespace: 1 to 100 letters, digits and ``_ . @ / + -``, so that no key of one can be a key of another."""
    if not isinstance(namespace, str):
        raise InvalidType(f"A namespace is a str, not {type(namespace).__name__}: {short_repr(namespace)}.")
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidArgument(
            f"A namespace is 1 to 100 ASCII letters, digits and any of _ . @ / + -, not {short_repr(namespace, 120)}."
        )
    return str.__str__(namespace)


def check_partitions(partitions: Any) -> int:
    """A partition count: 1 to `MAX_PARTITIONS`."""
    if type(partitions) is not int:
        raise InvalidType(f"partitions is an int, not {type(partitions).__name__}: {short_repr(partitions)}.")
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise InvalidArgument(f"partitions is from 1 to {MAX_PARTITIONS}, not {short_repr(partitions)}.")
    return partitions
