"""LangGraph's checkpointer on PostgreSQL, in a new database."""

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from . import postgres
from .langgraph_sqlite import LangGraphSQLite


class LangGraphPostgres(LangGraphSQLite):
    name = "LangGraph, PostgreSQL"
    about = "PostgresSaver; synchronous_commit=off, with fsync on"

    def open(self) -> None:
        self._database = postgres.create_database(self.place, "langgraph")
        # As its documentation opens it.
        self._connection = psycopg.connect(**self._database, autocommit=True, prepare_threshold=0, row_factory=dict_row)
        self._saver = PostgresSaver(self._connection)
        self._saver.setup()

    def close(self) -> None:
        super().close()
        postgres.drop_database(self._database)


CONTENDERS = [LangGraphPostgres]
