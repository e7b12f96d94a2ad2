"""The verb `feed`: the commits of all workflows, in order."""

from itertools import islice
from typing import Annotated, Any, Literal

import typer

from runic_redis.cli.filters import MOMENT_HELP, Moment, parse_moment, resolve_moment
from runic_redis.cli.options import PATIENT_S, AsJson, Namespace, Url, at_most, opened, utf_8
from runic_redis.cli.output import EXIT_USAGE, console, note, print_json, stop, styled, time_text
from runic_redis.errors import printable
from runic_redis.events.plain import event_text, to_json, type_counts, types_text
from runic_redis.operations.commits import Commit
from runic_redis.operations.feed_starts import find_places
from runic_redis.positions import Positions
from runic_redis.store import RedisStore

After = Annotated[str | None, typer.Option("--after", metavar="POSITIONS", help="Begin after these positions.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help=f"Begin at this time. {MOMENT_HELP}")]
Start = Annotated[
    Literal["beginning", "now", "rebuild"],
    typer.Option(
        help="Where to begin without --after and --since. rebuild reads all that the workflows hold now, and then the "
        "feed."
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="End before this time; written as for --since.")
]
Prefix = Annotated[str, typer.Option(help="Print only commits of workflows whose ids start with this.", callback=utf_8)]
Kind = Annotated[
    str | None,
    typer.Option("--type", metavar="NAME", help="Print only commits that have an event of this type.", callback=utf_8),
]


def feed(
    *,
    url: Url = None,
    namespace: Namespace = "runic",
    after: After = None,
    since: Since = None,
    start: Start = "beginning",
    until: Until = None,
    prefix: Prefix = "",
    kind: Kind = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print also new commits as they are stored, until Ctrl-C.")
    ] = False,
    limit: Annotated[int, typer.Option(help="Stop after printing this many commits; 0 for never.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the commits of all workflows, in order. The namespace needs a feed.

    At the end, the command prints the positions at which to continue.
    """
    if follow and until is not None:
        stop("--until ends the command, and --follow does not: pass one of them.", EXIT_USAGE)
    positions = None if after is None else Positions.parse(after)
    begin = None if since is None else parse_moment(since, "--since")
    end = None if until is None else parse_moment(until, "--until")
    with opened(url, namespace, deadline_s=PATIENT_S) as store:
        commits = store.feed(
            after=positions,
            since=None if begin is None else resolve_moment(store, begin),
            start=start,
            until=None if end is None else _positions_at(store, end),
            prefix=prefix,
            types=None if kind is None else [kind],
            wait_s=None if follow else 0.0,
        )
        try:
            for commit in islice(commits, at_most(limit)):
                if as_json:
                    print_json(_json(commit))
                else:
                    _print(commit, partitions=store.context.keys.partitions)
                if follow:
                    print(end="", flush=True)
        finally:
            if not as_json:
                note(f"To continue: --after {commits.positions}")


def _positions_at(store: RedisStore, moment: Moment) -> Positions:
    """Return the positions after which the commits from a time on begin."""
    places = store.run(find_places(store.context, resolve_moment(store, moment)), "feed")
    return Positions(tuple(places.values()))


def _print(commit: Commit, *, partitions: int) -> None:
    place = f"{commit.partition}:{commit.position}" if partitions > 1 else str(commit.position)
    metadata = event_text(commit.metadata) if commit.metadata else ""
    line = styled(
        (f"{place:>8} ", "bold"),
        (f"{time_text(commit.time)} ", "dim"),
        (f"{printable(commit.workflow_id)} ", "cyan"),
        *(("deleted", "red") if commit.deleted else (f"{commit.cursor} ", "bold"),),
        ("" if commit.deleted else printable(types_text(commit.events) or "created"), "green"),
        (printable(f"  [{metadata}]") if metadata else "", "dim"),
    )
    console().print(line)


def _json(commit: Commit) -> dict[str, Any]:
    return {
        "workflow": commit.workflow_id,
        "cursor": commit.cursor,
        "time": commit.time,
        "events": len(commit.events),
        "types": type_counts(commit.events),
        "metadata": to_json(commit.metadata),
        "deleted": commit.deleted,
        "partition": commit.partition,
        "position": commit.position,
        "positions": str(commit.positions),
    }
