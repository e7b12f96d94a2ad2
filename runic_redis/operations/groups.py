"""Appending a group of commits: all of them are stored, or none."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import unquote

from runic_redis.arguments import Query, check_workflow_id
from runic_redis.context import Context
from runic_redis.errors import GroupRejected, InvalidArgument, InvalidType, StoreError, StoreUnavailable, short_repr
from runic_redis.events import FactRef
from runic_redis.operations.appending import (
    Appended,
    append_call,
    appended,
    cursor_after,
    event_list,
    store_all_ahead,
)
from runic_redis.operations.conditions import check_condition, condition_failed
from runic_redis.operations.facts import crosses_slots, snapshot_facts
from runic_redis.operations.leasing import Lease
from runic_redis.operations.life import Life
from runic_redis.operations.messages import Message
from runic_redis.operations.queries import check_indexed
from runic_redis.operations.settings import make_namespace, remake_namespace
from runic_redis.operations.tracking import GroupOptions, Tracking
from runic_redis.operations.writing import ROUNDS, is_premature, settle_premature, too_often
from runic_redis.protocol.effects import Argument, Batch, Command, ErrorReply, Operation, Unconfirmed
from runic_redis.protocol.refusals import answer, not_durable
from runic_redis.protocol.scripts import load_script

_NO_LIFE = Life()


@dataclass(frozen=True, slots=True)
class Append:
    """One commit of `append_all`. The attributes are the arguments of `append`; see there.

    Attributes:
        workflow_id: the workflow; its first commit creates it.
        events: instances of registered classes, and plain dicts. An empty list only checks the other arguments.
        expected_cursor: the cursor at which the workflow must be.
        commit_id: your own id for the commit.
        metadata: a small dict to store with the commit.
        lease: a lease of the workflow.
        snapshot: the workflow's state after these events.
        refs: the hashes of the facts that the snapshot refers to.
        queue: the queue to put the workflow in.
        due: from when it can be claimed there.
        consumes: the messages of its inbox that the commit answers.
        ends_timer: whether the workflow's timer is over.
        unless_cancelled: whether a request to cancel the workflow rejects the commit.
        expires_in: for how many seconds it is kept from the commit on.
        attributes: the attributes to set; None removes one.
        parent: the workflow that started this one.
        tags: short texts, by which `find` finds the commit.
    """

    workflow_id: str
    events: Iterable[Any]
    _: KW_ONLY
    expected_cursor: int | None = None
    commit_id: str | bytes | None = None
    metadata: Mapping[str, Any] | None = None
    lease: Lease | None = None
    snapshot: bytes | None = None
    refs: Iterable[str | bytes | FactRef] | None = None
    queue: str | None = None
    due: float | datetime | None = None
    consumes: Message | Sequence[Message] = ()
    ends_timer: bool = False
    unless_cancelled: bool = False
    expires_in: float | None = None
    attributes: Mapping[str, str | None] | None = None
    parent: str | None = None
    tags: Sequence[str] = ()


def append_all(
    context: Context,
    items: Iterable[Append],
    tracking: Tracking | None = None,
    *,
    unless: Query | None = None,
    after: int | None = None,
    details: bool = False,
) -> Operation[list[int] | list[Appended]]:
    """Append a commit to each of several workflows, all or none. Return the cursor of each, or the stored commit."""
    condition = None if unless is None and after is None else check_condition(unless, after)
    group = _group(items)
    options = GroupOptions.make(tracking, condition)
    while group or tracking is not None:
        keys = context.keys
        if condition is not None:
            check_indexed(context, "append_all")
        referred: dict[int, dict[str, bytes]] = {}
        commands = []
        for place, (item, events) in enumerate(group):
            referred[place] = {}
            try:
                commands.append(_call(context, item, events, referred[place], details=details))
            except StoreError as error:
                error.add_note(f"It is about items[{place}], for the workflow {item.workflow_id!r}.")
                raise
        _check_slots(context, [item.workflow_id for item, _ in group], options)
        if tracking is not None or any(command.size for command in commands):
            yield from make_namespace(context)
            if context.keys is not keys:
                continue  # another store has created the namespace, with other settings
        for place, problem in sorted((yield from store_all_ahead(context, referred)).items()):
            raise _rejected(place, commands[place], problem)
        reply, call = yield from _write(context, commands, options)
        # The first rejection tells that the server minds slots.
        if not crosses_slots(context, call, reply):
            replies = _replies(reply, call, commands, context, options)
            pairs = list(zip(replies, commands, strict=True))
            if details:
                return [appended(context, *pair, referred[place]) for place, pair in enumerate(pairs)]
            return [cursor_after(context, *pair) for pair in pairs]
    return []


def _group(items: Iterable[Append]) -> list[tuple[Append, Sequence[Any]]]:
    """Return the commits, each with its events as a list: an iterator could not be encoded a second time."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise InvalidType(f"items is a list of Append, not a {type(items).__qualname__}; nothing was sent.")
    group: list[tuple[Append, Sequence[Any]]] = []
    places: dict[str, int] = {}
    for place, item in enumerate(items):
        if not isinstance(item, Append):
            raise InvalidType(f"items[{place}] is an Append, not {short_repr(item)}; nothing was sent.")
        workflow_id = check_workflow_id(item.workflow_id)
        if workflow_id in places:
            raise InvalidArgument(
                f"items[{places[workflow_id]}] and items[{place}] are for the same workflow, {workflow_id!r:.600}. "
                "Nothing was sent. Put all of its events in one Append."
            )
        places[workflow_id] = place
        group.append((item, event_list(item.events)))
    return group


def _call(context: Context, item: Append, events: Sequence[Any], facts: dict[str, bytes], *, details: bool) -> Command:
    if item.refs is not None and item.snapshot is None:
        raise InvalidArgument("refs tells the facts of a snapshot; nothing was sent. Pass the snapshot, too.")
    named = None if item.snapshot is None else snapshot_facts(item.snapshot, item.refs)
    # The commit refers to the facts of its snapshot, whether or not the workflow does.
    facts.update(named or {})
    life = Life(*(getattr(item, name) for name in Life._fields))
    if life.consumes == []:
        life = life._replace(consumes=())
    if life.tags == []:
        life = life._replace(tags=())
    return append_call(
        context,
        item.workflow_id,
        events,
        facts,
        expected_cursor=item.expected_cursor,
        commit_id=item.commit_id,
        metadata=item.metadata,
        lease=item.lease,
        snapshot=item.snapshot,
        refs=named,
        life=None if life == _NO_LIFE else life,
        details=details,
    )


def _check_slots(context: Context, workflow_ids: Sequence[str], options: GroupOptions) -> None:
    """Check that one script may write all of these workflows."""
    if not (context.slots_matter and workflow_ids):
        return
    first, partition_of = workflow_ids[0], context.keys.partition_of
    options.check_partition(context, partition_of(first), first)
    for other in workflow_ids[1:]:
        if partition_of(other) != partition_of(first):
            raise InvalidArgument(
                "In a cluster, append_all takes workflows of one partition only. "
                f"{first!r:.600} is in partition {partition_of(first)}, and {other!r:.600} in {partition_of(other)}. "
                "Nothing was stored. Workflows whose ids have the same part in braces share a partition, such as "
                "'order-{42}' and 'payment-{42}'."
            )


def _write(context: Context, commands: list[Command], options: GroupOptions) -> Operation[tuple[Any, Command]]:
    """Send the group, and settle what has to come first. Return the raw reply, and the call that it answers."""
    call = _group_call(context, commands, options, again=False)
    rounds = 0
    while rounds <= ROUNDS:
        (reply,) = yield Batch([call])
        if isinstance(reply, ErrorReply) and reply.code == "SEARCH_ON":
            options = options.after_search(reply)
            call = _group_call(context, commands, options, again=reply.unsure)
            continue
        rounds += 1
        errors = _errors(reply)
        if not errors or not all(map(is_premature, errors.values())):
            return reply, call
        if errors.pop(len(commands), None):
            # Of the tracking record: the namespace was deleted.
            yield from remake_namespace(context)
        replies: list[Any] = [errors.get(place) for place in range(len(commands))]
        yield from settle_premature(context, commands, replies, list(errors))
        for problem in replies:
            if isinstance(problem, StoreError):
                raise problem
        # An earlier try without a reply may still arrive.
        call = _group_call(context, commands, options, again=reply.unsure)
    place, error = next(iter(_errors(reply).items()))
    raise too_often(context, call if place == len(commands) else commands[place], error)


def _group_call(context: Context, commands: Sequence[Command], options: GroupOptions, *, again: bool) -> Command:
    args: list[Argument] = ["1" if again else "", *options.arguments()]
    keys = options.keys(context)
    for command in commands:
        args += command.as_retry()
        keys += command.keys
    size = sum(command.size for command in commands)
    writes = all(command.writes for command in commands)
    return Command(args, keys[0], load_script("append_all"), keys, 0, size=size, writes=writes)


def _errors(reply: Any) -> dict[int, ErrorReply]:
    """Return the errors of commits by their places, if they are why the group was rejected."""
    if not isinstance(reply, ErrorReply) or reply.code != "GROUP_REJECTED":
        return {}
    words = reply.message.split(" ")
    return {
        int(place): ErrorReply.parse(unquote(text, errors="replace"))
        for place, text in zip(words[::2], words[1::2], strict=True)
    }


def _replies(
    reply: Any, call: Command, commands: Sequence[Command], context: Context, options: GroupOptions
) -> Sequence[Any]:
    """Return the reply to each commit.

    Raises:
        StoreError: they were not stored, or that is not known.
    """
    if isinstance(reply, Unconfirmed):
        raise not_durable(reply, "The group of commits", "Repeat it with the same commit ids", None)
    unsure = isinstance(reply, ErrorReply) and reply.unsure
    for place, error in _errors(reply).items():
        if is_premature(error):
            continue
        if place == len(commands):
            error.unsure = unsure
            raise options.rejected(answer(error, call))
        error.unsure = unsure and error.code in _UNREAD
        _reject(context, place, commands[place], error)
    replies: Sequence[Any] = answer(reply, call)
    if isinstance(replies, ErrorReply) and replies.code == "CONDITION_FAILED":
        raise condition_failed(replies)
    return replies


# The errors that leave open whether an earlier try was stored: of a commit that cannot be read, or is there already.
_UNREAD = frozenset({"COMMIT_STORED", "DAMAGED", "WRONGTYPE"})


def _reject(context: Context, place: int, command: Command, error: ErrorReply) -> NoReturn:
    if error.code == "COMMIT_UNSURE":
        raise StoreUnavailable(
            f"A reply was lost, and events of the workflow {command.workflow_id!r:.600} were trimmed or deleted since, "
            "or are too many to search. It is not known whether the group was stored, and it was not stored again. "
            "Read the workflows to see. With a commit_id in each Append, the store can tell."
        )
    if error.code == "COMMIT_STORED":
        raise GroupRejected(
            f"The commit_id of items[{place}] was stored before in the workflow {command.workflow_id!r:.600}, at "
            f"cursor {error.message}, and other commits of the group are not stored. {_outcome(error.unsure)}. Leave "
            "out the commits that are stored, or give new ones new ids.",
            index=place,
            workflow_id=command.workflow_id,
        )
    try:
        cursor_after(context, error, command)
    except StoreError as problem:
        raise _rejected(place, command, problem, unsure=error.unsure) from problem
    raise AssertionError(error)


def _rejected(place: int, command: Command, problem: StoreError, *, unsure: bool = False) -> GroupRejected:
    """Return the error of a group, whose cause is the error of one of its commits."""
    commit = f"The commit in items[{place}], for the workflow {command.workflow_id!r:.600},"
    rejected = GroupRejected(
        f"{commit} was rejected. {_outcome(unsure)}. {problem}",
        index=place,
        workflow_id=command.workflow_id,
    )
    rejected.__cause__ = problem
    return rejected


def _outcome(unsure: bool) -> str:
    return "An earlier try had no answer, and may have been stored" if unsure else "Nothing of the group was stored"
