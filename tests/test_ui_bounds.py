"""The page shows values of any width, depth and size, without delaying other requests."""

import asyncio
import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import msgpack
import pytest
from hypothesis import given
from starlette.requests import Request

from runic_redis import AsyncRedisStore, DecodeError, Fact, RedisStore, StoreError
from runic_redis.admin import browsing
from runic_redis.admin.browsing import fact, fact_previews, page, samples
from runic_redis.codec import Codec, payload_size
from runic_redis.codec.compression import compress
from runic_redis.codec.facts import DIGEST_BYTES, checksum
from runic_redis.context import without_classes
from runic_redis.events import bare_registry, parts_of
from runic_redis.events.plain import event_text, to_json
from runic_redis.ui import forms, views
from runic_redis.ui.app import make_app
from runic_redis.ui.bounds import json_size, short, short_event
from runic_redis.ui.live import Live
from runic_redis.ui.views import Views
from tests.servers import RunningServer
from tests.strategies import values
from tests.test_plain import bare

# What a megabyte is scaled down to here, with the limits: decoding a real one takes half a second.
MB = 2**17
PLAIN = msgpack.packb([[None, 0, []]])
REFERENCE = msgpack.packb([["made", 1, ["ref"]], ["runic_redis.fact_ref", 1, ["hash"]]])
PRODUCED = msgpack.packb([["runic.fact_produced", 1, ["hash", "value", "kind", "ancestry", "weight"]]])


def many(count: int, packed: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + packed * count


def ext(code: int, data: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, data))
    return packed


def held(value: bytes) -> bytes:
    """The rows of a plain event that holds a value under "k"."""
    return b"\x91\x91\x81\xa1k" + value


# Entries that no store of ours writes, or that are as large as one may be: a header and rows.
SHAPES = {
    "lists beyond decoding": (PLAIN, held(many(16 * MB - 200, b"\x90"))),
    "many lists": (PLAIN, held(many(MB, b"\x90"))),
    "many extensions": (PLAIN, held(many(MB // 10, ext(2, b"\x90")))),
    "many keys": (PLAIN, held(msgpack.packb({f"{n:07}": {} for n in range(MB // 16)}))),
    "deep": (PLAIN, held(b"\x91" * 500 + b"\xc0")),
    "wide below deep": (PLAIN, held(b"\x91" * 200 + many(MB, b"\xc0"))),
    "a long text": (PLAIN, held(msgpack.packb("x" * (2 * MB - 100)))),
    "long bytes": (PLAIN, held(msgpack.packb(b"x" * (2 * MB - 100)))),
    "an int of a megabyte": (PLAIN, held(ext(1, b"\x7f" * MB))),
    "an int of 10 000 digits": (PLAIN, held(ext(1, b"\x7f" * 4153))),
    "a set with a long int": (PLAIN, held(ext(3, b"\x91" + ext(1, b"\x80" * 5000)))),
    "a decimal of a megabyte": (PLAIN, held(ext(9, b"9" * MB))),
    "odd texts": (PLAIN, held(msgpack.packb("\u2028\0\r\n\u202e\x9b\x1b[31m"))),
    "a long name": (msgpack.packb([["n" * 900_000, 1, ["f" * 90_000]]]), b"\x91\x91\xc0"),
    "many fields": (msgpack.packb([["n", 1, [f"f{n:05}" for n in range(70_000)]]]), b"\x91" + many(70_000, b"\x00")),
    "a reference to bytes": (REFERENCE, b"\x91\x91" + ext(11, b"\x92\x01\xc4\x01a")),
    "a reference to a long int": (REFERENCE, b"\x91\x91" + ext(11, b"\x92\x01" + ext(1, b"\x7f" * 5000))),
    "a reference to much": (REFERENCE, b"\x91\x91" + ext(11, b"\x92\x01" + many(200_000, b"\x80"))),
    "a reference to nothing": (REFERENCE, b"\x91\x91" + ext(11, b"\x91\x01")),
    "a reference as an event": (msgpack.packb([["runic_redis.fact_ref", 1, ["hash"]]]), b"\x91\x91\x01"),
    "a reference by a long name": (REFERENCE, b"\x91\x91" + ext(11, b"\x92\x01" + msgpack.packb("h" * MB))),
    "a fact of a long number": (PRODUCED, b"\x91\x95" + ext(1, b"\x7f" * 5000) + b"\xc0\xc0\x92\xa1n\xa1f\x01"),
    "a fact by a long number": (PRODUCED, b"\x91\x95\xa1f\xc0\xc0\x92" + ext(1, b"\x7f" * 5000) + b"\xa1f\x01"),
    "a fact by a long name": (PRODUCED, b"\x91\x95" + msgpack.packb("h" * MB) + b"\xc0\xc0\xc0\x01"),
    "no rows": (PLAIN, b"\x90"),
    "a header of nothing, beyond decoding": (b"\x90", held(many(3 * MB, b"\x90"))),
    "a damaged header, beyond decoding": (b"\xc1", held(many(3 * MB, b"\x90"))),
    "an odd version, beyond decoding": (msgpack.packb([["n", -5, []]]), held(many(3 * MB, b"\x90"))),
}  # fmt: skip
METADATA = {
    "wide": b"\x81\xa1k" + many(65_000, b"\x90"),
    "long int": b"\x81\xa1k" + ext(1, b"\x7f" * 30_000),
    "too long": b"\x81\xa1k" + msgpack.packb(b"x" * 70_000),
    "damaged": b"\xc1",
}
FACTS = {
    "beyond decoding": many(16 * MB, b"\x90"),
    "far beyond decoding": many(100 * MB, b"\x90"),
    "wide": many(MB, b"\x90"),
    "long int": ext(1, b"\x7f" * MB),
    "damaged": b"\xc1",
}


@pytest.fixture(scope="module", autouse=True)
def _limits() -> Iterator[None]:
    limits = {browsing: ("_MOST_BYTES", "_LARGEST_DECODED", "_MOST_DECODED"), forms: ("_LONGEST",)}
    with pytest.MonkeyPatch.context() as patch:
        for module, names in limits.items():
            for name in names:
                patch.setattr(module, name, getattr(module, name) * MB // 2**20)
        yield


@pytest.fixture(scope="module")
def odd(valkey: RunningServer) -> Iterator[RedisStore]:
    """A store with a workflow for each shape. The workflow's second event has the shape."""
    with RedisStore.from_url(valkey.url(), namespace="odd", partitions=2) as store, valkey.client() as client:
        for name, (header, rows) in SHAPES.items():
            entry(store, client, name, header, rows)
        for name, metadata in METADATA.items():
            entry(store, client, name, PLAIN, held(b"\x01"), metadata)
        for name, packed in FACTS.items():
            raw = name.encode()
            head = bytes(DIGEST_BYTES)
            data = head + checksum(raw, head, packed) + compress(packed)
            client.hset(store.context.keys.fact(raw)[0], raw, data)
        yield store
        store.delete_namespace()


def entry(
    store: RedisStore, client: Any, name: str, header: bytes, rows: bytes, metadata: bytes | None = None, count: int = 1
) -> None:
    store.append(name, [{"n": 1}])
    keys = store.context.keys.workflow(name)
    fields = [header, compress(rows), b"i", b"id", *([] if metadata is None else [b"m", metadata])]
    for cursor in range(2, count + 2):
        client.execute_command("XADD", keys.events, f"{cursor}-1", *fields)
    client.hset(keys.meta, "cursor", count + 1)


def asked(url: str, look: Callable[[Views], Any]) -> Any:
    """Return what a function returns for the views of the namespace."""

    async def ask() -> Any:
        async with AsyncRedisStore.from_url(url, namespace="odd", partitions=2) as store:
            store.context = without_classes(store.context)
            return await look(Views(store, Live(store)))

    return asyncio.run(ask())


def request(**query: Any) -> Request:
    return Request({"type": "http", "headers": [], "query_string": urlencode(query).encode()})


@pytest.mark.parametrize("name", [*SHAPES, *METADATA])
def test_an_event_of_any_shape_is_shown_as_far_as_it_fits(odd: RedisStore, valkey: RunningServer, name: str) -> None:
    async def look(views: Views) -> list[Any]:
        of = {"id": name}
        return [
            await views.events(request(**of)),
            await views.events(request(**of, after=0)),
            await views.event(request(**of, cursor=2)),
            await views.graph(request(**of)),
            await views.overview(request(**of)),
            await views.workflow(request(**of)),
        ]

    answers = asked(valkey.url(), look)
    assert [answer.status_code for answer in answers] == [200] * 6
    line, rising, event, graph, overview, _ = (json.loads(answer.body) for answer in answers)
    assert line == rising
    assert [commit["last"] for commit in line["commits"]] == [2, 1], "what is beside it is shown"
    damaged = bool(line["commits"][0]["problem"])
    assert bool(event["problem"]) == damaged
    assert len(overview["samples"]) == 2 - damaged
    assert {node["kind"] for node in graph["nodes"]} <= {"event", "fact", "step"}
    assert all(len(answer.body) < 100_000 for answer in (answers[0], *answers[3:])), "in a line each"
    if not damaged:
        fields = event["fields"]
        assert (fields["json"] == "") == (fields["value"] is None) == (fields["length"] > 2 * MB)
    assert len(answers[2].body) < 16 * MB


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_of_any_shape_is_shown_as_far_as_it_fits(odd: RedisStore, valkey: RunningServer, name: str) -> None:
    answer = asked(valkey.url(), lambda views: views.fact(request(hash=name)))
    found = json.loads(answer.body)
    assert answer.status_code == 200
    if name == "damaged":
        assert "is damaged" in found["problem"]
        return
    assert (found["value"]["value"], found["value"]["json"], found["problem"]) == (None, "", "")
    assert found["value"]["length"] > 2 * MB
    assert found["checked"] == ("beyond" not in name), "no value is said to match that was not looked at"


def test_a_damaged_reference_is_reported_in_its_place(odd: RedisStore, valkey: RunningServer) -> None:
    event = asked(valkey.url(), lambda views: views.event(request(id="a reference to bytes", cursor=2)))
    line = asked(valkey.url(), lambda views: views.events(request(id="a reference to bytes")))
    problem = json.loads(event.body)["problem"]
    assert "A reference to a fact is damaged" in problem
    assert json.loads(line.body)["commits"][0]["problem"] == problem


class Counting:
    """A codec that counts the bytes that it decodes."""

    def __init__(self) -> None:
        self._codec = Codec(bare_registry, "wrap")
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def decode_entry(self, header: bytes, payload: bytes) -> Any:
        self.bytes += payload_size(payload)
        return self._codec.decode_entry(header, payload)

    def decode_fact(self, fact_hash: bytes, data: bytes) -> Any:
        self.bytes += payload_size(data[16:])
        return self._codec.decode_fact(fact_hash, data)


@pytest.mark.parametrize("each", [16 * MB - 200, 2 * MB - 1000, MB, 1000])
def test_no_view_decodes_much_however_small_it_is_when_stored(
    odd: RedisStore, valkey: RunningServer, each: int
) -> None:
    name = f"packed {each}"
    with valkey.client() as client:
        entry(odd, client, name, PLAIN, held(many(each, b"\x01")), count=40)
    context = without_classes(odd.context)
    for operation in (
        lambda: page(context, name, count=500),
        lambda: page(context, name, after=0, count=500),
        lambda: page(context, name, upto=30, count=500),
        lambda: samples(context, name, 160),
    ):
        context.codec = counting = Counting()  # type: ignore[assignment]
        found = odd.run(operation(), "operation")()
        assert counting.bytes <= 2 * MB
        shown = found if type(found) is list else found.entries
        assert len(shown) >= (1 if MB <= each < 16 * MB - 200 else 30)
        if type(found) is not list and len(shown) < 30:
            assert found.older or found.newer, "the rest is on other pages"


@pytest.mark.parametrize("name", FACTS)
def test_no_fact_is_decoded_that_holds_much_however_small_it_is_when_stored(odd: RedisStore, name: str) -> None:
    context = without_classes(odd.context)
    context.codec = counting = Counting()  # type: ignore[assignment]
    with suppress(DecodeError):
        odd.run(fact(context, name), "browse")()
    assert counting.bytes <= 2 * MB


def test_previews_of_facts_decode_little_and_leave_out_damage(odd: RedisStore) -> None:
    short_fact, long_fact = odd.put_fact({"n": 1}), odd.put_fact("x" * 100_000)
    context = without_classes(odd.context)
    context.codec = counting = Counting()  # type: ignore[assignment]
    found = odd.run(fact_previews(context, [*FACTS, short_fact, long_fact, "missing"]), "browse")()
    assert counting.bytes <= 4096
    assert found[short_fact] == ({"n": 1}, 5, False)
    assert set(found) == {*FACTS, short_fact, long_fact} - {"damaged"}
    assert all(one.is_too_large and one.value is None for name, one in found.items() if name != short_fact)
    assert found["wide"].size > 10**5, "the size as decompressed"


@pytest.mark.parametrize(
    ("limits", "query"),
    [
        ({"_MOST_IDS": 25}, {"containing": "not there"}),
        ({"_MOST_CHECKED": 25}, {"state": "open", "containing": "not there"}),
    ],
)
def test_a_search_stops_after_so_many_workflows_and_goes_on_from_there(
    odd: RedisStore, valkey: RunningServer, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], query: Any
) -> None:
    for name, most in limits.items():
        monkeypatch.setattr(views, name, most)

    async def look(seen: Views) -> list[Any]:
        answers = [json.loads((await seen.workflows(request(**query))).body)]
        while answers[-1]["next"]:
            answers.append(json.loads((await seen.workflows(request(**query, before=answers[-1]["next"]))).body))
        return answers

    answers = asked(valkey.url(), look)
    assert all(answer["workflows"] == [] for answer in answers)
    assert len(answers) == math.ceil(len(list(odd.list())) / 25) > 1


def test_a_filter_stops_after_so_many_events_and_goes_on_from_there(
    odd: RedisStore, valkey: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_MOST_FILTERED", 10)
    odd.append_many([("filtered", [{"n": n}]) for n in range(45)])

    async def look(seen: Views) -> list[Any]:
        found = [json.loads((await seen.events(request(id="filtered", containing="n=4"))).body)]
        while found[-1]["older"]:
            query = {"id": "filtered", "containing": "n=4", "upto": found[-1]["first"] - 1}
            found.append(json.loads((await seen.events(request(**query))).body))
        return found

    found = asked(valkey.url(), look)
    assert [(one["last"], one["first"]) for one in found] == [(45, 36), (35, 26), (25, 16), (15, 6), (5, 1)]
    assert [[event["cursor"] for commit in one["commits"] for event in commit["events"]] for one in found] == [
        [45, 44, 43, 42, 41],
        [],
        [],
        [],
        [5],
    ]


VIEWS: dict[str, tuple[Callable[[Views, Request], Any], dict[str, Any]]] = {
    "events": (Views.events, {}),
    "event": (Views.event, {"cursor": 1}),
    "graph": (Views.graph, {}),
    "overview": (Views.overview, {}),
    "fact": (Views.fact, {}),
}


@pytest.mark.parametrize("view", VIEWS)
def test_other_requests_are_answered_while_a_value_is_decoded(
    odd: RedisStore, valkey: RunningServer, view: str
) -> None:
    odd.append("slow", [{"f": Fact("slow")}])
    kept = odd.put_fact("slow")
    decoding, answered = threading.Event(), threading.Event()

    class Slow(Counting):
        def _wait(self) -> None:
            decoding.set()
            assert answered.wait(20), "nobody else was answered meanwhile"

        def decode_entry(self, header: bytes, payload: bytes) -> Any:
            self._wait()
            return super().decode_entry(header, payload)

        def decode_fact(self, fact_hash: bytes, data: bytes) -> Any:
            self._wait()
            return super().decode_fact(fact_hash, data)

    async def look(views: Views) -> Any:
        views._context.codec = Slow()  # type: ignore[assignment]
        method, query = VIEWS[view]
        slow = asyncio.create_task(method(views, request(id="slow", hash=kept, **query)))
        assert await asyncio.to_thread(decoding.wait, 60)
        other = await views.summary(request())
        answered.set()
        return [other, await slow]

    assert [answer.status_code for answer in asked(valkey.url(), look)] == [200, 200]


@given(values)
def test_a_line_begins_as_the_whole_text_does(value: Any) -> None:
    event = bare({"value": value, "again": [value]})
    if kinds_of(event).isdisjoint({set, frozenset}):  # these come in any order
        assert short_event(event, 40) == short(event_text(event), 40)
    assert len(short_event(event, 40)) <= 40
    wide = {"value": value if type(value) is int else 0, "k": [1] * 99, "l": ["", ()] * 99}
    text = event_text(wide)
    assert all(short_event(wide, most) == short(text, most) for most in (1, 40, 300, 5000))


@given(values)
def test_no_value_that_fits_is_taken_for_too_long(value: Any) -> None:
    text = json.dumps(to_json(bare({"value": value})), ensure_ascii=False, indent=2)
    assert json_size(bare({"value": value}), 10**9) <= 2 * len(text) + 10
    assert json_size(bare({"value": value}), 3) > 3


def kinds_of(value: Any) -> set[type]:
    return {type(value)}.union(*map(kinds_of, parts_of(value, bare_registry)))


def test_a_view_that_fails_says_what_is_damaged(odd: RedisStore, valkey: RunningServer) -> None:
    odd.append("meta", [{"n": 1}])
    odd.append("foreign", [{"n": 1}])
    with valkey.client() as client:
        keys = odd.context.keys.workflow
        client.hset(keys("meta").meta, mapping={"largest": "x", "trimmed": "x"})
        client.delete(keys("foreign").events)
        client.set(keys("foreign").events, "x")

    async def look(views: Views) -> Any:
        return [await views.events(request(id="meta")), await views.overview(request(id="meta"))]

    assert [answer.status_code for answer in asked(valkey.url(), look)] == [200, 200]
    failed = make_app(SimpleNamespace(context=None), SimpleNamespace(), None, allow_changes=False).exception_handlers[
        StoreError
    ]  # type: ignore[arg-type]

    async def fail(views: Views) -> Any:
        with pytest.raises(StoreError) as raised:
            await views.events(request(id="foreign"))
        return await failed(request(), raised.value)  # type: ignore[misc]

    answer = asked(valkey.url(), fail)
    with valkey.client() as client:
        client.delete(keys("foreign").events)  # or the namespace could not be deleted
    assert answer.status_code == 422
    assert "not of this store" in json.loads(answer.body)["error"]
