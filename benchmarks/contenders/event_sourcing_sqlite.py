"""The `eventsourcing` library on SQLite, in a file on the disk that the embedded server's file is on.

SQLite's synchronous=NORMAL is what fsync everysec is: a crash of the program loses nothing, one of the machine may.
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
        # One caller has one connection of the pool, again and again.
        with self.factory.datastore.get_connection(commit=True) as connection:
            connection.cursor().execute("PRAGMA synchronous=NORMAL")


CONTENDERS = [EventSourcingSQLite]
