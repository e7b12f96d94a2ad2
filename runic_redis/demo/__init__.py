"""The demonstration: several workers take a durable census of Python's standard library, and one of them is killed.

- `census` measures source files and knows nothing of the store.
- `events` has the events of the census, and `errors` the error of a demonstration that fails.
- `worker` is one worker process.
- `crew` starts the workers, tells what they do, and kills one.
- `stock` reads the result back from the store and checks it.
- `run` runs all of it, and compares the result with a plain pass over the same files.
- `progress` shows how far it is.
"""
