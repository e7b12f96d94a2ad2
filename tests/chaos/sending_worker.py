"""A process that sends messages to workflows until its standard input ends, and records them.

A line before a call has the workflow and the name of the message; a line after it has the name and the id that the
call returned.
"""

import itertools
import json
import logging
import os
import random
import sys
from contextlib import suppress
from typing import Any

from runic_redis import RedisStore, StoreUnavailable
from tests.chaos.claiming_worker import options_of
from tests.chaos.writing_worker import end_of_input

# Shorter than some faults: then it is not known whether a message without an id of the sender's was stored.
_DEADLINE_S = 0.3


def _opened(task: dict[str, Any]) -> RedisStore:
    while True:
        with suppress(StoreUnavailable):
            return RedisStore.from_url(task["url"], deadline_s=_DEADLINE_S, **options_of(task))


def main(task: dict[str, Any]) -> None:
    """Send as the task says until the standard input ends."""
    over = end_of_input()
    # Standard error is for errors.
    logging.disable(logging.WARNING)
    record = os.open(task["record"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    source = random.Random(task["seed"])
    names = (f"{task['seed']}.{number}" for number in itertools.count())
    with _opened(task) as store:
        while not over.wait(task["rest_s"] * source.random()):
            workflow_id, name = source.choice(task["workflows"]), next(names)
            message_id = source.choice([None, f"id of {name}"])
            os.write(record, f"< {workflow_id} {name}\n".encode())
            while True:
                try:
                    entry_id = store.send(workflow_id, {"op": name}, message_id=message_id)
                except StoreUnavailable:
                    if message_id is None:
                        break
                    continue
                os.write(record, f"> {name} {entry_id}\n".encode())
                break


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
