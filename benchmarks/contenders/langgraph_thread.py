"""A thread of a LangGraph saver, written as a graph writes it, and the supersteps of the benchmark."""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.base import empty_checkpoint

# The size of a message without its text, as LangGraph's serializer writes it.
_FRAME_BYTES = 200
_WORDS = [
    "".join(letters.choices("etaoinshrdlu", k=letters.randint(3, 9)))
    for letters in [random.Random(0)]
    for _ in range(2000)
]
# The length of a word with its space, on average.
_WORD_BYTES = 7
_LARGEST_MESSAGE = 5_000


@dataclass(frozen=True, slots=True)
class Step:
    """A superstep: the values of all channels after it, and what its one task wrote to some of them."""

    values: dict[str, Any]
    writes: list[tuple[str, Any]]


class Thread:
    """A thread that grows by a checkpoint for each superstep.

    Args:
        saver: the saver.
        thread_id: the thread, which is new.

    Attributes:
        checkpoints: the configurations of its checkpoints, the oldest first.
    """

    def __init__(self, saver: Any, thread_id: str) -> None:
        self.checkpoints: list[Any] = []
        self._saver = saver
        self._newest = {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}
        self._versions: dict[str, Any] = {}
        self._numbers = itertools.count()

    def prepare(self, step: Step) -> Callable[[], None]:
        """Return a call that puts the checkpoint after a superstep. The calls are made in the order of preparation."""
        number = next(self._numbers)
        get_next_version = self._saver.get_next_version
        new = {name: get_next_version(self._versions.get(name), None) for name in step.values}
        checkpoint: Any = {**empty_checkpoint(), "channel_values": step.values, "channel_versions": new}
        metadata: Any = {"source": "loop", "step": number, "parents": {}}
        self._versions = new

        def put() -> None:
            at = self.checkpoints[-1] if self.checkpoints else self._newest
            self.checkpoints.append(self._saver.put(at, checkpoint, metadata, new))

        return put

    def put_writes(self, at: Any, step: Step) -> None:
        """Put the writes of the one task that ran after a checkpoint."""
        self._saver.put_writes(at, step.writes, f"task-{at['configurable']['checkpoint_id']}")

    def run(self, step: Step) -> None:
        """Put the writes of a superstep, and then its checkpoint."""
        if self.checkpoints:
            self.put_writes(self.checkpoints[-1], step)
        self.prepare(step)()

    def latest(self) -> Any:
        """Return the newest checkpoint, which the saver looks up."""
        return self._saver.get_tuple(self._newest)

    def by_id(self, at: Any) -> Any:
        """Return a checkpoint, and the writes after it."""
        return self._saver.get_tuple(at)

    def newest(self, limit: int) -> list[Any]:
        """Return the newest checkpoints, and the writes after them."""
        return list(self._saver.list(self._newest, limit=limit))


def replacing(size: int, seed: str) -> Iterator[Step]:
    """Yield supersteps that replace a state of about `size` bytes as a whole."""
    for number in itertools.count():
        texts = [f"{seed}-{number}-{one}" for one in range(max(1, size // _LARGEST_MESSAGE))]
        messages = [_message(text, min(size, _LARGEST_MESSAGE)) for text in texts]
        yield _step(messages, messages, number)


def conversing(size: int, added: int, seed: str) -> Iterator[Step]:
    """Yield a conversation of about `size` bytes, and then supersteps that each append a message of `added` bytes."""
    messages = [_message(f"{seed}-{number}", added) for number in range(max(1, size // added))]
    yield _step(messages, messages, 0)
    for number in itertools.count(len(messages)):
        messages = [*messages, _message(f"{seed}-{number}", added)]
        yield _step(messages, messages[-1:], number)


def _step(messages: list[AnyMessage], new: list[AnyMessage], number: int) -> Step:
    return Step({"messages": messages, "steps": number}, [("messages", new), ("steps", number)])


def _message(seed: str, size: int) -> AnyMessage:
    """Return a message of about `size` bytes. Its text is random words, which compress like a text."""
    words = random.Random(seed).choices(_WORDS, k=max(1, (size - _FRAME_BYTES) // _WORD_BYTES))
    kind = AIMessage if seed[-1] in "13579" else HumanMessage
    return kind(" ".join(words), id=seed)
