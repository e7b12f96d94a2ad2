"""What a store does, without doing it: each operation is a generator of requests that returns its result.

An operation yields a `Batch` of commands and is sent their replies, or yields a `Pause` and is sent the time since
it began. It knows no sockets and no clocks; a driver (see runic_redis/drivers) runs it. `effects` defines what
passes between the two, `asking` the retries; the rest is one module for each part of the contract.
"""
