"""A reader of what is in Redis, by docs/data-format.md alone: what somebody would write in another language.

It imports nothing of runic_redis, which a test looks after.
"""

import datetime as dt
import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import redis
import zstandard

__all__ = ["Change", "Damaged", "Event", "Object", "Reader", "Sent", "tagged"]

_FACT_BUCKETS = 4096


class Damaged(Exception):
    """What is there is not as the specification has it."""


class Object(NamedTuple):
    """An object of a registered class; as an event, or inside a value."""

    name: str
    version: int
    fields: dict[str, Any]


class Event(NamedTuple):
    """An event, and what is known of its commit."""

    cursor: int
    ms: int
    value: Any
    commit: bytes
    metadata: dict[Any, Any] | None


class Change(NamedTuple):
    """An entry of the feed."""

    position: int
    ms: int
    change: str
    cursor: int
    workflow: str

    @property
    def span(self) -> int:
        """How many positions it takes."""
        if self.change in {"0", "deleted"}:
            return 1
        return int(self.change.removeprefix("+").removeprefix("void ").partition(" ")[0])


class Sent(NamedTuple):
    """A message in an inbox."""

    id: str
    message_id: str
    value: Any
    cancels: bool


class Reader:
    """Reads one namespace.

    Args:
        client: a client that does not decode responses.
        namespace: its name.
    """

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        config = client.hgetall(f"{{{namespace}}}:config")
        if config[b"format"] != b"2":
            raise Damaged(f"format {config[b'format']!r}")
        self.partitions = int(config[b"partitions"])
        self.has_feed = config[b"feed"] == b"1"

    def workflows(self) -> set[str]:
        """The ids of all workflows."""
        return {
            member.decode()
            for partition in range(self.partitions)
            for member in self._client.zrevrange(f"{{{self._namespace}:{partition}}}:index", 0, -1)
            if self._client.exists(self._key("meta", member.decode()))
        }

    def events(self, workflow: str, after: int = 0) -> Iterator[Event]:
        """A workflow's events after a cursor."""
        first: int | str = after + 1
        start = f"{first}-0"
        while page := self._client.xrange(self._key("events", workflow), start, "+", count=3):
            for entry_id, fields in page:
                last, ms = map(int, entry_id.split(b"-"))
                (header, payload), *rest = fields.items()
                named = dict(rest)
                values = _rows(header, payload)
                metadata = _value(named[b"m"]) if b"m" in named else None
                for cursor, value in enumerate(values, last - len(values) + 1):
                    if cursor > after:
                        if cursor != after + 1:
                            raise Damaged(f"event {after + 1} is not there")
                        after = cursor
                        yield Event(cursor, ms, value, named[b"i"], metadata)
            start = f"({page[-1][0].decode()}"

    def meta(self, workflow: str) -> dict[str, bytes]:
        """A workflow's meta hash."""
        return {name.decode(): value for name, value in self._client.hgetall(self._key("meta", workflow)).items()}

    def snapshot(self, workflow: str) -> tuple[int, bytes]:
        """A workflow's snapshot: cursor and data."""
        cursor, data = self._client.hmget(self._key("snapshot", workflow), "cursor", "data")
        return int(cursor), data

    def log(self, workflow: str) -> list[Any]:
        """A workflow's log."""
        return _rows(*msgpack.unpackb(self._client.get(self._key("log", workflow))))

    def commit_ids(self, workflow: str) -> dict[bytes, int]:
        """The commit ids that are known for good, with their cursors."""
        return {key: int(value) for key, value in self._client.hgetall(self._key("commits", workflow)).items()}

    def refs(self, workflow: str) -> dict[bytes, float]:
        """The hashes of the facts that a workflow refers to, by the last cursor that does; infinite for a log."""
        return dict(self._client.zrange(self._key("refs", workflow), 0, -1, withscores=True))

    def snapshot_facts(self, workflow: str) -> list[bytes] | None:
        """The facts to which the state in a snapshot refers, or None if it does not tell."""
        packed = self._client.hget(self._key("snapshot", workflow), "refs")
        if packed is None:
            return None
        found = []
        while packed:
            size = int.from_bytes(packed[:2], "big")
            found.append(packed[2 : 2 + size])
            packed = packed[2 + size :]
        if not {*found} <= self.refs(workflow).keys():
            raise Damaged("a snapshot's references")
        return found

    def tags(self, workflow: str) -> list[tuple[str, int]]:
        """The tags of a workflow's commits, each with the cursor after the commit, checked against the entries."""
        key, there = self._key("events", workflow), set()
        for entry_id, fields in self._client.xrange(key):
            named = dict(list(fields.items())[1:])
            if b"t" in named:
                count = int(named.get(b"n", 1))
                entries = self._client.xrevrange(key, entry_id, "-", count=count)
                if {dict(list(other.items())[1:])[b"i"] for _, other in entries} != {named[b"i"]} or len(
                    entries
                ) < count:
                    raise Damaged("the number of a commit's entries")
                cursor = int(entry_id.partition(b"-")[0])
                there |= {(tag.decode(), cursor) for tag in named[b"t"].split(b"\xff")}
        members = self._client.zrangebylex(self._key("tags", workflow), "-", "+")
        found = [(member[:-17].decode(), int(member[-16:])) for member in members]
        if {*found} != there or len(found) != int(self.meta(workflow).get("tags", 0)):
            raise Damaged("the tags")
        return found

    def fact(self, fact_hash: bytes) -> Any:
        """A fact, checked against its hash."""
        bucket = zlib.crc32(fact_hash) % _FACT_BUCKETS
        data = self._client.hget(f"{{{self._namespace}:fact:{bucket}}}", fact_hash)
        stored = _expanded(data[32:])
        canonical = _canonical(stored)
        if data[:16] != _digest(fact_hash, canonical) or data[16:32] != _digest(fact_hash, data[:16] + stored):
            raise Damaged("a fact's digest")
        if fact_hash.startswith(b"sha256:") and fact_hash[7:].decode() != hashlib.sha256(canonical).hexdigest():
            raise Damaged("a fact's hash")
        return _value(stored)

    def feed(self, partition: int) -> Iterator[Change]:
        """The entries of a partition's feed."""
        tag = f"{{{self._namespace}:{partition}}}"
        about = self._client.hgetall(f"{tag}:partition:{self.partitions}:feed")
        position = int(about.get(b"feed_trimmed", b"0-0").partition(b"-")[0])
        for entry_id, fields in self._client.xrange(f"{tag}:feed", f"{position + 1}-0"):
            ((change, value),) = fields.items()
            last, ms = map(int, entry_id.split(b"-"))
            cursor, _, workflow = value.decode().partition(" ")
            found = Change(last, ms, change.decode(), int(cursor), workflow)
            if found.position - found.span != position:
                raise Damaged(f"position {position + 1} is not there")
            position = found.position
            yield found
        if position != int(about.get(b"position", 0)):
            raise Damaged(f"position {position + 1} is not there")

    def state(self, workflow: str) -> str:
        """A workflow's state."""
        meta = self.meta(workflow)
        seconds, micros = self._client.time()
        left_ms = int(meta.get("lease_until", 0)) - (seconds * 1000 + micros // 1000)
        if "completed" in meta or "parked" in meta:
            return "completed" if "completed" in meta else "parked"
        if 0 < left_ms <= int(meta.get("lease_ms", 0)):
            return "leased"
        return "waiting" if "queue" in meta else "open"

    def due(self, workflow: str) -> float | None:
        """When a workflow is due in its queue, in Unix milliseconds; None if it is in none."""
        queue = self.meta(workflow)["queue"].decode()
        tag = self._key("queue", workflow).removesuffix(f"queue:{workflow}")
        due: float | None = self._client.zscore(f"{tag}queue:{queue}", workflow)
        counted = self._client.hget(f"{tag}queues", queue)
        if int(counted or 0) != self._client.zcard(f"{tag}queue:{queue}"):
            raise Damaged(f"the queue {queue}")
        return due

    def labels(self, workflow: str) -> dict[str, str]:
        """The attributes and the parent of a workflow, by their fields in the meta hash."""
        meta = self.meta(workflow)
        found = {name: value.decode() for name, value in meta.items() if name == "parent" or name.startswith("a:")}
        tag = self._key("meta", workflow).removesuffix(f"meta:{workflow}")
        for name, value in found.items():
            key = f"{tag}children:{value}" if name == "parent" else f"{tag}attribute:{name[2:]}={value}"
            if self._client.zscore(key, workflow) != int(meta["created"]) // 1000:
                raise Damaged(f"the set {key}")
        return found

    def inbox(self, workflow: str) -> list[Sent]:
        """The messages in a workflow's inbox."""
        found = []
        for entry_id, fields in self._client.xrange(self._key("inbox", workflow)):
            (header, payload), *rest = fields.items()
            (value,) = _rows(header, payload)
            found.append(Sent(entry_id.decode(), dict(rest).get(b"i", b"").decode(), value, (b"c", b"1") in rest))
        if len(found) != int(self.meta(workflow).get("inbox", 0)):
            raise Damaged("a message is not there")
        return found

    def message_ids(self, workflow: str) -> dict[str, str]:
        """The ids of messages that senders gave, with those in the inbox."""
        ids = self._client.hgetall(self._key("messages", workflow))
        return {key.decode(): value.decode() for key, value in ids.items() if key[:1] != b"\xff"}

    def tagged(self) -> dict[str, Any]:
        """The whole namespace, as the fixture's JSON has it."""
        workflows = sorted(self.workflows())
        facts = {fact_hash for workflow in workflows for fact_hash in self.refs(workflow)}
        return {
            "partitions": self.partitions,
            "workflows": {workflow: self._tagged_workflow(workflow) for workflow in workflows},
            "facts": {fact_hash.decode(): tagged(self.fact(fact_hash)) for fact_hash in sorted(facts)},
            "feeds": [[change._asdict() for change in self.feed(partition)] for partition in self._feeds()],
        }

    def _feeds(self) -> range:
        return range(self.partitions if self.has_feed else 0)

    def _tagged_workflow(self, workflow: str) -> dict[str, Any]:
        meta = self.meta(workflow)
        trimmed = int(meta.get("trimmed", 0))
        found: dict[str, Any] = {
            "cursor": int(meta.get("cursor", 0)),
            "trimmed": trimmed,
            "state": self.state(workflow),
        }
        if "queue" in meta:
            due = self.due(workflow)
            found |= {"queue": meta["queue"].decode(), "due": None if due is None else f"{due:.0f}"}
        if labels := self.labels(workflow):
            found["labels"] = dict(sorted(labels.items()))
        if tags := self.tags(workflow):
            found["tags"] = [list(one) for one in tags]
        if "parked_reason" in meta:
            found["parked_reason"] = meta["parked_reason"].decode()
        if messages := self.inbox(workflow):
            found["inbox"] = [{**one._asdict(), "value": tagged(one.value)} for one in messages]
        found["events"] = [
            {
                "cursor": event.cursor,
                "ms": event.ms,
                "commit": event.commit.hex(),
                "metadata": tagged(event.metadata),
                "value": tagged(event.value),
            }
            for event in self.events(workflow, trimmed)
        ]
        if "snapshot" in meta:
            cursor, data = self.snapshot(workflow)
            found["snapshot"] = {"cursor": cursor, "data": data.hex()}
            facts = self.snapshot_facts(workflow)
            if facts is not None:
                found["snapshot"]["refs"] = [fact_hash.decode() for fact_hash in facts]
        if "log" in meta:
            found["log"] = tagged(self.log(workflow))
        found["commit_ids"] = {key.decode(): cursor for key, cursor in sorted(self.commit_ids(workflow).items())}
        found["refs"] = {key.decode(): f"{score:.0f}" for key, score in sorted(self.refs(workflow).items())}
        return found

    def _key(self, kind: str, workflow: str) -> str:
        braced = re.search(r"\{([^}]*)\}", workflow, re.DOTALL)
        part = braced[1] if braced and braced[1] else workflow
        partition = zlib.crc32(part.encode()) % self.partitions
        return f"{{{self._namespace}:{partition}}}:{kind}:{workflow}"


def _digest(fact_hash: bytes, data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(fact_hash).digest() + data).digest()[:16]


def _canonical(data: bytes) -> bytes:
    def extension(code: int, inside: bytes) -> msgpack.ExtType:
        return msgpack.ExtType(code, _canonical(inside) if code in {2, 3, 4, 11} else inside)

    def in_order(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        return dict(sorted(pairs, key=lambda pair: msgpack.packb(pair[0])))

    value = msgpack.unpackb(data, ext_hook=extension, object_pairs_hook=in_order, strict_map_key=False)
    return msgpack.packb(value)


def _expanded(data: bytes) -> bytes:
    if data[:1] == b"\x00":
        return data[1:]
    if data[:1] == b"\x01":
        return zstandard.ZstdDecompressor().decompress(data[1:])
    raise Damaged(f"compression {data[:1]!r}")


def _rows(header: bytes, payload: bytes) -> list[Any]:
    schemas = msgpack.unpackb(header)
    if schemas[0] is None:
        del schemas[0]
        return [_object(schemas[index], values) for index, *values in _value(_expanded(payload), schemas)]
    return [_object(schemas[0], values) for values in _value(_expanded(payload), schemas)]


def _object(schema: Any, values: list[Any]) -> Any:
    name, version, fields = schema
    if name is None:
        (event,) = values
        return event
    return Object(name, version, dict(zip(fields, values, strict=True)))


def _value(data: bytes, schemas: Any = ()) -> Any:
    def extension(code: int, inside: bytes) -> Any:
        match code:
            case 1:
                return int.from_bytes(inside, "big", signed=True)
            case 2:
                return tuple(_value(inside, schemas))
            case 3:
                return set(_value(inside, schemas))
            case 4:
                return frozenset(_value(inside, schemas))
            case 5 | 7:
                text, _, zone = inside.decode().removesuffix("]").partition("[")
                parse = (dt.datetime if code == 5 else dt.time).fromisoformat
                moment = parse(text.rstrip("~")).replace(fold=text.count("~"))
                return moment.replace(tzinfo=ZoneInfo(zone)) if zone else moment
            case 6:
                return dt.date.fromisoformat(inside.decode())
            case 8:
                days, seconds, microseconds = msgpack.unpackb(inside)
                return dt.timedelta(days, seconds, microseconds)
            case 9:
                return Decimal(inside.decode())
            case 10:
                return UUID(bytes=inside)
            case 11:
                schema, *values = _value(inside, schemas)
                return _object(msgpack.unpackb(schema) if isinstance(schema, bytes) else schemas[schema], values)
        raise Damaged(f"extension {code}")

    return msgpack.unpackb(data, ext_hook=extension, strict_map_key=False, timestamp=3)


def tagged(value: Any) -> Any:
    """A value as JSON in which no type is lost: what JSON has no type for is an object with the type's name."""
    if value is None or isinstance(value, bool | str):
        return value
    if type(value) is list:
        return [tagged(part) for part in value]
    name, form = _FORMS[type(value)]
    return {name: form(value)}


def _tagged_object(value: Object) -> Any:
    fields = [[field, tagged(part)] for field, part in value.fields.items()]
    return {"type": value.name, "version": value.version, "fields": fields}


def _tagged_set(value: set[Any] | frozenset[Any]) -> Any:
    return sorted((tagged(part) for part in value), key=repr)


def _moment(value: dt.datetime | dt.time) -> str:
    zone = f"[{value.tzinfo.key}]" if isinstance(value.tzinfo, ZoneInfo) else ""
    return value.isoformat() + "~" * value.fold + zone


_FORMS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    int: ("int", str),
    float: ("float", lambda value: struct.pack(">d", value).hex()),
    bytes: ("bytes", bytes.hex),
    dict: ("map", lambda value: [[tagged(key), tagged(part)] for key, part in value.items()]),
    tuple: ("tuple", lambda value: [tagged(part) for part in value]),
    set: ("set", _tagged_set),
    frozenset: ("frozenset", _tagged_set),
    dt.datetime: ("datetime", _moment),
    dt.time: ("time", _moment),
    dt.date: ("date", dt.date.isoformat),
    dt.timedelta: ("duration", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("decimal", str),
    UUID: ("uuid", lambda value: value.hex),
    Object: ("object", _tagged_object),
}
