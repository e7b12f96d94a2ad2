"""The `eventsourcing` library on this store."""

from typing import Any

import runic_redis.eventsourcing

from .event_sourcing import EventSourcing


class EventSourcingOurs(EventSourcing):
    name = "runic_redis, eventsourcing"
    about = "its recorders on this store, in a namespace with one partition and a feed"

    def open(self) -> None:
        self.connect(
            {
                "PERSISTENCE_MODULE": runic_redis.eventsourcing.__name__,
                "RUNIC_REDIS_URL": self.place.server.url,
                "RUNIC_REDIS_NAMESPACE": f"{self.place.server.token}-eventsourcing",
            }
        )

    def open_dcb_recorder(self) -> Any:
        return self.factory.dcb_recorder()

    def close(self) -> None:
        self.factory.store.delete_namespace()
        super().close()


CONTENDERS = [EventSourcingOurs]
