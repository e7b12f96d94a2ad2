"""The filters of `events` and `tail`: by type, by fields, and by time."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from runic_redis.admin.watching import server_time
from runic_redis.cli.options import utf_8
from runic_redis.errors import InvalidArgument
from runic_redis.events import FactRef
from runic_redis.events.plain import event_fields, event_type, to_json, value_text
from runic_redis.operations.records import Record
from runic_redis.store import RedisStore

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")
# In the name of a field, this stands for the metadata of the event's commit.
_METADATA = "metadata."

MOMENT_HELP = "An ISO 8601 time, in the local zone unless it names one, or a duration before now such as 10m, 2h or 3d."
Kind = Annotated[
    str | None,
    typer.Option(
        "--type",
        metavar="NAME",
        help="Print only events of this type. The type of a plain dict is in its field type, kind or event, or dict.",
        callback=utf_8,
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Print only events whose field KEY, or metadata.KEY, has this value, as text or as JSON. May be repeated.",
        callback=utf_8,
    ),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help=f"Print only events from this time on. {MOMENT_HELP}")
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Print only events before this time; written as for --since."),
]

Moment = datetime | timedelta


def parse_moment(text: str, option: str) -> Moment:
    """Return the time that an option names, or the duration before now.

    Raises:
        InvalidArgument: the text is neither.
    """
    if match := _DURATION.fullmatch(text):
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise InvalidArgument(
            f"{option} takes a time such as 2026-01-31, 2026-01-31T12:30 or 2026-01-31T12:30:00+01:00, or a duration "
            f"such as 10m, 2h or 3d, not {text!r:.80}."
        ) from None


def resolve_moment(store: RedisStore, moment: Moment) -> datetime:
    """Return the time of a moment; a duration counts back from now, by the clock of the server."""
    if isinstance(moment, datetime):
        return moment
    now: datetime = store.run(server_time(store.context), "events")
    try:
        return now - moment
    except OverflowError:
        return datetime.min.replace(tzinfo=now.tzinfo)


def make_filter(kind: str | None, where: list[str] | None) -> Callable[[Record], bool]:
    """Return a function that tells whether a record has the type and all the field values.

    Raises:
        InvalidArgument: a condition is not written as KEY=VALUE.
    """
    conditions = list(map(_parse_condition, where or ()))

    def is_wanted(record: Record) -> bool:
        if kind is not None and event_type(record.event) != kind:
            return False
        return all(any(is_value(value) for value in _values(record, key)) for key, is_value in conditions)

    return is_wanted


def _parse_condition(condition: str) -> tuple[str, Callable[[Any], bool]]:
    key, separator, text = condition.partition("=")
    if not (key and separator):
        raise InvalidArgument(f"--where takes KEY=VALUE, not {condition!r:.80}.")
    try:
        as_json = json.loads(text)
    except (ValueError, RecursionError):
        as_json = text

    def is_value(value: Any) -> bool:
        if isinstance(value, FactRef):
            return bool(value.hash == text)
        form = to_json(value)
        # (To Python, True is 1.)
        return (form == as_json and (form is True or form is False) == isinstance(as_json, bool)) or text in {
            form if isinstance(form, str) else None,
            value_text(value),
        }

    return key, is_value


def _values(record: Record, key: str) -> Iterator[Any]:
    """Return what an event and its metadata have under a key: at most one value each."""
    fields = event_fields(record.event)
    if key in fields:
        yield fields[key]
    name = key.removeprefix(_METADATA)
    if name != key and name in (record.metadata or {}):
        yield (record.metadata or {})[name]
