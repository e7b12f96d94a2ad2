"""Conversations of Pydantic AI: compared with the framework's store in memory; and races, losses, lifetimes."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_ai import Agent, Conversation, DeferredToolRequests
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
    InMemoryConversationStore,
)
from pydantic_ai.exceptions import UserError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import RequestUsage, RunUsage

from runic_redis import AsyncRedisStore, FactNotFound, InvalidArgument
from runic_redis.admin.describing import describe_one
from runic_redis.pydantic_ai import RunicConversationStore
from tests.proxy import Fault, proxied
from tests.servers import RunningServer

_numbers = itertools.count()
_TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@asynccontextmanager
async def opened(url: str, namespace: str) -> AsyncIterator[AsyncRedisStore]:
    async with AsyncRedisStore.from_url(url, namespace=namespace, partitions=4) as store:
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


def ask(text: str) -> ModelRequest:
    return ModelRequest(parts=[UserPromptPart(text, timestamp=_TIME)], timestamp=_TIME)


def said(conversation: Conversation | None) -> list[Any]:
    assert conversation is not None
    return [message.parts[0].content for message in conversation.messages]  # type: ignore[union-attr]


async def saved(conversations: ConversationStore, name: str, *texts: str, **options: Any) -> Conversation:
    conversation = Conversation(conversation_id=name, messages=[ask(text) for text in texts])
    await conversations.save(conversation, **options)
    return conversation


async def outcome(call: Awaitable[Any]) -> Any:
    """Return the result of a call, or the type of its error."""
    try:
        return await call
    except ConversationConflict:
        return ConversationConflict
    except UserError:
        return UserError
    except LookupError:
        return LookupError


class Both(ConversationStore):
    """Calls two stores, and compares what they do."""

    def __init__(self, ours: ConversationStore) -> None:
        self.ours = ours
        self.theirs = InMemoryConversationStore()

    async def _call(self, name: str, *args: Any, **options: Any) -> Any:
        theirs = await outcome(getattr(self.theirs, name)(*args, **options))
        ours = await outcome(getattr(self.ours, name)(*args, **options))
        assert ours == theirs, name
        if isinstance(theirs, type):
            raise theirs(*args[:1])
        return ours

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        return await self._call("read_record", conversation_id)

    async def read_records(self, *, scope: str | None = None, limit: int | None = None) -> Sequence[ConversationRecord]:
        return await self._call("read_records", scope=scope, limit=limit)

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        await self._call("write_record", record, new_entries=new_entries, expected_revision=expected_revision)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        await self._call("delete_record", conversation_id, expected_revision=expected_revision)

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        return await self._call("read_entry", entry_id)

    async def read_history(self, head_id: str | None, *, limit: int | None = None) -> list[ConversationEntry]:
        return await self._call("read_history", head_id, limit=limit)


MESSAGES: list[Callable[[int], ModelMessage]] = [
    lambda n: ask(f"question {n}"),
    lambda n: ModelResponse(
        parts=[TextPart(f"answer {n} \u20ac"), ToolCallPart("look", {"n": n, "deep": [{"x": None}]}, f"call-{n}")],
        usage=RequestUsage(input_tokens=n),
        model_name="stub",
        timestamp=_TIME,
    ),
    lambda n: ModelRequest(parts=[ToolReturnPart("look", {"found": [n, 0.5]}, f"call-{n}", timestamp=_TIME)]),
    lambda n: ModelRequest(
        parts=[UserPromptPart(["a file", BinaryContent(bytes([n % 256, 255, 0]), media_type="x/y")], timestamp=_TIME)]
    ),
]
NAMES = st.sampled_from(["a", "b", "c"])
SCOPES = st.sampled_from([None, None, "", "ada"])
steps = st.lists(
    st.tuples(st.just("save"), NAMES, st.lists(st.sampled_from(MESSAGES), max_size=3), SCOPES)
    | st.tuples(st.just("save again"), NAMES, st.booleans(), SCOPES)
    | st.tuples(st.just("rewrite"), NAMES, st.integers(0, 3), SCOPES)
    | st.tuples(st.just("branch"), NAMES, st.integers(0, 6), SCOPES)
    | st.tuples(st.just("branch to"), NAMES, st.integers(0, 9), SCOPES)
    | st.tuples(st.just("fork"), NAMES, st.integers(0, 6), NAMES)
    | st.tuples(st.just("delete"), NAMES, st.none(), SCOPES)
    | st.tuples(st.just("load"), NAMES, st.integers(0, 4), SCOPES)
    | st.tuples(st.just("list"), SCOPES, st.none() | st.integers(0, 3), st.none()),
    min_size=3,
    max_size=25,
)


class Player:
    """Plays steps on a store, as an application would."""

    def __init__(self, conversations: ConversationStore) -> None:
        self.conversations = conversations
        self.prefix = f"{next(_numbers)}-"
        self.held: dict[str, Conversation] = {}
        self.entries: list[str] = []

    async def play(self, steps: list[tuple[Any, ...]]) -> None:
        for verb, name, argument, other in steps:
            method = getattr(self, verb.replace(" ", "_"))
            name_of = name if verb == "list" else self.prefix + name
            await outcome(method(name_of, argument, other))
        for name in ("a", "b", "c"):
            await self.load(self.prefix + name, None, None)

    async def save(self, name: str, makers: list[Callable[[int], ModelMessage]], scope: str | None) -> None:
        conversation = await self.conversations.load(name) or Conversation(conversation_id=name)
        conversation.messages += [make(next(_numbers)) for make in makers]
        conversation.usage = conversation.usage + RunUsage(requests=1, input_tokens=len(makers))
        self.entries += [entry.id for entry in await self.conversations.save(conversation, scope=scope)]
        self.held[name] = conversation

    async def save_again(self, name: str, is_new: bool, scope: str | None) -> None:
        """Save a conversation that someone may have changed since."""
        conversation = self.held.get(name) or Conversation(conversation_id=name)
        if is_new:
            conversation = Conversation(conversation_id=name)
        conversation.messages.append(ask(f"late {next(_numbers)}"))
        self.entries += [entry.id for entry in await self.conversations.save(conversation, scope=scope)]

    async def rewrite(self, name: str, at: int, scope: str | None) -> None:
        if (conversation := await self.conversations.load(name, scope=scope)) is not None:
            conversation.messages[at:] = [ask(f"other {next(_numbers)}")]
            conversation.new_message_index = None
            self.entries += [entry.id for entry in await self.conversations.save(conversation)]

    async def branch(self, name: str, at: int, scope: str | None) -> None:
        if (record := await self.conversations.read_record(name)) is not None:
            await self.conversations.branch(name, at=at, expected_revision=record.revision, scope=scope)

    async def branch_to(self, name: str, index: int, scope: str | None) -> None:
        if (record := await self.conversations.read_record(name)) is not None and self.entries:
            entry = self.entries[-1 - index % len(self.entries)]
            await self.conversations.branch(name, from_entry=entry, expected_revision=record.revision)

    async def fork(self, name: str, at: int, new: str) -> None:
        await self.conversations.fork(name, at=at, new_conversation_id=self.prefix + new)

    async def delete(self, name: str, _: None, scope: str | None) -> None:
        await self.conversations.delete(name, scope=scope)

    async def load(self, name: str, limit: int | None, scope: str | None) -> None:
        await self.conversations.load(name, limit=limit, scope=scope)
        for entry in await self.conversations.load_entries(name) or ():
            assert await self.conversations.read_entry(entry.id) == entry

    async def list(self, scope: str | None, limit: int | None, _: None) -> None:
        listed = await self.conversations.list_conversations(scope=scope, limit=limit)
        assert limit is None or len(listed) <= limit


def test_a_store_does_what_the_store_in_memory_does(valkey: RunningServer, namespace: str) -> None:
    @settings(max_examples=60)
    @given(steps=steps)
    def play(steps: list[tuple[Any, ...]]) -> None:
        async def main() -> None:
            async with opened(valkey.url(), f"{namespace}-{next(_numbers)}") as store:
                await Player(Both(RunicConversationStore(store))).play(steps)

        asyncio.run(main())

    play()


def test_of_writers_that_race_one_wins(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversations = RunicConversationStore(store)
        await saved(conversations, "c", "first")
        loaded = [await conversations.load("c") for _ in range(8)]
        for n, one in enumerate(loaded):
            assert one is not None
            one.messages.append(ask(str(n)))
        results = await asyncio.gather(*(conversations.save(one) for one in loaded if one), return_exceptions=True)
        won = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert len(won) == 1
        assert sum(isinstance(result, ConversationConflict) for result in results) == 7
        assert said(await conversations.load("c")) == ["first", str(won[0])]

    run(main)


def test_turns_of_two_stores_are_all_kept(valkey: RunningServer, namespace: str) -> None:
    async def chat(store: AsyncRedisStore, name: str) -> None:
        conversations = RunicConversationStore(store)
        for n in range(15):
            while True:
                conversation = await conversations.load("c") or Conversation(conversation_id="c")
                conversation.messages.append(ask(f"{name}{n}"))
                if await outcome(conversations.save(conversation)) is not ConversationConflict:
                    break

    async def main() -> None:
        async with opened(valkey.url(), namespace) as one, opened(valkey.url(), namespace) as two:
            await asyncio.gather(chat(one, "a"), chat(two, "b"), chat(two, "c"))
            texts = said(await RunicConversationStore(one).load("c"))
            for name in "abc":
                assert [text for text in texts if text[0] == name] == [f"{name}{n}" for n in range(15)]
            assert len(texts) == 45

    asyncio.run(main())


@pytest.mark.parametrize("verb", ["save", "delete"])
def test_a_conversation_that_was_deleted_and_created_meanwhile_is_another(
    run: Any, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the same number of commits, and yet a writer that has read the old one does not touch it."""

    async def main(store: AsyncRedisStore) -> None:
        conversations, others = RunicConversationStore(store), RunicConversationStore(store)
        conversation = await saved(conversations, "c", "old")
        append = store.append

        async def interrupted(*args: Any, **options: Any) -> int:
            monkeypatch.undo()
            await others.delete("c")
            await saved(others, "c", "new")
            return await append(*args, **options)

        conversation.messages.append(ask("more"))
        assert conversation.revision is not None
        monkeypatch.setattr(store, "append", interrupted)
        with pytest.raises(ConversationConflict):
            if verb == "save":
                await conversations.save(conversation)
            else:
                await conversations.delete_record("c", expected_revision=conversation.revision)
        assert said(await conversations.load("c")) == ["new"]

    run(main)


def test_a_conversation_created_after_a_deletion_stays(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversations = RunicConversationStore(store)
        await saved(conversations, "c", "old")
        await conversations.delete("c")
        about: Any = await store.run(describe_one(store.context, "c"), "describe")
        assert about.expires is not None, "the server forgets the deletion"
        await saved(conversations, "c", "new")
        about = await store.run(describe_one(store.context, "c"), "describe")
        assert about.expires is None
        assert said(await conversations.load("c")) == ["new"]

    run(main)


def test_a_fork_outlives_its_source_and_the_last_one_releases_the_messages(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversations = RunicConversationStore(store)
        source = await saved(conversations, "source", "1", "2", "3", "4")
        fork = await conversations.fork("source", at=2, new_conversation_id="fork")
        entries = await conversations.load_entries("source")
        assert entries is not None
        await conversations.delete("source")
        assert await conversations.load("source") is None
        assert await store.collect(0) == 2, "only what the fork does not share"
        with pytest.raises(FactNotFound):
            await conversations.read_entry(entries[3].id)
        assert said(await conversations.load("fork")) == ["1", "2"]
        assert said(await conversations.load("fork", limit=1)) == ["2"]
        fork.messages.append(ask("5"))
        await conversations.save(fork)
        assert said(await conversations.load("fork")) == ["1", "2", "5"]
        second = await conversations.fork("fork", at=1, new_conversation_id="second")
        await conversations.delete("fork")
        assert await store.collect(0) == 2
        assert second.messages == source.messages[:1]
        assert said(await conversations.load("second")) == ["1"]
        await conversations.delete("second")
        assert await store.collect(0) == 1
        with pytest.raises(FactNotFound):
            await conversations.read_history(entries[0].id)

    run(main)


def test_a_record_whose_history_is_not_stored_is_rejected(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversations = RunicConversationStore(store)
        await saved(conversations, "c", "1")
        stored = await conversations.read_record("c")
        assert stored is not None
        for record, revision in (
            (ConversationRecord(conversation_id="new", head_id="nothing"), None),
            (replace(stored, head_id="nothing", revision="next"), stored.revision),
        ):
            with pytest.raises(ConversationConflict):
                await conversations.write_record(record, expected_revision=revision)
        assert await conversations.read_record("new") is None
        assert await conversations.read_record("c") == stored

    run(main)


def test_the_last_messages_are_read_alone(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversations = RunicConversationStore(store)
        conversation = Conversation(conversation_id="c")
        for n in range(100):
            conversation.messages += [ask(f"{n} {'x' * 5000}"), ask(f"{n}")]
            await conversations.save(conversation)
        rounds: list[str] = []
        run_operation = store.run

        def counted(operation: Any, name: str, workflow_id: str = "") -> Any:
            rounds.append(name)
            return run_operation(operation, name, workflow_id)

        loaded: list[int] = []
        load_facts = store.load_facts

        async def counted_facts(hashes: Any) -> Any:
            loaded.append(len(hashes))
            return await load_facts(hashes)

        monkeypatch.setattr(store, "run", counted)
        monkeypatch.setattr(store, "load_facts", counted_facts)
        assert said(await conversations.load("c", limit=1)) == ["99"]
        # The second step of each stream finds its page there.
        assert rounds == ["stream", "stream", "load_fact", "stream", "stream", "load_facts"]
        assert loaded == [1]
        rounds.clear()
        whole = await conversations.load("c")
        assert whole is not None
        assert len(whole.messages) == 200
        assert len(rounds) < 10, rounds

    run(main)


def test_lists_have_the_last_saved_first(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversations = RunicConversationStore(store)
        names = [f"c{n}" for n in range(150)]
        for n, name in enumerate(names):
            await saved(conversations, name, "text", scope=("ada", "bob", None)[n % 3])
        for name in names[140:]:
            await conversations.delete(name)
        again = await conversations.load("c0")
        assert again is not None
        await conversations.save(again)
        order = ["c0", *names[139:0:-1]]

        async def listed(**options: Any) -> list[str]:
            return [record.conversation_id for record in await conversations.list_conversations(**options)]

        assert await listed() == order
        assert await listed(limit=3) == order[:3]
        assert await listed(limit=0) == []
        assert await listed(scope="ada") == [name for name in order if int(name[1:]) % 3 == 0]
        assert await listed(scope="ada", limit=2) == ["c0", "c138"]
        assert await listed(scope="carl") == []

    run(main)


def test_what_the_store_cannot_hold_is_rejected_and_stores_nothing(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversations = RunicConversationStore(store)
        with pytest.raises(InvalidArgument):
            await saved(conversations, "c" * 513, "text")
        with pytest.raises(InvalidArgument):
            await saved(conversations, "c", "text", scope="s" * 257)
        assert await conversations.list_conversations() == []

    run(main)


def test_a_save_whose_reply_is_lost_is_stored_once(valkey: RunningServer, namespace: str) -> None:
    async def main(port: int) -> None:
        async with opened(f"redis://127.0.0.1:{port}", namespace) as store:
            conversations = RunicConversationStore(store)
            conversation = await saved(conversations, "c", "first")
            expected = ["first"]
            for at in range(0, 3000, 61):
                proxy.arm(Fault("reply", at % 300) if at % 2 else Fault("request", at))
                conversation.messages.append(ask(str(at)))
                expected.append(str(at))
                await conversations.save(conversation)
            proxy.arm(None)
            assert proxy.done > 10, "there were losses"
            assert said(await conversations.load("c")) == expected
            assert await store.cursor("c") == len(expected)

    with proxied(valkey) as proxy:
        asyncio.run(main(proxy.port))


def test_a_conversation_expires_some_time_after_its_last_save(run: Any) -> None:
    async def main(store: AsyncRedisStore) -> None:
        conversation = await saved(RunicConversationStore(store, expires_in=60), "c", "1")
        conversations = RunicConversationStore(store, expires_in=3600)
        conversation.messages.append(ask("2"))
        await conversations.save(conversation)
        about: Any = await store.run(describe_one(store.context, "c"), "describe")
        assert 3500 < (about.expires - about.written).total_seconds() < 3700
        await store.expire("c", 0)
        while await conversations.load("c") is not None:
            pass
        assert await store.collect(0) == 2
        with pytest.raises(ConversationConflict):
            await conversations.save(conversation)
        await saved(conversations, "c", "new")

    run(main)


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Look something up for each question, then answer with the number of messages so far."""
    last = messages[-1].parts[-1]
    if isinstance(last, UserPromptPart):
        return ModelResponse(parts=[ToolCallPart("look_up", {"word": str(last.content)})])
    return ModelResponse(parts=[TextPart(f"{len(messages)}: {last.content}")])  # type: ignore[union-attr]


def test_an_agent_continues_in_another_process_s_store(valkey: RunningServer, namespace: str) -> None:
    agent = Agent(FunctionModel(answer))

    @agent.tool_plain
    def look_up(word: str) -> str:
        return word.upper()

    async def turn(prompt: str) -> tuple[str, int]:
        async with opened(valkey.url(), namespace) as store:
            conversations = RunicConversationStore(store)
            conversation = await conversations.load("chat", scope="ada") or Conversation(conversation_id="chat")
            result = await agent.run(prompt, conversation=conversation)
            return result.output, len(await conversations.save(result, scope="ada"))

    assert asyncio.run(turn("one")) == ("3: ONE", 4)
    assert asyncio.run(turn("two")) == ("7: TWO", 4)


def test_a_run_that_waits_for_approval_is_continued_later(valkey: RunningServer, namespace: str) -> None:
    agent = Agent(FunctionModel(answer), output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def look_up(word: str) -> str:
        return word.upper()

    async def pause() -> None:
        async with opened(valkey.url(), namespace) as store:
            conversations = RunicConversationStore(store)
            result = await agent.run("one", conversation=Conversation(conversation_id="chat"))
            assert isinstance(result.output, DeferredToolRequests)
            await conversations.save(result)

    async def resume() -> object:
        async with opened(valkey.url(), namespace) as store:
            conversations = RunicConversationStore(store)
            conversation = await conversations.load("chat")
            assert conversation is not None
            waiting = conversation.deferred_tool_requests
            assert waiting is not None
            answers = waiting.build_results(approve_all=True)
            result = await agent.run(conversation=conversation, deferred_tool_results=answers)
            await conversations.save(result)
            assert (await conversations.load("chat")).deferred_tool_requests is None  # type: ignore[union-attr]
            return result.output

    asyncio.run(pause())
    assert asyncio.run(resume()) == "3: ONE"
