"""The verbs that intervene in a workflow's life: `send`, `inbox`, `cancel`, `park` and `unpark`."""

import json
from typing import Annotated, Any

import typer

from runic_redis.cli.options import AsJson, Namespace, Url, WorkflowId, opened, utf_8
from runic_redis.cli.output import EXIT_USAGE, console, print_json, stop, styled, time_text
from runic_redis.errors import printable
from runic_redis.events.plain import event_fields, event_text, event_type, to_json
from runic_redis.operations.messages import Message


def send(
    workflow_id: WorkflowId,
    message: Annotated[
        str, typer.Argument(metavar="JSON", help="The message, a JSON object. The workflow gets it as a dict.")
    ],
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    message_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="The id of the message. A second one with the same id is not stored."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a message to a workflow, and wake it. It stays in the inbox until a commit consumes it."""
    try:
        body = json.loads(utf_8(message))
    except ValueError as error:
        stop(f"The message is not JSON: {error}. Nothing was sent.", EXIT_USAGE)
    if not isinstance(body, dict):
        stop("The message is a JSON object, such as '{\"paid\": true}'. Nothing was sent.", EXIT_USAGE)
    with opened(url, namespace) as store:
        _print_done(workflow_id, "sent", store.send(workflow_id, body, message_id=message_id), as_json=as_json)


def inbox(workflow_id: WorkflowId, *, url: Url = None, namespace: Namespace = "runic", as_json: AsJson = False) -> None:
    """Print the messages that no commit of the workflow has consumed, the oldest first."""
    with opened(url, namespace) as store:
        messages = store.inbox(workflow_id)
    for one in messages:
        if as_json:
            print_json(_message_json(one))
            continue
        given = "" if one.message_id is None else f"  [{printable(one.message_id)}]"
        line = styled(
            (f"{one.id} ", "bold"),
            (f"{time_text(one.time)} ", "dim"),
            (printable(event_type(one.body)), "green"),
            f" {printable(event_text(one.body, {}))}",
            (given, "dim"),
        )
        console().print(line)


def cancel(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    reason: Annotated[str, typer.Option(help="Why. The workflow can read it.", callback=utf_8)] = "",
    as_json: AsJson = False,
) -> None:
    """Request to cancel a workflow. Its worker notices when it records the next event."""
    with opened(url, namespace) as store:
        _print_done(workflow_id, "requested", store.request_cancel(workflow_id, reason), as_json=as_json)


def park(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    reason: Annotated[str, typer.Option(help="Why, for those who look at it later.", callback=utf_8)],
    as_json: AsJson = False,
) -> None:
    """Take a workflow out of its queue, until `unpark` puts it back. A worker that has it loses it."""
    with opened(url, namespace) as store:
        store.park(workflow_id, reason)
    _print_done(workflow_id, "parked", True, as_json=as_json)


def unpark(
    workflow_id: WorkflowId,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    due: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="From when it can be claimed: in so many seconds.", min=0)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a parked workflow back in its queue. If it is not parked, nothing happens."""
    with opened(url, namespace) as store:
        store.unpark(workflow_id, due=due)
    _print_done(workflow_id, "unparked", True, as_json=as_json)


def _print_done(workflow_id: str, done: str, result: Any, *, as_json: bool) -> None:
    if as_json:
        print_json({"workflow": workflow_id, done: result})
    else:
        print(printable(f"{workflow_id}: {done}{'' if result is True else f' {result}'}"))


def _message_json(one: Message) -> dict[str, Any]:
    return {
        "workflow": one.workflow_id,
        "id": one.id,
        "message_id": one.message_id,
        "time": one.time,
        "type": event_type(one.body),
        "fields": to_json(dict(event_fields(one.body))),
    }
