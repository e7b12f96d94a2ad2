"""Examine a server's settings, state and speed as far as they matter to a store, and advise what to change."""

from collections.abc import Callable, Iterator, Mapping
from statistics import median, quantiles
from typing import Any, Literal, NamedTuple

from runic_redis.admin.describing import measure_feed
from runic_redis.admin.keyspace import RESTORE_SETTINGS, find_key
from runic_redis.context import Context
from runic_redis.durability import Durability, replicated
from runic_redis.errors import ConfigurationError, DurabilityError, StoreError, WriteRefused
from runic_redis.operations import workflows
from runic_redis.operations.confirming import durably
from runic_redis.operations.settings import parse_info
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation, key_command
from runic_redis.protocol.refusals import answer, ask, server_us
from runic_redis.protocol.resp import pairs

Verdict = Literal["good", "warning", "bad", "unknown"]
# A server that uses this share of its memory is nearly full.
_NEARLY_FULL = 0.8
_NODE_SETTING = "stream-node-max-bytes"
_SETTINGS = ("appendfsync", "no-appendfsync-on-rewrite", "min-replicas-to-write", "requirepass", _NODE_SETTING)
# A stream begins with a node of that many bytes, and of at most so many. The other keys of a workflow take the rest.
_LARGEST_FIRST_NODE = 4096
_REST_OF_WORKFLOW = 400
# The setting of the embedded server, and the least setting from which this check advises to lower it.
_SMALL_NODE = 640
_LARGE_NODE = 2048
_ROUND_TRIPS = 200
_SLOW_MS = 5.0
_CLOCKS_APART_S = 1.0
_DURABILITIES: dict[str, Durability] = {
    '"fsync"': "fsync",
    "replicated(1)": replicated(1),
    "replicated(1, fsync=True)": replicated(1, fsync=True),
}
# No workflow has this id. Deleting it changes nothing, and the server confirms it like any write.
_ABSENT = "runic-redis doctor"


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        name: the subject.
        verdict: "good", and its advice, if any, depends on the use; "warning", data or availability may be lost some
            day; "bad", it is at risk now; or "unknown".
        found: the state of the subject.
        advice: what to change; empty if nothing.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def doctor(context: Context, clock: Callable[[], float], timer: Callable[[], float]) -> Operation[list[Check]]:
    """Examine the server; in a cluster, one of its nodes. Nothing is stored.

    Args:
        context: the store's.
        clock: returns the caller's time, in seconds since 1970.
        timer: returns a time in seconds that only grows.
    """
    checks = yield from _check_server(context)
    if context.made:
        checks.append((yield from _check_feed(context)))
    checks.append((yield from _check_writing(context)))
    checks.append((yield from _check_latency(context, timer)))
    checks.append((yield from _check_clock(context, clock)))
    for name, durability in _DURABILITIES.items():
        checks.append((yield from _check_durability(context, name, durability, timer)))
    return checks


def _check_server(context: Context) -> Operation[list[Check]]:
    """Read what the server reports of itself, in one round trip."""
    key = context.keys.config
    commands = [
        Command(("INFO",), key),
        Command(("ACL", "WHOAMI"), key),
        *(Command(("CONFIG", "GET", name), key) for name in _SETTINGS),
    ]
    info, user, *settings = [
        reply if isinstance(reply, ErrorReply) else answer(reply, command)
        for reply, command in zip((yield Batch(commands)), commands, strict=True)
    ]
    known = {
        _text(name): _text(value)
        for reply in settings
        if not isinstance(reply, ErrorReply)
        for name, value in pairs(reply)
    }
    namespace = yield from _check_namespace(context)
    about_user = _user("" if isinstance(user, ErrorReply) else _text(user), known)
    if isinstance(info, ErrorReply):
        found = f"INFO is rejected: {info.code} {info.message.partition(', with args')[0]}"
        return [Check("server", "unknown", found, "Give the user +info for this check."), namespace, about_user]
    about = parse_info(info)
    return [
        _server(about),
        namespace,
        *_persistence(about, known),
        _memory(about),
        _small_workflows(known),
        _eviction(about),
        *_replicas(about, known),
        about_user,
    ]


def _server(about: Mapping[str, str]) -> Check:
    version = about.get("valkey_version") or about.get("redis_version", "?")
    name = "Valkey" if "valkey_version" in about else "Redis"
    found = f"{name} {version}, {about.get('redis_mode', 'standalone')}, {about.get('role', 'master')}"
    if about.get("role") == "slave":
        return Check("server", "bad", found, "This is a replica, which rejects writes. Connect to its primary.")
    if about.get("loading") == "1":
        return Check("server", "warning", f"{found}, loading its data", "Wait until it has finished.")
    return Check("server", "good", found)


def _check_namespace(context: Context) -> Operation[Check]:
    name = context.keys.namespace
    if not context.made:
        if key := (yield from find_key(context)):
            found = f"its settings are lost: there is {key!r}, and nothing at {context.keys.config!r}"
            return Check("namespace", "bad", found, RESTORE_SETTINGS)
        return Check("namespace", "warning", f"there is no namespace {name!r} yet", "The first write makes it.")
    return Check("namespace", "good", f"{name!r}, in {context.keys.partitions} partitions")


def _check_feed(context: Context) -> Operation[Check]:
    try:
        size = yield from measure_feed(context)
    except StoreError as error:
        return Check("feed", "bad", "it cannot be read", str(error))
    return Check("feed", "good", "none: followers sample the namespace" if size is None else str(size))


def _persistence(about: Mapping[str, str], known: Mapping[str, str]) -> Iterator[Check]:
    if about.get("aof_enabled") != "1":
        found = "no append-only file: when the server ends, it loses the writes since its last RDB file"
        advice = "CONFIG SET appendonly yes, and set it in the server's configuration file."
        yield Check("persistence", "bad", found, advice)
        return
    fsync = known.get("appendfsync")
    if fsync is None:
        yield Check("persistence", "good", "an append-only file; this user may not read how often it is synced")
    elif fsync == "no":
        found = "an append-only file, synced when the system likes: it may lose the writes of half a minute"
        yield Check("persistence", "warning", found, "CONFIG SET appendfsync everysec, or always.")
    else:
        yield Check("persistence", "good", f"an append-only file, synced {fsync}")
    if about.get("aof_last_write_status", "ok") != "ok":
        yield Check("disk", "bad", "the last write of the append-only file failed", "Make room, or repair the disk.")
    if about.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Check("rewrite", "warning", "the last rewrite of the append-only file failed", "See the server's log.")


def _memory(about: Mapping[str, str]) -> Check:
    used, most = int(about.get("used_memory", 0)), int(about.get("maxmemory", 0))
    mib = 1024 * 1024
    if not most:
        found = f"{used // mib} MiB used, and no maxmemory: when the machine runs out, the system kills the server"
        return Check("memory", "warning", found, "Set maxmemory to what the machine can spare.")
    found = f"{used // mib} of {most // mib} MiB used"
    if used >= _NEARLY_FULL * most:
        advice = "Trim, complete or expire workflows, collect facts, or raise maxmemory."
        return Check("memory", "warning", found, advice)
    return Check("memory", "good", found)


def _small_workflows(known: Mapping[str, str]) -> Check:
    """Tell the memory of a workflow with one event. A setting that suits long workflows is no fault of a server."""
    name, setting = "small workflows", known.get(_NODE_SETTING)
    if setting is None:
        found = f"this user may not read {_NODE_SETTING}; by default a workflow with one event takes about 4.5 kB"
        return Check(name, "good", found)
    node = min(int(setting) or _LARGEST_FIRST_NODE, _LARGEST_FIRST_NODE)
    found = f"a workflow with one event takes about {_kilobytes(node)}, by {_NODE_SETTING} {setting}"
    if node < _LARGE_NODE:
        return Check(name, "good", found)
    advice = (
        f"If most workflows are short, CONFIG SET {_NODE_SETTING} {_SMALL_NODE}: about {_kilobytes(_SMALL_NODE)}. Long "
        "workflows of single events then take up to 40 % more."
    )
    return Check(name, "good", found, advice)


def _kilobytes(node: int) -> str:
    return f"{(node + _REST_OF_WORKFLOW) / 1000:.1f} kB"


def _eviction(about: Mapping[str, str]) -> Check:
    policy = about.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return Check("eviction", "good", "none: a full server rejects writes")
    evicted = "any key" if policy.startswith("allkeys") else "keys of workflows that expire"
    verdict: Verdict = "bad" if about.get("maxmemory", "0") != "0" else "warning"
    found = f"{policy}: a full server evicts {evicted}, and with it events"
    return Check("eviction", verdict, found, "CONFIG SET maxmemory-policy noeviction.")


def _replicas(about: Mapping[str, str], known: Mapping[str, str]) -> Iterator[Check]:
    lines = [about[name] for name in sorted(about) if name.startswith("slave") and "state=" in about[name]]
    online = sum("state=online" in line for line in lines)
    if not lines:
        found = "none: no other server has a copy of the data"
        yield Check("replicas", "warning", found, "Add a replica, for replicated(1).")
        return
    behind = len(lines) - online
    verdict: Verdict = "warning" if behind else "good"
    yield Check("replicas", verdict, f"{online} online" + (f", {behind} not yet" if behind else ""))
    if known.get("min-replicas-to-write") == "0":
        found = "a replaced primary accepts writes until it notices; with durability memory they are then lost"
        advice = "Use durability replicated(n), or CONFIG SET min-replicas-to-write 1."
        yield Check("split brain", "warning", found, advice)


def _user(name: str, known: Mapping[str, str]) -> Check:
    if not name:
        return Check("user", "good", "this user may not ask for its name")
    if name == "default":
        # A user who can read this setting has logged in, or no login is needed.
        if known.get("requirepass") == "":
            found = "default, without a password: anyone who reaches the server has all rights"
            advice = "Give the default user a password, or make a user for this namespace with ACL SETUSER."
            return Check("user", "warning", found, advice)
        return Check("user", "good", "default, with a password; ACL SETUSER makes users with fewer permissions")
    return Check("user", "good", name)


def _check_writing(context: Context) -> Operation[Check]:
    """Try a plain write and a script, neither of which changes anything: every write of a store is a script."""
    key = context.keys.workflow(_ABSENT).index
    try:
        yield from ask(key_command("ZADD", key, "XX", "0", _ABSENT))
        yield from workflows.delete(context, [_ABSENT])
    except StoreError as error:
        return Check("writing", "bad", "the server rejects a write that changes nothing", str(error))
    return Check("writing", "good", "the server accepts writes")


def _check_latency(context: Context, timer: Callable[[], float]) -> Operation[Check]:
    key = context.keys.config
    took_ms = []
    for _ in range(_ROUND_TRIPS):
        began_s = timer()
        yield from ask(key_command("HGET", key, "format"))
        took_ms.append((timer() - began_s) * 1000)
    usual, nearly_all = median(took_ms), quantiles(took_ms, n=100)[98]
    found = f"{usual:.2f} ms a round trip, 99 of 100 within {nearly_all:.2f} ms, the longest {max(took_ms):.1f} ms"
    if nearly_all > _SLOW_MS:
        advice = "Each append takes at least one round trip: move nearer to the server, or see LATENCY DOCTOR."
        return Check("latency", "warning", found, advice)
    return Check("latency", "good", found)


def _check_clock(context: Context, clock: Callable[[], float]) -> Operation[Check]:
    try:
        now_us = yield from server_us(context.keys.config)
    except ConfigurationError:
        return Check("clock", "unknown", "TIME is rejected", "Give the user +time for this check.")
    apart_s = now_us / 1e6 - clock()
    found = f"the server's clock is {abs(apart_s):.2f} s {'ahead' if apart_s > 0 else 'behind'}"
    if abs(apart_s) > _CLOCKS_APART_S:
        advice = "Times of commits and leases are the server's. Set both clocks by NTP."
        return Check("clock", "warning", found, advice)
    return Check("clock", "good", found)


def _check_durability(
    context: Context, name: str, durability: Durability, timer: Callable[[], float]
) -> Operation[Check]:
    """Have the server confirm a write that changes nothing."""
    began_s = timer()
    try:
        yield from durably(context, workflows.delete(context, [_ABSENT]), durability)
    except DurabilityError as error:
        found = f"not confirmed within {timer() - began_s:.0f} s"
        # Without an append-only file the server would have rejected it; without a replica it waits for one.
        if durability == "fsync":
            return Check(name, "bad", found, str(error))
        needs = "that syncs its append-only file" if durability == replicated(1, fsync=True) else "that keeps up"
        return Check(name, "unknown", found, f"Give the server a replica {needs}, or use another durability.")
    except WriteRefused as error:
        return Check(name, "bad", "the server rejects writes", str(error))
    except StoreError as error:
        # The name says which durability, so that only the remedy is left to say.
        return Check(name, "unknown", "not available on this server", str(error).rpartition("Nothing was written. ")[2])
    return Check(name, "good", f"confirmed in {(timer() - began_s) * 1000:.1f} ms")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
