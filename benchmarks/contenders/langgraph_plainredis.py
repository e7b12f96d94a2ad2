"""langgraph-checkpoint-plainredis: a saver on the same server, without modules."""

from langgraph_checkpoint_plainredis import RedisSaver

from .base import Missing
from .langgraph_saver import LangGraphSaver
from .redis_figures import reads, used_memory


class LangGraphPlainRedis(LangGraphSaver):
    name = "LangGraph, plainredis"
    about = "RedisSaver of langgraph-checkpoint-plainredis, on the same server"

    def open(self) -> None:
        if self.place.server.plain_url is None:
            raise Missing(f"measured on one server, not on {self.place.server.scheme}://")
        self._client = self.place.server.client()
        self.saver = RedisSaver(self._client, prefix=f"{self.place.server.token}:plainredis")

    def close(self) -> None:
        keys = list(self._client.scan_iter(f"{self.place.server.token}:plainredis:*", count=10_000))
        if keys:
            self._client.unlink(*keys)
        self._client.close()

    def stored_bytes(self) -> int:
        return used_memory(self._client)

    def round_trips(self) -> int:
        return reads(self._client)


CONTENDERS = [LangGraphPlainRedis]
