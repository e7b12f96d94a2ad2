"""What a store does, without doing it: each operation is a generator of requests that returns its result.

An operation yields a `Batch` of commands and is sent their replies (see runic_redis/protocol). It knows no sockets and
no clocks; a driver (see runic_redis/drivers) runs it. There is one module for each part of the contract.
"""
