"""The operations of a store: each is a generator that yields requests and returns its result.

An operation yields a `Batch` of commands and receives their replies (see runic_redis/protocol). It knows no sockets and
no clocks; a driver (see runic_redis/drivers) runs it. There is one module for each part of the contract.
"""
