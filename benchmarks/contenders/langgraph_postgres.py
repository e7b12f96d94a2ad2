"""LangGraph's checkpointer on PostgreSQL, in a new database."""

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg.rows import dict_row

from . import postgres
from .langgraph_sqlite import LangGraphSQLite

_SIZE = """
SELECT sum(pg_total_relation_size(oid)) AS bytes FROM pg_class WHERE relname LIKE 'checkpoint%' AND relkind = 'r'
"""


class LangGraphPostgres(LangGraphSQLite):
    name = "LangGraph, PostgreSQL"
    about = "PostgresSaver; synchronous_commit=off, with fsync on"

    def open(self) -> None:
        self._database = postgres.create_database(self.place, "langgraph")
        # As its documentation opens it.
        connection = psycopg.connect(**self._database, autocommit=True, prepare_threshold=0, row_factory=dict_row)
        self._connection = connection
        self.saver = PostgresSaver(connection)
        self.saver.setup()

    def close(self) -> None:
        super().close()
        postgres.drop_database(self._database)

    def stored_bytes(self) -> int:
        self._connection.execute("VACUUM FULL")
        return int(self._connection.execute(_SIZE).fetchone()["bytes"])


CONTENDERS = [LangGraphPostgres]
