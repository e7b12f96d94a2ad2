"""Facts: values stored once under their hash."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from runic_redis.arguments import check_hash, check_size
from runic_redis.codec import DIGEST_BYTES, EncodedState, pack_refs
from runic_redis.context import Context
from runic_redis.errors import DecodeError, FactNotFound, InvalidArgument, InvalidType, StoreError, short_repr
from runic_redis.events import FactRef
from runic_redis.operations.settings import make_namespace
from runic_redis.protocol.effects import Argument, Batch, Command, ErrorReply, Operation, call_script, key_command
from runic_redis.protocol.refusals import answer, ask_all

Hash = TypeVar("Hash", str, bytes, str | bytes)


def save_fact(context: Context, fact_hash: str | bytes, value: Any) -> Operation[None]:
    """Store a value under the caller's hash."""
    yield from save_encoded(context, [_encode(context, fact_hash, value)])


def save_facts(context: Context, facts: Mapping[Any, Any]) -> Operation[None]:
    """Store values under the caller's hashes, in one round trip."""
    if not isinstance(facts, Mapping):
        raise InvalidType(
            f"facts is a mapping of hashes to values, not a {type(facts).__qualname__}; nothing was sent."
        )
    yield from save_encoded(context, [_encode(context, fact_hash, value) for fact_hash, value in facts.items()])


def put_fact(context: Context, value: Any) -> Operation[str]:
    """Store a value under its content hash. Return the hash."""
    fact_hash, encoded = context.codec.encode_own_fact(value)
    yield from save_encoded(context, [(fact_hash.encode(), encoded)])
    return fact_hash


def fact_hash(context: Context, value: Any) -> str:
    """Return a value's content hash. Nothing is sent."""
    return context.codec.own_hash(value)


def load_fact(context: Context, fact_hash: str | bytes) -> Operation[Any]:
    """Return the value stored under a hash."""
    facts = yield from load_facts(context, [fact_hash])
    return facts[fact_hash]


def load_facts(context: Context, hashes: Iterable[Hash]) -> Operation[dict[Hash, Any]]:
    """Return the values stored under hashes, in one round trip."""
    if isinstance(hashes, str | bytes) or not isinstance(hashes, Iterable):
        raise InvalidType(f"hashes is a list of hashes, not {short_repr(hashes)}; nothing was sent.")
    wanted: dict[Hash, bytes] = {fact_hash: check_hash(fact_hash) for fact_hash in hashes}
    found = yield from _load(context, set(wanted.values()))
    missing = [fact_hash for fact_hash, raw in wanted.items() if raw not in found]
    if missing:
        raise _missing(missing)
    return {fact_hash: _decode(context, raw, found[raw]) for fact_hash, raw in wanted.items()}


def count_facts(context: Context) -> Operation[int]:
    """Return how many facts the namespace has."""
    keys = context.keys.buckets()
    return sum((yield from ask_all([key_command("HLEN", key) for key in keys])))


def raw_hash(fact_hash: str) -> bytes:
    """Return the bytes of a hash of a write's fact; surrogates in it stand for bytes that are no UTF-8."""
    return fact_hash.encode(errors="surrogateescape")


def snapshot_facts(data: Any, refs: Iterable[str | bytes | FactRef] | None) -> dict[str, bytes] | None:
    """Return the facts that a snapshot refers to, with empty values, since they must be stored; None if not told."""
    if refs is None and isinstance(data, EncodedState):
        refs = data.refs
    if refs is None:
        return None
    if isinstance(refs, str | bytes) or not isinstance(refs, Iterable):
        raise InvalidType(f"refs is a list of hashes of facts, not {short_repr(refs)}; nothing was sent.")
    hashes = [check_hash(ref.hash if isinstance(ref, FactRef) else ref) for ref in refs]
    facts = dict.fromkeys([fact_hash.decode(errors="surrogateescape") for fact_hash in hashes], b"")
    check_size(len(packed_refs(facts)), "The list of the facts of a snapshot")
    return facts


def packed_refs(facts: Iterable[str]) -> bytes:
    """Return the hashes of the facts that a snapshot refers to, as it stores them."""
    return pack_refs(map(raw_hash, facts))


def ahead_argument(context: Context) -> str:
    """Return the argument that tells a script that the facts of a write are stored already: "1", or ""."""
    return "1" if context.slots_matter else ""


def fact_keys(context: Context, facts: Iterable[str]) -> list[str]:
    """Return the keys of the facts of a write that its script stores; none if they are stored already."""
    if context.slots_matter:
        return []
    return [key for fact_hash in facts for key in context.keys.fact(raw_hash(fact_hash))]


def fact_arguments(context: Context, facts: Mapping[str, bytes]) -> list[Argument]:
    """Return the hash and the value of each fact of a write.

    The value is empty for a fact that must be there, and for all of them if they are stored already.
    """
    arguments: list[Argument] = []
    for fact_hash, data in facts.items():
        arguments += (raw_hash(fact_hash), b"" if context.slots_matter else data)
    return arguments


def store_ahead(context: Context, facts: Mapping[str, bytes]) -> Operation[dict[str, StoreError]]:
    """Store the facts of a write before it, where its script cannot. Return the errors, by hash.

    In a cluster, facts are in other slots than the write. They are stored before the write is sent, so a crash in
    between leaves facts without references, and never references without facts.
    """
    problems: dict[str, StoreError] = {}
    if not facts or not context.slots_matter:
        return problems
    calls = [
        call_script(
            "store_fact_ahead",
            context.keys.fact(raw_hash(fact_hash)),
            [raw_hash(fact_hash), data, context.now_us()],
            size=len(data),
            writes=True,
        )
        for fact_hash, data in facts.items()
    ]
    for fact_hash, call, reply in zip(facts, calls, (yield Batch(calls)), strict=True):
        try:
            if isinstance(answer(reply, call), ErrorReply):
                problems[fact_hash] = fact_not_found(fact_hash)
        except StoreError as error:
            problems[fact_hash] = error
    return problems


def crosses_slots(context: Context, command: Command, reply: Any) -> bool:
    """Return whether the server rejected a write because its facts have other slots: store them ahead, and retry.

    So the store learns that the server enforces slots. INFO would show it, but not every user may use INFO.
    """
    if not (isinstance(reply, ErrorReply) and reply.code == "CROSSSLOT"):
        return False
    context.slots_matter = True
    return len({key.partition("}")[0] for key in command.keys}) > 1


def fact_not_found(fact_hash: str) -> FactNotFound:
    """Return the error for an event, or a snapshot, that refers to a fact that is not stored."""
    return FactNotFound(
        f"An event or a snapshot refers to the fact {fact_hash!r}, which is not stored. Append it as a Fact, or "
        "put_fact it before. Nothing was stored.",
        hashes=[fact_hash],
    )


def load_each(context: Context, hashes: Iterable[str]) -> Operation[dict[str, Any | StoreError]]:
    """Return the value of each fact, or the error that it cannot be loaded with, in one round trip."""
    buckets = _by_bucket(context, (fact_hash.encode() for fact_hash in hashes))
    commands = _reads(buckets)
    loaded: dict[str, Any | StoreError] = {}
    for members, command, reply in zip(buckets.values(), commands, (yield Batch(commands)), strict=True):
        try:
            values = answer(reply, command)
        except StoreError as error:
            loaded.update((raw.decode(), error) for raw in members)
            continue
        for raw, data in zip(members, values, strict=True):
            fact_hash = raw.decode()
            try:
                loaded[fact_hash] = _missing([fact_hash]) if data is None else _decode(context, raw, data)
            except DecodeError as error:
                loaded[fact_hash] = error
    return loaded


def _missing(hashes: Sequence[Any]) -> FactNotFound:
    named = ", ".join(f"{short_repr(fact_hash, 100)}" for fact_hash in hashes[:10])
    more = f" and {len(hashes) - 10} more" if len(hashes) > 10 else ""
    return FactNotFound(f"No fact is stored under {named}{more}. Nothing was changed. Save them first.", hashes=hashes)


def _load(context: Context, hashes: Iterable[bytes]) -> Operation[dict[bytes, bytes]]:
    """Return the stored bytes of facts by hash, without those that are missing."""
    buckets = _by_bucket(context, hashes)
    found: dict[bytes, bytes] = {}
    for members, reply in zip(buckets.values(), (yield from ask_all(_reads(buckets))), strict=True):
        found.update((raw, data) for raw, data in zip(members, reply, strict=True) if data is not None)
    return found


def _by_bucket(context: Context, hashes: Iterable[bytes]) -> dict[str, list[bytes]]:
    """Return hashes of facts by the keys of their buckets."""
    buckets: dict[str, list[bytes]] = {}
    for raw in hashes:
        buckets.setdefault(context.keys.fact(raw)[0], []).append(raw)
    return buckets


def _reads(buckets: Mapping[str, Sequence[bytes]]) -> list[Command]:
    return [key_command("HMGET", bucket, *members) for bucket, members in buckets.items()]


def _encode(context: Context, fact_hash: str | bytes, value: Any) -> tuple[bytes, bytes]:
    raw = check_hash(fact_hash)
    return raw, context.codec.encode_fact(raw, value)


def save_encoded(context: Context, encoded: Sequence[tuple[bytes, bytes]]) -> Operation[None]:
    """Store encoded facts under their hashes."""
    if not encoded:
        return
    yield from make_namespace(context)
    replies = yield from ask_all(
        [
            call_script(
                "save_fact",
                context.keys.fact(raw),
                [raw, data, str(DIGEST_BYTES), context.now_us()],
                size=len(data),
                writes=True,
            )
            for raw, data in encoded
        ]
    )
    differing = [raw for (raw, _), reply in zip(encoded, replies, strict=True) if isinstance(reply, ErrorReply)]
    if differing:
        others = " The other facts of this call are stored." if len(encoded) > len(differing) else ""
        raise InvalidArgument(
            f"Another value is stored under the fact hash {differing[0]!r}, and stays.{others} A hash stands for one "
            "value: use another hash."
        )


def _decode(context: Context, raw: bytes, data: bytes) -> Any:
    try:
        return context.codec.decode_fact(raw, data)
    except DecodeError as error:
        raise DecodeError(
            f"The fact {raw!r}, at the key {context.keys.fact(raw)[0]!r}, is damaged: {error}. Nothing was changed. "
            "Restore it from a backup."
        ) from error
