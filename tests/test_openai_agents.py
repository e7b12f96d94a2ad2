"""Sessions of the OpenAI Agents SDK: compared with the SDK's own SQLite session; and races, losses, lifetimes."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, Session, SessionSettings, SQLiteSession, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from hypothesis import given, settings
from hypothesis import strategies as st

from runic_redis import AsyncRedisStore, EncodeError, EventsTrimmed, InvalidArgument, RedisStore
from runic_redis.admin.describing import describe_one
from runic_redis.openai_agents import RunicSession
from tests.proxy import Fault, proxied
from tests.servers import RunningServer

_numbers = itertools.count()


def item(text: object) -> Any:
    return {"role": "user", "content": text}


def texts(items: list[Any]) -> list[Any]:
    return [one["content"] for one in items]


@asynccontextmanager
async def opened(url: str, namespace: str, **options: Any) -> AsyncIterator[AsyncRedisStore]:
    async with AsyncRedisStore.from_url(url, namespace=namespace, partitions=1, **options) as store:
        yield store


@pytest.fixture
def run(valkey: RunningServer, namespace: str) -> Callable[[Callable[[AsyncRedisStore], Any]], Any]:
    """Run a coroutine function with a store."""

    def call(main: Callable[[AsyncRedisStore], Coroutine[Any, Any, Any]]) -> Any:
        async def with_store() -> Any:
            async with opened(valkey.url(), namespace) as store:
                return await main(store)

        return asyncio.run(with_store())

    return call


@pytest.fixture
def runner(valkey: RunningServer, namespace: str) -> Iterator[tuple[asyncio.Runner, AsyncRedisStore]]:
    """An event loop and a store, for many examples."""
    with asyncio.Runner() as runner:
        store = AsyncRedisStore.from_url(valkey.url(), namespace=namespace, partitions=1)
        runner.run(store.open())
        yield runner, store
        runner.run(store.close())


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
steps = st.lists(
    st.tuples(st.just("add"), st.lists(st.dictionaries(st.text(max_size=5), values, max_size=3), max_size=4))
    | st.tuples(st.just("get"), st.none() | st.integers(0, 9))
    | st.tuples(st.sampled_from(["pop", "pop", "pop", "clear"]), st.none()),
    max_size=30,
)


@pytest.mark.parametrize("far", [0, 2, 1000])
def test_a_session_does_what_the_sqlite_session_does(
    runner: tuple[asyncio.Runner, AsyncRedisStore], far: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, store = runner
    monkeypatch.setattr("runic_redis.openai_agents._FAR", far)

    @settings(max_examples=60)
    @given(steps=steps, limit=st.none() | st.integers(1, 4))
    def play(steps: list[tuple[str, Any]], limit: int | None) -> None:
        name = f"session-{next(_numbers)}"
        theirs = SQLiteSession(name, session_settings=SessionSettings(limit=limit))
        ours = RunicSession(name, store, session_settings=SessionSettings(limit=limit))
        for verb, argument in [*steps, ("get", None), ("get", 100)]:
            loop.run(compare(theirs, ours, verb, argument))
        theirs.close()

    play()


async def compare(theirs: Session, ours: Session, verb: str, argument: Any) -> None:
    if verb == "add":
        await theirs.add_items(argument)
        await ours.add_items(argument)
    elif verb == "get":
        assert await ours.get_items(argument) == await theirs.get_items(argument)
    elif verb == "pop":
        assert await ours.pop_item() == await theirs.pop_item()
    else:
        await theirs.clear_session()
        await ours.clear_session()


def test_it_is_a_session(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        session = RunicSession("s", store, session_settings={"limit": 2})
        assert isinstance(session, Session)
        assert session.session_settings == SessionSettings(limit=2)
        await session.add_items([item(n) for n in range(5)])
        assert texts(await session.get_items()) == [3, 4]
        assert texts(await session.get_items(3)) == [2, 3, 4]
        assert await session.get_items(-1) == []
        assert RunicSession("s", store).session_settings == SessionSettings()

    run(main)


def test_a_step_reads_no_more_than_it_needs(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over removed items, a reader begins a new read, so it reads none of them."""

    async def main(store: AsyncRedisStore) -> None:
        session = RunicSession("s", store)
        await session.add_items([item("first")])
        for _ in range(40):
            await session.add_items([item("x" * 1000) for _ in range(10)])
        for _ in range(400):
            await session.pop_item()
        await session.add_items([item("last")])
        seen: list[int] = []
        read = store.stream_records

        async def counted(*args: Any, **options: Any) -> AsyncIterator[Any]:
            async for record in read(*args, **options):
                seen.append(record.cursor)
                yield record

        monkeypatch.setattr(store, "stream_records", counted)
        assert texts(await session.get_items()) == ["first", "last"]
        assert seen == [802, 801, 1]

    run(main)


def test_each_item_is_popped_once(valkey: RunningServer, namespace: str) -> None:
    async def pop_all(session: RunicSession) -> list[Any]:
        found = []
        while (one := await session.pop_item()) is not None:
            found.append(one["content"])  # type: ignore[typeddict-item]
        return found

    async def main() -> None:
        async with opened(valkey.url(), namespace) as one, opened(valkey.url(), namespace) as two:
            await RunicSession("s", one).add_items([item(n) for n in range(40)])
            sessions = [RunicSession("s", store) for store in (one, two, one, two)]
            found = await asyncio.gather(*map(pop_all, sessions))
            assert all(popped == sorted(popped, reverse=True) for popped in found)
            assert sorted(itertools.chain(*found)) == list(range(40))
            assert await sessions[0].get_items() == []

    asyncio.run(main())


@pytest.mark.parametrize("change", ["add", "pop", "clear", "clear and add", "delete"])
def test_a_pop_returns_what_it_removes_although_another_changes_the_session(
    run: Any, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(store: AsyncRedisStore) -> None:
        session, other = RunicSession("s", store), RunicSession("s", store)
        await session.add_items([item(n) for n in range(3)])
        read = session._newest

        async def interrupted(limit: int | None) -> Any:
            found = await read(limit)
            monkeypatch.undo()
            if change == "add":
                await other.add_items([item(3)])
            if change == "pop":
                await other.pop_item()
            if change in ("clear", "clear and add"):
                await other.clear_session()
            if change == "clear and add":
                await other.add_items([item(n) for n in range(10, 13)])
            if change == "delete":
                await store.delete("s")
            return found

        monkeypatch.setattr(session, "_newest", interrupted)
        popped = await session.pop_item()
        expected = {
            "add": (3, [0, 1, 2]),
            "pop": (1, [0]),
            "clear": (None, []),
            "clear and add": (12, [10, 11]),
            "delete": (None, []),
        }
        assert (popped and popped["content"], texts(await session.get_items())) == expected[change]  # type: ignore[typeddict-item]

    run(main)


def test_a_reader_that_a_clear_overtakes_reads_what_is_there_then(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(store: AsyncRedisStore) -> None:
        session = RunicSession("s", store)
        await session.add_items([item("x" * 1000) for _ in range(10)])
        for _ in range(200):  # of several pages
            await session.add_items([item("y" * 100_000)])
        read = store.stream_records

        async def overtaken(*args: Any, **options: Any) -> AsyncIterator[Any]:
            async for record in read(*args, **options):
                yield record
                if record.cursor == 210:
                    await session.clear_session()
                    await session.add_items([item("new")])

        monkeypatch.setattr(store, "stream_records", overtaken)
        found = texts(await session.get_items())
        assert found == ["new"]

    run(main)


def test_trimmed_items_are_an_error_that_says_so(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        session = RunicSession("s", store)
        await session.add_items([item(0)])
        await session.add_items([item(1)])
        await store.save_snapshot("s", 1, b"")
        await store.trim("s")
        with pytest.raises(EventsTrimmed):
            await session.get_items()
        assert texts(await session.get_items(1)) == [1]

    run(main)


def test_a_cleared_session_has_no_items_in_the_server(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        session = RunicSession("s", store)
        await session.clear_session()
        assert not await store.exists("s"), "clearing a session that is not there stores nothing"
        await session.add_items([item("x" * 10_000) for _ in range(100)])
        await session.clear_session()
        assert await session.get_items() == []
        assert [event async for event in store.stream("s", after=100)] == [{"continues": 0}]
        usage = await store.memory_usage()
        assert usage["events"] < 5000, usage
        assert await session.pop_item() is None
        await session.add_items([item(1), item(2)])
        assert (await session.pop_item(), texts(await session.get_items())) == (item(2), [1])

    run(main)


def test_an_item_without_an_encoding_stores_nothing(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        session = RunicSession("s", store)
        await session.add_items([item(0)])
        with pytest.raises(EncodeError):
            await session.add_items([item(1), item(object())])
        assert texts(await session.get_items()) == [0]
        with pytest.raises(InvalidArgument):
            await RunicSession("s" * 513, store).add_items([item(0)])

    run(main)


def test_a_session_is_changed_once_however_often_replies_are_lost(valkey: RunningServer, namespace: str) -> None:
    async def main(port: int) -> None:
        async with opened(f"redis://127.0.0.1:{port}", namespace) as store:
            session = RunicSession("s", store)
            await session.add_items([item("first")])
            expected: list[Any] = ["first"]
            for at in range(0, 900, 37):
                proxy.arm(Fault("reply", at % 60) if at % 2 else Fault("request", at))
                await session.add_items([item(at), item(-at)])
                popped: Any = await session.pop_item()
                assert popped["content"] == -at
                expected.append(at)
            proxy.arm(None)
            assert proxy.done > 10, "there were losses"
            assert texts(await session.get_items()) == expected

    with proxied(valkey) as proxy:
        asyncio.run(main(proxy.port))


def test_a_session_expires_some_time_after_its_last_change(valkey: RunningServer, namespace: str) -> None:
    async def main() -> None:
        async with opened(valkey.url(), namespace) as store:
            session = RunicSession("s", store, expires_in=3600)
            changes: list[Callable[[], Any]] = [
                lambda: session.add_items([item(1), item(2)]),
                session.pop_item,
                session.clear_session,
            ]
            for change in changes:
                await store.append("s", [{"item": item(0)}], expires_in=60)  # an end that each change replaces
                await change()
                about: Any = await store.run(describe_one(store.context, "s"), "describe")
                assert 3500 < (about.expires - about.written).total_seconds() < 3700

    asyncio.run(main())


@function_tool
def add(left: int, right: int) -> int:
    """Return the sum."""
    return left + right


def test_an_agent_continues_in_another_process_s_store(valkey: RunningServer, namespace: str) -> None:
    config = RunConfig(tracing_disabled=True)

    async def turn(question: str, steps: list[Any]) -> ScriptedModel:
        model = ScriptedModel([*steps])
        agent = Agent(name="clerk", model=model, tools=[add])
        async with opened(valkey.url(), namespace) as store:
            done = await Runner.run(agent, question, session=RunicSession("chat-1", store), run_config=config)
        assert done.final_output == "done"
        return model

    answer = [assistant_message("done")]
    asyncio.run(turn("What is 2 + 3?", [[function_call("add", {"left": 2, "right": 3}, call_id="call-1")], answer]))
    model = asyncio.run(turn("And twice that?", [answer]))
    (call,) = model.calls
    assert isinstance(call.input, list)
    shape = [one.get("type", "message") for one in call.input]
    assert shape == ["message", "function_call", "function_call_output", "message", "message"]
    assert call.input[2]["output"] == "5"
    with RedisStore.from_url(valkey.url(), namespace=namespace, partitions=1) as store:
        assert store.cursor("chat-1") == 6
