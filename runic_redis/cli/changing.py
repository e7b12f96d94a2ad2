"""The verbs that remove: `trim`, `collect` and `delete`."""

import sys
from typing import Annotated

import typer

from runic_redis.admin.describing import count_workflows
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, Url, WorkflowIds, opened, utf_8
from runic_redis.cli.output import EXIT_NO, EXIT_USAGE, note, out, print_json, printable, progress, stop
from runic_redis.errors import WorkflowNotFound

__all__ = ["collect", "delete", "trim"]


def trim(
    workflow_ids: WorkflowIds = None,
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    every: Annotated[bool, typer.Option("--all", help="All workflows.")] = False,
    keep: Annotated[int, typer.Option(help="How many of the events that the snapshot covers to keep.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Remove the events that workflows' snapshots cover. A workflow without a snapshot stays as it is."""
    if every == bool(workflow_ids):
        stop("Name workflows, or pass --all.", EXIT_USAGE)
    missing = 0
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        total = sum(store.run(count_workflows(store.context), "count_workflows")) if every else len(workflow_ids or ())
        with progress("trimmed", total, quiet=as_json or not every) as step:
            for number, workflow_id in enumerate(workflow_ids or store.list(), 1):
                try:
                    cursor = store.trim(workflow_id, keep=keep)
                except WorkflowNotFound as error:
                    missing += not every  # of all, one may have been deleted since it was listed
                    note(f"runic-redis: {error}")
                    continue
                step.to(number)
                if as_json:
                    print_json({"workflow": workflow_id, "trimmed": cursor})
                elif not every:
                    out.print(printable(f"{workflow_id}: trimmed to {cursor}"))
    if missing:
        raise typer.Exit(EXIT_NO)


def collect(
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    grace: Annotated[
        float, typer.Option(help="Facts written or referred to in the last so many seconds stay.", min=0)
    ] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Remove the facts that no workflow refers to.

    What counts is a Fact or a FactRef in an event. A hash that is kept as plain text is no reference.
    """
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        with progress("collecting", None, quiet=as_json):
            removed = store.collect(grace)
        if as_json:
            print_json({"removed": removed})
        else:
            out.print(f"{removed} facts removed")


def delete(
    workflow_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Workflows.", callback=utf_8)],
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete workflows with all that is kept for them, facts aside. There is no way back."""
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        missing = [workflow_id for workflow_id in workflow_ids if not store.exists(workflow_id)]
        if missing:
            stop(f"There is no workflow {missing[0]!r}. Nothing was deleted.", EXIT_NO)
        if not yes:
            if sys.stdin is None or not sys.stdin.isatty():
                stop("Nobody is there to be asked: pass --yes. Nothing was deleted.", EXIT_USAGE)
            events = sum(map(store.cursor, workflow_ids))
            typer.confirm(f"Delete {len(workflow_ids)} workflows with {events} events?", abort=True, err=True)
        for workflow_id in workflow_ids:
            store.delete(workflow_id)
            if as_json:
                print_json({"workflow": workflow_id, "deleted": True})
            else:
                out.print(printable(f"{workflow_id}: deleted"))
