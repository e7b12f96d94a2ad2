"""What of a server's settings and state matters to a store that is kept there, and what should be changed."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from runic_redis.admin.keyspace import find_key
from runic_redis.context import Context
from runic_redis.operations.settings import parse_info
from runic_redis.protocol.effects import Batch, Command, ErrorReply, Operation
from runic_redis.protocol.refusals import answer
from runic_redis.protocol.resp import pairs

__all__ = ["RESTORE_SETTINGS", "Check", "Verdict", "examine"]

Verdict = Literal["good", "warning", "bad", "unknown"]
# Of the memory that a server may use, from which share on it is nearly full.
_NEARLY_FULL = 0.8
_SETTINGS = ("appendfsync", "no-appendfsync-on-rewrite", "min-replicas-to-write", "requirepass")


RESTORE_SETTINGS = (
    "Restore that key before anything is written, from a backup or by HSET: format 1, and partitions as many as the "
    "namespace was made with."
)


class Check(NamedTuple):
    """Something that was looked at.

    Attributes:
        name: what.
        verdict: how it is: "good"; "warning", it may lose something or stop some day; "bad", it does; or "unknown".
        found: what was found.
        advice: what to change; empty if nothing.
    """

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(context: Context) -> Operation[list[Check]]:
    """Look at the server: in a cluster, at one of the nodes."""
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
    namespace = yield from _namespace(context)
    about_user = _user("" if isinstance(user, ErrorReply) else _text(user), known)
    if isinstance(info, ErrorReply):
        refused = Check("server", "unknown", f"INFO is refused: {info.message}", "Allow the user +info, for this.")
        return [refused, namespace, about_user]
    about = parse_info(info)
    return [
        _server(about),
        namespace,
        *_persistence(about, known),
        _memory(about),
        _eviction(about),
        *_replicas(about, known),
        about_user,
    ]


def _server(about: Mapping[str, str]) -> Check:
    version = about.get("valkey_version") or about.get("redis_version", "?")
    name = "Valkey" if "valkey_version" in about else "Redis"
    found = f"{name} {version}, {about.get('redis_mode', 'standalone')}, {about.get('role', 'master')}"
    if about.get("role") == "slave":
        return Check("server", "bad", found, "This is a replica, which takes no writes: connect to its primary.")
    if about.get("loading") == "1":
        return Check("server", "warning", f"{found}, reading its files", "Wait until it has.")
    return Check("server", "good", found)


def _namespace(context: Context) -> Operation[Check]:
    name = context.keys.namespace
    if not context.made:
        if key := (yield from find_key(context)):
            found = f"its settings are lost: there is {key!r}, and nothing at {context.keys.config!r}"
            return Check("namespace", "bad", found, RESTORE_SETTINGS)
        return Check("namespace", "warning", f"there is no namespace {name!r} yet", "The first write makes it.")
    return Check("namespace", "good", f"{name!r}, in {context.keys.partitions} partitions")


def _persistence(about: Mapping[str, str], known: Mapping[str, str]) -> Iterator[Check]:
    if about.get("aof_enabled") != "1":
        yield Check(
            "persistence",
            "bad",
            "no append-only file: when the server ends, what was written since its last RDB file is lost",
            "CONFIG SET appendonly yes, and in its configuration file.",
        )
        return
    fsync = known.get("appendfsync")
    if fsync is None:
        yield Check("persistence", "good", "an append-only file; how often it is synced this user may not ask")
    elif fsync == "no":
        yield Check(
            "persistence",
            "warning",
            "an append-only file that is synced when the system likes: half a minute's writes, perhaps",
            "CONFIG SET appendfsync everysec, or always.",
        )
    else:
        yield Check("persistence", "good", f"an append-only file, synced {fsync}")
    if about.get("aof_last_write_status", "ok") != "ok":
        yield Check(
            "disk", "bad", "the last write of the append-only file has failed", "Make room, or repair the disk."
        )
    if about.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield Check(
            "rewrite", "warning", "the last rewrite of the append-only file has failed", "See the server's log."
        )


def _memory(about: Mapping[str, str]) -> Check:
    used, most = int(about.get("used_memory", 0)), int(about.get("maxmemory", 0))
    mib = 1024 * 1024
    if not most:
        return Check(
            "memory",
            "warning",
            f"{used // mib} MiB used, and no maxmemory: when the machine's is full, the system ends the server",
            "Set maxmemory to what the machine can spare.",
        )
    found = f"{used // mib} of {most // mib} MiB used"
    if used >= _NEARLY_FULL * most:
        return Check(
            "memory", "warning", found, "Trim, complete and expire workflows, collect facts, or raise maxmemory."
        )
    return Check("memory", "good", found)


def _eviction(about: Mapping[str, str]) -> Check:
    policy = about.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return Check("eviction", "good", "none: a full server refuses writes")
    whose = "any key" if policy.startswith("allkeys") else "keys of workflows that expire"
    verdict: Verdict = "bad" if about.get("maxmemory", "0") != "0" else "warning"
    return Check(
        "eviction",
        verdict,
        f"{policy}: a full server drops {whose}, and with it events",
        "CONFIG SET maxmemory-policy noeviction.",
    )


def _replicas(about: Mapping[str, str], known: Mapping[str, str]) -> Iterator[Check]:
    lines = [about[name] for name in sorted(about) if name.startswith("slave") and "state=" in about[name]]
    online = sum("state=online" in line for line in lines)
    if not lines:
        yield Check(
            "replicas", "warning", "none: what the server has, it alone has", "Add a replica, for replicated(1)."
        )
        return
    behind = len(lines) - online
    verdict: Verdict = "warning" if behind else "good"
    yield Check("replicas", verdict, f"{online} online" + (f", {behind} not yet" if behind else ""))
    if known.get("min-replicas-to-write") == "0":
        yield Check(
            "split brain",
            "warning",
            "a primary that was replaced takes writes until it knows; with durability memory they are then lost",
            "Use durability replicated(n), or CONFIG SET min-replicas-to-write 1.",
        )


def _user(name: str, known: Mapping[str, str]) -> Check:
    if not name:
        return Check("user", "good", "one who may not ask who it is")
    if name == "default":
        # Who may read the setting has logged in, or nobody has to.
        if known.get("requirepass") == "":
            return Check(
                "user",
                "warning",
                "default, without a password: whoever reaches the server may do everything",
                "Give the default user a password, or make a user for this namespace with ACL SETUSER.",
            )
        return Check("user", "good", "default, with a password; ACL SETUSER makes users with fewer permissions")
    return Check("user", "good", name)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
