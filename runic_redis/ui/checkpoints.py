"""A thread of LangGraph as a tree of checkpoints, for each of its namespaces.

A thread is a workflow, with the events that `runic_redis.langgraph.records` describes. The page shows the types and
sizes of serialized values, and never decodes one.

Checkpoints and writes are read as commits, page by page. Tags tell what is on other pages: the parent of a checkpoint,
a later commit of the same checkpoint, and further writes to it.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from runic_redis.admin.browsing import Page, tag_cursors
from runic_redis.arguments import check_tag
from runic_redis.context import Context
from runic_redis.errors import InvalidArgument
from runic_redis.events.plain import event_fields, event_type
from runic_redis.langgraph.records import WHOLE, checkpoint_tag, writes_tag
from runic_redis.operations.records import Record
from runic_redis.protocol.effects import Operation
from runic_redis.ui.bounds import short

CHECKPOINT, WRITES, HISTORY = "langgraph.checkpoint", "langgraph.writes", "langgraph.history"
# A page reads at most this many events, and shows at most this many checkpoints.
THREAD_EVENTS = 1000
_CHECKPOINTS = 100
# Of each checkpoint, show at most this many channels and writes.
_PARTS = 60
_NAME = 80
# The channels of special writes.
_INTERRUPT, _ERROR = "__interrupt__", "__error__"
# Count at most this many commits of writes that are on other pages.
_ELSEWHERE = 100
_UUID6_EPOCH = datetime(1582, 10, 15, tzinfo=UTC)

Place = tuple[str, str]  # a namespace, and the id of a checkpoint in it


class _Write(NamedTuple):
    """A write of a task to a checkpoint."""

    task: str
    idx: int
    channel: str
    type: str
    size: int | None


@dataclass
class _Checkpoint:
    """A checkpoint of a page, with the writes to it that the page has."""

    place: Place
    cursor: int
    stored: datetime
    fields: Mapping[Any, Any]
    writes: dict[tuple[str, int], _Write] = field(default_factory=dict)
    history: Mapping[Any, Any] | None = None
    # The tags tell the following.
    parent_cursor: int | None = None
    writes_elsewhere: int = 0

    @property
    def parent(self) -> Place | None:
        """Where its parent is."""
        ns, parent = self.place[0], self.fields.get("parent")
        return (ns, parent) if type(parent) is str and _is_place(ns, parent) else None


class Thread:
    """A page of a thread: the newest checkpoints up to a cursor.

    Args:
        found: the page of the workflow.
        upto: the highest cursor to show; None for all.
    """

    def __init__(self, found: Page, upto: int | None) -> None:
        self._upto = upto
        self._older = found.older
        self._newer = found.newer
        self._checkpoints: dict[Place, _Checkpoint] = {}
        # Writes and histories whose checkpoint is not on the page, or not yet read.
        self._loose: dict[Place, list[Record]] = {}
        self._last = 0
        # Writes to checkpoints that are not stored: how many.
        self._early: dict[Place, int] = {}
        self._problems: list[dict[str, Any]] = []
        self._commits: set[int] = set()
        for entry in found.entries:
            if entry.commit is None or entry.is_too_large:
                text = entry.problem or f"A commit of {entry.size} bytes is too large to be decoded here."
                self._problems.append({"cursor": entry.end, "text": text})
                continue
            self._commits.add(entry.end)
            for record in reversed(entry.commit.records(entry.commit.events, entry.commit.start)):
                if upto is None or record.cursor <= upto:
                    self._take(record)
        kept = sorted(self._checkpoints.values(), key=lambda one: one.cursor)[-_CHECKPOINTS:]
        self._older = self._older or len(kept) < len(self._checkpoints)
        lowest = max(found.entries[-1].end, 1) if found.entries else 0
        self._first = kept[0].cursor if kept else lowest
        self._checkpoints = {one.place: one for one in kept}
        for place in list(self._loose):
            if place in self._checkpoints:
                for record in reversed(self._loose.pop(place)):
                    self._attach(self._checkpoints[place], record)

    def _take(self, record: Record) -> None:
        """Take an event. The newest comes first."""
        kind = event_type(record.event)
        if kind not in {CHECKPOINT, WRITES, HISTORY}:
            return
        fields = event_fields(record.event)
        ns: Any = fields.get("ns")
        checkpoint_id: Any = fields.get("id")
        if not _is_place(ns, checkpoint_id):
            self._problems.append({"cursor": record.cursor, "text": "The event names no checkpoint."})
            return
        place: Place = ns, checkpoint_id
        self._last = max(self._last, record.cursor)
        if kind != CHECKPOINT:
            self._loose.setdefault(place, []).append(record)
        elif place not in self._checkpoints:
            self._checkpoints[place] = _Checkpoint(place, record.cursor, record.time, fields)

    @staticmethod
    def _attach(one: _Checkpoint, record: Record) -> None:
        fields = event_fields(record.event)
        if event_type(record.event) == HISTORY:
            one.history = fields
            return
        for write in _writes(fields):
            key = write.task, write.idx
            # Of special writes, such as errors, the last one counts.
            if write.idx < 0 or key not in one.writes:
                one.writes[key] = write

    def look_elsewhere(self, context: Context, workflow_id: str) -> Operation[None]:
        """Read from the tags what other pages have."""
        shown = list(self._checkpoints.values())
        parents = [one for one in shown if one.parent is not None and one.parent not in self._checkpoints]
        early = list(self._loose)[:_CHECKPOINTS]
        newest = [one.place for one in shown] + [one.parent for one in parents if one.parent] + early
        found = yield from tag_cursors(context, workflow_id, [checkpoint_tag(*place) for place in newest], 1)
        tags = [writes_tag(*one.place) for one in shown]
        written = yield from tag_cursors(context, workflow_id, tags, _ELSEWHERE)
        for one, cursors in zip(shown, written, strict=True):
            one.writes_elsewhere = len([cursor for cursor in cursors if cursor not in self._commits])
        behind = found[len(shown) :]
        for one, cursors in zip(parents, behind, strict=False):
            one.parent_cursor = cursors[0] if cursors else None
        for place, cursors in zip(early, behind[len(parents) :], strict=True):
            count = sum(len(list(_writes(event_fields(record.event)))) for record in self._loose[place])
            if count and not cursors:
                self._early[place] = count
        # Leave out checkpoints that are stored again further up.
        moved = {
            one.place: cursors[0]
            for one, cursors in zip(shown, found, strict=False)
            if cursors and cursors[0] not in self._commits and cursors[0] > one.cursor
        }
        for place in moved:
            del self._checkpoints[place]
        for one in self._checkpoints.values():
            if one.parent in moved:
                one.parent_cursor = moved[one.parent]

    def form(self) -> dict[str, Any]:
        """Return the form of the page: the namespaces, each with its checkpoints, the newest first."""
        trees: dict[str, list[_Checkpoint]] = {}
        for one in sorted(self._checkpoints.values(), key=lambda one: (one.place[1], one.cursor), reverse=True):
            trees.setdefault(one.place[0], []).append(one)
        # The graph itself, then its subgraphs.
        order = sorted(trees, key=lambda ns: (ns != "", -trees[ns][0].cursor))
        return {
            "namespaces": [_tree_form(ns, trees[ns]) for ns in order],
            "first": self._first,
            "last": self._last,
            "older": self._older,
            "newer": self._newer,
            "early": [{"ns": short(ns), "id": short(id_), "writes": n} for (ns, id_), n in self._early.items()],
            "problems": self._problems[:_PARTS],
        }


def _tree_form(ns: str, checkpoints: list[_Checkpoint]) -> dict[str, Any]:
    """Return the form of a namespace. Each checkpoint has a lane: lines in one lane never meet."""
    rows = {one.place: row for row, one in enumerate(checkpoints)}
    children: dict[Place, int] = {}
    for one in checkpoints:
        if one.parent is not None:
            children[one.parent] = children.get(one.parent, 0) + 1
    lanes: list[Place | None] = []  # in each lane, the parent that its line leads down to
    forms = []
    for row, one in enumerate(checkpoints):
        mine = [lane for lane, waiting in enumerate(lanes) if waiting == one.place]
        lane = mine[0] if mine else _free(lanes)
        for other in mine[1:]:
            lanes[other] = None
        parent = one.parent
        is_below = parent is not None and rows.get(parent, -1) > row
        lanes[lane] = parent if is_below else None
        forms.append(
            {
                **_checkpoint_form(one),
                "lane": lane,
                "parent_row": rows[parent] if parent is not None and is_below else None,
                "branches": children.get(one.place, 0),
            }
        )
    return {"ns": short(ns), "lanes": len(lanes), "checkpoints": forms}


def _free(lanes: list[Place | None]) -> int:
    """Return the first free lane; add one if there is none."""
    for lane, waiting in enumerate(lanes):
        if waiting is None:
            return lane
    lanes.append(None)
    return len(lanes) - 1


def _checkpoint_form(one: _Checkpoint) -> dict[str, Any]:
    fields = one.fields
    versions, changed = fields.get("versions"), fields.get("changed")
    changed = [name for name in changed if type(name) is str] if type(changed) is list else []
    channels = list(_channels(fields))
    writes = sorted(one.writes.values(), key=lambda write: (write.task, write.idx))
    return {
        "id": one.place[1],
        "ns": short(one.place[0]),
        "cursor": one.cursor,
        "time": _time_of(one.place[1]) or one.stored,
        "stored": one.stored,
        "parent": None if one.parent is None else one.parent[1],
        "parent_cursor": one.parent_cursor,
        "step": step if type(step := fields.get("step")) is int else None,
        "source": short(source, _NAME) if type(source := fields.get("source")) is str else "",
        "run": short(run, _NAME) if type(run := fields.get("run_id")) is str else "",
        "channels": [
            {
                **channel,
                "changed": channel["channel"] in changed,
                "version": _version_text(versions, channel["channel"]),
                "channel": short(channel["channel"], _NAME),
            }
            for channel in channels[:_PARTS]
        ],
        "channel_count": len(channels),
        "changed": [short(name, _NAME) for name in changed[:_PARTS]],
        "changed_count": len(changed),
        "bytes": sum(channel["size"] for channel in channels),
        "changed_bytes": sum(channel["size"] for channel in channels if channel["channel"] in changed),
        "writes": [
            {
                "task": short(write.task, _NAME),
                "idx": write.idx,
                "channel": short(write.channel, _NAME),
                "type": short(write.type, _NAME),
                "size": write.size,
            }
            for write in writes[:_PARTS]
        ],
        "write_count": len(writes),
        "write_bytes": sum(write.size or 0 for write in writes),
        "tasks": len({write.task for write in writes}),
        "writes_elsewhere": one.writes_elsewhere,
        "interrupts": sum(write.channel == _INTERRUPT for write in writes),
        "errors": sum(write.channel == _ERROR for write in writes),
        "history": sorted(short(str(name), _NAME) for name in _history_channels(one.history))[:_PARTS],
    }


def _channels(fields: Mapping[Any, Any]) -> Iterable[dict[str, Any]]:
    """Yield what is known of each channel's value: its type, size, pieces and items."""
    channels = fields.get("channels")
    for name, pieces in channels.items() if type(channels) is dict else ():
        if type(name) is not str or type(pieces) is not list:
            continue
        parts = [piece for piece in pieces if type(piece) is list and len(piece) == 4 and type(piece[2]) is int]
        items = [piece[0] for piece in parts if type(piece[0]) is int]
        yield {
            "channel": name,
            "type": short(str(parts[0][1]), _NAME) if parts else "",
            "size": sum(piece[2] for piece in parts),
            "pieces": len(parts),
            "items": None if WHOLE in items else sum(items),
        }


def _writes(fields: Mapping[Any, Any]) -> Iterable[_Write]:
    """Yield the writes of an event. The size of a value that is a fact is None."""
    task, writes = fields.get("task_id"), fields.get("writes")
    if type(task) is not str or type(writes) is not list:
        return
    for write in writes:
        if type(write) is list and len(write) == 4:
            index, channel, kind, data = write
            if type(index) is int and type(channel) is str and type(kind) is str:
                yield _Write(task, index, channel, kind, len(data) if type(data) is bytes else None)


def _history_channels(history: Mapping[Any, Any] | None) -> set[Any]:
    parts = [] if history is None else [history.get("seeds"), history.get("writes")]
    return {name for part in parts if type(part) is dict for name in part}


def _version_text(versions: object, name: str) -> str:
    """Return the version of a channel. A random part after a dot says nothing, nor do zeros before."""
    version = versions.get(name) if type(versions) is dict else None
    if type(version) is str:
        number = version.partition(".")[0]
        return number.lstrip("0") or "0" if number.isdecimal() else short(version, _NAME)
    return str(version) if type(version) is int and version.bit_length() < 64 else ""


def _is_place(ns: Any, checkpoint_id: Any) -> bool:
    """Return whether these may be a namespace and the id of a checkpoint in it."""
    if type(ns) is not str or type(checkpoint_id) is not str:
        return False
    with suppress(InvalidArgument):
        return bool(check_tag(checkpoint_tag(ns, checkpoint_id)))
    return False


def _time_of(checkpoint_id: str) -> datetime | None:
    """Return the time in an id of LangGraph, a UUID of version 6. A commit may be later: pruning stores it again."""
    try:
        one = UUID(checkpoint_id)
    except ValueError:
        return None
    if one.version != 6:
        return None
    ticks = (one.int >> 80) << 12 | one.int >> 64 & 0xFFF
    return _UUID6_EPOCH + timedelta(microseconds=ticks // 10)
