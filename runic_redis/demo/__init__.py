"""The demonstration: a durable census of Python's own standard library, by several workers, one of which is killed.

`census` measures files and knows nothing of the store; `worker` is one process at work; `run` starts the workers,
kills one, and compares what the store holds at the end with a plain pass over the same files.
"""
