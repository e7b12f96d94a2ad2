"""Runs of LangGraph graphs on one saver, with `invoke` or `ainvoke`, and what they show: comparable between savers."""

import asyncio
import copy
import dataclasses
import functools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from pydantic import BaseModel

__all__ = ["Run"]

Contexts = Callable[[], Any]

# Ends a wait for other nodes. It is long, because a slow machine must not fail a test.
LIMIT_S = 60.0
ALL_MODES = ["values", "updates", "custom", "checkpoints", "tasks"]
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_INTERRUPT = r"\b[0-9a-f]{32}\b"
_VERSION = r"\b0\d{31}\.[0-9a-z.-]+"
_ID = re.compile(f"{_VERSION}|{_UUID}|{_INTERRUPT}")
_TIME = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[.0-9]*[+]00:00")


class _Unordered(list[Any]):
    """Things whose order depends on which of parallel nodes is faster."""


class Run:
    """A run of an outcome: its graphs, and notes of all that it sees.

    Args:
        contexts: makes a context manager, which opens a saver.
        runner: runs the asynchronous methods of graphs. None: the synchronous methods are used.

    Attributes:
        saver: the saver.
        ran: the nodes that ran, in this order.
    """

    def __init__(self, contexts: Contexts, runner: asyncio.Runner | None) -> None:
        self._contexts = contexts
        self._runner = runner
        self._notes: list[tuple[str, Any]] = []
        self._threads: dict[str, None] = {}
        self.ran: list[str] = []
        self._open()

    @property
    def is_asynchronous(self) -> bool:
        return self._runner is not None

    def _open(self) -> None:
        self._context = self._contexts()
        if self._runner is None:
            self.saver = self._context.__enter__()
        else:
            self.saver = self._runner.run(self._context.__aenter__())

    def close(self) -> None:
        """Close the saver."""
        if self._runner is None:
            self._context.__exit__(None, None, None)
        else:
            self._runner.run(self._context.__aexit__(None, None, None))

    def reopen(self) -> None:
        """Use another saver of the same data from now on."""
        self.close()
        self._open()

    # Graphs

    def node(self, function: Callable[..., Any], after: int = 0) -> Callable[..., Any]:
        """Return a node that calls a function, and notes that it ran. It is a coroutine function if runs need that.

        Args:
            function: the function. Its name becomes that of the node.
            after: the node begins when so many other tasks of its step have stored their writes.
        """

        @functools.wraps(function)
        def call(state: Any, *args: Any, **options: Any) -> Any:
            limit_s = time.monotonic() + LIMIT_S
            while after and self._count_tasks(self.saver.get_tuple(self._latest)) < after:
                assert time.monotonic() < limit_s, "the other tasks store nothing"
                time.sleep(0.002)
            self.ran.append(function.__name__)
            return function(state, *args, **options)

        @functools.wraps(function)
        async def acall(state: Any, *args: Any, **options: Any) -> Any:
            limit_s = time.monotonic() + LIMIT_S
            while after and self._count_tasks(await self.saver.aget_tuple(self._latest)) < after:
                assert time.monotonic() < limit_s, "the other tasks store nothing"
                await asyncio.sleep(0.002)
            self.ran.append(function.__name__)
            return function(state, *args, **options)

        return acall if self.is_asynchronous else call

    @staticmethod
    def _count_tasks(saved: Any) -> int:
        return len({task_id for task_id, *_ in saved.pending_writes}) if saved else 0

    def nodes(self, builder: Any, *functions: Callable[..., Any]) -> None:
        """Add a node for each function, under its name."""
        for function in functions:
            builder.add_node(function.__name__, self.node(function))

    def compile(self, builder: StateGraph[Any], **options: Any) -> Any:
        """Compile a graph with the saver."""
        return builder.compile(checkpointer=self.saver, **options)

    # Calls of graphs

    def invoke(self, graph: Any, given: Any, thread: Any = "t", **options: Any) -> Any:
        """Run a graph. Return its output or the exception that it raised."""
        try:
            output = self._call(graph, "invoke", given, self._config(thread), **options)
        except Exception as error:
            output = error
        return self._note("invoke", output)

    def stream(
        self, graph: Any, given: Any, thread: Any = "t", modes: Sequence[str] = ALL_MODES, **options: Any
    ) -> list[Any]:
        """Run a graph. Return what it streams."""
        chunks = self._call(graph, "stream", given, self._config(thread), stream_mode=list(modes), **options)
        self._note("stream", list(_by_step(chunks)))
        return list(chunks)

    def state(self, graph: Any, thread: Any = "t", **options: Any) -> Any:
        """Return the state of a thread, or its state at a checkpoint."""
        return self._note("state", self._call(graph, "get_state", self._config(thread), **options))

    def history(self, graph: Any, thread: Any = "t", **options: Any) -> list[Any]:
        """Return the history of a thread, newest first."""
        return list(self._note("history", self._call(graph, "get_state_history", self._config(thread), **options)))

    def update(self, graph: Any, thread: Any, values: Any, **options: Any) -> dict[str, Any]:
        """Update the state of a thread, or fork it. Return the configuration of the new checkpoint."""
        return dict(self._note("update", self._call(graph, "update_state", self._config(thread), values, **options)))

    def bulk_update(self, graph: Any, thread: Any, supersteps: Any) -> dict[str, Any]:
        """Update the state of a thread by several steps. Return the configuration of the new checkpoint."""
        return dict(self._note("update", self._call(graph, "bulk_update_state", self._config(thread), supersteps)))

    # Calls of the saver

    def delete_thread(self, thread: str) -> None:
        """Delete a thread."""
        self._call(self.saver, "delete_thread", thread)

    def copy_thread(self, source: str, target: str) -> None:
        """Copy a thread."""
        self._config(target)
        if isinstance(self.saver, InMemorySaver):
            _copy_in_memory(self.saver, source, target)
        else:
            self._call(self.saver, "copy_thread", source, target)

    # Notes

    def report(self) -> str:
        """Return all that the run saw, and all that its saver has in the end, comparable between savers.

        Each line is JSON.
        """
        for thread in self._threads:
            config = {"configurable": {"thread_id": thread}}
            saved = list(self._call(self.saver, "list", config))
            for one in saved:
                assert self._call(self.saver, "get_tuple", one.config) == one
            namespaces = {one.config["configurable"]["checkpoint_ns"]: None for one in saved}
            self._note(
                f"saved {thread}",
                _Unordered(
                    [one for one in saved if one.config["configurable"]["checkpoint_ns"] == namespace]
                    for namespace in namespaces
                ),
            )
        self._note("ran", dict(Counter(self.ran)))
        text = "\n".join(json.dumps([label, _plain(value)]) for label, value in self._notes)
        numbers: dict[str, str] = {}
        return _ID.sub(lambda match: numbers.setdefault(match[0], _name(match[0], len(numbers))), text)

    def _note(self, label: str, value: Any) -> Any:
        self._notes.append((label, value))
        return value

    def _config(self, thread: Any) -> dict[str, Any]:
        """Return the configuration of a thread, given by its id or by the configuration of a checkpoint."""
        config = thread if isinstance(thread, dict) else {"configurable": {"thread_id": thread}}
        thread_id = config["configurable"]["thread_id"]
        self._threads[str(thread_id)] = None
        self._latest = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        return config

    def _call(self, target: Any, method: str, *args: Any, **options: Any) -> Any:
        """Call a method, or its twin for asyncio. Return its result, or the list of its results."""
        if self._runner is None:
            result = getattr(target, method)(*args, **options)
            return list(result) if hasattr(result, "__next__") else result

        results = []

        # (Nothing is returned, because asyncio makes a text of the results of tasks.)
        async def wait() -> None:
            result = getattr(target, "a" + method)(*args, **options)
            results.append([one async for one in result] if hasattr(result, "__anext__") else await result)

        self._runner.run(wait())
        return results[0]


def _copy_in_memory(saver: InMemorySaver, source: str, target: str) -> None:
    """Copy a thread, which this saver cannot."""
    saver.storage[target] = copy.deepcopy(saver.storage[source])
    for kept in (saver.writes, saver.blobs):
        for thread, *rest in [key for key in kept if key[0] == source]:
            kept[target, *rest] = copy.deepcopy(kept[thread, *rest])


def _by_step(chunks: Iterable[Any]) -> Iterable[Any]:
    """Yield the chunks of a stream. What parallel nodes stream has no order."""
    step = _Unordered()
    for chunk in chunks:
        *namespace, mode, data = chunk
        if mode == "values" and not any(namespace) and "__interrupt__" not in data:
            yield step
            yield chunk
            step = _Unordered()
        else:
            step.append(chunk)
    yield step


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, with the names of its types, without times."""
    name = type(value).__name__
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _TIME.sub("<time>", value)
    if isinstance(value, dict):
        # (The interrupts of a step have the order in which its tasks ended.)
        if "__interrupt__" in value:
            value = {**value, "__interrupt__": _Unordered(value["__interrupt__"])}
        # (LangGraph passes a subgraph its saver in a configuration. Savers on disk do not return such entries.)
        items = [(str(key), _plain(one)) for key, one in value.items() if not isinstance(one, BaseCheckpointSaver)]
        return dict(sorted(items, key=lambda item: _ID.sub("<id>", item[0])))
    if isinstance(value, _Unordered | set | frozenset):
        return [name, *sorted(map(_plain, value), key=_masked)]
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, BaseMessage | BaseModel):
        return f"{name}: {value.model_dump_json(exclude_defaults=True)}"
    if dataclasses.is_dataclass(value):
        return {"type": name, **_plain({one.name: getattr(value, one.name) for one in dataclasses.fields(value)})}
    if isinstance(value, tuple):
        if hasattr(value, "_asdict"):
            return {"type": name, **_plain(value._asdict())}
        return ["()", *map(_plain, value)]
    return f"{name}: {value!r}"


def _masked(value: Any) -> str:
    """Return the text of a plain value without its ids."""
    return _ID.sub("<id>", json.dumps(value))


def _name(found: str, number: int) -> str:
    version = int(found.split(".", maxsplit=1)[0]) if re.fullmatch(_VERSION, found) else None
    return f"<id {number}>" if version is None else f"<version {version}, {number}>"
