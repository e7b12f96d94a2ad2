"""The parts of a commit that change the life of its workflow, and not its events."""

from datetime import datetime
from typing import NamedTuple

from runic_redis.arguments import check_due, check_queue
from runic_redis.errors import InvalidArgument
from runic_redis.keys import WorkflowKeys
from runic_redis.protocol.effects import Argument


class Life(NamedTuple):
    """The arguments of `append` that change the life of the workflow; see there.

    Attributes:
        queue: the queue to put it in.
        due: when it is due there.
        expires_in: for how many seconds it is kept from the commit on.
    """

    queue: str | None = None
    due: float | datetime | None = None
    expires_in: float | None = None

    def add_queue(
        self, options: dict[str, Argument], touched: list[str], keys: WorkflowKeys, *, is_known: bool
    ) -> None:
        """Add the queue to the options and keys of a commit.

        Args:
            options: the arguments of the commit by their letters, see lua/append.lua.
            touched: the commit's keys. The last one is a guess of the key of the workflow's queue.
            keys: the workflow's.
            is_known: whether that is no guess, but the queue of the lease.
        """
        if self.queue is None:
            if self.due is not None:
                raise InvalidArgument("due says when a workflow is due in a queue: pass queue, too. Nothing was sent.")
            return
        target = keys.queue(check_queue(self.queue))
        options["q"] = check_due(self.due)
        if not is_known:
            touched[-1] = target
        touched.append(target)
