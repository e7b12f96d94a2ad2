"""The only modules that know redis-py: they move an operation's commands and replies, and decide nothing.

`sync` and `aio` run operations, for threads and for asyncio; `sync_servers` and `aio_servers` are the transports, to a
single server or a cluster; `connect` makes these from a URL or a client; `shipment` puts commands on a connection;
`redis_py` is what both need to know of redis-py's errors.
"""
