"""The demonstration: a durable census of Python's own standard library, by several workers, one of which is killed.

`census` measures files and knows nothing of the store; `worker` is one process at work; `crew` starts the workers and
kills one; `stock` reads back what they leave; `run` does it all in turn, and compares with a plain pass over the same
files. `progress` shows how far it is.
"""
