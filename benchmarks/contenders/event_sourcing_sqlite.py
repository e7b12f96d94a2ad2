"""The `eventsourcing` library on SQLite, in a file on the same disk as the embedded server's file."""

from .event_sourcing import EventSourcing


class EventSourcingSQLite(EventSourcing):
    name = "eventsourcing, SQLite"
    about = "its EventStore, JSON; WAL, synchronous=NORMAL, with fsync FULL"

    def open(self) -> None:
        self.connect(
            {
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(self.place.directory / "eventsourcing.sqlite"),
            }
        )
        # The one caller uses this connection of the pool.
        with self.factory.datastore.get_connection(commit=True) as connection:
            connection.cursor().execute(f"PRAGMA synchronous={self.place.sqlite_synchronous}")


CONTENDERS = [EventSourcingSQLite]
