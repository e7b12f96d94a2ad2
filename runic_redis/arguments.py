"""Checks of callers' arguments. Each returns the argument as the store uses it, or raises before anything is sent."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, TypeAlias

from runic_redis.errors import InvalidArgument, InvalidType, short_repr

MAX_ID_BYTES = 512
MAX_HASH_BYTES = 512
MAX_COMMIT_ID_BYTES = 512
# Lua counts in doubles, which are exact up to here: a million events a second for 285 years.
MAX_CURSOR = 2**53 - 1
MAX_PARTITIONS = 4096
# No time in Redis overflows.
MAX_SECONDS = 10**11
MAX_DAYS = 365_000
# Threads and event loops cannot wait for longer than some centuries.
MAX_DEADLINE_S = 10**9
# Of a snapshot, a fact or a log: half of a Redis string's limit, so a request always fits the server's limits.
MAX_DATA_BYTES = 256 * 1024 * 1024

DEFAULT_QUEUE = "default"
MAX_QUEUE_BYTES = 128
MAX_REASON_BYTES = 4096
MAX_ATTRIBUTES = 16
MAX_ATTRIBUTE_NAME_BYTES = 64
MAX_ATTRIBUTE_BYTES = 256
MAX_TAG_BYTES = 130
MAX_TAGS = 1000
MAX_QUERY_ITEMS = 256
MAX_QUERY_TAGS = 1000

# A query on tags: an event matches if it has all tags of one of the items.
Query: TypeAlias = Iterable[Iterable[str]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAMESPACE = re.compile(r"[A-Za-z0-9_.@/+-]{1,100}")


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} {text!r} holds a lone surrogate, which UTF-8 cannot encode; nothing was sent."
        ) from None


def _plain_text(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidType(f"{what} is a str, not {type(text).__name__}: {short_repr(text)}; nothing was sent.")
    # A subclass, such as a str Enum, may format as another text.
    return str.__str__(text)


def _raw_bytes(value: Any, what: str, most: int) -> bytes:
    """Return `bytes`, or the UTF-8 bytes of a `str`: 1 to `most` of them."""
    if not isinstance(value, str | bytes):
        raise InvalidType(f"{what} is bytes or str, not {type(value).__name__}: {short_repr(value)}; nothing was sent.")
    raw = _utf8(value, what) if isinstance(value, str) else value
    if not 0 < len(raw) <= most:
        raise InvalidArgument(f"{what} is 1 to {most} bytes, this one is {len(raw)}; nothing was sent.")
    return raw


def _checked_int(value: Any, name: str, first: int, last: int) -> int:
    if type(value) is not int:
        raise InvalidType(f"{name} is an int, not {type(value).__name__}: {short_repr(value)}; nothing was sent.")
    if not first <= value <= last:
        raise InvalidArgument(f"{name} is from {first} to {last}, not {short_repr(value)}; nothing was sent.")
    return value


def check_workflow_id(workflow_id: Any) -> str:
    """Return a workflow id as a plain `str`: it is not empty, and has at most `MAX_ID_BYTES` UTF-8 bytes."""
    if type(workflow_id) is str and workflow_id.isascii() and 0 < len(workflow_id) <= MAX_ID_BYTES:
        return workflow_id
    text = _plain_text(workflow_id, "A workflow id")
    if not text:
        raise InvalidArgument("A workflow id may not be empty; nothing was sent.")
    size = len(_utf8(text, "A workflow id"))
    if size > MAX_ID_BYTES:
        raise InvalidArgument(
            f"A workflow id is at most {MAX_ID_BYTES} UTF-8 bytes, this one ({text[:40]!r}…) is {size}; "
            "nothing was sent."
        )
    return text


def check_deadline(deadline_s: Any) -> None:
    """Check a number of seconds, from 0 to thirty years."""
    check_seconds(deadline_s, "deadline_s", MAX_DEADLINE_S)


def check_seconds(seconds: Any, name: str, most: int = MAX_SECONDS) -> float:
    """Return a number of seconds, from 0 to some thousand years, or to `most`."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise InvalidType(f"{name} is a number of seconds, not {short_repr(seconds)}; nothing was sent.")
    if not 0 <= seconds <= most:
        raise InvalidArgument(
            f"{name} is a number of seconds from 0 to {most}, not {short_repr(seconds)}; nothing was sent."
        )
    return float(seconds)


def check_days(days: Any, name: str) -> float:
    """Return a number of days, from 0 to a thousand years."""
    if not isinstance(days, int | float) or isinstance(days, bool):
        raise InvalidType(f"{name} is a number of days, not {short_repr(days)}; nothing was sent.")
    if not 0 <= days <= MAX_DAYS:
        raise InvalidArgument(
            f"{name} is a number of days from 0 to {MAX_DAYS}, not {short_repr(days)}; nothing was sent."
        )
    return float(days)


def check_owner(owner: Any) -> str:
    """Return the owner of a lease: a non-empty `str` of at most `MAX_ID_BYTES` UTF-8 bytes."""
    text = _plain_text(owner, "An owner")
    if not 0 < len(_utf8(text, "An owner")) <= MAX_ID_BYTES:
        raise InvalidArgument(f"An owner is 1 to {MAX_ID_BYTES} UTF-8 bytes, not {short_repr(text)}; nothing was sent.")
    return text


def check_prefix(prefix: Any) -> str:
    """Return a prefix of workflow ids: any `str`, including the empty one."""
    text = _plain_text(prefix, "A prefix")
    _utf8(text, "A prefix")
    return text


def check_cursor(cursor: Any, name: str = "cursor") -> int:
    """Return a cursor: an `int` from 0 to `MAX_CURSOR`."""
    return _checked_int(cursor, name, 0, MAX_CURSOR)


def check_since(since: Any) -> int:
    """Return an aware `datetime` in Unix milliseconds, rounded up: times of commits are whole milliseconds."""
    return -(-check_time(since, "since") // 1000)


def check_time(time: Any, name: str) -> int:
    """Return an aware `datetime` in Unix microseconds."""
    if not isinstance(time, datetime):
        raise InvalidType(f"{name} is a datetime, not {type(time).__name__}: {short_repr(time)}; nothing was sent.")
    if time.utcoffset() is None:
        raise InvalidArgument(
            f"{name} is a datetime with a time zone, such as datetime.now(UTC), not {short_repr(time)}; nothing was "
            "sent."
        )
    return (time - _EPOCH) // timedelta(microseconds=1)


def is_cursor(text: bytes) -> bool:
    """Return whether stored bytes are a cursor."""
    return len(text) <= len(str(MAX_CURSOR)) and text.isdigit()


def check_count(count: Any, name: str) -> int:
    """Return a count: an `int` from 0 to `MAX_CURSOR`."""
    return _checked_int(count, name, 0, MAX_CURSOR)


def check_hash(fact_hash: Any) -> bytes:
    """Return a fact's hash as bytes: from `bytes` or `str` (its UTF-8 bytes), 1 to `MAX_HASH_BYTES` of them."""
    return _raw_bytes(fact_hash, "A fact hash", MAX_HASH_BYTES)


def check_commit_id(commit_id: Any) -> bytes:
    """Return a caller's commit id as bytes: from `bytes` or `str` (its UTF-8 bytes), 1 to `MAX_COMMIT_ID_BYTES`."""
    return _raw_bytes(commit_id, "A commit id", MAX_COMMIT_ID_BYTES)


def check_message_id(message_id: Any) -> str:
    """Return a caller's message id: a non-empty `str` of at most `MAX_ID_BYTES` UTF-8 bytes."""
    text = _plain_text(message_id, "A message id")
    if not 0 < len(_utf8(text, "A message id")) <= MAX_ID_BYTES:
        raise InvalidArgument(
            f"A message id is 1 to {MAX_ID_BYTES} UTF-8 bytes, not {short_repr(text)}; nothing was sent."
        )
    return text


def check_data(data: Any) -> bytes:
    """Return a snapshot's data: `bytes` that fit a Redis string."""
    if not isinstance(data, bytes):
        raise InvalidType(
            f"A snapshot's data is bytes, not {type(data).__name__}: encode the state first; nothing was sent."
        )
    check_size(len(data), "A snapshot's data")
    return data


def check_size(size: int, what: str) -> None:
    """Check that a size fits one Redis string."""
    if size > MAX_DATA_BYTES:
        raise InvalidArgument(f"{what} is at most {MAX_DATA_BYTES} bytes, this is {size}; nothing was sent.")


def check_queue(queue: Any) -> str:
    """Return the name of a queue. No name has a space: fields of the hash of queues that are no names have one."""
    name = _plain_text(queue, "queue")
    if not 0 < len(_utf8(name, "queue")) <= MAX_QUEUE_BYTES or not name.isprintable() or " " in name:
        raise InvalidArgument(
            f"queue is 1 to {MAX_QUEUE_BYTES} bytes of printable characters without spaces, not {short_repr(name)}; "
            "nothing was sent."
        )
    return name


def check_queues(queues: Any) -> list[str]:
    """Return the names of queues, each once."""
    if isinstance(queues, str | bytes) or not isinstance(queues, Iterable):
        raise InvalidType(f"queues is a list of names, not {short_repr(queues)}; nothing was sent.")
    names = list(dict.fromkeys(check_queue(one) for one in queues))
    if not names:
        raise InvalidArgument("queues names no queue; nothing was sent.")
    return names


def check_due(due: Any, name: str = "due") -> str:
    """Return when a workflow is due, as an argument of a script.

    Args:
        due: None for now, seconds from now, an aware datetime, or infinity: until a message wakes it.
        name: the name of the caller's argument.
    """
    if due is None:
        return ""
    if isinstance(due, datetime):
        return str(max(0, -(-check_time(due, name) // 1000)))
    if isinstance(due, float) and due == inf:
        return "inf"
    return f"+{round(check_seconds(due, name) * 1000)}"


def check_attributes(attributes: Any, *, can_remove: bool = False) -> dict[str, str | None]:
    """Return attributes: a dict of names to texts; with `can_remove`, also to None."""
    if not isinstance(attributes, Mapping):
        raise InvalidType(f"attributes is a dict, not {type(attributes).__name__}; nothing was sent.")
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidArgument(
            f"A workflow has at most {MAX_ATTRIBUTES} attributes, and these are {len(attributes)}; nothing was sent."
        )
    checked: dict[str, str | None] = {}
    for name, value in attributes.items():
        text = _plain_text(name, "The name of an attribute")
        if not text.isidentifier() or len(text.encode()) > MAX_ATTRIBUTE_NAME_BYTES:
            raise InvalidArgument(
                f"The name of an attribute is an identifier of at most {MAX_ATTRIBUTE_NAME_BYTES} bytes, not "
                f"{short_repr(text)}; nothing was sent."
            )
        checked[text] = None if value is None and can_remove else _attribute_value(text, value)
    return checked


def _attribute_value(name: str, value: Any) -> str:
    text = _plain_text(value, f"The attribute {name}")
    size = len(_utf8(text, f"The attribute {name}"))
    if size > MAX_ATTRIBUTE_BYTES:
        raise InvalidArgument(
            f"An attribute is at most {MAX_ATTRIBUTE_BYTES} UTF-8 bytes, and {name} is {size}; nothing was sent."
        )
    return text


def check_tag(tag: Any, name: str = "A tag") -> bytes:
    """Return a tag, or a prefix of tags, as UTF-8: at most `MAX_TAG_BYTES`, and no NUL, which ends it in Redis."""
    if type(tag) is str and len(tag) <= MAX_TAG_BYTES and tag.isascii() and "\0" not in tag:
        return tag.encode()
    text = _plain_text(tag, name)
    raw = _utf8(text, name)
    if len(raw) > MAX_TAG_BYTES or "\0" in text:
        raise InvalidArgument(
            f"{name} is at most {MAX_TAG_BYTES} UTF-8 bytes without a NUL, not {short_repr(text)}; nothing was sent."
        )
    return raw


def check_tags(tags: Any) -> list[bytes]:
    """Return the tags of a commit, each once."""
    if not isinstance(tags, list | tuple):
        raise InvalidType(f"tags is a list of texts, not {short_repr(tags)}; nothing was sent.")
    raw = list(dict.fromkeys(check_tag(tag) for tag in tags))
    if b"" in raw:
        raise InvalidArgument("A tag may not be empty; nothing was sent.")
    if len(raw) > MAX_TAGS:
        raise InvalidArgument(f"A commit has at most {MAX_TAGS} tags, and these are {len(raw)}; nothing was sent.")
    return raw


def check_timer(name: Any) -> str:
    """Return the name of a timer, which may be empty."""
    text = _plain_text(name, "name")
    if len(_utf8(text, "name")) > MAX_QUEUE_BYTES or not text.isprintable():
        raise InvalidArgument(
            f"The name of a timer is at most {MAX_QUEUE_BYTES} bytes of printable characters, not {short_repr(text)}; "
            "nothing was sent."
        )
    return text


def check_reason(reason: Any, least: int = 1) -> str:
    """Return the reason for which a workflow is parked or cancelled: `least` to `MAX_REASON_BYTES` UTF-8 bytes."""
    text = _plain_text(reason, "reason")
    if not least <= len(_utf8(text, "reason")) <= MAX_REASON_BYTES:
        raise InvalidArgument(
            f"reason is {least} to {MAX_REASON_BYTES} bytes, this one is {len(text.encode())}; nothing was sent."
        )
    return text


def check_namespace(namespace: Any) -> str:
    """Return a namespace: 1 to 100 letters, digits and ``_ . @ / + -``. So no two namespaces can share a key."""
    text = _plain_text(namespace, "A namespace")
    if not _NAMESPACE.fullmatch(text):
        raise InvalidArgument(
            f"A namespace is 1 to 100 ASCII letters, digits and any of _ . @ / + -, not {short_repr(text, 120)}."
        )
    return text


def check_name(name: Any, what: str) -> str:
    """Return the name of a subscription or a projection: 1 to 100 letters, digits and ``_ . @ / + -``."""
    text = _plain_text(name, what)
    if not _NAMESPACE.fullmatch(text):
        raise InvalidArgument(
            f"{what} is 1 to 100 ASCII letters, digits and any of _ . @ / + -, not {short_repr(text, 120)}; nothing "
            "was sent."
        )
    return text


def check_source(name: Any) -> str:
    """Return the name of a source of a tracking record: a non-empty `str` of at most `MAX_ID_BYTES` UTF-8 bytes."""
    text = _plain_text(name, "The name of a tracking record")
    if not 0 < len(_utf8(text, "The name of a tracking record")) <= MAX_ID_BYTES:
        raise InvalidArgument(
            f"The name of a tracking record is 1 to {MAX_ID_BYTES} UTF-8 bytes, not {short_repr(text)}; nothing was "
            "sent."
        )
    return text


def check_version(version: Any) -> int:
    """Return a version: an `int` from 1 to `MAX_CURSOR`."""
    return _checked_int(version, "version", 1, MAX_CURSOR)


def check_partitions(partitions: Any) -> int:
    """Return a number of partitions: 1 to `MAX_PARTITIONS`."""
    return _checked_int(partitions, "partitions", 1, MAX_PARTITIONS)


def check_query(query: Any, name: str = "query") -> tuple[tuple[bytes, ...], ...]:
    """Return a query as tuples, each tag of an item once. An item without tags makes the query match every event."""
    if isinstance(query, str | bytes | Mapping) or not isinstance(query, Iterable):
        raise InvalidType(
            f"{name} is a list of lists of tags, such as [['student:1', 'course:2']], not {short_repr(query)}; nothing "
            "was sent."
        )
    items = []
    for item in query:
        if isinstance(item, str | bytes | Mapping) or not isinstance(item, Iterable):
            raise InvalidType(
                f"{name} is a list of lists of tags, and this is none of them: {short_repr(item)}; nothing was sent. "
                "Write [['a'], ['b']] for events with a or b, and [['a', 'b']] for those with both."
            )
        items.append(tuple(check_tags(list(item))))
    if not items:
        raise InvalidArgument(f"{name} is empty, so no event would match; nothing was sent. [[]] matches every event.")
    if () in items:
        return ((),)
    if len(items) > MAX_QUERY_ITEMS or sum(map(len, items)) > MAX_QUERY_TAGS:
        raise InvalidArgument(
            f"{name} has {len(items)} items with {sum(map(len, items))} tags, and at most {MAX_QUERY_ITEMS} items with "
            f"{MAX_QUERY_TAGS} tags are supported; nothing was sent."
        )
    return tuple(dict.fromkeys(items))
