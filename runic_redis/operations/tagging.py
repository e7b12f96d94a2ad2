"""Tags of single events, and the tags that a commit has by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from runic_redis.arguments import MAX_TAGS, check_tags
from runic_redis.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Tagged:
    """An event with its own tags, for the events of `append`, `append_all` and `append_many`.

    The tags of the commit belong to each of its events. `read_where` and a condition tell events with different tags
    apart. `find` returns whole commits, so a tag of any event is one of the commit.

    Attributes:
        event: the event.
        tags: its tags, as `append` takes those of a commit.
    """

    event: Any
    tags: Sequence[str]


class EventTags(NamedTuple):
    """The tags of a commit whose events have different ones.

    Attributes:
        tags: all of them.
        backs: for each of them, which events have it, as docs/data-format.md describes it.
    """

    tags: Sequence[bytes]
    backs: bytes


def split_tags(events: Sequence[Any], tags: Sequence[str]) -> tuple[list[Any], EventTags]:
    """Return the events of a commit, and their tags, from events of which some are `Tagged`.

    Args:
        events: the events.
        tags: the tags of all of them.
    """
    plain = [event.event if type(event) is Tagged else event for event in events]
    return plain, joined_tags([event.tags if type(event) is Tagged else () for event in events], tags)


def joined_tags(each: Sequence[Sequence[str]], tags: Sequence[str]) -> EventTags:
    """Return the tags of a commit, from those of each of its events, and those of all events."""
    having: dict[bytes, list[int]] = {}
    for back, its_tags in zip(range(len(each) - 1, -1, -1), each, strict=True):
        for tag in check_tags(its_tags):
            having.setdefault(tag, []).append(back)
    for tag in check_tags(tags):
        having[tag] = []
    if len(having) > MAX_TAGS:
        raise InvalidArgument(
            f"A commit has at most {MAX_TAGS} tags, and these are {len(having)} with those of its events; nothing was "
            "sent."
        )
    backs = [
        b"" if len(some) in {0, len(each)} else b",".join(b"%d" % back for back in some) for some in having.values()
    ]
    return EventTags(list(having), b"\xff".join(backs) if any(backs) else b"")
