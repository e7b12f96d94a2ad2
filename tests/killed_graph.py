"""A process that runs or resumes a LangGraph graph of parallel nodes. It stops at many points until it may go on."""

import asyncio
import operator
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Annotated, Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

from runic_redis.langgraph import AsyncRunicSaver, RunicSaver

__all__ = ["build", "main"]

ROUNDS = 3
SENDS = 3


class State(TypedDict):
    round: int
    done: Annotated[list[str], operator.add]


class Given(TypedDict):
    round: int


class Done(TypedDict):
    done: Annotated[list[str], operator.add]


class Gates:
    """Points where the process notes what it did, says so, and stops until it may go on.

    A note is a line at the end of a file, written at once: it survives the end of the process.
    """

    def __init__(self, notes: str) -> None:
        self._notes = os.open(notes, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        self._open: dict[str, Future[None]] = {}
        self._printing = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            self._open.pop(line.strip()).set_result(None)

    def note(self, kind: str, names: list[str] | None) -> None:
        """Note that something happened to nodes."""
        if names:
            os.write(self._notes, f"{kind} {','.join(names)}\n".encode())

    def reach(self, kind: str, name: str, *, noted: bool) -> Future[None]:
        """Return what is done when this one may go on."""
        line = f"{kind} {name}"
        if noted:
            self.note(kind, [name])
        gate = self._open[line] = Future[None]()
        with self._printing:
            print(line, flush=True)
        return gate


class NoGates:
    """Everything goes on at once."""

    def reach(self, kind: str, name: str, *, noted: bool) -> Future[None]:
        gate = Future[None]()
        gate.set_result(None)
        return gate


def build(gates: Any, *, asynchronous: bool) -> StateGraph[Any]:
    """Return a graph: in each round, six parallel nodes, one of which is a graph of parallel nodes."""

    def node(name: str) -> Any:
        def act(state: Any) -> dict[str, Any]:
            here = f"{state['round']}/{state.get('name', name)}"
            gates.reach("run", here, noted=True).result()
            return {"done": [here]}

        async def aact(state: Any) -> dict[str, Any]:
            here = f"{state['round']}/{state.get('name', name)}"
            await asyncio.wrap_future(gates.reach("run", here, noted=True))
            return {"done": [here]}

        return aact if asynchronous else act

    def fan_out(state: State) -> list[Any]:
        sends = [Send("work", {"round": state["round"], "name": f"work-{number}"}) for number in range(SENDS)]
        return ["left", "right", "inner", *sends]

    inner = StateGraph(State, input_schema=Given, output_schema=Done)
    for name in ("inner-a", "inner-b"):
        inner.add_node(name, node(name))
        inner.add_edge(START, name)
    inner.add_node("inner-join", node("inner-join"))
    inner.add_edge(["inner-a", "inner-b"], "inner-join")

    builder = StateGraph(State)
    for name in ("plan", "left", "right", "work", "join"):
        builder.add_node(name, node(name))
    builder.add_node("inner", inner.compile())
    builder.add_node("turn", lambda state: {"round": state["round"] + 1})
    builder.add_edge(START, "plan")
    builder.add_conditional_edges("plan", fan_out)
    builder.add_edge(["left", "right", "inner", "work"], "join")
    builder.add_edge("join", "turn")
    builder.add_conditional_edges("turn", lambda state: "plan" if state["round"] < ROUNDS else END)
    return builder


def names_of(writes: Sequence[tuple[str, Any]]) -> str:
    """Return the names of the nodes that wrote this."""
    return ",".join(name for channel, value in writes if channel == "done" for name in value)


def observed(saver: type, gates: Gates) -> Any:
    """Return a kind of saver that stops before and after it stores the writes of a node, and notes what it stored."""

    class Observed(saver):  # type: ignore[misc]
        def put(self, config: Any, checkpoint: Any, *rest: Any) -> Any:
            stored = super().put(config, checkpoint, *rest)
            gates.note("stored", checkpoint["channel_values"].get("done"))
            return stored

        async def aput(self, config: Any, checkpoint: Any, *rest: Any) -> Any:
            stored = await super().aput(config, checkpoint, *rest)
            gates.note("stored", checkpoint["channel_values"].get("done"))
            return stored

        def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
            if not (names := names_of(writes)):
                super().put_writes(config, writes, task_id, task_path)
                return
            gates.reach("writing", names, noted=False).result()
            super().put_writes(config, writes, task_id, task_path)
            gates.reach("finished", names, noted=True).result()

        async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
            if not (names := names_of(writes)):
                await super().aput_writes(config, writes, task_id, task_path)
                return
            await asyncio.wrap_future(gates.reach("writing", names, noted=False))
            await super().aput_writes(config, writes, task_id, task_path)
            await asyncio.wrap_future(gates.reach("finished", names, noted=True))

    return Observed


def main() -> None:
    """Run a graph to its end, from where it is."""
    face, url, namespace, thread, notes = sys.argv[1:]
    gates = Gates(notes)
    # Each node and each call of the saver that stands at a gate occupies a thread.
    config = {"configurable": {"thread_id": thread}, "recursion_limit": 100, "max_concurrency": 32}
    begin = {"round": 0, "done": []}
    if face == "invoke":
        with observed(RunicSaver, gates).from_url(url, namespace=namespace) as saver:
            graph = build(gates, asynchronous=False).compile(checkpointer=saver)
            graph.invoke(None if graph.get_state(config).created_at else begin, config, durability="sync")
        return

    async def resume() -> None:
        async with observed(AsyncRunicSaver, gates).from_url(url, namespace=namespace) as saver:
            graph = build(gates, asynchronous=True).compile(checkpointer=saver)
            begun = (await graph.aget_state(config)).created_at
            await graph.ainvoke(None if begun else begin, config, durability="sync")

    asyncio.run(resume())
