"""The `eventsourcing` library on this store."""

from typing import Any

from eventsourcing.dcb.persistence import DCBInfrastructureFactory

from .event_sourcing import EventSourcing


class EventSourcingOurs(EventSourcing):
    name = "runic_redis, eventsourcing"
    about = "its recorders on this store, in a namespace with one partition and a feed"

    _dcb: Any = None

    def open(self) -> None:
        self._settings = {
            "RUNIC_REDIS_URL": self.place.server.url,
            "RUNIC_REDIS_NAMESPACE": f"{self.place.server.token}-eventsourcing",
        }
        self.connect({"PERSISTENCE_MODULE": "runic_redis.eventsourcing", **self._settings})

    def open_dcb_recorder(self) -> Any:
        if self._dcb is None:
            settings = {**self._settings, "RUNIC_REDIS_NAMESPACE": f"{self.place.server.token}-dcb"}
            module = {"PERSISTENCE_MODULE": "runic_redis.eventsourcing.dcb"}
            self._dcb = DCBInfrastructureFactory.construct({**module, **settings})
            self._dcb_recorder = self._dcb.dcb_recorder()
        return self._dcb_recorder

    def close(self) -> None:
        for factory in (self.factory, self._dcb):
            if factory is not None:
                factory.store.delete_namespace()
                factory.close()


CONTENDERS = [EventSourcingOurs]
