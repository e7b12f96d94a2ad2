"""The `eventsourcing` library on SQLite, in a file on the same disk as the embedded server's file.

synchronous=NORMAL equals fsync everysec: a crash of the program loses nothing, a crash of the machine may.
"""

from .event_sourcing import EventSourcing


class EventSourcingSQLite(EventSourcing):
    name = "eventsourcing, SQLite"
    about = "its EventStore and JSON transcoder; a file, journal_mode=WAL, synchronous=NORMAL"

    def open(self) -> None:
        self.connect(
            {
                "PERSISTENCE_MODULE": "eventsourcing.sqlite",
                "SQLITE_DBNAME": str(self.place.directory / "eventsourcing.sqlite"),
            }
        )
        # The one caller uses this connection of the pool.
        with self.factory.datastore.get_connection(commit=True) as connection:
            connection.cursor().execute("PRAGMA synchronous=NORMAL")


CONTENDERS = [EventSourcingSQLite]
