"""The `eventsourcing` library on PostgreSQL, in a new database."""

from typing import Any

from eventsourcing.dcb.persistence import DCBInfrastructureFactory

from . import postgres
from .event_sourcing import EventSourcing


class EventSourcingPostgres(EventSourcing):
    name = "eventsourcing, PostgreSQL"
    about = "its EventStore, JSON; synchronous_commit=off, with fsync on"
    _dcb: Any = None

    def open(self) -> None:
        self._database = postgres.create_database(self.place, "eventsourcing")
        settings = {f"POSTGRES_{name.upper()}": value for name, value in self._database.items()}
        # Without its database functions it uses psycopg's pipelines, which hung here.
        settings["POSTGRES_ENABLE_DB_FUNCTIONS"] = "yes"
        self.connect({"PERSISTENCE_MODULE": "eventsourcing.postgres", **settings})
        self._settings = settings

    def open_dcb_recorder(self) -> Any:
        if self._dcb is None:
            module = {"PERSISTENCE_MODULE": "eventsourcing.dcb.postgres_tt"}
            self._dcb = DCBInfrastructureFactory.construct({**module, **self._settings})
            self._dcb_recorder = self._dcb.dcb_recorder()
        return self._dcb_recorder

    def close(self) -> None:
        super().close()
        if self._dcb is not None:
            self._dcb.close()
        postgres.drop_database(self._database)


CONTENDERS = [EventSourcingPostgres]
