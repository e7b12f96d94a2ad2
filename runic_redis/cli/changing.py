"""The verbs that remove data, now or later: `trim`, `collect`, `delete`, `expire` and `persist`."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from runic_redis.admin.describing import count_workflows
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, RequiredIds, Url, WorkflowIds, opened
from runic_redis.cli.output import EXIT_NO, EXIT_USAGE, counted, note, print_json, progress, stop
from runic_redis.errors import WorkflowNotFound, printable
from runic_redis.store import RedisStore


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


def expire(
    workflow_ids: RequiredIds,
    *,
    after: Annotated[float, typer.Option(help="Delete them so many seconds from now.", min=0)],
    sliding: Annotated[
        bool, typer.Option("--sliding", help="Keep them for so many seconds from each later write on, too.")
    ] = False,
    url: Url = None,
    namespace: Namespace = "runic",
    as_json: AsJson = False,
) -> None:
    """Have workflows deleted after a time, with all of their data except facts, whether they are finished or not."""

    def set_end(store: RedisStore, workflow_id: str) -> None:
        store.expire(workflow_id, after, sliding=sliding)

    done = {"expires_in_s": after, "sliding": sliding}
    text = f"expires {after:g} s after {'the last write' if sliding else 'now'}"
    _change_each(workflow_ids, url, namespace, set_end, done=done, text=text, as_json=as_json)


def persist(
    workflow_ids: RequiredIds, *, url: Url = None, namespace: Namespace = "runic", as_json: AsJson = False
) -> None:
    """Keep workflows that would expire."""
    done, text = {"persists": True}, "does not expire"
    _change_each(workflow_ids, url, namespace, RedisStore.persist, done=done, text=text, as_json=as_json)


def _change_each(
    workflow_ids: Sequence[str],
    url: str | None,
    namespace: str,
    change: Callable[[RedisStore, str], None],
    *,
    done: dict[str, Any],
    text: str,
    as_json: bool,
) -> None:
    """Change workflows, and print what was done to each. A workflow that does not exist is reported."""
    missing = False
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        for workflow_id in workflow_ids:
            try:
                change(store, workflow_id)
            except WorkflowNotFound as error:
                missing = True
                note(f"runic-redis: {error}")
                continue
            if as_json:
                print_json({"workflow": workflow_id, **done})
            else:
                print(printable(f"{workflow_id}: {text}"))
    if missing:
        raise typer.Exit(EXIT_NO)


def confirm(question: str, done: str) -> None:
    """Ask at the terminal whether to do something that cannot be undone. Without a yes, end the command.

    Args:
        question: the question.
        done: what a yes leads to, such as "deleted"; for the message if there is no terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        stop(f"Not a terminal, so the command cannot ask for confirmation. Nothing was {done}. Pass --yes.", EXIT_USAGE)
    typer.confirm(question, abort=True, err=True)
