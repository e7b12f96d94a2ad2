"""Checks of callers' arguments. Each returns the argument as the store uses it, or raises before anything is sent."""

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
# Lua counts in doubles, which are exact up to here: a million events a second for 285 years.
MAX_CURSOR = 2**53 - 1
MAX_PARTITIONS = 4096
# No time in Redis overflows.
MAX_SECONDS = 10**11
# Threads and event loops cannot wait for longer than some centuries.
MAX_DEADLINE_S = 10**9
# Of a snapshot, a fact or a log: half of a Redis string's limit, so a request always fits the server's limits.
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
    """Return a workflow id as a plain `str`: it is not empty, and has at most `MAX_ID_BYTES` UTF-8 bytes."""
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
    # A subclass, such as a str Enum, may format as another text.
    return str.__str__(workflow_id)


def check_deadline(deadline_s: Any) -> None:
    """Check a number of seconds, from 0 to thirty years."""
    if not isinstance(deadline_s, int | float) or isinstance(deadline_s, bool):
        raise InvalidType(f"deadline_s is a number of seconds, not {short_repr(deadline_s)}.")
    if not 0 <= deadline_s <= MAX_DEADLINE_S:
        raise InvalidArgument(
            f"deadline_s is a number of seconds from 0 to {MAX_DEADLINE_S}, not {short_repr(deadline_s)}."
        )


def check_seconds(seconds: Any, name: str) -> float:
    """Return a number of seconds, from 0 to some thousand years."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise InvalidType(f"{name} is a number of seconds, not {short_repr(seconds)}; nothing was sent.")
    if not 0 <= seconds <= MAX_SECONDS:
        raise InvalidArgument(
            f"{name} is a number of seconds from 0 to {MAX_SECONDS}, not {short_repr(seconds)}; nothing was sent."
        )
    return float(seconds)


def check_owner(owner: Any) -> str:
    """Return the owner of a lease: a non-empty `str` of at most `MAX_ID_BYTES` UTF-8 bytes."""
    if not isinstance(owner, str):
        raise InvalidType(f"An owner is a str, not {type(owner).__name__}: {short_repr(owner)}; nothing was sent.")
    if not 0 < len(_utf8(owner, "The owner")) <= MAX_ID_BYTES:
        raise InvalidArgument(
            f"An owner is 1 to {MAX_ID_BYTES} UTF-8 bytes, not {short_repr(owner)}; nothing was sent."
        )
    return str.__str__(owner)


def check_prefix(prefix: Any) -> str:
    """Return a prefix of workflow ids: any `str`, including the empty one."""
    if not isinstance(prefix, str):
        raise InvalidType(f"A prefix is a str, not {type(prefix).__name__}: {short_repr(prefix)}; nothing was sent.")
    _utf8(prefix, "The prefix")
    return str.__str__(prefix)


def check_cursor(cursor: Any, name: str = "cursor") -> int:
    """Return a cursor: an `int` from 0 to `MAX_CURSOR`."""
    if type(cursor) is not int:
        raise InvalidType(f"{name} is an int, not {type(cursor).__name__}: {short_repr(cursor)}; nothing was sent.")
    if not 0 <= cursor <= MAX_CURSOR:
        raise InvalidArgument(f"{name} is from 0 to {MAX_CURSOR}, not {short_repr(cursor)}; nothing was sent.")
    return cursor


def is_cursor(text: bytes) -> bool:
    """Return whether stored bytes are a cursor."""
    return len(text) <= len(str(MAX_CURSOR)) and text.isdigit()


def check_count(count: Any, name: str) -> int:
    """Return a count: an `int` from 0 to `MAX_CURSOR`."""
    return check_cursor(count, name)


def check_hash(fact_hash: Any) -> bytes:
    """Return a fact's hash as bytes: from `bytes` or `str` (its UTF-8 bytes), 1 to `MAX_HASH_BYTES` of them."""
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
    """Return a caller's commit id as bytes: from `bytes` or `str` (its UTF-8 bytes), 1 to `MAX_COMMIT_ID_BYTES`."""
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
    """Return a snapshot's data: `bytes` that fit a Redis string."""
    if type(data) is not bytes:
        raise InvalidType(
            f"A snapshot's data is bytes, not {type(data).__name__}: encode the state first; nothing was sent."
        )
    check_size(len(data), "A snapshot's data")
    return data


def check_size(size: int, what: str) -> None:
    """Check that a size fits one Redis string."""
    if size > MAX_DATA_BYTES:
        raise InvalidArgument(f"{what} is at most {MAX_DATA_BYTES} bytes, this is {size}; nothing was sent.")


def check_namespace(namespace: Any) -> str:
    """Return a namespace: 1 to 100 letters, digits and ``_ . @ / + -``. So no two namespaces can share a key."""
    if not isinstance(namespace, str):
        raise InvalidType(f"A namespace is a str, not {type(namespace).__name__}: {short_repr(namespace)}.")
    if not _NAMESPACE.fullmatch(namespace):
        raise InvalidArgument(
            f"A namespace is 1 to 100 ASCII letters, digits and any of _ . @ / + -, not {short_repr(namespace, 120)}."
        )
    return str.__str__(namespace)


def check_partitions(partitions: Any) -> int:
    """Return a number of partitions: 1 to `MAX_PARTITIONS`."""
    if type(partitions) is not int:
        raise InvalidType(f"partitions is an int, not {type(partitions).__name__}: {short_repr(partitions)}.")
    if not 1 <= partitions <= MAX_PARTITIONS:
        raise InvalidArgument(f"partitions is from 1 to {MAX_PARTITIONS}, not {short_repr(partitions)}.")
    return partitions
