"""The verbs that remove data: `trim`, `collect` and `delete`."""

import sys
from typing import Annotated

import typer

from runic_redis.admin.describing import count_workflows
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, RequiredIds, Url, WorkflowIds, opened
from runic_redis.cli.output import EXIT_NO, EXIT_USAGE, counted, note, print_json, progress, stop
from runic_redis.errors import WorkflowNotFound, printable


def trim(
    workflow_ids: WorkflowIds = None,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    every: Annotated[bool, typer.Option("--all", help="Trim all workflows of the namespace.")] = False,
    keep: Annotated[int, typer.Option(help="Keep this many of the events that the snapshot covers.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Remove the events that the snapshots of workflows cover. A workflow without a snapshot is not changed."""
    if every == bool(workflow_ids):
        stop("Name workflows, or pass --all.", EXIT_USAGE)
    missing = 0
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        total = sum(store.run(count_workflows(store.context), "trim")) if every else len(workflow_ids or ())
        with progress("trimmed", total, quiet=as_json or not every) as step:
            for number, workflow_id in enumerate(workflow_ids or store.list(), 1):
                try:
                    cursor = store.trim(workflow_id, keep=keep)
                except WorkflowNotFound as error:
                    missing += not every  # with --all, it was deleted since it was listed
                    note(f"runic-redis: {error}")
                    continue
                step.to(number)
                if as_json:
                    print_json({"workflow": workflow_id, "trimmed": cursor})
                elif not every:
                    print(printable(f"{workflow_id}: trimmed to {cursor}"))
    if missing:
        raise typer.Exit(EXIT_NO)


def collect(
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    grace: Annotated[
        float, typer.Option(help="Keep facts that were written or referred to in the last so many seconds.", min=0)
    ] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Remove the facts that no workflow refers to.

    A Fact or a FactRef in an event is a reference. A hash that an event holds as plain text is none.
    """
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        with progress("collecting", None, quiet=as_json):
            removed = store.collect(grace)
        if as_json:
            print_json({"removed": removed})
        else:
            print(f"{counted(removed, 'fact')} removed")


def delete(
    workflow_ids: RequiredIds,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without asking for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete workflows with all of their data except facts. This cannot be undone."""
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        missing = [workflow_id for workflow_id in workflow_ids if not store.exists(workflow_id)]
        if missing:
            stop(f"There is no workflow {missing[0]!r}. Nothing was deleted.", EXIT_NO)
        if not yes:
            workflows = counted(len(workflow_ids), "workflow")
            events = counted(sum(map(store.cursor, workflow_ids)), "event")
            confirm(f"Delete {workflows} with {events}?", "deleted")
        for workflow_id in workflow_ids:
            store.delete(workflow_id)
            if as_json:
                print_json({"workflow": workflow_id, "deleted": True})
            else:
                print(printable(f"{workflow_id}: deleted"))


def confirm(question: str, done: str) -> None:
    """Ask at the terminal whether to do something that cannot be undone. Without a yes, end the command.

    Args:
        question: the question.
        done: what a yes leads to, such as "deleted"; for the message if there is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        stop(f"Not a terminal, so the command cannot ask for confirmation. Nothing was {done}. Pass --yes.", EXIT_USAGE)
    typer.confirm(question, abort=True, err=True)
