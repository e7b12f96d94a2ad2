"""A Valkey server in a directory. It is shared by the processes that open it, and runs as long as one of them does.

`server` starts or shares the server. `supervisor` is the small process that ends the server after its last user.
The connections to the server are in runic_redis/drivers.
"""

from runic_redis.embedded.server import EmbeddedServer, server_program

__all__ = ["EmbeddedServer", "server_program"]
