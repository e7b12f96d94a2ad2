"""This store's saver for LangGraph."""

from runic_redis.langgraph import RunicSaver

from .langgraph_saver import LangGraphSaver
from .redis_figures import reads, used_memory


class OursLangGraph(LangGraphSaver):
    name = "runic_redis, LangGraph"
    about = "RunicSaver, without a TTL and without a limit on the checkpoints"

    def open(self) -> None:
        self.saver = RunicSaver.from_url(self.place.server.url, namespace=f"{self.place.server.token}-langgraph")
        self._client = self.place.server.client()

    def close(self) -> None:
        self.saver.store.delete_namespace()
        self.saver.close()
        self._client.close()

    def stored_bytes(self) -> int:
        return used_memory(self._client)

    def round_trips(self) -> int:
        return reads(self._client)


CONTENDERS = [OursLangGraph]
