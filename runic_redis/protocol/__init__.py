"""The protocol between operations and a Redis server, without sockets, threads and clocks.

- `effects`: the types that pass between an operation and the driver that runs it.
- `queue`: when commands are sent and retried; `node_queues`: the queue of each node.
- `rounds`: what one round trip carries.
- `size_limits`: whether a server has rejected a request for its size.
- `confirmation`: how a server confirms that a write is durable.
- `refusals`: the meaning of error replies; `resp`: pairs in replies.
- `following`: blocking reads of streams; `scans`: pages of sets and hashes that are too large for one reply.
- `scripts`: the Lua scripts.
"""
