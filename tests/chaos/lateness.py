"""Requests that the network delivers late: after their retries, and after everything done since."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from runic_redis import AsyncRedisStore, Fact, FactRef, RedisStore, StoreError
from tests.chaos.clients import Crew
from tests.chaos.rig import ASIDE, QUICK, Rig
from tests.late import late
from tests.portal import BlockingStore
from tests.servers import RunningServer, running, valkey_program, wait_until

__all__ = ["late_requests"]

_HOUR_S = 3600.0
Act: TypeAlias = Callable[[Any, str], Any]


@dataclass(frozen=True)
class _Trial:
    """A call whose first try is late.

    Attributes:
        name: names the call, and the moment at which its first try arrives.
        before: prepares the workflow, with a store that reaches the server directly.
        call: makes the call.
        meanwhile: runs between the first try and the retry.
        since: runs after the retry.
    """

    name: str
    before: Act
    call: Act
    meanwhile: Act = lambda store, workflow_id: None
    since: Act = lambda store, workflow_id: None


def _append(store: Any, workflow_id: str) -> Any:
    return store.append(workflow_id, [{"n": 1}])


def _append_twice(store: Any, workflow_id: str) -> None:
    _append(store, workflow_id)
    _append(store, workflow_id)


def _nothing(store: Any, workflow_id: str) -> None:
    pass


def _delete(store: Any, workflow_id: str) -> None:
    store.delete(workflow_id)


def _leave(store: Any, workflow_id: str) -> None:
    """Leave a workflow unfinished."""
    store.release(store.acquire(workflow_id, "first"))


def _complete(store: Any, workflow_id: str) -> None:
    _append(store, workflow_id)
    store.complete(workflow_id)


def _snapshot(store: Any, workflow_id: str) -> None:
    _append_twice(store, workflow_id)
    store.save_snapshot(workflow_id, 1, b"one")


def _move_snapshot(store: Any, workflow_id: str) -> None:
    cursor = _append(store, workflow_id)
    store.save_snapshot(workflow_id, cursor, b"another")


def _acquire(store: Any, workflow_id: str) -> Any:
    return store.acquire(workflow_id, "me", ttl=_HOUR_S)


def _hold_and_let_go(store: Any, workflow_id: str) -> None:
    """Take a free lease, and give it back."""
    store.release(store.acquire(workflow_id, "me"))
    store.release(store.acquire(workflow_id, "another"))


def _release_mine(store: Any, workflow_id: str) -> None:
    store.release(store.acquire(workflow_id, "me"))


def _with_own_lease(act: Callable[[Any, Any], Any]) -> Act:
    """Return an act under the lease that the workflow was given before."""

    def act_by_lease(store: Any, workflow_id: str) -> Any:
        return act(store, _leases[workflow_id])

    return act_by_lease


# The lease of each trial's workflow.
_leases: dict[str, Any] = {}


def _take(store: Any, workflow_id: str) -> None:
    _append(store, workflow_id)
    _leases[workflow_id] = _acquire(store, workflow_id)


# Each call: what prepares it, the call, and what can follow it.
_CALLS: dict[str, tuple[Act, Act, Sequence[Act]]] = {
    "append": (_append, _append, [_append]),
    "append, the first": (_nothing, _append, [_append]),
    "append with a fact": (_append, lambda store, w: store.append(w, [{"f": Fact({"of": w})}]), [_append]),
    "append by id": (_append, lambda store, w: store.append(w, [{"n": 2}], commit_id="c"), [_append]),
    "append at a cursor": (_append, lambda store, w: store.append(w, [{"n": 2}], expected_cursor=1), [_append]),
    "append with a snapshot": (_append, lambda store, w: store.append(w, [{"n": 2}], snapshot=b"s"), [_move_snapshot]),
    "append by a lease": (
        _take,
        _with_own_lease(lambda store, lease: store.append(lease.workflow_id, [{"n": 2}], lease=lease)),
        [_append, _release_mine],
    ),
    "append_many": (_append, lambda store, w: store.append_many([(w, [{"n": 2}]), (w, [{"n": 3}])]), [_append]),
    "save": (_nothing, lambda store, w: store.save(w, [{"n": 1}]), [lambda store, w: store.save(w, [{"n": 2}])]),
    "save_snapshot": (_append, lambda store, w: store.save_snapshot(w, 1, b"one"), [_append, _move_snapshot]),
    "save_snapshot again": (
        _snapshot,
        lambda store, w: store.save_snapshot(w, 1, b"one"),
        [lambda store, w: store.save_snapshot(w, 1, b"another")],
    ),
    "trim": (_snapshot, lambda store, w: store.trim(w), [_append, _move_snapshot]),
    "acquire": (_append, _acquire, [_append, _release_mine, _hold_and_let_go]),
    "acquire, the first": (_nothing, _acquire, [_release_mine]),
    "claim": (_leave, lambda store, w: store.claim("me", ttl=_HOUR_S), [_append, _release_mine, _hold_and_let_go]),
    "renew": (_take, _with_own_lease(lambda store, lease: store.renew(lease)), [_release_mine]),
    "release": (_take, _with_own_lease(lambda store, lease: store.release(lease)), [_append, _acquire]),
    "complete": (_append, lambda store, w: store.complete(w), [_append]),
    "complete by a lease": (
        _take,
        _with_own_lease(lambda store, lease: store.complete(lease.workflow_id, lease=lease)),
        [_release_mine],
    ),
    "expire": (_complete, lambda store, w: store.expire(w, _HOUR_S), [lambda store, w: store.expire(w, 2 * _HOUR_S)]),
    "delete": (_append, _delete, [_append]),
    "delete by a lease": (
        _take,
        _with_own_lease(lambda store, lease: store.delete(lease.workflow_id, lease=lease)),
        [_append],
    ),
    "save_fact": (_nothing, lambda store, w: store.save_fact(w, {"of": w}), []),
}


def _trials() -> Iterator[_Trial]:
    for name, (before, call, sequels) in _CALLS.items():
        # (A second renewal makes a lease last longer while its holder has it, which is allowed.)
        if name != "renew":
            yield _Trial(f"{name}, then its late first try", before, call)
        for number, sequel in enumerate(sequels):
            yield _Trial(f"{name}, then something else ({number})", before, call, since=sequel)
        if name == "save_fact":
            continue
        yield _Trial(f"{name}, then delete", before, call, since=_delete)

        def make_again(store: Any, workflow_id: str, before: Act = before) -> None:
            store.delete(workflow_id)
            before(store, workflow_id)
            _append(store, workflow_id)

        yield _Trial(f"{name}, then delete and make again", before, call, since=make_again)
    yield from _REFUSED


# Calls whose retry is rejected or finds nothing to do, although the call would work later.
_REFUSED = [
    _Trial(
        "append at a cursor that is not reached yet",
        _append,
        lambda store, w: store.append(w, [{"n": 2}], expected_cursor=2),
        since=_append,
    ),
    _Trial(
        "append at a cursor that is not reached yet, by id",
        _append,
        lambda store, w: store.append(w, [{"n": 2}], expected_cursor=2, commit_id="c"),
        since=_append,
    ),
    _Trial(
        "append with a fact that is not there yet",
        _append,
        lambda store, w: store.append(w, [{"f": FactRef(w)}]),
        since=lambda store, w: store.save_fact(w, {"of": w}),
    ),
    _Trial(
        "save with a fact that is not there yet",
        _append,
        lambda store, w: store.save(w, [{"f": FactRef(w)}]),
        since=lambda store, w: store.save_fact(w, {"of": w}),
    ),
    _Trial(
        "save_snapshot at a cursor that is not reached yet",
        _append,
        lambda store, w: store.save_snapshot(w, 2, b"two"),
        since=_append,
    ),
    _Trial("trim before there is a snapshot", _append, lambda store, w: store.trim(w), since=_move_snapshot),
    _Trial(
        "acquire while another has it",
        lambda store, w: _leases.update({w: store.acquire(w, "another")}),
        _acquire,
        since=lambda store, w: store.release(_leases[w]),
    ),
    _Trial(
        "claim while another takes it",
        _leave,
        lambda store, w: store.claim("me", ttl=_HOUR_S),
        meanwhile=lambda store, w: _leases.update({w: store.acquire(w, "another")}),
        since=lambda store, w: store.release(_leases[w]),
    ),
    _Trial("complete before it is made", _nothing, lambda store, w: store.complete(w), since=_append),
    _Trial("expire before it is made", _nothing, lambda store, w: store.expire(w, _HOUR_S), since=_complete),
    _Trial("delete before it is made", _nothing, _delete, since=_append),
]


@contextmanager
def late_requests(directory: Path, source: Random) -> Iterator[Rig]:
    """Deliver first tries after their retries, at any later moment. They must change nothing.

    Each operation is tried alone first, without other writes. Then clients work.
    """

    def befall(crew: Crew) -> None:
        proxy.keep()
        wait_until(lambda: not proxy.waits, "a call to be kept back")
        if source.random() < 0.5:
            crew.await_progress()
        else:
            crew.stopping.wait(source.uniform(0.0, 0.5))
        proxy.deliver()
        crew.await_progress()

    with running(valkey_program(), directory) as server, late(server) as proxy:
        yield Rig(f"{proxy.url}?{QUICK}", befall, lambda: [server], rest_s=0.02, found=_try_out(server, source))


def _try_out(server: RunningServer, source: Random) -> list[str]:
    """Try every call once, with a random face. Return what their late first tries changed."""
    found = []
    with ExitStack() as stack:
        proxy = stack.enter_context(late(server))
        options: dict[str, Any] = {"namespace": ASIDE, "partitions": 1}
        direct = stack.enter_context(RedisStore.from_url(server.url(), **options))
        faces = [
            stack.enter_context(RedisStore.from_url(proxy.url, **options)),
            stack.enter_context(BlockingStore(AsyncRedisStore.from_url(proxy.url, **options))),
        ]
        for store in (direct, *faces):
            store.append("warm", [{}])
        for number, trial in enumerate(_trials()):
            workflow_id = f"w{number}"
            trial.before(direct, workflow_id)
            proxy.keep(meanwhile=partial(trial.meanwhile, direct, workflow_id))
            told = "no error"
            try:
                trial.call(source.choice(faces), workflow_id)
            except StoreError as error:
                told = f"{type(error).__name__}: {error}"
            assert not proxy.waits, f"{trial.name}: no call was kept back"
            trial.since(direct, workflow_id)
            before = proxy.dump(f"*{ASIDE}*")
            proxy.deliver()
            after = proxy.dump(f"*{ASIDE}*")
            changed = {key.decode() for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
            # (A fact that is saved again is younger, so its time may change.)
            changed = {key for key in changed if not key.endswith(":times")}
            if changed:
                found.append(f"{trial.name} ({told}): its late first try changes {sorted(changed)}")
            direct.delete(workflow_id)
    return found
