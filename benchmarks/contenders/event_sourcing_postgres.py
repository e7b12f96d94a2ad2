"""The `eventsourcing` library on the PostgreSQL at RUNIC_BENCH_POSTGRES_URL, in a new schema.

synchronous_commit=off equals fsync everysec: a crash of the machine loses the last moments, other crashes lose nothing.
"""

import os

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from .base import Missing
from .event_sourcing import EventSourcing

VARIABLE = "RUNIC_BENCH_POSTGRES_URL"


class EventSourcingPostgres(EventSourcing):
    name = "eventsourcing, PostgreSQL"
    about = "its EventStore and JSON transcoder; synchronous_commit=off"

    def open(self) -> None:
        url = os.environ.get(VARIABLE)
        if not url:
            raise Missing(f"no PostgreSQL: {VARIABLE} is not set")
        self._url = url
        self._schema = self.place.server.token.replace("-", "_")
        # The library has no parameter for the option, so libpq takes it from the environment.
        before = os.environ.get("PGOPTIONS")
        os.environ["PGOPTIONS"] = "-c synchronous_commit=off"
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(self._schema)))
                parameters = {**conninfo_to_dict(url), "user": connection.info.user, "dbname": connection.info.dbname}
                host = parameters.get("host") or connection.info.host
            self.connect(
                {
                    "PERSISTENCE_MODULE": "eventsourcing.postgres",
                    "POSTGRES_DBNAME": str(parameters["dbname"]),
                    "POSTGRES_HOST": str(host),
                    "POSTGRES_PORT": str(parameters.get("port") or 5432),
                    "POSTGRES_USER": str(parameters["user"]),
                    "POSTGRES_PASSWORD": str(parameters.get("password") or " "),
                    "POSTGRES_SCHEMA": self._schema,
                }
            )
            # The one caller uses this connection of the pool.
            with self.factory.datastore.get_connection() as connection:
                if connection.execute("SHOW synchronous_commit").fetchone() != {"synchronous_commit": "off"}:
                    raise Missing("synchronous_commit cannot be set")
        except psycopg.Error as error:
            raise Missing(f"no PostgreSQL at {VARIABLE}: {error}".strip()) from error
        finally:
            if before is None:
                del os.environ["PGOPTIONS"]
            else:
                os.environ["PGOPTIONS"] = before

    def close(self) -> None:
        super().close()
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(self._schema)))


CONTENDERS = [EventSourcingPostgres]
