"""The parts of a commit that change the life of its workflow, and not its events."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from runic_redis.arguments import check_attributes, check_due, check_queue, check_tags, check_workflow_id
from runic_redis.errors import InvalidArgument, InvalidType, short_repr
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.labels import ATTRIBUTE, PARENT, label_set
from runic_redis.operations.messages import Message
from runic_redis.operations.tagging import EventTags, split_tags
from runic_redis.protocol.effects import Argument

YES = "1"


class Life(NamedTuple):
    """The arguments of `append` that change the life of the workflow; see there.

    Attributes:
        queue: the queue to put it in.
        due: when it is due there.
        consumes: the messages to consume.
        ends_timer: whether the workflow's timer is over.
        unless_cancelled: whether a request to cancel the workflow rejects the commit.
        expires_in: for how many seconds it is kept from the commit on.
        attributes: the attributes to set; None removes one.
        parent: its parent.
        tags: the tags of the commit, or of its events.
    """

    queue: str | None = None
    due: float | datetime | None = None
    consumes: Message | Sequence[Message] = ()
    ends_timer: bool = False
    unless_cancelled: bool = False
    expires_in: float | None = None
    attributes: Mapping[str, str | None] | None = None
    parent: str | None = None
    tags: Sequence[str] | EventTags = ()

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing but tags."""
        return self[:-1] == _NO_LIFE[:-1]

    def add_queue(
        self, options: dict[str, Argument], touched: list[str], keys: WorkflowKeys, *, is_known: bool
    ) -> None:
        """Add the queue to the options and keys of a commit.

        Args:
            options: the arguments of the commit by their letters, see lua/append.lua.
            touched: the commit's keys. The last one is a guess of the key of the workflow's queue.
            keys: the workflow's.
            is_known: whether that is no guess, but the queue of the lease.
        """
        if self.queue is None:
            if self.due is not None:
                raise InvalidArgument("due says when a workflow is due in a queue: pass queue, too. Nothing was sent.")
            return
        target = keys.queue(check_queue(self.queue))
        options["q"] = check_due(self.due)
        if not is_known:
            touched[-1] = target
        touched.append(target)

    def add_messages(
        self, options: dict[str, Argument], touched: list[str], keys: WorkflowKeys, workflow_id: str
    ) -> list[str]:
        """Add the options and keys for the messages to consume, the timer, and the request to cancel.

        Returns:
            The further arguments of the commit: the ids of the messages.
        """
        ids = self._message_ids(workflow_id)
        if ids:
            options["r"] = str(len(ids))
            touched.append(keys.inbox)
        if self.ends_timer:
            options["t"] = YES
        if self.unless_cancelled:
            options["u"] = YES
        return ids

    def _message_ids(self, workflow_id: str) -> list[str]:
        """Return the ids in the inbox of the messages to consume, each once."""
        consumes = [self.consumes] if isinstance(self.consumes, Message) else self.consumes or ()
        if not isinstance(consumes, list | tuple) or not all(isinstance(one, Message) for one in consumes):
            raise InvalidType(
                f"consumes is a Message of the inbox, or a list of them, not {short_repr(consumes)}; nothing was sent."
            )
        for one in consumes:
            if one.workflow_id != workflow_id:
                raise InvalidArgument(
                    f"The message {one.id} is for the workflow {one.workflow_id!r}, not for {workflow_id!r}; nothing "
                    "was sent."
                )
        return list(dict.fromkeys(one.id for one in consumes))

    def add_labels(self, options: dict[str, Argument], touched: list[str], keys: WorkflowKeys) -> list[str]:
        """Add the options and keys for the attributes and the parent.

        Returns:
            The further arguments of the commit: the fields and values.
        """
        attributes = check_attributes(self.attributes or {}, can_remove=True)
        labels = {f"{ATTRIBUTE}{name}": value for name, value in attributes.items()}
        if self.parent is not None:
            labels[PARENT] = check_workflow_id(self.parent)
        if labels:
            options["A"] = str(len(labels))
        further: list[str] = []
        for field, value in labels.items():
            # The set of the value before is a guess: the same one.
            touched += [label_set(keys, field, value or "")] * 2
            further += (field, "" if value is None else f"={value}")
        return further

    def add_tags(
        self, options: dict[str, Argument], touched: list[str], keys: WorkflowKeys, *, has_events: bool
    ) -> Sequence[bytes]:
        """Add the option and the key for the tags.

        Returns:
            The further arguments of the commit: the tags.
        """
        if not has_events:
            raise InvalidArgument("append changes the life of a workflow with events only. Nothing was sent.")
        tags, backs = self.tags if isinstance(self.tags, EventTags) else (check_tags(self.tags), b"")
        if tags:
            options["T"] = str(len(tags))
            touched.append(keys.tags)
        if tags and keys.tagged != keys.tags:
            options["W"] = backs
            touched.append(keys.tagged)
        return tags


_NO_LIFE = Life()


def without_tags(events: Sequence[Any], life: Life | None) -> tuple[Sequence[Any], Life | None]:
    """Return the events of a commit without their own tags, and its life with these."""
    life = life or Life()
    plain, tags = split_tags(events, [] if isinstance(life.tags, EventTags) else life.tags)
    return plain, life._replace(tags=tags)
