"""Opening and creating a namespace: checks of the server, and of the namespace's settings."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeVar

from runic_redis.arguments import MAX_PARTITIONS, is_cursor
from runic_redis.context import Context
from runic_redis.durability import Durability
from runic_redis.errors import ConfigurationError, DecodeError
from runic_redis.operations.confirming import prepare_durability
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, Unanswered, call_script, key_command
from runic_redis.protocol.refusals import ask, ask_all, not_allowed, unreachable

T = TypeVar("T")
_log = logging.getLogger("runic_redis")

# The version of the data format, docs/data-format.md.
FORMAT = 2
OLDEST_SERVER = (6, 2)
SETTINGS = ("format", "partitions", "feed")


# The warnings that this process has logged, each with the URL and the namespace of its store.
_warned: set[tuple[str, str, str]] = set()


def open_namespace(context: Context) -> Operation[None]:
    """Check the server and the namespace without a write. Log a warning for each setting that endangers data.

    A process logs each warning once for each URL and namespace.

    Raises:
        ConfigurationError: the server is too old, has no scripts, or cannot confirm the durability asked for; or the
            namespace was created with other settings.
        StoreUnavailable: the server did not reply within the deadline.
    """
    # An argument is missing on purpose. A server checks that before the user's permissions, and runs nothing.
    scripts = Command(("EVAL", "return 1"), context.keys.config)
    info = Command(("INFO",), context.keys.config)
    replies = yield Batch((info, *_read_settings(context), scripts))
    for reply in replies:
        if isinstance(reply, Unanswered):
            raise unreachable(reply)
    server, found, copy, ran = replies
    about = parse_info(server) if not isinstance(server, ErrorReply) else (yield from _role(context.keys.config))
    _check_version(about)
    _check_scripts(ran)
    context.slots_matter = context.many_nodes
    context.at_replica = about.get("role") == "slave"
    for key, reply in ((context.keys.config, found), (context.keys.config_copy, copy)):
        if isinstance(reply, ErrorReply):
            advice = not_allowed(reply) or "If another application uses this key, choose another namespace."
            raise ConfigurationError(
                f"The settings of the namespace {context.keys.namespace!r}, at the key {key!r}, cannot be read: "
                f"{reply.text}. Nothing was changed. {advice}"
            )
    yield from _take_settings(context, found, copy)
    # From now on, operations rely on the number.
    context.any_partitions = False
    if context.durability != "memory":
        yield from prepare_durability(context, context.durability)
    for danger in _dangers(about, context.durability):
        warning = (danger, context.url, context.keys.namespace)
        if warning not in _warned:
            _warned.add(warning)
            _log.warning("%s (store %s, namespace %r)", *warning)


def with_settings(context: Context, operation: Operation[T]) -> Operation[T]:
    """Run an operation in a namespace that did not exist when the store was opened.

    Another store may have created it since, with other settings. This store would then silently read nothing. The
    checks of the operation come first, so bad input still sends nothing. Only a store that takes a feed as it finds it
    reads the settings before: the names of the keys depend on it.

    Raises:
        ConfigurationError: the namespace was created with other settings.
    """
    try:
        effect = None if context.any_feed else next(operation)
        yield from _take_settings(context, *(yield from ask_all(_read_settings(context))))
        effect = effect or next(operation)
        while True:
            effect = operation.send((yield effect))
    except StopIteration as stop:
        result: T = stop.value
        return result


def _read_settings(context: Context) -> list[Command]:
    """Return the commands that read the namespace's settings, and their copy."""
    return [key_command("HMGET", key, *SETTINGS) for key in (context.keys.config, context.keys.config_copy)]


def _take_settings(context: Context, found: list[bytes | None], copy: list[bytes | None]) -> Operation[None]:
    if any(copy) and not any(found):
        # Another store may have created both between the two reads.
        found, copy = yield from ask_all(_read_settings(context))
    if any(found):
        _check_settings(context, found)
        context.made = True
    elif any(copy):
        _log.warning(
            "The settings of the namespace %r, at the key %r, are lost. The store uses their copy, and its first write "
            "restores them.",
            context.keys.namespace,
            context.keys.config,
        )
        _check_settings(context, copy)


def make_namespace(context: Context) -> Operation[None]:
    """Create the namespace, unless it is known to exist: the first step of every write.

    Raises:
        ConfigurationError: it was created with other settings.
    """
    if context.made:
        return
    keys = context.keys
    settings = yield from ask_all(_read_settings(context))
    yield from _take_settings(context, *settings)
    context.made = False
    for config in (keys.config, keys.config_copy):
        found = yield from ask(make_call(context, config))
        _check_settings(context, found)
    yield from _make_partitions(context)
    context.made = True


def remake_namespace(context: Context) -> Operation[None]:
    """Create the namespace again, which was deleted or flushed while this store had it open.

    If another store has created it again with other partitions, this store uses these from now on.
    """
    (data_format, partitions, feed), _ = yield from ask_all(_read_settings(context))
    is_known = data_format == str(FORMAT).encode() and partitions is not None and is_cursor(partitions)
    has_feed = feed == b"1"
    if is_known and int(partitions) and (int(partitions), has_feed) != (context.keys.partitions, context.keys.has_feed):
        context.keys = replace(context.keys, partitions=int(partitions), has_feed=has_feed)
        context.made = True
        return
    context.made = False
    yield from make_namespace(context)


def make_call(context: Context, config: str) -> Command:
    """Return the call that creates the namespace's settings, or their copy, unless they exist."""
    keys = context.keys
    days = "" if context.feed_days is None else f"{context.feed_days:g}"
    return call_script("make_namespace", [config], [str(FORMAT), str(keys.partitions), str(int(keys.has_feed)), days])


def _make_partitions(context: Context) -> Operation[None]:
    """Mark the partitions as made, for the scripts. A partition that was lost is not marked.

    So the counts of a marked partition are right: `claim` relies on that.

    Raises:
        DecodeError: a partition's hash is lost.
    """
    keys = context.keys
    hashes = [keys.partition(number) for number in keys.partition_numbers()]
    counts = yield from ask_all([count_call(context, number) for number in keys.partition_numbers()])
    new: list[str] = []
    lost: list[tuple[str, int]] = []
    for key, reply in zip(hashes, counts, strict=True):
        of_it = PartitionCounts(*reply)
        if not of_it.made and of_it.agree:
            new.append(key)
        elif not of_it.made:
            lost.append((key, of_it.indexed))
    yield from ask_all([key_command("HSETNX", key, "made", "1") for key in new])
    for key, indexed in lost:
        raise DecodeError(
            f"The hash of a partition, at the key {key!r}, is lost, and {indexed} workflows are in the partition. "
            "Nothing was written. runic-redis verify --repair restores it."
        )


class PartitionCounts(NamedTuple):
    """The reply of lua/count.lua: each count as the partition's hash has it, then the size of the sorted set.

    Attributes:
        made: whether the partition was made.
        workflows: how many workflows it counts.
        indexed: how many are in the index.
        parked: how many parked workflows it counts.
        away: how many are in the set of these.
        completed: how many completed workflows it counts.
        done: how many are in the set of these.
        queued: how many are in queues, as these are counted.
        running: with "states", how many leases run.
        was_set_back: 1 if a lease was given at a later time than now, by the server's clock; else 0.
        time_ms: the server's time, in milliseconds since 1970.
        by_queue: with "states", for each queue that the call names, how many workflows it has, how many of these are
            leased, and when the first one is due, in milliseconds since 1970, or nothing.
    """

    made: int
    workflows: bytes
    indexed: int
    parked: bytes
    away: int
    completed: bytes
    done: int
    queued: int
    running: int
    was_set_back: int
    time_ms: int
    by_queue: list[tuple[int, int, bytes]]

    @property
    def open(self) -> int:
        """How many workflows never were in a queue."""
        return self.indexed - self.queued - self.away - self.done

    @property
    def agree(self) -> bool:
        """Whether the counts are the sizes of the sets."""
        sizes = (self.indexed, self.away, self.done)
        return [self.workflows, self.parked, self.completed] == [b"%d" % size for size in sizes]


def count_call(
    context: Context, number: int, mode: Literal["", "repair", "states"] = "", queues: Iterable[str] = ()
) -> Command:
    """Return the call that counts a partition's workflows.

    Args:
        context: the store's.
        number: the partition.
        mode: "repair" to store the counts, and a position that is lost; "states" to count also those that depend on
            the time.
        queues: the names of the queues whose counts to repair, too; or with "states", to count one by one.
    """
    keys = context.keys
    sets = [keys.index(number), keys.parked_workflows(number), keys.completed(number)]
    feed = keys.feed(number) if keys.has_feed else keys.index(number)
    return call_script(
        "count",
        [
            *(keys.partition(number), *sets, feed, keys.queues(number), keys.leases(number)),
            *(keys.queue(number, name) for name in queues),
        ],
        [mode],
    )


def parse_info(info: str | bytes) -> dict[str, str]:
    """Return the fields of a server's INFO."""
    text = info if isinstance(info, str) else info.decode(errors="replace")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _role(config: str) -> Operation[dict[str, str]]:
    """Return the field of INFO that a user without INFO can read. An old server will reject the first write."""
    (reply,) = yield Batch([Command(("ROLE",), config)])
    if isinstance(reply, ErrorReply | Unanswered):
        return {}
    role = reply[0]
    return {"role": role if isinstance(role, str) else role.decode(errors="replace")}


def _check_scripts(reply: Any) -> None:
    if isinstance(reply, ErrorReply) and reply.says_unknown("EVAL"):
        raise ConfigurationError(
            "Scripts are required: every write of a store is a Lua script, and this server, or a proxy before it, "
            f"rejects EVAL ({reply.code} {reply.message.partition(', with args')[0]}). Nothing was changed. Enable "
            "EVAL there, or use another server."
        )


def _check_version(about: Mapping[str, str]) -> None:
    version = about.get("redis_version", "")
    match = re.match(r"(\d{1,9})\.(\d{1,9})", version)
    if match and (int(match[1]), int(match[2])) < OLDEST_SERVER:
        raise ConfigurationError(
            f"The server is Redis {version}, and the store needs Redis 6.2 or Valkey 7.2 or later. "
            "Nothing was changed. Upgrade it, or use embedded:// (pip install 'runic-redis[embedded]')."
        )


def _dangers(about: Mapping[str, str], durability: Durability) -> Iterator[str]:
    """Yield a warning for each setting of the server that may lose acknowledged writes."""
    if about.get("role") == "slave":
        yield (
            "The server is a replica. It rejects writes or, with replica-read-only no, loses them when it next copies "
            "its primary. Use the address of the primary, or redis+sentinel:// or redis+cluster://, which find it."
        )
    if durability == "memory" and about.get("aof_enabled") == "0":
        yield (
            "The server keeps no append-only file: when it ends, writes that it acknowledged since its last RDB file, "
            "if it has any, are lost. Set appendonly yes, or use durability replicated(n)."
        )
    policy = about.get("maxmemory_policy", "noeviction")
    if about.get("maxmemory", "0") != "0" and policy != "noeviction":
        whose = "any key" if policy.startswith("allkeys") else "keys of workflows that expire"
        yield (
            f"The server's maxmemory-policy is {policy}: when its memory is full, it silently drops {whose}, and "
            "events with them. Set maxmemory-policy noeviction, which rejects writes instead."
        )


def _check_settings(context: Context, found: list[bytes | None]) -> None:
    name = context.keys.namespace
    if not all(value is not None and is_cursor(value) for value in found):
        raise ConfigurationError(
            f"The settings of the namespace {name!r}, at the key {context.keys.config!r}, are damaged: {found!r:.100}. "
            "Nothing was written. Restore the key from a backup."
        )
    data_format, partitions, feed = (int(value or b"") for value in found)
    if data_format != FORMAT:
        raise ConfigurationError(
            f"The namespace {name!r} has the data format {data_format}, and this version of runic_redis uses format "
            f"{FORMAT}. Nothing was written. Use the version that made it, or another namespace."
        )
    if context.any_partitions and 1 <= partitions <= MAX_PARTITIONS and partitions != context.keys.partitions:
        context.keys = replace(context.keys, partitions=partitions)
    if context.any_feed and bool(feed) != context.keys.has_feed:
        context.keys = replace(context.keys, has_feed=bool(feed))
    if bool(feed) != context.keys.has_feed:
        raise ConfigurationError(
            f"The namespace {name!r} was made with feed={bool(feed)}, and this store asks for "
            f"feed={context.keys.has_feed}. Nothing was written. Leave the argument out, or use another namespace."
        )
    if partitions != context.keys.partitions:
        raise ConfigurationError(
            f"The namespace {name!r} was made with partitions={partitions}, and this store asks for "
            f"partitions={context.keys.partitions}. Nothing was written. Pass partitions={partitions}, or use another "
            "namespace."
        )
