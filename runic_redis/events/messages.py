"""The types of messages that the store itself sends. Every registry knows them."""

from dataclasses import dataclass

from runic_redis.events.event_types import EventType, Schema
from runic_redis.events.kinds import kind_of
from runic_redis.events.registry import register_built_in


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The message of `request_cancel`: someone wants the workflow to end early.

    Attributes:
        reason: why.
    """

    reason: str = ""


_kind = kind_of(CancelRequested)
register_built_in(EventType(CancelRequested, Schema("runic_redis.CancelRequested", 1, _kind.fields), _kind, {}))
