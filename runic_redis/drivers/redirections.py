"""Which node of a cluster each call goes to, and how often it follows the cluster's redirections. Both drivers use it.

A node that does not hold a call's slot redirects the call:

- MOVED: the slot has a new node. The cluster is asked for its slots again, and the call goes to the slot's new node.
- ASK: the slot is moving at this moment. This call goes to the node that the reply names, behind an ASKING, and the
  known slots stay as they are.

A lost connection may mean that a node has failed and a replica has its slots, so the cluster is asked then, too. A call
that is still redirected after its last try gets the error TRYAGAIN: the queue then retries it after a pause.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import AskError, MovedError, RedisClusterException

from runic_redis.drivers.shipment import Shipment, cluster_reply
from runic_redis.protocol.effects import ConnectionLost
from runic_redis.protocol.rounds import Call

NO_NODE = "No node of the cluster is known. Nothing was sent."
REDISCOVERED = "The cluster was asked again which node has which slots."
_MOST_TRIES = 5


def node_name(client: Any, key: str) -> str:
    """Return the name of the node that holds a key, as far as a cluster client knows; otherwise ''."""
    try:
        name: str = client.get_node_from_key(key).name
    except RedisClusterException:
        return ""
    return name


def any_node(client: Any) -> Any:
    """Return a node that a cluster client knows, each time another; None if it knows none."""
    nodes = client.get_primaries()
    return random.choice(nodes) if nodes else None


class Redirections:
    """The calls of a round, until each has a reply from the node that holds its key. It sends and reads nothing.

    While `is_finished` is false, a driver sends the next shipments, gives their replies to `take`, and asks the cluster
    for its slots again if `follow` says so.

    Args:
        calls: the calls.
        client: a cluster client, which knows the nodes.
        make_node: makes a node that the client does not know yet, from a host and a port.

    Attributes:
        is_finished: whether each call has its reply.
    """

    def __init__(self, calls: Sequence[Call], client: Any, make_node: Callable[[str, int], Any]) -> None:
        self.is_finished = False
        self._calls = calls
        self._client = client
        self._make_node = make_node
        self._replies: list[Any] = [None] * len(calls)
        self._waiting: Sequence[int] = range(len(calls))
        self._tries_left = _MOST_TRIES

    def next_shipments(self) -> list[tuple[Any, Shipment]]:
        """Return the nodes to send to, each with its shipment: mostly one, as the calls of a round are for one node.

        The reply to a call without a known node is a `ConnectionLost`.
        """
        self._tries_left -= 1
        # (MovedError is a subclass of AskError.)
        asking = {place for place in self._waiting if type(self._replies[place]) is AskError}
        nodes: dict[str, tuple[Any, list[int]]] = {}
        for place in self._waiting:
            try:
                node = self._named_node(place) if place in asking else None
                node = node or self._client.get_node_from_key(self._calls[place].key)
            except RedisClusterException as error:
                self._replies[place] = ConnectionLost(str(error), sent=False)
                continue
            nodes.setdefault(node.name, (node, []))[1].append(place)
        return [(node, Shipment(self._calls, places, asking)) for node, places in nodes.values()]

    def _named_node(self, place: int) -> Any:
        host, port = self._replies[place].host, self._replies[place].port
        return self._client.get_node(host=host, port=port) or self._make_node(host, port)

    def take(self, shipment: Shipment, replies: Sequence[Any]) -> None:
        """Store the replies to the calls of a shipment."""
        for place, reply in zip(shipment.places, replies, strict=True):
            self._replies[place] = reply

    def follow(self) -> bool:
        """Find the calls to send again; whether to ask the cluster for its slots first."""
        tried = [self._replies[place] for place in self._waiting]
        self._waiting = [place for place in self._waiting if isinstance(self._replies[place], AskError)]
        self.is_finished = not self._waiting or not self._tries_left
        return any(isinstance(reply, MovedError | ConnectionLost) for reply in tried)

    def replies(self) -> list[Any]:
        """Return the replies in the order of the calls, without redis-py's exceptions."""
        return [cluster_reply(reply) for reply in self._replies]
