"""This store's saver for LangGraph."""

import redis

from runic_redis.langgraph import RunicSaver

from .base import Missing
from .langgraph_saver import LangGraphSaver
from .redis_figures import reads, used_memory


class OursLangGraph(LangGraphSaver):
    name = "runic_redis, LangGraph"
    about = "RunicSaver, without a TTL and without a limit on the checkpoints"

    def open(self) -> None:
        self.saver = RunicSaver.from_url(self.place.server.url, namespace=f"{self.place.server.token}-langgraph")
        self._client: redis.Redis | None = None

    def close(self) -> None:
        self.saver.store.delete_namespace()
        self.saver.close()
        if self._client is not None:
            self._client.close()

    def stored_bytes(self) -> int:
        return used_memory(self._connected())

    def round_trips(self) -> int:
        return reads(self._connected())

    def _connected(self) -> redis.Redis:
        if self.place.server.plain_url is None:
            raise Missing(f"measured on one server, not on {self.place.server.scheme}://")
        if self._client is None:
            self._client = self.place.server.client()
        return self._client


CONTENDERS = [OursLangGraph]
