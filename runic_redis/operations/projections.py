"""Projections in the store: their leases, and their states with their positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote

from runic_redis.arguments import check_data, check_name
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidArgument, LeaseHeld, LeaseLost
from runic_redis.operations.confirming import durably
from runic_redis.operations.feed_starts import require_feed
from runic_redis.operations.records import EPOCH, read_cursor
from runic_redis.operations.settings import make_namespace
from runic_redis.operations.subscriptions import Settings, check_same, read_settings
from runic_redis.positions import Positions
from runic_redis.protocol.effects import (
    Argument,
    Batch,
    Command,
    ErrorReply,
    Operation,
    call_script,
    key_command,
    own_id,
)
from runic_redis.protocol.refusals import ask, checked

_WHAT = "The name of a projection"


@dataclass(frozen=True, slots=True)
class SavedProjection:
    """The saved state of a projection.

    Attributes:
        state: the state.
        positions: the positions in the feed up to which it has the commits.
        version: the version of the projection that saved it.
        time: when it was saved, by the server's clock.
    """

    state: Any
    positions: Positions
    version: int
    time: datetime


class Runner(NamedTuple):
    """A runner of a projection: its name, its version, and the fencing token of the lease."""

    name: str
    version: int
    token: int


class Saved(NamedTuple):
    """One save of a projection.

    Attributes:
        number: the number of the save; 0 if there was none.
        positions: the positions in the feed; None if there was no save.
        data: the state, encoded; empty if it is as in the save before.
    """

    number: int
    positions: Positions | None
    data: bytes


def acquire_projection(  # noqa: PLR0917 - internal
    context: Context, name: str, version: int, settings: Settings, owner: str, ttl_ms: int
) -> Operation[tuple[Runner, Saved]]:
    """Register a projection, acquire the lease of its runner, and return what is saved of this version.

    Raises:
        LeaseHeld: another owner has the lease.
        InvalidArgument: a newer version has taken over, or the name is a subscription's.
        ConfigurationError: the namespace has no feed.
    """
    require_feed(context.keys)
    yield from make_namespace(context)
    yield from _register(context, name, settings)
    # The id of the call is among the arguments, so a retry has the same.
    arguments: list[Argument] = [own_id(), owner, str(ttl_ms), str(version)]
    reply = yield from ask(call_script("acquire_projection", _both_keys(context, name), arguments))
    if isinstance(reply, ErrorReply):
        raise _not_acquired(reply, name, version)
    token, number, positions, data = reply
    return Runner(name, version, int(token)), _read_saved(context, name, int(number), positions, data)


def _register(context: Context, name: str, settings: Settings) -> Operation[None]:
    """Add a projection to the readers of the feed. From then on, no trimming passes its positions."""
    key = context.keys.subscriptions
    commands = [key_command("HSETNX", key, name, settings.encode()), key_command("HGET", key, name)]
    _, found = checked((yield Batch(commands)), commands)
    stored = read_settings(name, found, key)
    if stored.kind != settings.kind:
        check_same(name, settings, stored)
    elif stored.filter != settings.filter:  # of another version
        yield from ask(key_command("HSET", key, name, settings._replace(created=stored.created).encode()))


def _not_acquired(reply: ErrorReply, name: str, version: int) -> LeaseHeld | InvalidArgument:
    if reply.code == "VERSION_OUTDATED":
        newest = int(reply.message)
        return InvalidArgument(
            f"The projection {name!r} has the version {newest}, and this program has the version {version}. Nothing "
            f"was changed. Deploy the newer program; or, to go back to the older apply, give it a version above "
            f"{newest}."
        )
    left_ms, _, spelled = reply.message.partition(" ")
    holder = unquote(spelled, errors="replace")
    return LeaseHeld(
        f"{holder!r:.600} runs the projection {name!r}, and has its lease for {int(left_ms) / 1000:.3f} s more unless "
        "it is renewed. Nothing was changed. Enter the projection again later, or with a longer wait_s.",
        owner=holder,
        left_s=int(left_ms) / 1000,
    )


def reload_projection(context: Context, runner: Runner) -> Operation[Saved]:
    """Return what is saved now, to the runner.

    Raises:
        LeaseLost: the lease is outdated.
    """
    keys = _both_keys(context, runner.name)
    # The version that is built beside comes first, as in the scripts.
    commands = [key_command("HMGET", key, "fence", "saves", "positions", "state") for key in reversed(keys)]
    for fence, number, positions, data in checked((yield Batch(commands)), commands):
        if fence == b"%d" % runner.token:
            return _read_saved(context, runner.name, read_cursor(number, keys[0]), positions, data)
    raise _lease_lost(runner, None)


def save_projection(context: Context, runner: Runner, saved: Saved, mode: str) -> Operation[None]:
    """Save a state and its positions in one step. For the mode, see lua/save_projection.lua.

    Raises:
        LeaseLost: the lease is outdated. Nothing was saved.
    """
    head = [str(runner.token), str(runner.version), str(saved.number), str(saved.positions)]
    keys = _both_keys(context, runner.name)
    command = call_script(
        "save_projection", keys, [*head, saved.data, mode], size=len(check_data(saved.data)), writes=True
    )
    yield from _under_lease(durably(context, ask(command), None), runner)


def renew_projection(context: Context, runner: Runner) -> Operation[None]:
    """Renew the lease of a runner.

    Raises:
        LeaseLost: the lease is outdated.
    """
    keys = _both_keys(context, runner.name)
    yield from _under_lease(
        ask(call_script("renew_projection", keys, [str(runner.token), str(runner.version)])), runner
    )


def release_projection(context: Context, runner: Runner) -> Operation[None]:
    """Release the lease of a runner. Nothing happens if it was lost."""
    yield from ask(call_script("release_projection", _both_keys(context, runner.name), [str(runner.token)]))


def _under_lease(asking: Operation[Any], runner: Runner) -> Operation[None]:
    reply = yield from asking
    if isinstance(reply, ErrorReply):
        raise _lease_lost(runner, unquote(reply.message, errors="replace") or None)


def _lease_lost(runner: Runner, owner: str | None) -> LeaseLost:
    now = "it has no owner now" if owner is None else f"{owner!r:.600} runs it now"
    return LeaseLost(
        f"The lease of the projection {runner.name!r}, version {runner.version}, is lost: {now}. Nothing was saved. "
        "The state of this runner may be outdated: leave the projection, and enter it again to load what is saved.",
        owner=owner,
    )


def load_projection(context: Context, name: str) -> Operation[SavedProjection | None]:
    """Return the saved state of a projection's current version; None if there is none."""
    key = context.keys.projection(check_name(name, _WHAT))
    saved: Sequence[bytes | None]
    saved = yield from ask(key_command("HMGET", key, "version", "positions", "state", "saved_ms"))
    version, positions, data, saved_ms = saved
    found = _read_saved(context, name, 0, positions, data)
    if found.positions is None:
        return None
    time = EPOCH + timedelta(milliseconds=read_cursor(saved_ms, key))
    return SavedProjection(
        context.codec.decode_state_strictly(found.data), found.positions, read_cursor(version, key), time
    )


def delete_projection(context: Context, name: str) -> Operation[None]:
    """Delete a projection with its saved states."""
    keys = _both_keys(context, check_name(name, _WHAT))
    yield from ask(Command(("UNLINK", *keys), keys[0]))
    # At last, so that a delete can be repeated.
    yield from ask(key_command("HDEL", context.keys.subscriptions, name))


def _both_keys(context: Context, name: str) -> tuple[str, str]:
    return context.keys.projection(name), context.keys.next_projection(name)


def _read_saved(context: Context, name: str, number: int, positions: bytes | None, data: bytes | None) -> Saved:
    """Return what is saved, as read from a projection's hash.

    Raises:
        DecodeError: it is damaged.
    """
    key = context.keys.projection(name)
    if positions is None:
        return Saved(number, None, b"")
    if not data:
        raise _damaged(key, data)
    try:
        found = Positions.parse(positions.decode())
    except ValueError:
        raise _damaged(key, positions) from None
    if len(found) != context.keys.partitions:
        raise _damaged(key, positions)
    return Saved(number, found, data)


def _damaged(key: str, value: bytes | None) -> DecodeError:
    return DecodeError(
        f"The saved state of a projection, at the key {key!r}, is damaged: {value!r:.80}. Nothing was changed. Delete "
        "the projection with delete_projection, and run it again: it is computed from the events."
    )
