"""The options that verbs share, and opening the store that they name."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread, Timer
from typing import Annotated, Any, NoReturn

import typer

from runic_redis.admin.keyspace import RESTORE_SETTINGS, find_key, find_namespaces
from runic_redis.cli.output import EXIT_NO, note, stop
from runic_redis.context import URL_VARIABLE, find_url
from runic_redis.drivers.urls import EXAMPLES, shown
from runic_redis.events import EventRegistry, bare_registry
from runic_redis.store import RedisStore

NAMESPACE_VARIABLE = "RUNIC_REDIS_NAMESPACE"
# The deadline of a short verb, and of one that may run for long and should outlast a failover.
_DEADLINE_S = 5.0
PATIENT_S = 30.0
# After this time, the command tells that it waits for the server.
_SILENT_S = 1.0
# The completion of ids gives up after this time, and offers at most so many.
_COMPLETION_S = 1.0
_COMPLETED = 50

# More events and workflows than any store has.
_MOST = 2**53 - 1

Url = Annotated[
    str | None,
    typer.Option("--url", "-u", envvar=URL_VARIABLE, metavar="URL", help=f"The URL of the store: {EXAMPLES}."),
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar=NAMESPACE_VARIABLE, metavar="NAME", help="The namespace.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Partitions = Annotated[
    int | None,
    typer.Option("--partitions", metavar="N", help="The number of partitions of a namespace that does not exist yet."),
]

Feed = Annotated[
    bool | None,
    typer.Option(
        "--feed/--no-feed",
        help="Whether a namespace that does not exist yet has a feed; by default, if the source has one.",
    ),
]


def utf_8(value: Any) -> Any:
    """Return the texts of an argument decoded from UTF-8, also in a locale in which Python reads arguments as ASCII.

    Bytes that are not UTF-8 stay as they are, and the store rejects them.
    """
    if isinstance(value, list):
        return [utf_8(one) for one in value]
    if value is None or value.isprintable():
        return value
    try:
        return os.fsencode(value).decode()
    except UnicodeError:
        return value


def at_most(limit: int) -> int | None:
    """Return a limit in the form that functions take: None for 0, which means no limit."""
    return min(limit, _MOST) or None


def complete_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return ids of workflows that start with a text, for the completion of a shell; none after any failure."""
    found: list[str] = []

    def find() -> None:
        # A message would end up in the line that the user types.
        with suppress(Exception), _unwarned():
            url = find_url(ctx.params.get("url") or ctx.params.get("source"))
            namespace = ctx.params.get("namespace") or os.environ.get(NAMESPACE_VARIABLE, "runic")
            with _connect(url, namespace, _COMPLETION_S) as store:
                found.extend(filter(str.isprintable, store.list(prefix=incomplete, limit=_COMPLETED)))

    # A prefix that few workflows have takes a listing of all: as a daemon, it ends with the process.
    finding = Thread(target=find, daemon=True)
    finding.start()
    finding.join(_COMPLETION_S)
    return list(found)


WorkflowId = Annotated[
    str, typer.Argument(metavar="ID", help="The workflow.", callback=utf_8, autocompletion=complete_ids)
]
WorkflowIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...", help="Workflows.", show_default=False, callback=utf_8, autocompletion=complete_ids
    ),
]
RequiredIds = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Workflows.", callback=utf_8, autocompletion=complete_ids)
]


@contextmanager
def opened(
    url: str | None,
    namespace: str,
    *,
    partitions: int | None = None,
    feed: bool | None = None,
    may_be_new: bool = False,
    deadline_s: float = _DEADLINE_S,
    registry: EventRegistry = bare_registry,
) -> Iterator[RedisStore]:
    """Open a store that needs none of the application's classes, with the partitions that its namespace was made with.

    If the namespace does not exist and may not be new, end with exit status 1 and name the namespaces that exist.
    """
    with (
        _unwarned(),
        _open(find_url(url), namespace, deadline_s, partitions=partitions, feed=feed, registry=registry) as store,
    ):
        if not store.context.made and not may_be_new:
            _stop_without_namespace(store)
        yield store


def _stop_without_namespace(store: RedisStore) -> NoReturn:
    keys = store.context.keys
    if key := store.run(find_key(store.context), "open"):
        stop(
            f"The settings of the namespace {keys.namespace!r} are lost: there is {key!r}, and nothing at the key "
            f"{keys.config!r}. Nothing was changed. {RESTORE_SETTINGS}",
            EXIT_NO,
        )
    there = store.run(find_namespaces(store.context), "open")
    named = f"pass --namespace with one of {', '.join(there)}" if there else "the server has no namespace of this store"
    stop(f"There is no namespace {keys.namespace!r}: {named}.", EXIT_NO)


def _open(url: str, namespace: str, deadline_s: float, **settings: Any) -> RedisStore:
    waiting = Timer(_SILENT_S, note, [f"Waiting up to {deadline_s:g} s for {shown(url)} to answer."])
    waiting.daemon = True
    waiting.start()
    try:
        return _connect(url, namespace, deadline_s, **settings)
    finally:
        waiting.cancel()


def _connect(
    url: str,
    namespace: str,
    deadline_s: float,
    *,
    partitions: int | None = None,
    feed: bool | None = None,
    registry: EventRegistry = bare_registry,
) -> RedisStore:
    return RedisStore.from_url(
        url,
        namespace=namespace,
        partitions=partitions,
        feed=feed,
        deadline_s=deadline_s,
        registry=registry,
        unknown_events="wrap",
    )


@contextmanager
def _unwarned() -> Iterator[None]:
    """Log no warnings about the server's settings: `doctor` reports them."""
    logger = logging.getLogger("runic_redis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
