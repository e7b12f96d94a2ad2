"""A process that runs a LangGraph graph is killed in the middle of a step. No finished node runs again, none is missed.

A node is finished when `put_writes` of its writes, or `put` of a checkpoint with its result, has returned. The graph
runs with `durability="sync"`: LangGraph then begins a step when the checkpoint of the step before is stored. With
"async" it begins the step earlier. A kill can then lose that checkpoint, and with it the writes of the new step. With
"exit" it stores nothing before the run ends.
"""

import itertools
import os
import random
import select
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from runic_redis import RedisStore
from runic_redis.langgraph import RunicSaver
from tests.forking import Forked
from tests.killed_graph import NoGates, build
from tests.proxy import CommandProxy
from tests.servers import RunningServer, wait_until

KILLS = int(os.environ.get("LANGGRAPH_KILLS", "5"))
# Where the process is killed: in a node, before its writes are sent, when they are on the way to the server, when the
# server has stored them and the reply is on the way, after the reply.
PLACES = ("run", "writing", "request", "reply", "finished")
# How many nodes of the step are finished at that time.
BESIDE = (2, 0, 3, 1, 4)
LIMIT_S = 120.0
PROGRAM = "from tests.killed_graph import main\nmain()"


class Process:
    """A process that runs the graph, and stands at some gates."""

    def __init__(self, *arguments: object) -> None:
        self._forked = Forked(PROGRAM, *arguments, preloaded=("tests.killed_graph",))
        self._rest = b""
        self.at: list[str] = []
        self.has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._forked.kill()
        self._forked.close()

    def read(self, *, waiting: bool) -> list[str]:
        """Return the gates that the process has come to since."""
        number = self._forked.stdout.fileno()
        new: list[str] = []
        while not self.has_ended and select.select([number], [], [], None if waiting and not new else 0)[0]:
            data = os.read(number, 65536)
            self.has_ended = not data
            *lines, self._rest = (self._rest + data).split(b"\n")
            new += [line.decode() for line in lines]
        self.at += new
        return new

    def let_go(self, gate: str) -> None:
        """Let the process go on from a gate."""
        self.at.remove(gate)
        self._forked.stdin.write(f"{gate}\n")
        self._forked.stdin.flush()

    def kill(self) -> None:
        """Kill the process."""
        self._forked.kill()
        assert self._forked.wait() == -signal.SIGKILL

    def end(self) -> None:
        """Wait for the end of a process that has closed its output."""
        errors = self._forked.stderr.read()
        assert self._forked.wait() == 0, errors


class Holding(CommandProxy):
    """A proxy that can hold a command, or the reply to it, and all that comes later.

    Attributes:
        holds: set when it does.
    """

    def __init__(self, server: RunningServer) -> None:
        self._wanted: tuple[str, list[bytes]] | None = None
        self.holds = threading.Event()
        super().__init__(server)

    def hold_at(self, place: str, names: list[str]) -> None:
        """Hold the "request" that stores the writes of a node, or the "reply" to it."""
        self.holds.clear()
        self._wanted = place, [name.encode() for name in names]

    def admit(self, commands: list[list[bytes]], login: list[list[bytes]]) -> list[list[bytes]] | None:
        """Return the commands, or None when the process that sent them was killed."""
        if self._wanted is None or not any(_writes(command, self._wanted[1]) for command in commands):
            return commands
        (place, _), self._wanted = self._wanted, None
        self.hold()
        self.holds.set()
        if place == "reply":
            return commands
        self._flowing.wait()
        return None


def _writes(command: list[bytes], names: list[bytes]) -> bool:
    """Is this the command that stores the writes of a node?"""
    is_tagged = any(part.startswith(b"w/") for part in command)
    return is_tagged and any(all(name in part for name in names) for part in command)


class Killer:
    """Runs graphs, and kills their processes in the middle of steps.

    Attributes:
        killed: how many were killed, for each place and number of finished nodes of the step.
    """

    def __init__(self, server: RunningServer, face: str, namespace: str, directory: Path) -> None:
        self._proxy = Holding(server)
        self._store = RedisStore.from_url(server.url(), namespace=namespace)
        self._options = (face, f"redis://127.0.0.1:{self._proxy.port}", namespace)
        self._directory = directory
        self._random = random.Random(int(os.environ.get("LANGGRAPH_SEED", "1")))
        self._plan = zip(itertools.cycle(PLACES), itertools.cycle(BESIDE + BESIDE[:1]))
        self._next = next(self._plan)
        self.killed: Counter[tuple[str, int]] = Counter()

    def close(self) -> None:
        """Close what it has opened."""
        self._proxy.close()
        self._store.close()

    def run(self, thread: str, kills: int) -> Path:
        """Run a graph to its end in processes, and kill at most so many of them. Return the notes of its nodes."""
        notes = self._directory / thread
        finished: set[str] = set()
        left = kills
        while True:
            with Process(*self._options, thread, notes) as process:
                if not self._run_once(process, notes, finished, is_killed=left > 0):
                    return notes
            left -= 1

    def _run_once(self, process: Process, notes: Path, finished: set[str], *, is_killed: bool) -> bool:
        """Run the graph in one process. Return whether it was killed."""
        while True:
            process.read(waiting=not process.at)
            if process.has_ended:
                process.end()
                return False
            place, beside = self._next
            gates = [gate for gate in process.at if gate.startswith(_gate_before(place))]
            ready = [gate for gate in gates if _count_beside(gate, finished) >= beside]
            if is_killed and ready:
                gate = self._random.choice(ready)
                self._kill(process, gate, notes)
                self.killed[place, _count_beside(gate, finished)] += 1
                self._next = next(self._plan)
                return True
            # Gates of the place remain closed as long as others are open, so that nodes finish beside those.
            gate = self._random.choice([one for one in process.at if one not in gates] or process.at)
            kind, names = gate.split(" ")
            if kind == "finished":
                finished.update(names.split(","))
            process.let_go(gate)
            # The thread of this gate comes to its next one before another may go on.
            if following := {"run": "writing", "writing": "finished"}.get(kind):
                while f"{following} {names}" not in process.at and not process.has_ended:
                    process.read(waiting=True)

    def _kill(self, process: Process, gate: str, notes: Path) -> None:
        """Kill a process that is at a gate, or on its way from there to the next one."""
        place, _ = self._next
        names = gate.split(" ")[1].split(",")
        if place in ("request", "reply"):
            self._proxy.hold_at(place, names)
            process.let_go(gate)
            assert self._proxy.holds.wait(LIMIT_S)
            if place == "reply":
                wait_until(lambda: self._are_stored(notes.name, names), "the writes to be stored")
                with notes.open("a") as file:
                    file.write(f"finished {','.join(names)}\n")
        process.kill()
        self._proxy.cut_all()
        self._proxy.let_go()
        if place in ("writing", "request"):
            assert not self._are_stored(notes.name, names)

    def _are_stored(self, thread: str, names: list[str]) -> bool:
        """Are the writes of one node stored? Those of a subgraph have several names."""
        texts = [repr(one.events) for one in self._store.find(thread, prefix="w/")]
        return any(all(name in text for name in names) for text in texts)


def _step_of(name: str) -> str:
    """Return the step of a node."""
    number, node = name.split("/")
    return name if node in ("plan", "join") else number


def _count_beside(gate: str, finished: set[str]) -> int:
    """Return how many nodes of a gate's step have finished."""
    step = _step_of(gate.split(" ")[1].split(",", maxsplit=1)[0])
    return sum(_step_of(name) == step for name in finished)


def _gate_before(place: str) -> str:
    return {"request": "writing", "reply": "writing"}.get(place, place)


def judge(notes: Iterable[str], expected: Iterable[str]) -> None:
    """Assert that no finished node ran again, and that none was missed."""
    finished: set[str] = set()
    ran: set[str] = set()
    for line in notes:
        kind, names = line.split()
        if kind == "run":
            assert names not in finished, f"{names} had finished, and ran again"
            ran.add(names)
        else:
            # Its writes are stored, or a later checkpoint is.
            assert ran.issuperset(names.split(","))
            finished.update(names.split(","))
    assert ran == finished == set(expected)


def expected_of() -> tuple[Any, int]:
    """Return the last state of the graph, and the number of its checkpoints, if no process is killed."""
    graph = build(NoGates(), asynchronous=False).compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 100}
    graph.invoke({"round": 0, "done": []}, config)
    return graph.get_state(config).values, len(list(graph.get_state_history(config)))


@pytest.fixture(params=["invoke", "ainvoke"])
def killer(request: pytest.FixtureRequest, valkey: RunningServer, namespace: str, tmp_path: Path) -> Iterator[Killer]:
    killer = Killer(valkey, request.param, namespace, tmp_path)
    yield killer
    killer.close()


@pytest.mark.timeout(180 + 20 * KILLS)
def test_a_killed_graph_resumes(valkey: RunningServer, killer: Killer, namespace: str) -> None:
    values, checkpoints = expected_of()
    for number in itertools.count():
        left = KILLS - killer.killed.total()
        if not left:
            break
        thread = f"thread-{number}"
        notes = killer.run(thread, left)
        judge(notes.read_text().splitlines(), values["done"])
        with RunicSaver.from_url(valkey.url(), namespace=namespace) as saver:
            graph = build(NoGates(), asynchronous=False).compile(checkpointer=saver)
            config: Any = {"configurable": {"thread_id": thread}}
            assert graph.get_state(config).values == values
            assert graph.get_state(config).next == ()
            assert len(list(graph.get_state_history(config))) == checkpoints
    assert {place for place, _ in killer.killed} == set(PLACES[:KILLS])
    assert any(beside for _, beside in killer.killed), "some nodes of a step were finished"


def test_the_judge_finds_faults() -> None:
    good = ["run a", "run b", "finished a", "run b", "finished b", "run c", "finished b,c"]
    judge(good, ["a", "b", "c"])
    with pytest.raises(AssertionError, match="a had finished, and ran again"):
        judge([*good, "run a"], ["a", "b", "c"])
    with pytest.raises(AssertionError):
        judge(good, ["a", "b", "c", "d"])
    with pytest.raises(AssertionError):
        judge(good[:-1], ["a", "b", "c"])
