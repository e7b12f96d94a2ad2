"""The seam for traces and metrics: a store tells its observer, if it has one, about every operation."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Observer(Protocol):
    """An observer of a store's operations; the store calls it in the thread or task of the operation."""

    def observing(self, name: str, workflow_id: str) -> AbstractContextManager[Callable[[Any], Any]]:
        """Return a context manager around one operation.

        Args:
            name: the public name of the operation.
            workflow_id: the workflow that it is about; empty if it is about none, or about many.

        Returns:
            A context manager. It gives a function that takes the operation's result and returns it.
        """

    def running(
        self, workflow_id: str, queue: str, attempt: int
    ) -> AbstractContextManager[Callable[[str, Exception | None], None]]:
        """Return a context manager around one call of a handler by `work`.

        Returns:
            A context manager. It gives a function that takes the outcome, and the error of the handler if there is one.
        """

    def sending(self, event_count: int) -> Mapping[str, str]:
        """Note that a commit was encoded in the block, and return what to add to its metadata."""

    def received(self, metadata: Mapping[str, Any]) -> None:
        """Note the metadata of a commit that was decoded in the block."""
