"""The seam for traces and metrics: who looks on is told of every operation, and where nobody does, that is asked."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Observer"]


class Observer(Protocol):
    """Looks on as a store carries operations out, each in the thread or the task that asked for it."""

    def observing(self, name: str, workflow_id: str) -> AbstractContextManager[Callable[[Any], Any]]:
        """Return a context manager around one operation.

        Args:
            name: the public name of the operation.
            workflow_id: the workflow that it is about; empty if it is about none, or about many.

        Returns:
            A context manager. It gives a function that takes the operation's result and returns it.
        """

    def sending(self, event_count: int) -> Mapping[str, str]:
        """Told of each commit that is encoded in a block; what is to be added to its metadata."""

    def received(self, metadata: Mapping[str, Any]) -> None:
        """Told of the metadata of each commit that is decoded in a block and has any."""
