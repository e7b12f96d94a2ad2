"""The `eventsourcing` library on PostgreSQL, in a new database."""

from . import postgres
from .event_sourcing import EventSourcing


class EventSourcingPostgres(EventSourcing):
    name = "eventsourcing, PostgreSQL"
    about = "its EventStore, JSON; synchronous_commit=off, with fsync on"

    def open(self) -> None:
        self._database = postgres.create_database(self.place, "eventsourcing")
        settings = {f"POSTGRES_{name.upper()}": value for name, value in self._database.items()}
        # Without its database functions it uses psycopg's pipelines, which hung here.
        settings["POSTGRES_ENABLE_DB_FUNCTIONS"] = "yes"
        self.connect({"PERSISTENCE_MODULE": "eventsourcing.postgres", **settings})

    def close(self) -> None:
        super().close()
        postgres.drop_database(self._database)


CONTENDERS = [EventSourcingPostgres]
