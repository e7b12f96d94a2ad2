"""Fuzz targets for all code that decodes bytes from Redis.

Each target accepts any bytes. It returns if they were decoded or rejected by a `StoreError`; any other exception is a
bug. Hypothesis calls the targets in test_fuzzing.py, atheris in fuzz_with_atheris.py.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgpack

from runic_redis.admin import describing, exporting, importing, index_check, verifying, watching
from runic_redis.codec.compression import compress, decompress
from runic_redis.codec.facts import DIGEST_BYTES, checksum
from runic_redis.context import Context
from runic_redis.errors import StoreError
from runic_redis.events import default_registry
from runic_redis.keys import Keys
from runic_redis.operations import (
    appending,
    counting,
    facts,
    finding,
    groups,
    leasing,
    life,
    lifetimes,
    listing,
    messages,
    queries,
    queueing,
    reading,
    reading_many,
    settings,
    snapshots,
    tailing,
    timers,
    tracking,
    workflows,
)
from runic_redis.operations.claiming import Claim
from runic_redis.operations.records import decode_commit
from runic_redis.protocol.effects import Await, Batch, Begin, Command, ErrorReply, Operation
from tests import strategies
from tests.codecs import BOTH

__all__ = ["OPERATIONS", "TARGETS", "Source", "attempt", "seeds", "split"]

Target = Callable[[bytes], None]

# An error message stays short enough to log, even if the data it describes is large.
LONGEST_MESSAGE = 4000
# An operation that needs more round trips is in an endless loop.
MOST_ROUNDS = 2000

CODECS = [codec(default_registry, unknown_events) for codec in BOTH for unknown_events in ("raise", "wrap")]
EVENTS: list[Any] = [
    {"a": 1, "b": [None, True, 2.5, "ü", b"\x00"]},
    strategies.Plain(1, {"k": [1.5]}),
    strategies.Pair(strategies.FrozenSlotted((1, {2}), frozenset("a")), 2**70),
    strategies.Model(value=1, Other="x"),
    strategies.AttrsMutable(strategies.Struct(1), strategies.StructFrozen(some_value=1)),
    strategies.Colour.RED,
    strategies.Permission.READ,
]
HEADERS = [CODECS[0].encode_commit([event])[0].header for event in EVENTS]
HEADERS.append(CODECS[0].encode_commit(EVENTS)[0].header)


def attempt(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a read, or the `StoreError` that rejects the input."""
    try:
        return read(*arguments)
    except StoreError as error:
        if len(str(error)) > LONGEST_MESSAGE:
            raise AssertionError(f"{type(error).__name__} of {len(str(error))} characters") from error
        return error


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return two parts of the data. Its first two bytes hold the length of the first part."""
    length = int.from_bytes(data[:2], "big")
    return data[2 : 2 + length], data[2 + length :]


def join(first: bytes, second: bytes) -> bytes:
    """Return bytes that `split` divides into these two parts."""
    return len(first).to_bytes(2, "big") + first + second


def entry(data: bytes) -> None:
    header, payload = split(data)
    for codec in CODECS:
        attempt(codec.decode_entry, header, payload)


def rows(data: bytes) -> None:
    header = HEADERS[data[0] % len(HEADERS)] if data else HEADERS[0]
    for codec in CODECS:
        attempt(codec.decode_entry, header, b"\x00" + data[1:])


def header(data: bytes) -> None:
    for codec in CODECS:
        for payload in (b"\x00\x91\x91\x80", b"\x00\x91\x92\x00\x80"):
            attempt(codec.decode_entry, data, payload)


def envelope(data: bytes) -> None:
    attempt(decompress, data, 1024 * 1024)


def log(data: bytes) -> None:
    for codec in CODECS:
        attempt(codec.decode_log, data)


def metadata(data: bytes) -> None:
    for codec in CODECS:
        attempt(codec.decode_metadata, data)


def state(data: bytes) -> None:
    for codec in CODECS:
        attempt(codec.decode_state, data)


def fact(data: bytes) -> None:
    for codec in CODECS:
        attempt(codec.decode_fact, b"h", data)
        # Also with a correct digest, as an attacker would write it.
        head = data[:DIGEST_BYTES]
        attempt(codec.decode_fact, b"h", head + checksum(b"h", head, data) + compress(data))


def commit(data: bytes) -> None:
    one = Source(data).entry()
    attempt(lambda: decode_commit(new_context(), "w", one, with_records=True))
    attempt(lambda: decode_commit(new_context(), "w", one, with_records=False))


class Source:
    """Replies drawn from bytes. Once the bytes are used up, only nil and empty replies follow."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def number(self, below: int) -> int:
        """Return a number from 0 to below the limit."""
        return int.from_bytes(self.take(2), "big") % below

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        self._at += len(taken)
        return taken

    def text(self) -> bytes:
        """Return a value of a hash or a member of a set, sometimes one that looks valid."""
        likely = (
            b"",
            b"0",
            b"1",
            b"2",
            b"5",
            b"9" * 16,
            b"9" * 17,
            b"-1",
            b"1e3",
            b"nan",
            b"inf",
            b"w",
            b"a\x000000000000000005\x005\0\0w",
            b"\xff",
            b" 1",
        )
        kind = self.number(len(likely) + 4)
        return likely[kind] if kind < len(likely) else self.take(self.number(64))

    def some(self, make: Callable[[], Any], most: int = 4) -> list[Any]:
        return [make() for _ in range(self.number(most) if self.left else 0)]

    def nil_or_text(self) -> bytes | None:
        return self.text() if self.left and self.number(4) else None

    def payload(self) -> bytes:
        if self.number(2):
            return self.take(self.number(200))
        return CODECS[0].encode_commit([{}] * (1 + self.number(3)))[0].payload

    def entry(self) -> list[Any]:
        """Return a stream entry with a well-formed ID and pairs of fields."""
        place = (0, 1, 2, 3, 5, 2**53, 2**64 - 1)[self.number(7)]
        ms = (0, 1, 2**40, 2**64 - 1)[self.number(4)]
        first = HEADERS[self.number(len(HEADERS))] if self.number(4) else self.take(self.number(64))
        fields: list[bytes] = [first, self.payload()]
        for _ in range(self.number(3)):
            fields += [(b"i", b"m", b"t", b"n", self.text())[self.number(5)], self.take(self.number(20))]
        return [b"%d-%d" % (place, ms), fields]

    def scored(self, most: int) -> list[bytes]:
        """Return members and scores of a sorted set."""
        scores = (b"0", b"1", b"1.5", b"-inf", b"inf", b"1e308", b"1700000000000000")
        return [part for pair in self.some(lambda: [self.text(), scores[self.number(7)]], most) for part in pair]


# The errors of each script. Any script may also find damage, and those in NIL may reply nil.
REFUSALS = {
    "acquire": ("LEASE_HELD", "NEW_PARTITION", "END_REACHED"),
    "append": ("LEASE_LOST", "FACT_MISSING", "COMMIT_UNSURE", "NEW_PARTITION", "END_REACHED"),
    "append_all": ("NEW_PARTITION",),
    "complete": ("LEASE_LOST", "END_REACHED"),
    "park": ("LEASE_LOST", "WORKFLOW_COMPLETED", "END_REACHED"),
    "send": ("WORKFLOW_COMPLETED", "NEW_PARTITION", "END_REACHED"),
    "delete": ("LEASE_LOST",),
    "expire": ("END_REACHED",),
    "import_part": ("IMPORT_LOST",),
    "import_workflow": ("WORKFLOW_EXISTS", "IMPORT_LOST", "IMPORT_INCOMPLETE", "NEW_PARTITION"),
    "renew": ("LEASE_LOST", "END_REACHED"),
    "save_fact": ("FACT_DIFFERS",),
    "save_log": ("LEASE_LOST", "FACT_MISSING", "NEW_PARTITION", "END_REACHED"),
    "save_snapshot": ("LEASE_LOST", "SNAPSHOT_AHEAD", "SNAPSHOT_BEHIND", "NEW_PARTITION", "END_REACHED"),
    "trim": ("LEASE_LOST", "END_REACHED"),
}
FOR_ALL = ("DAMAGED", "WRONGTYPE", "ERR")
NIL = {"trim", "complete", "expire", "park", "send"}


# The fields that a meta hash has, and some that it can have.
META = [*(name.encode() for name in exporting.KEPT), b"lease_owner", b"lease_until", b"other", b"\xff"]


def _flat(source: Source, first: Callable[[], bytes], most: int) -> list[bytes]:
    return [part for pair in source.some(lambda: [first(), source.text()], most) for part in pair]


def _key(source: Source) -> bytes:
    return (b"{fuzz:0}:meta:", b"{fuzz:0}:", b"{fuzz", b"")[source.number(4)] + source.text()


def _page(source: Source, members: list[bytes]) -> list[Any]:
    return [b"7" if source.left and source.number(4) == 0 else b"0", members]


# Replies to commands about keys of any type, or about no key.
OF_ANY_KEY: dict[str, Callable[[Source], Any]] = {
    "PTTL": lambda source: (-2, -1, 0, 5000)[source.number(4)],
    "TIME": lambda _: [b"1700000000", b"5"],
    "EVAL": lambda _: ErrorReply("ERR", "wrong number of arguments for 'eval' command"),
    "ROLE": lambda source: [source.text(), source.text(), source.number(9)],
    "UNLINK": lambda source: source.number(9),
    "EXISTS": lambda source: source.number(9),
}
# Replies whose form does not depend on the arguments.
OF_ALL_KINDS: dict[str, Callable[[Source], Any]] = {
    **dict.fromkeys(("HSTRLEN", "XLEN", "STRLEN", "HLEN", "ZCARD"), lambda source: source.number(5)),
    "ZSCORE": lambda source: (None, b"0", b"1.5", b"-inf", b"inf", b"1e308", b"1700000000000000")[source.number(7)],
    **dict.fromkeys(("ZREM", "HDEL", "HEXISTS", "HSETNX"), lambda source: source.number(2)),
    "ZRANGEBYLEX": lambda source: source.some(source.text),
    "HGETALL": lambda source: _flat(source, lambda: META[source.number(len(META))], 9),
    "HKEYS": lambda source: source.some(source.text),
    "SCAN": lambda source: _page(source, source.some(lambda: _key(source))),
    "HSCAN": lambda source: _page(source, _flat(source, source.text, 4)),
    "ZSCAN": lambda source: _page(source, source.scored(5)),
}


def reply_to(command: Command, source: Source) -> Any:
    """Return a reply of the form that Redis gives to a command, with contents from the source."""
    if command.script is not None:
        return _reply_of_script(command, source)
    name = str(command.args[0])
    if name in OF_ANY_KEY:
        return OF_ANY_KEY[name](source)
    if source.left and source.number(16) == 0:
        return ErrorReply("WRONGTYPE", "Operation against a key holding the wrong kind of value")
    if name == "HMGET":
        return [source.nil_or_text() for _ in command.args[2:]]
    if name in {"HGET", "GET"}:
        return source.nil_or_text()
    if name in {"XRANGE", "XREVRANGE"}:
        return source.some(source.entry)
    if name == "XREAD":
        keys = [str(key).encode() for key in command.args[command.args.index("STREAMS") + 1 :]]
        found = {key: source.some(source.entry) for key in keys[: len(keys) // 2]}
        return found if source.number(2) else [[key, entries] for key, entries in found.items()] or None
    if name in {"ZRANGE", "ZREVRANGE", "ZRANGEBYSCORE"}:
        return source.scored(4)
    if name in OF_ALL_KINDS:
        return OF_ALL_KINDS[name](source)
    if name == "INFO":
        if source.number(4) == 3:
            return ErrorReply("NOPERM", "this user has no permissions to run the 'info' command")
        return b"redis_version:" + source.text() + b"." + source.text()
    raise AssertionError(f"reply_to has no reply for {name}")


def _count(command: Command, source: Source) -> list[Any]:
    counts = [part for _ in range(3) for part in (source.text(), source.number(3))]
    queues = [[source.number(3), source.number(3), (b"", b"5", b"1700000000000")[source.number(3)]] for _ in range(2)]
    return [source.number(2), *counts, *(source.number(3) for _ in range(2)), source.number(2), 5, queues]


def _find_due(command: Command, source: Source) -> list[Any]:
    places = len(command.keys) // 2
    wrong = source.some(lambda: [1 + source.number(places), source.text(), (3, b"queue", b"queues")[source.number(3)]])
    found = source.some(lambda: [1 + source.number(places), source.text(), b"%d" % source.number(9)])
    ahead = source.some(lambda: 1 + source.number(places))
    return [5, (b"", b"9", b"1700000000000")[source.number(3)], wrong, ahead, found]


def _claim(command: Command, source: Source) -> list[Any]:
    outcomes = ([1700000000000000, 1], b"GONE", b"PARKED", b"ENDED", b"DAMAGED lease", b"WRONGTYPE Operation")
    return [outcomes[source.number(len(outcomes))] for _ in range(len(command.keys) // 6)]


def _find_where(command: Command, source: Source) -> list[Any]:
    unknown = source.some(source.text) if source.number(3) == 0 else []
    reply = [source.number(9), source.number(9), len(unknown), *unknown]
    while not unknown and source.left and source.number(3):
        entries = source.some(source.entry)
        backs = (b"", b"0", b"0,2", b"7")[source.number(4)]
        reply += (source.number(9), b"%d" % source.number(9), backs, source.text(), len(entries))
        for entry_id, fields in entries:
            reply += (entry_id, *fields[:2], b"")
    return reply


def _found(command: Command, source: Source) -> list[Any]:
    """Return what the script that finds commits by their tags replies."""
    found: list[Any] = []
    for _ in range(source.number(4)):
        entries = [source.entry() for _ in range(1 + source.number(2))]
        found += [source.text() + b"\0%016d" % source.number(9), len(entries)]
        found += [part for entry_id, fields in entries for part in (entry_id, *fields[:2], source.text())]
    return [(b"", b"5", b"5", b"5", b"9")[source.number(5)], source.nil_or_text() or b"", source.number(2), *found]


# Replies of scripts that are arrays.
STRUCTURED: dict[str, Callable[[Command, Source], Any]] = {
    "append_all": lambda command, source: [(b"3-5", b"3-5 7", source.number(9))[source.number(3)] for _ in range(2)],
    "claim": _claim,
    "count": _count,
    "find": _found,
    "find_due": _find_due,
    "find_where": _find_where,
    "index_tags": lambda command, source: [source.text(), source.number(9), source.number(3)],
    "review_tags": lambda command, source: [1, *range(source.number(2))],
    "list": lambda command, source: [1 + source.number(50), source.scored(40), source.some(source.text)],
    "send": lambda command, source: [b"5-0"] if source.number(2) else None,
}


def _reply_of_script(command: Command, source: Source) -> Any:
    assert command.script is not None
    name = command.script.name
    if source.left and source.number(3) == 0:
        return _refusal(command, REFUSALS.get(name, ()), source)
    if name == "make_namespace":
        return [b"2", b"1", b"0"] if source.number(4) else [source.text(), source.text(), source.text()]
    if name == "import_begin":
        return [source.nil_or_text(), source.nil_or_text()]
    if name in STRUCTURED:
        return STRUCTURED[name](command, source)
    if name == "append" and source.number(2):
        return b"%d-5" % source.number(1000)
    if name in NIL and source.number(2):
        return None
    return source.number(1000)


def _refusal(command: Command, codes: Sequence[str], source: Source) -> Any:
    assert command.script is not None
    codes = (*codes, *FOR_ALL)
    if command.script.name == "append" and command.args[4]:
        codes = (*codes, "CURSOR_CONFLICT")
    code = codes[source.number(len(codes))]
    if command.script.name == "append_all" and "w" in str(command.args[1]):
        codes = (*codes, "CONDITION_FAILED", "SEARCH_ON")
    count, text = b"%d" % source.number(9), source.text()
    message = {"CURSOR_CONFLICT": count, "LEASE_HELD": count + b" " + text}.get(code, text)
    if code.startswith("SNAPSHOT_") or code in {"CONDITION_FAILED", "SEARCH_ON"}:
        message = count
    return ErrorReply(code, message.decode(errors="replace"))  # hiredis decodes it like this


def new_context() -> Context:
    return Context(Keys("fuzz", 1), CODECS[0])


def run(operation: Operation[Any], source: Source) -> Any:
    """Run an operation with replies from the source."""
    answered: Any = None
    try:
        for _ in range(MOST_ROUNDS):
            effect = operation.send(answered)
            if isinstance(effect, Begin):
                answered = effect  # it stands for the reply that is on its way
                continue
            batch = effect.in_flight.batch if isinstance(effect, Await) else effect  # type: ignore[attr-defined]
            assert isinstance(batch, Batch)
            answered = [reply_to(command, source) for command in batch.commands]
    except StopIteration as stop:
        return stop.value
    raise AssertionError("an operation is in an endless loop")


def _pages(reader: Any, source: Source, most: int | None = None) -> None:
    run(reader.open(), source)
    for _ in itertools.count() if most is None else range(most):
        if not run(reader.next_page(), source) and most is None:
            return


def _tail(context: Context, source: Source) -> None:
    _pages(tailing.Tailer(context, {"w": 0, "v": 2}), source, most=5)


def _watch(context: Context, source: Source) -> None:
    for watcher in (watching.Watcher(context), watching.FeedWatcher(context)):
        run(watcher.open(), source)
        for _ in range(3):
            run(watcher.look(), source)


def _verify(context: Context, source: Source, workflow_ids: list[str] | None, *, repair: bool = False) -> None:
    verifier = verifying.Verifier(context, workflow_ids, repair=repair)
    run(verifier.open(), source)
    while run(verifier.next_part(), source) is not None:
        pass


def _import(context: Context, source: Source) -> None:
    """Import records of the right kinds, with arbitrary contents."""
    importer = importing.Importer(context)
    run(importer.take(["archive", 1, "fuzz"]), source)
    kinds = ("workflow", "snapshot", "log", "commits", "refs", "entries", "done", "fact", "end")
    likely: list[Any] = [None, 1, "w", b"1", [], {}, True, {"created": b"1"}, [[b"1-1", [b"h", b"p", b"i", b"d"]]]]
    while source.left:
        parts = [
            likely[source.number(len(likely))] if source.number(4) else source.text() for _ in range(source.number(5))
        ]
        attempt(lambda record: run(importer.take(record), source), [kinds[source.number(len(kinds))], *parts])


LEASE = leasing.Lease("w", "me", 5, 30.0)


class _Ticks:
    """A clock that a second passes on at each look."""

    def __init__(self) -> None:
        self._count = itertools.count()

    def __call__(self) -> float:
        return float(next(self._count))


def _claim_of(context: Context) -> Claim:
    return Claim(context, "me", 5, queues=["default", "other"], ttl=30.0, max_attempts=3)


def _with_index(context: Context) -> Context:
    """Return a context whose namespace has an index of all tags."""
    return replace(context, keys=replace(context.keys, has_feed=True))


def _check_index(context: Context, source: Source) -> None:
    for step in index_check.IndexCheck(_with_index(context), ["w"], repair=True).steps():
        run(step, source)


def _group() -> list[groups.Append]:
    return [groups.Append("w", [{}], lease=LEASE), groups.Append("v", [{}], queue="other")]


OPERATIONS: dict[str, Callable[[Context, Source], Any]] = {
    "open": lambda context, source: run(settings.open_namespace(context), source),
    "append": lambda context, source: run(appending.append(context, "w", [{}], lease=LEASE), source),
    "append_many": lambda context, source: run(appending.append_many(context, [("w", [{}]), ("v", [{}])]), source),
    "expecting": lambda context, source: run(appending.append(context, "w", [{}], expected_cursor=3), source),
    "stream": lambda context, source: _pages(reading.Reader(context, "w"), source),
    "part": lambda context, source: _pages(reading.Reader(context, "w", after=1, until=4), source),
    "records": lambda context, source: _pages(reading.Reader(context, "w", records=True), source),
    "reverse": lambda context, source: _pages(reading.Reader(context, "w", until=3, reverse=True), source),
    "tail": _tail,
    "tagged": lambda context, source: run(
        appending.append(context, "w", [{}], life=life.Life(tags=["a", "b"])), source
    ),
    "find": lambda context, source: run(finding.find(context, "w", prefix="a"), source),
    "find the last": lambda context, source: run(finding.find(context, "w", tag="a", reverse=True, limit=3), source),
    "list tags": lambda context, source: run(finding.list_tags(context, "w"), source),
    "cursor": lambda context, source: run(reading.cursor(context, "w"), source),
    "save_snapshot": lambda context, source: run(snapshots.save_snapshot(context, "w", 1, b"", LEASE), source),
    "load_snapshot": lambda context, source: run(snapshots.load_snapshot(context, "w"), source),
    "trim": lambda context, source: run(snapshots.trim(context, "w", 0, LEASE), source),
    "save_fact": lambda context, source: run(facts.save_fact(context, "h", 1), source),
    "load_facts": lambda context, source: run(facts.load_facts(context, ["h", "g"]), source),
    "save": lambda context, source: run(workflows.save(context, "w", [{}], LEASE), source),
    "load": lambda context, source: run(workflows.load(context, "w"), source),
    "exists": lambda context, source: run(workflows.exists(context, "w"), source),
    "delete": lambda context, source: run(workflows.delete(context, ["w", "v"]), source),
    "list": lambda context, source: _pages(listing.Listing(context), source),
    "acquire": lambda context, source: run(leasing.acquire(context, "w", "me", 30.0), source),
    "claim": lambda context, source: run(_claim_of(context).look(), source),
    "renew": lambda context, source: run(leasing.renew(context, LEASE), source),
    "release": lambda context, source: run(leasing.release(context, LEASE), source),
    "complete": lambda context, source: run(queueing.complete(context, "w", LEASE), source),
    "park": lambda context, source: run(queueing.park(context, LEASE, "why"), source),
    "unpark": lambda context, source: run(queueing.unpark(context, "w", 5.0), source),
    "sleep": lambda context, source: run(timers.sleep(context, LEASE, 5.0, "name"), source),
    "timer": lambda context, source: run(timers.load_timer(context, "w"), source),
    "send": lambda context, source: run(messages.send(context, "w", {}), source),
    "inbox": lambda context, source: run(messages.read_inbox(context, "w", 1.0, _Ticks()), source),
    "append_all": lambda context, source: run(groups.append_all(context, _group()), source),
    "append_all, details": lambda context, source: run(
        groups.append_all(context, _group(), tracking.Tracking("orders", 3), details=True), source
    ),
    "tracking": lambda context, source: run(tracking.stored_position(context, "orders"), source),
    "append_all unless": lambda context, source: run(
        groups.append_all(_with_index(context), _group(), unless=[["a"], ["b", "c"]], after=1), source
    ),
    "read_where": lambda context, source: run(queries.read_where(_with_index(context), [["a"], ["b"]]), source),
    "read_where all": lambda context, source: run(queries.read_where(_with_index(context), [[]]), source),
    "verify the index": _check_index,
    "read_many": lambda context, source: run(
        reading_many.read_many(context, [("w", 0, None), ("v", 1, 2)], facts=True), source
    ),
    "expire": lambda context, source: run(lifetimes.expire(context, "w", 5.0, sliding=True), source),
    "persist": lambda context, source: run(lifetimes.persist(context, "w"), source),
    "describe": lambda context, source: run(describing.describe(context, ["w", "v"]), source),
    "recent commits": lambda context, source: run(describing.recent_commits(context, "w", 9), source),
    "count events": lambda context, source: run(describing.count_events(context, ["w", "v"]), source),
    "count states": lambda context, source: run(counting.count_states(context), source),
    "watch": _watch,
    "verify": lambda context, source: _verify(context, source, ["w", "v"]),
    "verify and repair": lambda context, source: _verify(context, source, ["w"], repair=True),
    "verify all": lambda context, source: _verify(context, source, None, repair=True),
    "export": lambda context, source: run(exporting.Exporter(context, ["w"]).run(msgpack.packb), source),
    "export all": lambda context, source: run(exporting.Exporter(context).run(msgpack.packb), source),
    "import": _import,
}


def operation(data: bytes) -> None:
    names = list(OPERATIONS)
    attempt(OPERATIONS[names[data[0] % len(names)] if data else "cursor"], new_context(), Source(data[1:]))


TARGETS: dict[str, Target] = {
    "entry": entry,
    "rows": rows,
    "header": header,
    "envelope": envelope,
    "log": log,
    "metadata": metadata,
    "state": state,
    "fact": fact,
    "commit": commit,
    "operation": operation,
}


def seeds(name: str) -> Iterator[bytes]:
    """Yield valid bytes for a target to start from."""
    codec = CODECS[0]
    for number, events in enumerate([*([event] for event in EVENTS), EVENTS]):
        (one,) = codec.encode_commit(events)
        plain = decompress(one.payload)
        event = events[0]
        value = codec.encode_state(event)
        yield {
            "entry": join(one.header, one.payload),
            "rows": bytes([number]) + plain,
            "header": one.header,
            "envelope": b"\x01" + _compressed(plain),
            "log": codec.encode_log(EVENTS[number:]),
            "metadata": codec.encode_metadata({"event": event}),
            "state": value,
            "fact": codec.encode_fact(b"h", event) if number % 2 else value,
            "commit": bytes(range(64)) + plain,
            "operation": bytes([number]) + bytes(range(200)) + plain,
        }[name]


def _compressed(plain: bytes) -> bytes:
    return compress(plain + bytes(2000))[1:]
