"""How a workflow that sleeps, or waits for messages, goes on."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from runic_redis.arguments import check_due
from runic_redis.errors import InvalidArgument, InvalidType, WorkflowCancelled, short_repr
from runic_redis.events import CancelRequested


def sleeps_on(timer: Any, until: float | datetime | None, name: str) -> bool:
    """Return whether the stored timer is that of a sleep. Two with a time instead of seconds have the same time."""
    if until is None or timer is None or timer.until is None or timer.name != name:
        return False
    return not isinstance(until, datetime) or check_due(timer.until) == check_due(until)


def checked_messages(consumes: Any, workflow_id: str, events: Sequence[Any]) -> list[Any]:
    """Return the messages that the record of some events consumes."""
    messages = [consumes] if hasattr(consumes, "body") else consumes
    if not isinstance(messages, list | tuple) or not all(hasattr(one, "body") for one in messages):
        raise InvalidType(
            f"consumes is a Message of the inbox, or a list of them, not {short_repr(consumes)}. Nothing was recorded."
        )
    for one in messages:
        if one.workflow_id != workflow_id:
            raise InvalidArgument(
                f"The message {one.id} is for the workflow {one.workflow_id!r}, not for {workflow_id!r}. Nothing was "
                "recorded."
            )
    if messages and not events:
        raise InvalidArgument("record consumes messages only with an event. Nothing was recorded.")
    return list(messages)


def cancel_request(messages: Sequence[Any]) -> Any:
    """Return the message that asks to cancel; None if there is none."""
    return next(filter(is_request, messages), None)


def is_request(message: Any) -> bool:
    """Return whether a message asks to cancel."""
    return isinstance(message.body, CancelRequested)


def cancelled_error(workflow_id: str, request: Any) -> WorkflowCancelled:
    """Return the error that tells a handler about a request to cancel."""
    return WorkflowCancelled(
        f"Someone has requested to cancel the workflow {workflow_id!r}. Nothing was recorded by this call. Undo the "
        "work that is done, and record that in a commit that consumes the message.",
        message=request,
    )
