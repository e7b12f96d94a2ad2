"""The interface for traces and metrics: a store reports each operation to its observer, if it has one."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

__all__ = ["Observer"]

T = TypeVar("T")


class Observer(Protocol):
    """An observer of a store's operations. The store calls it in the thread or the task that runs the operation."""

    def observing(self, operation: Generator[Any, Any, T]) -> AbstractContextManager[Callable[[T], T]]:
        """Observe an operation for the duration of a block.

        Args:
            operation: the operation that runs in the block, not yet begun. Its name and arguments identify it.

        Returns:
            A context manager. Its value is a function: call it in the block with the result, and it returns the result.
        """

    def sending(self, event_count: int) -> Mapping[str, str]:
        """Receive the size of each commit that is encoded in a block, and return what to add to its metadata."""

    def received(self, metadata: Mapping[str, Any]) -> None:
        """Receive the metadata of each commit that is decoded in a block and has metadata."""
