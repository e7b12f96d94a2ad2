"""Who competes. Each is a file of its own; what cannot be loaded or opened here is told, with the reason.

To add one, write its file, with a subclass of `Contender` in `CONTENDERS`, and name it here.
"""

from importlib import import_module

from .base import Contender, Missing, Place

# In the order of the reports.
MODULES = (
    "ours",
    "by_hand",
    "by_hand_msgspec",
    "redis_benchmark",
    "event_sourcing_sqlite",
    "event_sourcing_postgres",
    "langgraph_sqlite",
)


def open_contenders(place: Place, modules: tuple[str, ...] = MODULES) -> tuple[dict[str, Contender], dict[str, str]]:
    """Those that are here, by name, and those that are not, with the reason."""
    here: dict[str, Contender] = {}
    missing: dict[str, str] = {}
    for module in modules:
        try:
            kinds: list[type[Contender]] = import_module(f".{module}", __name__).CONTENDERS
        except ImportError as error:
            missing[module] = f"{error} (pip install 'runic-redis[bench]')"
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
