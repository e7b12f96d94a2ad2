"""A real Valkey in a directory, shared by the processes that open it; runs as long as one of them does.

`server` is the side of the processes, `supervisor` the small process that keeps the server for all of them.
"""

from runic_redis.embedded.server import EmbeddedServer, server_program

__all__ = ["EmbeddedServer", "server_program"]
