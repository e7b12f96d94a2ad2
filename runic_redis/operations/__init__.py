"""The operations of a store: each is a generator that yields requests and returns its result.

There is one module for each part of the contract, such as `appending`, `reading`, `tailing` and `leasing`.

An operation yields a `Batch` of commands and receives their replies (see runic_redis/protocol). It knows no sockets and
no clocks; a driver (see runic_redis/drivers) runs it. What a script checks and writes is in lua/. Tools for operators
are in runic_redis/admin.
"""
