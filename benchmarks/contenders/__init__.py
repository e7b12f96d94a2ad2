"""The contenders, one a file. A contender that cannot be loaded or opened is reported with the reason.

To add a contender, write a file with a subclass of `Contender` in `CONTENDERS`, and name the file here.
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
    """Return the open contenders by name, and the reasons of those that could not be opened."""
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
