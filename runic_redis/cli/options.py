"""The options that verbs share, and opening what they name."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Annotated, Any

import typer

from runic_redis.admin.doctor import RESTORE_SETTINGS
from runic_redis.admin.keyspace import find_key, find_namespaces
from runic_redis.cli.output import EXIT_NO, note, stop
from runic_redis.context import URL_VARIABLE, find_url
from runic_redis.drivers.urls import EXAMPLES, shown
from runic_redis.events import bare_registry
from runic_redis.store import RedisStore

__all__ = [
    "PATIENT_S",
    "AsJson",
    "Namespace",
    "Partitions",
    "Url",
    "WorkflowId",
    "WorkflowIds",
    "at_most",
    "opened",
    "utf_8",
]

NAMESPACE_VARIABLE = "RUNIC_REDIS_NAMESPACE"
# The deadline of a verb that somebody waits for, and of one that may run for long and should outlast a failover.
_DEADLINE_S = 5.0
PATIENT_S = 30.0
# After how long a person is told what the command waits for.
_SILENT_S = 1.0

# More events and workflows than any store has.
_MOST = 2**53 - 1

Url = Annotated[
    str | None,
    typer.Option("--url", "-u", envvar=URL_VARIABLE, metavar="URL", help=f"Where the store is: {EXAMPLES}."),
]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar=NAMESPACE_VARIABLE, metavar="NAME", help="The namespace.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Partitions = Annotated[
    int | None,
    typer.Option("--partitions", metavar="N", help="How many partitions a namespace that is not there yet is to have."),
]


def utf_8(value: Any) -> Any:
    """Return an argument of the user's texts as they are typed, where the locale has Python take them for ASCII bytes.

    Bytes that are no UTF-8 stay as they are; the store rejects them.
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
    """Return a limit as functions take it: None for 0, which stands for all."""
    return min(limit, _MOST) or None


WorkflowId = Annotated[str, typer.Argument(metavar="ID", help="The workflow.", callback=utf_8)]
WorkflowIds = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Workflows.", show_default=False, callback=utf_8)
]


@contextmanager
def opened(
    url: str | None,
    namespace: str,
    *,
    partitions: int | None = None,
    may_be_new: bool = False,
    deadline_s: float = _DEADLINE_S,
) -> Iterator[RedisStore]:
    """A store in which nothing needs the application's classes, in as many partitions as it was made with.

    Unless it may be new, a namespace that is not there is an end: exit status 1, and the names of those that there are.
    """
    with _unwarned(), _open(find_url(url), namespace, partitions, deadline_s) as store:
        if not store.context.made and not may_be_new:
            if key := store.run(find_key(store.context), "find_namespace"):
                stop(
                    f"The settings of the namespace {namespace!r} are lost: there is {key!r}, and nothing at the key "
                    f"{store.context.keys.config!r}. Nothing was changed. {RESTORE_SETTINGS}",
                    EXIT_NO,
                )
            there = store.run(find_namespaces(store.context), "find_namespaces")
            named = f"there is {', '.join(there)}: pass --namespace" if there else "there is none of this store at all"
            stop(f"There is no namespace {namespace!r} here; {named}.", EXIT_NO)
        yield store


def _open(url: str, namespace: str, partitions: int | None, deadline_s: float) -> RedisStore:
    waiting = Timer(_SILENT_S, note, [f"Waiting up to {deadline_s:g} s for {shown(url)} to answer."])
    waiting.daemon = True
    waiting.start()
    try:
        return RedisStore.from_url(
            url,
            namespace=namespace,
            partitions=partitions,
            deadline_s=deadline_s,
            registry=bare_registry,
            unknown_events="wrap",
        )
    finally:
        waiting.cancel()


@contextmanager
def _unwarned() -> Iterator[None]:
    """Keep quiet about what the server's settings endanger: `doctor` says it."""
    logger = logging.getLogger("runic_redis")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
