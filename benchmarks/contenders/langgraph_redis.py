"""langgraph-checkpoint-redis, the official saver. It needs RedisJSON and RediSearch.

It is measured on the server of the run, if that has these modules, or else on a `redis-stack-server` on the PATH.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import redis
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.redis import RedisSaver

from .base import Missing
from .langgraph_saver import LangGraphSaver
from .langgraph_thread import Thread
from .redis_figures import reads, used_memory

_PROGRAM = "redis-stack-server"
_MODULES = {"search", "rejson"}
_START_S = 20
_KINDS = {"ai": AIMessage, "human": HumanMessage}


class LangGraphRedis(LangGraphSaver):
    name = "LangGraph, Redis"
    about = "RedisSaver of langgraph-checkpoint-redis, on a server with RedisJSON and RediSearch"
    _client: redis.Redis | None = None

    def open(self) -> None:
        self._stack = contextlib.ExitStack()
        if not self._has_modules() and shutil.which(_PROGRAM) is None:
            raise Missing(
                f"it needs RedisJSON and RediSearch: pass the --url of a Redis 8 or a Redis Stack, or have {_PROGRAM} "
                "on the PATH"
            )

    def close(self) -> None:
        self._stack.close()

    def open_thread(self, key: str) -> Thread:
        if self._client is None:
            # Only its cases pay for the start.
            self._client = self._connect()
            token = self.place.server.token
            self.saver = RedisSaver(
                redis_client=self._client,
                checkpoint_prefix=f"{token}-checkpoint",
                checkpoint_write_prefix=f"{token}-write",
            )
            self.saver.setup()
        return super().open_thread(key)

    def plain(self, events: Sequence[Any]) -> list[Any]:
        # Its list returns messages as dicts.
        return [_KINDS[one["kwargs"]["type"]](**one["kwargs"]) if isinstance(one, dict) else one for one in events]

    def stored_bytes(self) -> int:
        assert self._client is not None
        return used_memory(self._client)

    def round_trips(self) -> int:
        assert self._client is not None
        return reads(self._client)

    def _has_modules(self) -> bool:
        if self.place.server.plain_url is None:
            return False
        with self.place.server.client() as client:
            info: dict[str, Any] = client.info("modules")
            return {one["name"].lower() for one in info.get("modules", ())} >= _MODULES

    def _connect(self) -> redis.Redis:
        if self._has_modules():
            client = self._stack.enter_context(self.place.server.client())
            self._stack.callback(self._clear, client)
            return client
        socket = self.place.directory / "stack" / "redis.sock"
        socket.parent.mkdir()
        # As durable as the embedded server.
        fsync = "always" if self.place.fsync else "everysec"
        settings = {"port": 0, "unixsocket": socket, "dir": socket.parent, "appendonly": "yes", "appendfsync": fsync}
        arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        server = subprocess.Popen([_PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._stack.callback(server.wait)
        self._stack.callback(server.kill)
        client = self._stack.enter_context(redis.Redis(unix_socket_path=str(socket)))
        until = time.monotonic() + _START_S
        while True:
            try:
                client.config_set("save", "")
            except redis.ConnectionError as error:
                if server.poll() is not None or time.monotonic() > until:
                    raise Missing(f"{_PROGRAM} did not start: {error}") from error
                time.sleep(0.05)
            else:
                return client

    def _clear(self, client: redis.Redis) -> None:
        for index in (self.saver.checkpoints_index, self.saver.checkpoint_writes_index):
            index.delete(drop=True)
        keys = list(client.scan_iter(f"*{self.place.server.token}*", count=10_000))
        if keys:
            client.unlink(*keys)


CONTENDERS = [LangGraphRedis]
