"""Claiming workflows: leases of those that are due, the oldest first, over all partitions."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from runic_redis.arguments import check_count, check_owner, check_queues, check_seconds
from runic_redis.context import Context
from runic_redis.errors import DecodeError, InvalidArgument, StoreError, StoreUnavailable
from runic_redis.operations.ending import delete_ended
from runic_redis.operations.leasing import milliseconds
from runic_redis.operations.records import read_cursor
from runic_redis.operations.waiting import wait_for_due
from runic_redis.protocol.effects import (
    Batch,
    Command,
    ErrorReply,
    Operation,
    call_script,
    key_command,
    own_id,
)
from runic_redis.protocol.refusals import answer
from runic_redis.protocol.resp import scored_ids

_log = logging.getLogger("runic_redis")
# How many leases one round trip requests at most.
_AT_ONCE = 128
# How many more workflows a look finds than are wanted: other owners that claim now find the same.
_SPARE = 8
# How many leases a look for those that last too long reads at once.
_PAGE = 256


class Claimed(NamedTuple):
    """A workflow that was claimed.

    Attributes:
        workflow_id: the workflow.
        queue: its queue.
        token: the fencing token of its lease.
        attempt: how often it was claimed since its last commit under a lease.
    """

    workflow_id: str
    queue: str
    token: int
    attempt: int


class _Due(NamedTuple):
    """A workflow that is due, and its queue."""

    due_ms: int
    partition: int
    queue: str
    workflow_id: str


class _Look(NamedTuple):
    """The outcome of a look.

    Attributes:
        due: the workflows that are due, the oldest first.
        next_s: in how many seconds the next one is due; None if none is.
    """

    due: list[_Due]
    next_s: float | None


class Claim:
    """A claim of workflows that are due.

    Args:
        context: the store's.
        owner: the owner of the leases.
        limit: how many leases at most.
        queues: the queues.
        ttl: how many seconds the leases last.
        wait_s: how many seconds to wait for a workflow to be due, if none is.
        max_attempts: how often a workflow may be claimed without progress; then it is parked. None for no limit.
    """

    def __init__(
        self,
        context: Context,
        owner: str,
        limit: int,
        *,
        queues: Iterable[str],
        ttl: float,
        wait_s: float = 0.0,
        max_attempts: int | None,
    ) -> None:
        self._context = context
        self._owner = check_owner(owner)
        self._limit = check_count(limit, "limit")
        self._queues = check_queues(queues)
        self._ttl_ms = milliseconds(check_seconds(ttl, "ttl"))
        self._wait_s = check_seconds(wait_s, "wait_s")
        if max_attempts is not None and not check_count(max_attempts, "max_attempts"):
            raise InvalidArgument("max_attempts is 0, so nothing could be claimed; nothing was sent.")
        self._most = "" if max_attempts is None else str(max_attempts)

    def run(self) -> Operation[list[Claimed]]:
        """Claim what is due, or becomes due during the wait. Raises as `look` does."""
        return wait_for_due(self._context, self._queues, self._wait_s, self.look)

    def look(self) -> Operation[tuple[list[Claimed], float | None]]:
        """Claim what is due. Return it, and in how many seconds the next workflow is due.

        Raises:
            DecodeError: a part of the data is damaged, and nothing else is due.
            StoreUnavailable: a part of the cluster cannot be reached, and nothing else is due.
        """
        claimed: list[Claimed] = []
        problems: list[StoreError] = []
        tried: set[str] = set()
        next_s: float | None = None
        while len(claimed) < self._limit and not any(isinstance(one, StoreUnavailable) for one in problems):
            found = yield from self._find(self._limit - len(claimed) + len(tried) + _SPARE, problems)
            next_s = found.next_s
            left = [one for one in found.due if one.workflow_id not in tried]
            if not left:
                break
            while left and len(claimed) < self._limit:
                wanted = min(self._limit - len(claimed), _AT_ONCE)
                # In a cluster, each node leases all that it is asked for. So none is asked for more than is wanted.
                count = wanted if self._context.slots_matter else wanted + _SPARE
                claimed += yield from self._lease(left[:count], wanted, tried, problems)
                left = [one for one in left if one.workflow_id not in tried]
        if problems and self._limit and not claimed:
            raise problems[0]
        return claimed, next_s

    def _find(self, count: int, problems: list[StoreError]) -> Operation[_Look]:
        """Find workflows that are due. Add errors to the problems."""
        keys = self._context.keys
        places = [(number, queue) for number in keys.partition_numbers() for queue in self._queues]
        groups: list[list[tuple[int, str]]] = [places]
        if self._context.slots_matter:
            groups = [[(number, queue) for queue in self._queues] for number in keys.partition_numbers()]
        commands = [
            call_script(
                "find_due",
                [key for number, queue in group for key in (keys.queue(number, queue), keys.queues(number))],
                [str(count)],
            )
            for group in groups
        ]
        replies = yield Batch(commands)
        if any(isinstance(reply, ErrorReply) and reply.code == "CROSSSLOT" for reply in replies):
            self._context.slots_matter = True
            return (yield from self._find(count, problems))
        due: list[_Due] = []
        next_s: list[float] = []
        ahead: list[tuple[int, str, int]] = []
        for group, command, reply in zip(groups, commands, replies, strict=True):
            with _noting(problems):
                now_ms, next_due, wrong, set_back, found = answer(reply, command)
                for place, workflow_id, at in found:
                    partition, queue = group[place - 1]
                    due.append(_Due(int(at), partition, queue, workflow_id.decode(errors="replace")))
                if next_due:
                    next_s.append((int(next_due) - now_ms) / 1000)
                problems += [self._damage(group[place - 1], counted, size) for place, counted, size in wrong]
                ahead += [(*group[place - 1], now_ms) for place in set_back]
        for place in ahead:
            due += yield from self._find_overlong(*place, problems)
        due.sort()
        return _Look(due, min(next_s, default=None))

    def _damage(self, place: tuple[int, str], counted: bytes, size: Any) -> StoreError:
        key = self._context.keys.queue(*place)
        if isinstance(size, bytes):
            key = key if size == b"queue" else self._context.keys.queues(place[0])
            return DecodeError(
                f"The value at the key {key!r} is not of this store: {counted.decode(errors='replace')}. Nothing was "
                "changed. If another application uses this key, choose another namespace."
            )
        return DecodeError(
            f"The queue at the key {key!r} is lost or altered: {size} of {counted.decode(errors='replace')} workflows "
            "are in it. Nothing was changed. runic-redis verify --repair restores it."
        )

    def _lease(
        self, some: Sequence[_Due], wanted: int, tried: set[str], problems: list[StoreError]
    ) -> Operation[list[Claimed]]:
        """Lease so many of some workflows. Return those that this claim has got, and add those that it has tried."""
        groups: dict[int, list[_Due]] = {}
        for one in some:
            groups.setdefault(one.partition if self._context.slots_matter else 0, []).append(one)
        commands = [self._lease_call(group, wanted) for group in groups.values()]
        claimed: dict[str, Claimed] = {}
        ended: list[str] = []
        for group, command, reply in zip(groups.values(), commands, (yield Batch(commands)), strict=True):
            outcomes = [b"GONE"] * len(group)
            with _noting(problems):
                outcomes = answer(reply, command)
            for one, outcome in zip(group, outcomes, strict=False):
                tried.add(one.workflow_id)
                if isinstance(outcome, list):
                    token, attempt = outcome
                    claimed[one.workflow_id] = Claimed(one.workflow_id, one.queue, token, attempt)
                elif outcome == b"ENDED":
                    ended.append(one.workflow_id)
                elif outcome == b"PARKED":
                    _log.warning(
                        "The workflow %r is parked: it was claimed %s times without progress.",
                        *(one.workflow_id, self._most),
                    )
                elif outcome != b"GONE":
                    with _noting(problems):
                        raise self._problem(one, ErrorReply.parse(outcome.decode(errors="replace")), command)
        if ended:
            # Those that are not over can be claimed now.
            tried -= (yield from delete_ended(self._context, ended)).moved
        return [claimed[one.workflow_id] for one in some if one.workflow_id in claimed]

    def _problem(self, one: _Due, error: ErrorReply, command: Command) -> StoreError:
        """Return the error for a workflow that cannot be claimed."""
        meta = self._context.keys.workflow(one.workflow_id).meta
        if error.code == "DAMAGED":
            return DecodeError(
                f"The lease of the workflow {one.workflow_id!r}, in the meta hash at the key {meta!r}, is damaged. "
                "Nothing was changed. Restore the key from a backup, or delete the workflow."
            )
        try:
            answer(error, replace(command, keys=self._keys_of(one)))
        except StoreError as raised:
            return raised
        return StoreError(f"The workflow {one.workflow_id!r} cannot be claimed: {error.text}. It was not changed.")

    def _keys_of(self, one: _Due) -> list[str]:
        keys = self._context.keys.workflow(one.workflow_id)
        return [keys.meta, keys.queue(one.queue), keys.queues, keys.leases, keys.parked, keys.partition]

    def _lease_call(self, group: Sequence[_Due], wanted: int) -> Command:
        keys = [key for one in group for key in self._keys_of(one)]
        arguments = (own_id(), "", self._owner, str(self._ttl_ms), self._context.now_us(), str(wanted), self._most)
        return call_script("claim", keys, [*arguments, *(one.workflow_id for one in group)], retry_at=1)

    def _find_overlong(
        self, partition: int, queue: str, now_ms: int, problems: list[StoreError]
    ) -> Operation[list[_Due]]:
        """Return workflows of a queue with leases that have more than their full time left: the clock was set back."""
        key = self._context.keys.queue(partition, queue)
        found: list[_Due] = []
        skip, more = 0, True
        while more:
            more = False
            bounds = (f"({now_ms}", "+inf", "WITHSCORES", "LIMIT", str(skip), str(_PAGE))
            with _noting(problems):
                command = key_command("ZRANGEBYSCORE", key, *bounds)
                page = [workflow_id for workflow_id, _ in scored_ids(answer((yield Batch([command]))[0], command), key)]
                metas = [self._context.keys.workflow(workflow_id).meta for workflow_id in page]
                commands = [key_command("HMGET", meta, "lease_until", "lease_ms") for meta in metas]
                for workflow_id, command, reply in zip(page, commands, (yield Batch(commands)), strict=True):
                    ends_ms, lasts_ms = (read_cursor(value, command.key) for value in answer(reply, command))
                    if ends_ms - now_ms > lasts_ms:
                        found.append(_Due(ends_ms, partition, queue, workflow_id))
                more, skip = len(page) == _PAGE, skip + _PAGE
        return found


@contextmanager
def _noting(problems: list[StoreError]) -> Iterator[None]:
    """Add damage, or the loss of a cluster's node, to the problems: other workflows can still be claimed."""
    try:
        yield
    except (DecodeError, StoreUnavailable) as error:
        problems.append(error)
