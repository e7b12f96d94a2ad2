"""The seam for traces and metrics: who looks on is told of every operation, and where nobody does, that is asked."""

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

__all__ = ["Observer"]

T = TypeVar("T")


class Observer(Protocol):
    """Looks on as a store carries operations out, each in the thread or the task that asked for it."""

    def observing(self, operation: Generator[Any, Any, T]) -> AbstractContextManager[Callable[[T], T]]:
        """Look on for as long as the block lasts.

        Args:
            operation: what is carried out in the block, not begun yet; its name and its arguments say what it is.

        Returns:
            In the block, what is to be given the result, and gives it back.
        """

    def sending(self, event_count: int) -> Mapping[str, str]:
        """Told of each commit that is encoded in a block; what is to be added to its metadata."""

    def received(self, metadata: Mapping[str, Any]) -> None:
        """Told of the metadata of each commit that is decoded in a block and has any."""
