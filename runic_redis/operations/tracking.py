"""Tracking records: up to which position a named source has been processed, stored together with the results."""

from typing import Any, NamedTuple

from runic_redis.arguments import check_cursor, check_source
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidArgument, InvalidType, TrackingConflict, short_repr
from runic_redis.operations.conditions import Condition
from runic_redis.protocol.effects import Argument, ErrorReply, Operation, key_command, own_id
from runic_redis.protocol.refusals import ask


class Tracking(NamedTuple):
    """How far a source has been processed: `append_all` stores it in the same step as the results.

    Attributes:
        name: the name of the source, such as an application or a topic.
        position: the position in the source that the results cover, from 0 up.
    """

    name: str
    position: int


def stored_position(context: Context, name: str) -> Operation[int | None]:
    """Return the position that is stored for a source; None if there is none."""
    key = context.keys.tracking
    value = yield from ask(key_command("HGET", key, check_source(name)))
    return None if value is None else read_tracking(value, key)


def read_tracking(value: bytes, key: str) -> int:
    """Return the position of a stored tracking record.

    Raises:
        DecodeError: it is damaged.
    """
    position, _, call_id = value.partition(b" ")
    if not (position.isdigit() and len(position) <= 16 and call_id):
        raise DecodeError(
            f"A tracking record at the key {key!r} is damaged: {value!r:.80}. Nothing was changed. Remove the field "
            "with HDEL, and process its source again from a position that you know."
        )
    return int(position)


def check_tracking(tracking: Any) -> Tracking:
    """Return a tracking record.

    Raises:
        InvalidArgument: it is none.
    """
    if not isinstance(tracking, Tracking):
        raise InvalidType(f"tracking is a Tracking, not {short_repr(tracking)}; nothing was sent.")
    return Tracking(check_source(tracking.name), check_cursor(tracking.position, "position"))


class GroupOptions(NamedTuple):
    """What a group has besides its commits.

    Attributes:
        tracking: the tracking record; None for none.
        call_id: the id by which a retry finds that an earlier try has stored it.
        condition: the condition of the group; None for none.
    """

    tracking: Tracking | None
    call_id: bytes
    condition: Condition | None

    @classmethod
    def make(cls, tracking: Tracking | None, condition: Condition | None) -> "GroupOptions":
        """Return the options, checked.

        Raises:
            InvalidArgument: the tracking record is invalid.
        """
        return cls(None if tracking is None else check_tracking(tracking), own_id(), condition)

    def keys(self, context: Context) -> list[str]:
        """Return the keys that a group has for them."""
        keys = [] if self.tracking is None else [context.keys.tracking, context.keys.partition(0)]
        if self.condition is not None:
            keys += [context.keys.tagged or "", context.keys.partition(0)]
        return keys

    def arguments(self) -> list[Argument]:
        """Return the arguments of lua/append_all.lua for them."""
        letters = ""
        args: list[Argument] = []
        if self.tracking is not None:
            letters = "t"
            args += (self.tracking.name, str(self.tracking.position), self.call_id)
        if self.condition is not None:
            letters += "w"
            args += self.condition.arguments()
        return [letters, *args]

    def after_search(self, reply: ErrorReply) -> "GroupOptions":
        """Return the options without the commits that a call has searched for events that match the condition."""
        if self.condition is None:
            raise AssertionError(reply)
        return self._replace(condition=self.condition.after_search(reply))

    def check_partition(self, context: Context, partition: int, workflow_id: str) -> None:
        """Check that one script of a cluster may write a workflow and the tracking record.

        Raises:
            InvalidArgument: they are in different slots.
        """
        if self.tracking is not None and partition != 0:
            raise InvalidArgument(
                "In a cluster, append_all takes a tracking record only with workflows of the first partition. "
                f"{workflow_id!r:.600} is in partition {partition} of {context.keys.partitions}. Nothing was stored. "
                "Use a namespace with partitions=1."
            )

    def rejected(self, error: ErrorReply) -> TrackingConflict:
        """Return the error for a record that does not go forward."""
        if self.tracking is None:
            raise AssertionError(error)
        name, given = self.tracking
        stored = int(error.message)
        outcome = "An earlier try had no answer, and may have been stored" if error.unsure else "Nothing was stored"
        return TrackingConflict(
            f"The tracking record of {name!r:.600} is at position {stored}, and the given one, {given}, is not above "
            f"it: another process has processed it. {outcome}. Read tracking({name!r:.600}), and go on after it.",
            name=name,
            stored=stored,
            given=given,
        )
