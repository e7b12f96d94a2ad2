"""A namespace as a whole: its memory, and its deletion."""

from collections.abc import Iterator

from runic_redis.arguments import check_workflow_id
from runic_redis.context import Context
from runic_redis.keys import Keys, WorkflowKeys
from runic_redis.operations import workflows
from runic_redis.operations.ending import read_metas
from runic_redis.operations.labels import label_sets
from runic_redis.operations.listing import Listing
from runic_redis.operations.subscriptions import keys_of_subscriptions
from runic_redis.protocol.effects import Command, Operation, call_script, key_command
from runic_redis.protocol.refusals import ask_all

# How many keys are in one round trip.
_AT_ONCE = 1000
# The kinds of a workflow's keys, and of those that a partition's workflows share.
_KINDS, _SHARED = WorkflowKeys.__slots__[:-9], WorkflowKeys.__slots__[-9:]


def memory_usage(context: Context) -> Operation[dict[str, int]]:
    """Return how many bytes of the server's memory the namespace takes, by kind of key."""
    usage = dict.fromkeys((*_KINDS, *_SHARED, "queue", "labels", "subscriptions", "tracking", "facts", "config"), 0)
    labels: set[str] = set()
    listing = Listing(context)
    while page := (yield from listing.next_page()):
        for at in range(0, len(page), _AT_ONCE // len(_KINDS)):
            ids = page[at : at + _AT_ONCE // len(_KINDS)]
            some = [context.keys.workflow(workflow_id) for workflow_id in ids]
            yield from _measure([(kind, getattr(keys, kind)) for keys in some for kind in _KINDS], usage)
            for one, meta in zip(some, (yield from read_metas(context, ids)), strict=True):
                labels.update(label_sets(one, meta))
    shared = [one for number in context.keys.partition_numbers() for one in _partition_keys(context.keys, number)]
    shared += yield from _queue_keys(context)
    shared += [("labels", key) for key in labels]
    shared += [("subscriptions", key) for key in (yield from keys_of_subscriptions(context))]
    shared += _other_keys(context.keys)
    for at in range(0, len(shared), _AT_ONCE):
        yield from _measure(shared[at : at + _AT_ONCE], usage)
    return usage


def memory_of(context: Context, workflow_id: str) -> Operation[dict[str, int]]:
    """Return how many bytes of the server's memory a workflow takes, by kind of key."""
    keys = context.keys.workflow(check_workflow_id(workflow_id))
    usage = dict.fromkeys(_KINDS, 0)
    yield from _measure([(kind, getattr(keys, kind)) for kind in _KINDS], usage)
    return usage


def delete_namespace(context: Context) -> Operation[None]:
    """Delete every workflow and every fact, then the namespace itself."""
    listing = Listing(context)
    while page := (yield from listing.next_page()):
        for at in range(0, len(page), _AT_ONCE):
            yield from workflows.delete(context, page[at : at + _AT_ONCE])
    yield from _delete_partitions(context)
    others = yield from keys_of_subscriptions(context)
    others += [key for _, key in _other_keys(context.keys)]
    for at in range(0, len(others), _AT_ONCE):
        # Each key has its own command: in a cluster they are on different nodes.
        yield from ask_all([Command(("UNLINK", key), key) for key in others[at : at + _AT_ONCE]])
    context.made = False


def _delete_partitions(context: Context) -> Operation[None]:
    """Delete the keys that workflows share.

    Those of a partition are deleted in one step. Otherwise a write in between would be in its index, and not counted.
    """
    keys = context.keys
    queues: dict[int, list[str]] = {number: [] for number in keys.partition_numbers()}
    while queues:
        calls = []
        for number, names in queues.items():
            others = [key for kind, key in _partition_keys(keys, number) if kind != "queues"]
            others += [keys.queue(number, name) for name in names]
            calls.append(call_script("delete_partition", [keys.queues(number), *others], []))
        # A partition with queues that are not known yet names them.
        missing = yield from ask_all(calls)
        queues = {
            number: [*names, *(name.decode(errors="replace") for name in new)]
            for (number, names), new in zip(queues.items(), missing, strict=True)
            if new
        }


def _measure(keys: list[tuple[str, str]], usage: dict[str, int]) -> Operation[None]:
    commands = [Command(("MEMORY", "USAGE", key, "SAMPLES", "0"), key) for _, key in keys]
    replies = yield from ask_all(commands)
    for (kind, _), size in zip(keys, replies, strict=True):
        usage[kind] += size or 0


def _partition_keys(keys: Keys, number: int) -> list[tuple[str, str]]:
    """Return the keys that the workflows of a partition share, each with its kind."""
    kinds = (
        *(keys.index, keys.leases, keys.queues, keys.parked_workflows),
        *(keys.expiring, keys.completed, keys.partition, keys.feed),
    )
    shared = [(kind, key(number)) for kind, key in zip(_SHARED, kinds, strict=False)]
    if keys.tagged is not None:
        shared.append(("tagged", keys.tagged))
    return shared if keys.has_feed else shared[:-1]


def _queue_keys(context: Context) -> Operation[list[tuple[str, str]]]:
    """Return the keys of all queues."""
    numbers = context.keys.partition_numbers()
    found = yield from ask_all([key_command("HKEYS", context.keys.queues(number)) for number in numbers])
    return [
        ("queue", context.keys.queue(number, name.decode(errors="replace")))
        for number, names in zip(numbers, found, strict=True)
        for name in names
        if b" " not in name
    ]


def _other_keys(keys: Keys) -> Iterator[tuple[str, str]]:
    """Yield the keys of facts, tracking records and settings, with their kind.

    The settings come last, so a delete can resume.
    """
    for number in keys.bucket_numbers():
        yield "facts", keys.bucket(number)
        yield "facts", keys.fact_times(number)
    yield "tracking", keys.tracking
    yield "config", keys.config_copy
    yield "config", keys.config
