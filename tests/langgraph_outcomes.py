"""Outcomes of real graphs: functions of a `Run`, named for what happens. They assert what LangGraph promises."""

import operator
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, TypedDict
from uuid import UUID

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.cache.memory import InMemoryCache
from langgraph.channels.delta import DeltaChannel
from langgraph.config import get_stream_writer
from langgraph.errors import GraphRecursionError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import REMOVE_ALL_MESSAGES, add_messages
from langgraph.types import CachePolicy, Command, Overwrite, RetryPolicy, Send, StateUpdate, interrupt

from tests.langgraph_runs import Run

__all__ = ["OUTCOMES"]

OUTCOMES: dict[str, Callable[[Run], None]] = {}


def outcome(function: Callable[[Run], None]) -> Callable[[Run], None]:
    OUTCOMES[function.__name__] = function
    return function


class Steps(TypedDict):
    done: Annotated[list[str], operator.add]


def larger(one: int, other: int) -> int:
    return max(one, other)


class Sums(TypedDict):
    done: Annotated[list[str], operator.add]
    total: Annotated[int, operator.add]
    best: Annotated[int, larger]
    last: str


class Chat(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def extend(state: list[str] | None, writes: Sequence[list[str]]) -> list[str]:
    return [*(state or []), *(one for write in writes for one in write)]


class Deltas(TypedDict):
    log: Annotated[list[str], DeltaChannel(extend, list, snapshot_frequency=3)]
    count: Annotated[int, operator.add]


def step(name: str) -> Callable[[Any], dict[str, Any]]:
    """Return a node that says that it is done."""

    def act(state: Any) -> dict[str, Any]:
        return {"done": [name]}

    act.__name__ = name
    return act


def asking(name: str, *questions: str) -> Callable[[Any], dict[str, Any]]:
    """Return a node that asks questions, and says the answers."""

    def ask(state: Any) -> dict[str, Any]:
        return {"done": [f"{name}: {interrupt(question)}" for question in questions]}

    ask.__name__ = name
    return ask


class Failing:
    """A node that raises an error in its first runs."""

    def __init__(self, name: str, times: int = 1) -> None:
        self.__name__ = name
        self.left = times

    def __call__(self, state: Any) -> dict[str, Any]:
        if self.left:
            self.left -= 1
            raise ValueError(f"{self.__name__} fails, {self.left} left")
        return {"done": [self.__name__]}


def in_a_row(run: Run, *names: str) -> StateGraph[Any]:
    builder = StateGraph(Steps)
    builder.add_sequence([(name, run.node(step(name))) for name in names])
    builder.add_edge(START, names[0])
    return builder


def side_by_side(run: Run, *nodes: Any) -> StateGraph[Any]:
    """Return a graph of parallel nodes, which then come together."""
    builder = StateGraph(Steps)
    for node in nodes:
        builder.add_node(node.__name__, node)
        builder.add_edge(START, node.__name__)
    builder.add_node("join", run.node(step("join")))
    builder.add_edge([node.__name__ for node in nodes], "join")
    return builder


def at(history: list[Any], *following: str) -> Any:
    """Return the newest snapshot whose next nodes are these."""
    return next(one for one in history if one.next == following)


@outcome
def steps_in_a_row(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"))
    run.stream(graph, {"done": ["begin"]})
    assert run.state(graph).values == {"done": ["begin", "a", "b", "c"]}
    assert [one.next for one in run.history(graph)] == [(), ("c",), ("b",), ("a",), ("__start__",)]
    assert run.invoke(graph, {"done": ["again"]})["done"][4:] == ["again", "a", "b", "c"]


@outcome
def parallel_nodes_and_reducers(run: Run) -> None:
    builder = StateGraph(Sums)

    def add(name: str, amount: int) -> None:
        def act(state: Sums) -> dict[str, Any]:
            get_stream_writer()(f"{name} adds {amount}")
            return {"done": [name], "total": amount, "best": amount}

        act.__name__ = name
        builder.add_node(name, run.node(act))
        builder.add_edge(START, name)
        builder.add_edge(name, "join")

    def join(state: Sums) -> dict[str, Any]:
        return {"last": ",".join(state["done"])}

    for number, name in enumerate("abcde"):
        add(name, 10**number)
    builder.add_node("join", run.node(join))
    graph = run.compile(builder)
    run.stream(graph, {"total": 0})
    assert run.state(graph).values == {"done": [*"abcde"], "total": 11111, "best": 10000, "last": "a,b,c,d,e"}
    assert run.ran.count("join") == 1


@outcome
def replay_from_an_old_checkpoint(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"))
    run.invoke(graph, {"done": []})
    old = at(run.history(graph), "b")
    assert run.invoke(graph, None, old.config) == {"done": ["a", "b", "c"]}
    assert Counter(run.ran) == {"a": 1, "b": 2, "c": 2}
    assert len(run.history(graph)) > 5
    run.state(graph, old.config)


@outcome
def fork_with_an_update(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"))
    run.invoke(graph, {"done": []})
    old = at(run.history(graph), "b")
    fork = run.update(graph, old.config, {"done": ["forked"]})
    run.state(graph, fork)
    assert run.invoke(graph, None, fork) == {"done": ["a", "forked", "b", "c"]}
    first = run.history(graph)[-5]
    assert run.state(graph, first.config) == first
    assert [one.values for one in run.history(graph)].count({"done": ["a", "b", "c"]}) == 1


@outcome
def forks_of_forks(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"))
    run.invoke(graph, {"done": []})
    for number in range(3):
        old = at(run.history(graph), "c")
        fork = run.update(graph, old.config, {"done": [f"fork {number}"]}, as_node="a")
        run.stream(graph, None, fork)
    assert run.state(graph).values["done"][-2:] == ["b", "c"]
    assert Counter(run.ran) == {"a": 1, "b": 4, "c": 4}


@outcome
def update_as_another_node(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"))
    run.update(graph, "t", {"done": ["by hand"]}, as_node="a")
    assert run.state(graph).next == ("b",)
    assert run.invoke(graph, None) == {"done": ["by hand", "b", "c"]}
    run.update(graph, "t", {"done": ["late"]}, as_node="c")
    assert run.state(graph).next == ()
    assert run.ran == ["b", "c"]


@outcome
def several_updates_at_once(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"))
    run.bulk_update(
        graph,
        "t",
        [
            [StateUpdate({"done": ["given"]}, "__input__")],
            [StateUpdate({"done": ["1"]}, "a")],
            [StateUpdate({"done": ["2"]}, "b"), StateUpdate({"done": ["3"]}, "b")],
        ],
    )
    assert run.state(graph).values == {"done": ["1", "2", "3"]}
    run.history(graph)
    run.invoke(graph, None)


@outcome
def two_interrupts_in_one_node(run: Run) -> None:
    builder = StateGraph(Steps)
    builder.add_sequence([("ask", run.node(asking("ask", "name?", "age?"))), ("end", run.node(step("end")))])
    builder.add_edge(START, "ask")
    graph = run.compile(builder)
    asked = [run.stream(graph, {"done": []}), run.state(graph).interrupts]
    assert [one.value for one in asked[1]] == ["name?"]
    run.stream(graph, Command(resume="Ada"))
    assert [one.value for one in run.state(graph).interrupts] == ["age?"]
    run.history(graph)
    assert run.invoke(graph, Command(resume=36)) == {"done": ["ask: Ada", "ask: 36", "end"]}
    assert Counter(run.ran) == {"ask": 3, "end": 1}
    run.history(graph)


@outcome
def interrupts_of_parallel_nodes(run: Run) -> None:
    asks = [run.node(asking(name, f"{name}?")) for name in ("left", "right")]
    graph = run.compile(side_by_side(run, *asks, run.node(step("quiet"))))
    run.stream(graph, {"done": []})
    waiting = {one.value: one.id for one in run.state(graph).interrupts}
    assert set(waiting) == {"left?", "right?"}
    run.invoke(graph, Command(resume={waiting["right?"]: "R"}))
    assert [one.value for one in run.state(graph).interrupts] == ["left?"]
    done = run.invoke(graph, Command(resume={waiting["left?"]: "L"}))
    assert done == {"done": ["left: L", "quiet", "right: R", "join"]}
    assert Counter(run.ran) == {"left": 3, "right": 2, "quiet": 1, "join": 1}
    run.history(graph)


@outcome
def an_interrupt_replayed(run: Run) -> None:
    builder = StateGraph(Steps)
    builder.add_sequence([("ask", run.node(asking("ask", "?"))), ("end", run.node(step("end")))])
    builder.add_edge(START, "ask")
    graph = run.compile(builder)
    run.invoke(graph, {"done": []})
    run.invoke(graph, Command(resume="first"))
    old = at(run.history(graph), "ask")
    run.invoke(graph, None, old.config)
    run.state(graph)
    run.invoke(graph, Command(resume="second"))
    assert run.state(graph).values["done"][-1] == "end"
    run.history(graph)


@outcome
def interrupt_before_and_after(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"), interrupt_before=["b"], interrupt_after=["b"])
    assert run.invoke(graph, {"done": []}) == {"done": ["a"]}
    assert run.state(graph).next == ("b",)
    run.update(graph, "t", {"done": ["edited"]})
    assert run.state(graph).next == ("b",)
    run.stream(graph, None)
    assert run.state(graph).next == ("c",)
    assert run.invoke(graph, None) == {"done": ["a", "edited", "b", "c"]}
    run.invoke(graph, {"done": []}, "every", interrupt_before="*")
    run.invoke(graph, None, "every", interrupt_after=["a"])
    assert run.ran == ["a", "b", "c", "a"]
    run.history(graph, "every")


@outcome
def a_failed_branch_beside_finished_ones(run: Run) -> None:
    finished = [run.node(step(name)) for name in "abc"]
    graph = run.compile(side_by_side(run, *finished, run.node(Failing("fails", 2), after=3)))
    for left in (1, 0):
        assert str(run.invoke(graph, {"done": []} if left else None)) == f"fails fails, {left} left"
        assert [bool(one.error) for one in run.state(graph).tasks] == [False, False, False, True]
    run.history(graph)
    run.reopen()
    graph = run.compile(side_by_side(run, *finished, run.node(step("fails"))))
    run.stream(graph, None)
    assert run.state(graph).values == {"done": ["a", "b", "c", "fails", "join"]}
    assert Counter(run.ran) == {"a": 1, "b": 1, "c": 1, "fails": 3, "join": 1}


@outcome
def a_node_with_a_retry_policy(run: Run) -> None:
    builder = in_a_row(run, "a")
    policy = RetryPolicy(max_attempts=3, initial_interval=0, jitter=False, retry_on=ValueError)
    builder.add_node("fails", run.node(Failing("fails", 2)), retry_policy=policy)
    builder.add_edge("a", "fails")
    graph = run.compile(builder)
    assert run.invoke(graph, {"done": []}) == {"done": ["a", "fails"]}
    assert run.ran == ["a", "fails", "fails", "fails"]
    run.history(graph)


@outcome
def a_node_with_an_error_handler(run: Run) -> None:
    builder = in_a_row(run, "a")

    def rescue(state: Steps) -> dict[str, Any]:
        return {"done": ["rescued"]}

    builder.add_node("fails", run.node(Failing("fails")), error_handler=run.node(rescue))
    builder.add_edge("a", "fails")
    graph = run.compile(builder)
    assert run.invoke(graph, {"done": []}) == {"done": ["a", "rescued"]}
    run.history(graph)


@outcome
def too_many_steps(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c", "d"))
    short = {"configurable": {"thread_id": "t"}, "recursion_limit": 2}
    assert isinstance(run.invoke(graph, {"done": []}, short), GraphRecursionError)
    assert run.state(graph).next == ("c",)
    assert run.invoke(graph, None) == {"done": ["a", "b", "c", "d"]}
    assert run.ran == ["a", "b", "c", "d"]


def with_a_subgraph(run: Run, inner: StateGraph[Any], **options: Any) -> StateGraph[Any]:
    builder = in_a_row(run, "before")
    builder.add_node("inner", inner.compile(**options))
    builder.add_node("after", run.node(step("after")))
    builder.add_edge("before", "inner")
    builder.add_edge("inner", "after")
    return builder


class Inner(TypedDict):
    done: Annotated[list[str], operator.add]
    private: Annotated[list[str], operator.add]


def noting(name: str) -> Callable[[Any], dict[str, Any]]:
    """Return a node of a subgraph that changes a channel that the parent does not have."""

    def act(state: Any) -> dict[str, Any]:
        return {"private": [name]}

    act.__name__ = name
    return act


def asking_inside(run: Run) -> StateGraph[Any]:
    inner = StateGraph(Inner)
    nodes = [noting("first"), asking("ask", "inside?"), noting("last")]
    inner.add_sequence([(node.__name__, run.node(node)) for node in nodes])
    inner.add_edge(START, "first")
    return inner


@outcome
def an_interrupt_in_a_subgraph(run: Run) -> None:
    graph = run.compile(with_a_subgraph(run, asking_inside(run)))
    run.stream(graph, {"done": []}, subgraphs=True)
    state = run.state(graph, subgraphs=True)
    assert state.next == ("inner",)
    assert state.tasks[0].state.values["private"] == ["first"]
    run.state(graph, state.tasks[0].state.config)
    run.history(graph, state.tasks[0].state.config)
    run.reopen()
    graph = run.compile(with_a_subgraph(run, asking_inside(run)))
    assert run.invoke(graph, Command(resume="yes"))["done"][-1] == "after"
    assert Counter(run.ran) == {"before": 1, "first": 1, "ask": 2, "last": 1, "after": 1}
    run.history(graph)


@outcome
def a_subgraph_that_remembers(run: Run) -> None:
    graph = run.compile(with_a_subgraph(run, asking_inside(run), checkpointer=True))
    for number in range(2):
        run.invoke(graph, {"done": [f"turn {number}"]})
        state = run.state(graph, subgraphs=True)
        assert state.tasks[0].state.values["private"] == ["first", "last"] * number + ["first"]
        run.invoke(graph, Command(resume=number))
    run.history(graph, {"configurable": {"thread_id": "t", "checkpoint_ns": "inner"}})


@outcome
def a_subgraph_without_checkpoints(run: Run) -> None:
    graph = run.compile(with_a_subgraph(run, in_a_row(run, "first", "last"), checkpointer=False))
    assert run.invoke(graph, {"done": []})["done"][-1] == "after"
    run.history(graph)


@outcome
def subgraphs_in_subgraphs(run: Run) -> None:
    middle = StateGraph(Inner)
    middle.add_node("start", run.node(noting("start")))
    middle.add_node("deepest", asking_inside(run).compile())
    middle.add_edge(START, "start")
    middle.add_edge("start", "deepest")
    graph = run.compile(with_a_subgraph(run, middle))
    run.stream(graph, {"done": []}, subgraphs=True)
    state = run.state(graph, subgraphs=True)
    assert state.tasks[0].state.tasks[0].state.next == ("ask",)
    run.stream(graph, Command(resume="deep"), subgraphs=True)
    assert run.ran.count("ask") == 2
    assert run.ran.count("start") == run.ran.count("first") == run.ran.count("last") == 1
    run.history(graph)


@outcome
def parallel_subgraphs_with_interrupts(run: Run) -> None:
    builder = StateGraph(Steps)
    for name in ("left", "right"):
        inner = StateGraph(Inner)
        nodes = [noting(f"{name} first"), asking(f"{name} ask", f"{name}?")]
        inner.add_sequence([(node.__name__, run.node(node)) for node in nodes])
        inner.add_edge(START, nodes[0].__name__)
        builder.add_node(name, inner.compile())
        builder.add_edge(START, name)
    graph = run.compile(builder)
    run.invoke(graph, {"done": []})
    state = run.state(graph, subgraphs=True)
    answers = {one.id: f"yes to {one.value}" for one in state.interrupts}
    assert len(answers) == 2
    done = run.invoke(graph, Command(resume=answers))["done"]
    assert sorted(done) == ["left ask: yes to left?", "right ask: yes to right?"]
    assert run.ran.count("left first") == run.ran.count("right first") == 1


@outcome
def time_travel_into_a_subgraph(run: Run) -> None:
    graph = run.compile(with_a_subgraph(run, asking_inside(run)))
    run.invoke(graph, {"done": []})
    inside = run.state(graph, subgraphs=True).tasks[0].state
    fork = run.update(graph, inside.config, {"private": ["edited"]})
    run.state(graph, subgraphs=True)
    run.stream(graph, Command(resume="after the edit"), fork, subgraphs=True)
    run.state(graph)
    snapshots = run.history(graph, inside.config)
    run.invoke(graph, None, at(snapshots, "ask").config)
    run.invoke(graph, Command(resume="again"))
    old = at(run.history(graph), "inner")
    run.invoke(graph, None, old.config)
    run.state(graph, subgraphs=True)
    assert run.ran.count("before") == 1


class Topics(TypedDict):
    topics: list[str]
    done: Annotated[list[str], operator.add]


def mapping(run: Run, work: Callable[..., Any]) -> StateGraph[Any]:
    """Return a graph that sends each topic to a node, and then joins."""
    builder = StateGraph(Topics)
    builder.add_node("work", run.node(work))
    builder.add_node("join", run.node(step("join")))
    builder.add_conditional_edges(START, lambda state: [Send("work", {"topic": one}) for one in state["topics"]])
    builder.add_edge("work", "join")
    return builder


@outcome
def send_to_one_node_many_times(run: Run) -> None:
    def work(given: Any) -> dict[str, Any]:
        return {"done": [f"work on {given['topic']}"]}

    graph = run.compile(mapping(run, work))
    topics = [f"topic {number}" for number in range(12)]
    run.stream(graph, {"topics": topics})
    assert run.state(graph).values["done"] == [*(f"work on {one}" for one in topics), "join"]
    assert len(run.history(graph)[1:]) == 3


@outcome
def one_of_many_sends_fails(run: Run) -> None:
    asked = []

    def work(given: Any) -> dict[str, Any]:
        asked.append(given["topic"])
        if given["topic"] == "bad":
            return {"done": [f"bad, then {interrupt('what now?')}"]}
        return {"done": [f"work on {given['topic']}"]}

    graph = run.compile(mapping(run, work))
    run.stream(graph, {"topics": ["good", "bad", "better"]})
    assert [one.value for one in run.state(graph).interrupts] == ["what now?"]
    done = run.invoke(graph, Command(resume="go on"))["done"]
    assert done == ["work on good", "bad, then go on", "work on better", "join"]
    assert Counter(asked) == {"good": 1, "bad": 2, "better": 1}


@outcome
def commands_that_go_and_update(run: Run) -> None:
    builder = StateGraph(Sums)

    def route(state: Sums) -> Command[Any]:
        name = "small" if state["total"] < 20 else "large"
        return Command(goto=name, update={"done": [f"to {name}"], "last": name})

    def small(state: Sums) -> Command[Any]:
        return Command(goto="route", update={"total": 15, "done": ["small"]})

    def large(state: Sums) -> Command[Any]:
        return Command(goto=[Send("work", {"n": number}) for number in range(3)], update={"done": ["large"]})

    def work(given: Any) -> Command[Any]:
        return Command(goto=END, update={"done": [f"work {given['n']}"]})

    run.nodes(builder, route, small, large, work)
    builder.add_edge(START, "route")
    graph = run.compile(builder)
    run.stream(graph, {"total": 1})
    done = run.state(graph).values["done"]
    assert done == ["to small", "small", "to small", "small", "to large", "large", "work 0", "work 1", "work 2"]
    run.history(graph)


@outcome
def a_command_to_the_parent_graph(run: Run) -> None:
    inner = StateGraph(Inner)

    def leave(state: Any) -> Command[Any]:
        return Command(graph=Command.PARENT, goto="after", update={"done": ["left"]})

    run.nodes(inner, noting("first"), leave)
    inner.add_edge(START, "first")
    inner.add_edge("first", "leave")
    graph = run.compile(with_a_subgraph(run, inner))
    assert run.invoke(graph, {"done": []})["done"] == ["before", "left", "after"]
    run.history(graph)


@outcome
def a_command_that_resumes_and_updates(run: Run) -> None:
    builder = StateGraph(Steps)
    builder.add_sequence([("ask", run.node(asking("ask", "?"))), ("end", run.node(step("end")))])
    builder.add_edge(START, "ask")
    graph = run.compile(builder)
    run.invoke(graph, {"done": []})
    run.stream(graph, Command(resume="yes", update={"done": ["noted"]}))
    run.state(graph)
    run.invoke(graph, Command(goto="end"))
    assert run.state(graph).values["done"] == ["noted", "ask: yes", "end", "end"]
    run.history(graph)


def tasks_of(run: Run, fails: list[bool]) -> Any:
    """Return a workflow of the functional API, which calls tasks, asks and remembers."""
    if run.is_asynchronous:

        @task
        async def asquare(number: int) -> int:
            run.ran.append(f"square {number}")
            return number**2

        @task
        async def afail() -> str:
            run.ran.append("fail")
            if fails.pop():
                raise ValueError("the task fails")
            return "recovered"

        @entrypoint(checkpointer=run.saver)
        async def aflow(numbers: list[int], *, previous: Any = None) -> Any:
            squares = [await one for one in [asquare(number) for number in numbers]]
            answer = interrupt({"squares": squares})
            value = {"sum": sum(squares), "answer": answer, "fail": await afail(), "previous": previous}
            return entrypoint.final(value=value, save=sum(squares))

        return aflow

    @task
    def square(number: int) -> int:
        run.ran.append(f"square {number}")
        return number**2

    @task
    def fail() -> str:
        run.ran.append("fail")
        if fails.pop():
            raise ValueError("the task fails")
        return "recovered"

    @entrypoint(checkpointer=run.saver)
    def flow(numbers: list[int], *, previous: Any = None) -> Any:
        squares = [one.result() for one in [square(number) for number in numbers]]
        answer = interrupt({"squares": squares})
        value = {"sum": sum(squares), "answer": answer, "fail": fail().result(), "previous": previous}
        return entrypoint.final(value=value, save=sum(squares))

    return flow


@outcome
def tasks_of_the_functional_api(run: Run) -> None:
    fails = [False, False, True]
    flow = tasks_of(run, fails)
    run.invoke(flow, [1, 2, 3])
    run.state(flow)
    assert str(run.invoke(flow, Command(resume="yes"))) == "the task fails"
    run.reopen()
    flow = tasks_of(run, fails)
    assert run.invoke(flow, None) == {"sum": 14, "answer": "yes", "fail": "recovered", "previous": None}
    assert Counter(run.ran) == {"square 1": 1, "square 2": 1, "square 3": 1, "fail": 2}
    run.invoke(flow, [4])
    assert run.invoke(flow, Command(resume="no"))["previous"] == 14
    run.history(flow)


@outcome
def parts_of_a_history(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b", "c"))
    for number in range(3):
        run.invoke(graph, {"done": [str(number)]})
    everything = run.history(graph)
    assert run.history(graph, limit=4) == everything[:4]
    assert run.history(graph, before=everything[4].config) == everything[5:]
    assert run.history(graph, before=everything[4].config, limit=3) == everything[5:8]
    assert len(run.history(graph, filter={"source": "input"})) == 3
    assert len(run.history(graph, filter={"source": "loop", "step": 2})) == 1
    assert run.history(graph, filter={"source": "none"}) == []
    assert run.history(graph, filter={"source": "input"}, limit=1) == run.history(graph, filter={"step": 9})
    assert run.history(graph, "unknown") == []


@outcome
def every_durability(run: Run) -> None:
    for durability in ("sync", "async", "exit"):
        name = f"with {durability}"
        nodes = [run.node(step("a")), run.node(asking("ask", "?")), run.node(step("b"))]
        graph = run.compile(side_by_side(run, *nodes))
        run.invoke(graph, {"done": []}, name, durability=durability)
        run.state(graph, name)
        run.invoke(graph, Command(resume="yes"), name, durability=durability)
        assert run.state(graph, name).values == {"done": ["a", "ask: yes", "b", "join"]}
        run.history(graph, name)
    assert Counter(run.ran) == {"a": 3, "b": 3, "ask": 6, "join": 3}


@outcome
def a_failure_of_a_run_that_saves_at_its_exit(run: Run) -> None:
    builder = in_a_row(run, "a", "b")
    builder.add_node("fails", run.node(Failing("fails")))
    builder.add_edge("b", "fails")
    graph = run.compile(builder)
    assert str(run.invoke(graph, {"done": []}, durability="exit")) == "fails fails, 0 left"
    run.history(graph)
    assert run.invoke(graph, None, durability="exit") == {"done": ["a", "b", "fails"]}
    assert run.ran == ["a", "b", "fails", "fails"]


@outcome
def a_copied_thread(run: Run) -> None:
    graph = run.compile(with_a_subgraph(run, asking_inside(run)))
    run.invoke(graph, {"done": []}, "source")
    run.copy_thread("source", "target")
    assert run.state(graph, "target").values == run.state(graph, "source").values
    run.invoke(graph, Command(resume="of the copy"), "target")
    run.invoke(graph, Command(resume="of the source"), "source")
    for thread in ("source", "target"):
        assert f"ask: of the {'source' if thread == 'source' else 'copy'}" in run.state(graph, thread).values["done"]
        run.history(graph, thread)
    assert Counter(run.ran)["before"] == Counter(run.ran)["first"] == 1


@outcome
def a_thread_resumed_by_another_saver(run: Run) -> None:
    def graph() -> Any:
        nodes = [run.node(step("a")), run.node(asking("ask", "first?", "second?"))]
        return run.compile(side_by_side(run, *nodes))

    run.invoke(graph(), {"done": []})
    for answer in ("one", "two"):
        run.reopen()
        run.state(graph())
        run.invoke(graph(), Command(resume=answer))
    run.reopen()
    assert run.state(graph()).values == {"done": ["a", "ask: one", "ask: two", "join"]}
    assert Counter(run.ran) == {"a": 1, "ask": 3, "join": 1}
    run.history(graph())


@outcome
def a_deleted_thread(run: Run) -> None:
    graph = run.compile(in_a_row(run, "a", "b"))
    for thread in ("kept", "deleted"):
        run.invoke(graph, {"done": []}, thread)
    run.delete_thread("deleted")
    assert run.state(graph, "deleted").values == {}
    assert run.history(graph, "deleted") == []
    assert run.state(graph, "kept").values == {"done": ["a", "b"]}
    assert run.invoke(graph, {"done": ["new"]}, "deleted") == {"done": ["new", "a", "b"]}


@outcome
def cached_nodes(run: Run) -> None:
    builder = in_a_row(run, "a")
    builder.add_node("slow", run.node(step("slow")), cache_policy=CachePolicy(key_func=lambda _: "same"))
    builder.add_edge("a", "slow")
    graph = run.compile(builder, cache=InMemoryCache())
    for thread in ("one", "two"):
        run.stream(graph, {"done": []}, thread)
        assert run.state(graph, thread).values == {"done": ["a", "slow"]}
        run.history(graph, thread)
    assert Counter(run.ran) == {"a": 2, "slow": 1}


def loops_of_deltas(run: Run) -> StateGraph[Any]:
    builder = StateGraph(Deltas)

    def left(state: Deltas) -> dict[str, Any]:
        return {"log": [f"left {state['count']}"], "count": 1}

    def right(state: Deltas) -> dict[str, Any]:
        return {"log": [f"right {state['count']}"]}

    run.nodes(builder, left, right)
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_conditional_edges("left", lambda state: ["left", "right"] if state["count"] < 8 else END)
    return builder


@outcome
def delta_channels(run: Run) -> None:
    graph = run.compile(loops_of_deltas(run))
    done = run.invoke(graph, {"log": ["begin"], "count": 0})
    assert len(done["log"]) == 17
    history = run.history(graph)
    assert [len(one.values.get("log", ())) for one in history][:4] == [17, 15, 13, 11]
    old = history[4]
    assert run.state(graph, old.config) == old
    fork = run.update(graph, old.config, {"log": ["forked"]}, as_node="left")
    forked = run.invoke(graph, None, fork)
    assert forked["log"][:10] == [*done["log"][:9], "forked"]
    run.history(graph)
    run.copy_thread("t", "copy")
    run.reopen()
    graph = run.compile(loops_of_deltas(run))
    assert run.invoke(graph, {"log": ["more"]}, "copy")["log"][: len(forked["log"]) + 1] == [*forked["log"], "more"]
    assert run.state(graph).values == forked


@outcome
def delta_channels_saved_at_exit(run: Run) -> None:
    graph = run.compile(loops_of_deltas(run))
    done = run.invoke(graph, {"log": ["begin"], "count": 0}, durability="exit")
    assert len(done["log"]) == 17
    assert run.state(graph).values == done
    run.update(graph, "t", {"log": Overwrite(["overwritten"])}, as_node="right")
    assert run.state(graph).values["log"] == ["overwritten"]
    run.invoke(graph, {"log": ["more"], "count": -3}, durability="exit")
    run.history(graph)


@outcome
def messages_that_are_removed(run: Run) -> None:
    builder = StateGraph(Chat)

    def answer(state: Chat) -> dict[str, Any]:
        return {"messages": [AIMessage(f"answer to {state['messages'][-1].content}", id=f"a{len(state['messages'])}")]}

    def forget(state: Chat) -> dict[str, Any]:
        return {"messages": [RemoveMessage(str(one.id)) for one in state["messages"][:-2]]}

    builder.add_sequence([("answer", run.node(answer)), ("forget", run.node(forget))])
    builder.add_edge(START, "answer")
    graph = run.compile(builder)
    for number in range(4):
        said = HumanMessage(f"question {number}", id=f"q{number}")
        assert len(run.invoke(graph, {"messages": [said]})["messages"]) == 2
    run.update(graph, "t", {"messages": [HumanMessage("question 3, edited", id="q3")]}, as_node="forget")
    assert [one.content for one in run.state(graph).values["messages"]] == ["question 2", "question 3, edited"]
    run.update(
        graph, "t", {"messages": [RemoveMessage(REMOVE_ALL_MESSAGES), AIMessage("new", id="n")]}, as_node="forget"
    )
    assert [one.content for one in run.state(graph).values["messages"]] == ["new"]
    run.history(graph)


@outcome
def an_agent_that_calls_tools(run: Run) -> None:
    builder = StateGraph(Chat)

    def model(state: Chat) -> dict[str, Any]:
        turn = sum(one.type == "ai" for one in state["messages"])
        calls = [{"name": "search", "args": {"turn": turn, "part": part}, "id": f"call-{turn}-{part}"} for part in "xy"]
        return {"messages": [AIMessage(f"turn {turn}", id=f"ai-{turn}", tool_calls=calls if turn < 3 else [])]}

    def tool(call: Any) -> dict[str, Any]:
        found = ToolMessage(f"found {call['args']}", tool_call_id=call["id"], id=f"found-{call['id']}")
        return {"messages": [found]}

    run.nodes(builder, model, tool)
    builder.add_edge(START, "model")
    builder.add_conditional_edges(
        "model", lambda state: [Send("tool", call) for call in state["messages"][-1].tool_calls] or END
    )
    builder.add_edge("tool", "model")
    graph = run.compile(builder, interrupt_before=["tool"])
    run.stream(graph, {"messages": [HumanMessage("go", id="go")]})
    while run.state(graph).next:
        run.reopen()
        graph = run.compile(builder, interrupt_before=["tool"])
        run.stream(graph, None)
    assert Counter(run.ran) == {"model": 4, "tool": 6}
    assert len(run.state(graph).values["messages"]) == 11
    run.history(graph)


@outcome
def a_long_list_of_messages(run: Run) -> None:
    builder = StateGraph(Chat)

    def talk(state: Chat) -> dict[str, Any]:
        number = len(state["messages"])
        kind = HumanMessage if number % 2 else AIMessage
        return {"messages": [kind(f"message {number} " + "x" * (number * 37 % 1500), id=f"m{number}")]}

    run.nodes(builder, talk)
    builder.add_edge(START, "talk")
    builder.add_conditional_edges("talk", lambda state: END if len(state["messages"]) % 40 == 0 else "talk")
    graph = run.compile(builder)
    long = {"configurable": {"thread_id": "t"}, "recursion_limit": 50}
    run.invoke(graph, {"messages": [HumanMessage("first", id="m0")]}, long)
    old = run.history(graph, limit=20)[-1]
    fork = run.update(graph, old.config, {"messages": [HumanMessage("edited", id="m7")]}, as_node="talk")
    run.reopen()
    graph = run.compile(builder)
    done = run.invoke(graph, None, {**fork, "recursion_limit": 50})["messages"]
    assert [one.id for one in done] == [f"m{number}" for number in range(40)]
    assert done[7].content == "edited"
    assert [len(one.values["messages"]) for one in run.history(graph, limit=20)] == [*range(40, 20, -1)]


class Various(TypedDict):
    value: Any
    kept: Annotated[list[Any], operator.add]


@outcome
def values_of_many_types(run: Run) -> None:
    builder = StateGraph(Various)
    values = [
        *(None, 0, -(2**62), 1.5, "é\0", b"\xff\x00", (1, (2,)), {3, 4}, {"k": [1, {"n": None}]}, [], {}),
        *(datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), UUID(int=7), Decimal("1.10"), [[1], [2]], frozenset({5})),
    ]

    def give(state: Various) -> dict[str, Any]:
        value = values[len(state["kept"])]
        return {"value": value, "kept": [value]}

    run.nodes(builder, give)
    builder.add_edge(START, "give")
    builder.add_conditional_edges("give", lambda state: END if len(state["kept"]) == len(values) else "give")
    graph = run.compile(builder)
    run.invoke(graph, {"kept": []})
    run.reopen()
    graph = run.compile(builder)
    kept = run.state(graph).values["kept"]
    assert kept.pop(6) == [1, [2]], "LangGraph makes lists of tuples"
    del values[6]
    assert list(map(type, kept)) == list(map(type, values))
    assert kept == values
    run.history(graph)


@outcome
def a_deferred_node_and_an_overwrite(run: Run) -> None:
    builder = in_a_row(run, "a", "b")

    def sum_up(state: Steps) -> dict[str, Any]:
        return {"done": Overwrite(["summed up", *sorted(state["done"])])}

    builder.add_node("quick", run.node(step("quick")))
    builder.add_node("sum_up", run.node(sum_up), defer=True)
    builder.add_edge(START, "quick")
    builder.add_edge("quick", "sum_up")
    builder.add_edge("b", "sum_up")
    graph = run.compile(builder)
    run.stream(graph, {"done": []})
    assert run.state(graph).values == {"done": ["summed up", "a", "b", "quick"]}
    run.history(graph)


@outcome
def many_threads(run: Run) -> None:
    graph = run.compile(side_by_side(run, run.node(step("a")), run.node(asking("ask", "?"))))
    threads = ["one", "{two}", "three:/4", "ü"]
    for thread in threads:
        run.invoke(graph, {"done": [thread]}, thread)
    for thread in reversed(threads):
        assert run.invoke(graph, Command(resume=thread), thread)["done"] == [thread, "a", f"ask: {thread}", "join"]
