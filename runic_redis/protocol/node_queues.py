"""The queues of a server: one for each node and each way to confirm writes."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from runic_redis.protocol.effects import Command, Confirmation
from runic_redis.protocol.queue import Queue
from runic_redis.protocol.rounds import Ticket, hash_tag


def any_full(queues: Iterable[Queue]) -> bool:
    """Whether a new call must wait until one of the queues has room."""
    for queue in queues:  # noqa: SIM110 - on the way of every call, where a generator costs more than its work
        if queue.is_full:
            return True
    return False


class Queues:
    """The queues of a server's nodes. Not for two threads at once.

    Args:
        deadline_s: the deadline of a command, from its first try or from when it began to wait for a failing server.
        find_node: returns the node of a key; None for a server that is a single node.
        wait_s: the longest time that a server may wait for a confirmation.
    """

    def __init__(self, deadline_s: float, find_node: Callable[[str], str] | None, wait_s: float = math.inf) -> None:
        self._deadline_s = deadline_s
        self._find_node = find_node
        self._wait_s = wait_s
        self._only = Queue(deadline_s)
        self._by_node: dict[tuple[str, Confirmation | None], Queue] = {}
        self._by_tag: dict[tuple[str, Confirmation | None], Queue] = {}

    def find(self, ticket: Ticket) -> Mapping[Queue, Sequence[int]]:
        """Return the queues of a ticket's commands, each with the places of its commands in the ticket."""
        confirmation = ticket.batch.confirmation
        commands = ticket.batch.commands
        if self._find_node is None:
            return {self.find_one(commands[0], confirmation): range(len(commands))}
        found: dict[Queue, list[int]] = {}
        for place, command in enumerate(commands):
            found.setdefault(self.find_one(command, confirmation), []).append(place)
        return found

    def find_one(self, command: Command, confirmation: Confirmation | None) -> Queue:
        """Return the queue of a command."""
        if self._find_node is None:
            return self._only if confirmation is None else self._of_node("", confirmation)
        return self._of_key(command.key, self._find_node, confirmation)

    def __iter__(self) -> Iterator[Queue]:
        return iter([self._only, *self._by_node.values()])

    def _of_node(self, node: str, confirmation: Confirmation | None) -> Queue:
        """Return a node's queue for one way to confirm writes: no command waits for the confirmation of others."""
        queue = self._by_node.get((node, confirmation))
        if queue is None:
            queue = self._by_node[node, confirmation] = Queue(
                self._deadline_s, by_slot=self._find_node is not None, confirmation=confirmation, wait_s=self._wait_s
            )
        return queue

    def _of_key(self, key: str, find_node: Callable[[str], str], confirmation: Confirmation | None) -> Queue:
        """Return the queue of a key's node.

        When a slot has moved to another node, its commands stay in their old queue for as long as any wait there, so
        that none overtakes another. (A queue decides when a command is sent; a driver decides where to.)
        """
        queue = self._of_node(find_node(key), confirmation)
        tag = hash_tag(key), confirmation
        known = self._by_tag.get(tag)
        if known is not queue and (known is None or known.idle):
            known = self._by_tag[tag] = queue
        return known
