"""The verbs of subscriptions: `subscriptions` and `parked`."""

from typing import Annotated, Any

import typer

from runic_redis.cli.changing import confirm
from runic_redis.cli.options import AsJson, Namespace, Url, opened, utf_8
from runic_redis.cli.output import EXIT_NO, EXIT_USAGE, console, counted, print_json, stop, styled, table, time_text
from runic_redis.errors import printable
from runic_redis.operations.parking import Parked
from runic_redis.operations.subscriptions import SubscriptionStatus
from runic_redis.store import RedisStore


def subscriptions(*, url: Url = None, namespace: Namespace = "runic", as_json: AsJson = False) -> None:
    """List the subscriptions and projections: how far each is behind, its consumers, and its parked commits."""
    with opened(url, namespace) as store:
        found = store.subscriptions()
    if as_json:
        for one in found:
            print_json(_status_json(one))
        return
    numbers = ("lag", "seconds", "consumers", "parked")
    shown = table("name", "kind", *numbers, "failing", right=numbers)
    for one in found:
        parked = styled((f"{one.parked:,}", "yellow")) if one.parked else "0"
        shown.add_row(
            *(one.name, one.kind, f"{one.lag_events:,}", f"{one.lag_s:,.1f}", str(len(one.consumers)), parked),
            styled((printable(_failing_text(one)), "red")),
        )
    console().print(shown)


def parked(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The subscription.", callback=utf_8)],
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    replay: Annotated[
        str | None,
        typer.Option(
            "--replay", metavar="ID", help="Deliver the parked commits of this workflow again.", callback=utf_8
        ),
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option("--drop", metavar="ID", help="Drop the parked commits of this workflow.", callback=utf_8),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Drop without asking for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the commits that a subscription has parked, or replay or drop those of a workflow."""
    if replay is not None and drop is not None:
        stop("Pass one of --replay and --drop.", EXIT_USAGE)
    workflow_id = replay if drop is None else drop
    with opened(url, namespace) as store:
        found = store.parked(name)
        if not found:
            _check_name(store, name)
        if workflow_id is None:
            _print_parked(found, as_json=as_json)
            return
        count = sum(one.workflow_id == workflow_id and one.state == "parked" for one in found)
        if not count:
            stop(f"The subscription {name!r} has no parked commit of {workflow_id!r}. Nothing was changed.", EXIT_NO)
        if drop is None:
            count = store.replay_parked(name, workflow_id)
        else:
            if not yes:
                confirm(f"Drop {counted(count, 'parked commit')} of {printable(drop)}?", "dropped")
            count = store.drop_parked(name, workflow_id)
    done = "replayed" if drop is None else "dropped"
    if as_json:
        print_json({"workflow": workflow_id, done: count})
    else:
        print(printable(f"{workflow_id}: {counted(count, 'commit')} {done}"))


def _check_name(store: RedisStore, name: str) -> None:
    """End with exit status 1 if there is no subscription of a name."""
    there = [one.name for one in store.subscriptions() if one.kind == "subscription"]
    if name not in there:
        named = f"pass one of {', '.join(there)}" if there else "the namespace has none"
        stop(f"There is no subscription {name!r}: {named}.", EXIT_NO)


def _print_parked(found: list[Parked], *, as_json: bool) -> None:
    if as_json:
        for one in found:
            print_json(_parked_json(one))
        return
    shown = table("workflow", "cursor", "events", "time", "state", "attempts", "reason", right=("cursor", "events"))
    for one in found:
        cursor = "deleted" if one.deleted else str(one.cursor)
        texts = (
            one.workflow_id,
            cursor,
            str(one.events),
            time_text(one.time),
            one.state,
            str(one.attempts),
            one.reason,
        )
        shown.add_row(*map(printable, texts))
    console().print(shown)


def _failing_text(one: SubscriptionStatus) -> str:
    return "; ".join(
        f"partition {number}: {counted(attempts, 'attempt')}, {reason}"
        for number, (attempts, reason) in one.failing.items()
    )


def _status_json(one: SubscriptionStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "prefix": one.prefix,
        "types": one.types,
        "positions": str(one.positions),
        "lag_events": one.lag_events,
        "lag_seconds": one.lag_s,
        "consumers": dict(one.consumers),
        "parked": one.parked,
        "failing": {
            number: {"attempts": attempts, "reason": reason} for number, (attempts, reason) in one.failing.items()
        },
    }


def _parked_json(one: Parked) -> dict[str, Any]:
    return {
        "workflow": one.workflow_id,
        "cursor": one.cursor,
        "events": one.events,
        "time": one.time,
        "deleted": one.deleted,
        "partition": one.partition,
        "position": one.position,
        "state": one.state,
        "attempts": one.attempts,
        "reason": one.reason,
        "parked": one.parked,
    }
