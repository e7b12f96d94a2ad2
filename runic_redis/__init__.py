"""A Redis Streams event store for workflow engines.

    from runic_redis import RedisStore, event

    with RedisStore.from_url("redis://localhost:6379/0", namespace="shop") as store:
        cursor = store.append("order-1", [OrderPlaced("Ada", 3)], expected_cursor=0)

Everything public is here, except Runic's events (`runic_events`, `runic_rehydration`), OpenTelemetry (`otel`) and the
contract suite for stores (`testing`).
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# The public names are in runic_redis.public, with redis-py and asyncio behind them. They load at the first use of one,
# so that the command line starts without them. Type checkers and editors read the names as if imported here.
if TYPE_CHECKING:
    from runic_redis.public import *  # noqa: F403 - its __all__ lists the names
else:

    def __getattr__(name):
        public = import_module("runic_redis.public")
        if name in globals():  # a module that came with it
            return globals()[name]
        return getattr(public, name)

    def __dir__():
        return [*globals(), *__getattr__("__all__")]
