"""The only modules that know redis-py. They carry the commands and replies of operations.

The queue in runic_redis/protocol decides when commands are sent and retried.

- `sync` and `aio` run operations, for threads and for asyncio; `sync_reads` sends batches on their own connection.
- `sync_servers` and `aio_servers` are the transports, to a single server or a cluster; `sync_connections` and
  `aio_connections` keep their connections.
- `redirections` decides which node of a cluster a call goes to.
- `shipment` makes the bytes of a round trip, and assigns its replies to calls.
- `redis_py` knows the meaning of redis-py's exceptions.
- `connect` makes a server from a URL or a client; `urls` parses URLs.
- `event_loop` checks that a store is used in its event loop.
"""
