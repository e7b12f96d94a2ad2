"""The base class of LangGraph's savers."""

from typing import Any

from .base import Contender
from .langgraph_thread import Thread


class LangGraphSaver(Contender):
    """One saver. A subclass opens `saver`."""

    usual = False
    saver: Any

    def delete(self, key: str) -> None:
        self.saver.delete_thread(key)

    def open_thread(self, key: str) -> Thread:
        return Thread(self.saver, key)


CONTENDERS: list[type[Contender]] = []
