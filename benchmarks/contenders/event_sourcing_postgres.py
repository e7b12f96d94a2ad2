"""The `eventsourcing` library on PostgreSQL, in a new database."""

from typing import Any

from eventsourcing.dcb.persistence import DCBInfrastructureFactory
from eventsourcing.persistence import InfrastructureFactory

from . import postgres
from .event_sourcing import EventSourcing

_MODULE = "eventsourcing.postgres"


class EventSourcingPostgres(EventSourcing):
    name = "eventsourcing, PostgreSQL"
    about = "its EventStore, JSON; synchronous_commit=off, with fsync on"
    _tracking: Any = None
    _dcb: Any = None

    def open(self) -> None:
        self._database = postgres.create_database(self.place, "eventsourcing")
        settings = {f"POSTGRES_{name.upper()}": value for name, value in self._database.items()}
        # Without its database functions it uses psycopg's pipelines, which are slower, and hung with older versions.
        settings["POSTGRES_ENABLE_DB_FUNCTIONS"] = "yes"
        self.connect({"PERSISTENCE_MODULE": _MODULE, **settings})
        self._settings = settings

    def open_recorder(self, *, tracking: bool) -> Any:
        if not tracking:
            return super().open_recorder(tracking=False)
        if self._tracking is None:
            # With its database functions, version 9.5.6 loses the tracking records.
            settings = {**self._settings, "POSTGRES_ENABLE_DB_FUNCTIONS": "no"}
            self._tracking = InfrastructureFactory.construct({"PERSISTENCE_MODULE": _MODULE, **settings})
            self._tracking_recorder = self._tracking.process_recorder()
        return self._tracking_recorder

    def open_dcb_recorder(self) -> Any:
        if self._dcb is None:
            module = {"PERSISTENCE_MODULE": "eventsourcing.dcb.postgres_tt"}
            self._dcb = DCBInfrastructureFactory.construct({**module, **self._settings})
            self._dcb_recorder = self._dcb.dcb_recorder()
        return self._dcb_recorder

    def close(self) -> None:
        super().close()
        for factory in (self._tracking, self._dcb):
            if factory is not None:
                factory.close()
        postgres.drop_database(self._database)


CONTENDERS = [EventSourcingPostgres]
