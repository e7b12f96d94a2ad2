"""Registries: each store has one. A class may be defined again if it is the same class."""

import importlib
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runic_redis import (
    AsyncRedisStore,
    EncodeError,
    EventRegistry,
    EveryEvents,
    Fact,
    FactRef,
    FactResolver,
    InvalidArgument,
    RedisStore,
    UnknownEventType,
    event,
    session,
)
from runic_redis.codec import Codec
from runic_redis.events import default_registry
from runic_redis.events import registry as registry_module
from tests import servers
from tests.portal import open_store


@pytest.fixture(params=["memory-sync", "memory-asyncio", "valkey-sync", "valkey-asyncio", "cluster_nodes-sync"])
def opener(request: pytest.FixtureRequest, namespace: str) -> Callable[..., Any]:
    server, face = request.param.split("-")
    if server == "memory":
        request.getfixturevalue("few_buckets")
    return partial(open_store, face, servers.url_on(request, server, namespace), namespace, partitions=4)


@dataclass(frozen=True)
class Happened:
    number: int


@dataclass(frozen=True)
class Other:
    text: Any


def test_a_store_knows_the_types_of_its_registry(opener: Callable[..., Any]) -> None:
    one, other = EventRegistry(), EventRegistry()
    one.event("happened")(Happened)
    other.event("happened")(Other)
    with opener(registry=one) as store:
        assert store.registry is one
        store.append("one", [Happened(1)])
        assert list(store.stream("one")) == [Happened(1)]
        with pytest.raises(EncodeError, match="Other"):
            store.append("one", [Other("x")])
    with opener(registry=other) as store:
        store.append("other", [Other("x"), {"fact": Fact(Other("y")), "in": Other(Fact(Other("z")))}])
        first, second = store.stream("other")
        assert first == Other("x")
        assert store.load_fact(second["fact"].hash) == Other("y")
        assert type(second["in"].text) is FactRef
        assert store.load_fact(second["in"].text.hash) == Other("z")
        # Collecting finds references inside of a class that only this registry knows.
        assert store.collect(0) == 0
    with opener() as store:
        assert store.registry is default_registry
        with pytest.raises(UnknownEventType):
            list(store.stream("one"))


def test_a_resolver_and_a_session_use_the_registry_of_their_store(namespace: str) -> None:
    registry = EventRegistry()
    registry.event("other")(Other)
    with RedisStore.from_url(f"memory://{namespace}", namespace=namespace, registry=registry) as store:
        store.append("w", [Other(Fact({"a": 1}))])
        (hydrated,) = FactResolver(store).rehydrate(store.stream("w"))
        assert hydrated == Other(Fact({"a": 1}))
        with session(store, "s", lambda state, event: event, Other(0), snapshots=EveryEvents(1)) as one:
            one.record(Other(1))
        with session(store, "s", lambda state, event: event, Other(0)) as again:
            assert again.state == Other(1)
            assert again.recovery.snapshot_cursor == 1


@pytest.mark.parametrize("registry", ["x", default_registry.event, {}, EventRegistry])
def test_an_object_that_is_no_registry_is_refused(registry: Any) -> None:
    for kind in (RedisStore, AsyncRedisStore):
        with pytest.raises(InvalidArgument, match="registry is an EventRegistry"):
            kind.from_url("memory://", namespace="x", registry=registry)


def test_two_functions_may_each_have_a_class_of_one_name() -> None:
    registry = EventRegistry()

    def one() -> Any:
        @registry.event("thing.happened")
        @dataclass
        class Happened:
            a: int

        return Happened(1)

    def two() -> Any:
        @registry.event("thing.happened")
        @dataclass
        class Happened:
            b: str

        return Happened("x")

    for define in (one, two):
        made = define()
        codec = Codec(registry, "raise")
        (entry,) = codec.encode_commit([made])
        assert codec.decode_entry(entry.header, entry.payload) == [made]


def test_another_class_of_a_name_is_refused() -> None:
    registry = EventRegistry()
    registry.event("happened")(Happened)
    with pytest.raises(InvalidArgument, match=r"'happened' is taken by tests\.test_registries\.Happened"):
        registry.event("happened")(Other)

    def local() -> Any:
        @registry.event("happened")
        @dataclass
        class Local:
            a: int

    with pytest.raises(InvalidArgument, match=r"or register it in another EventRegistry"):
        local()
    assert registry.of(Happened) is not None
    assert registry.of(Other) is None


def test_a_reloaded_module_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module_name = f"reloaded_{tmp_path.name.replace('-', '_')}"
    source = tmp_path / f"{module_name}.py"
    text = (
        "from dataclasses import dataclass\n"
        "from runic_redis import event\n"
        f"@event('{module_name}.happened')\n"
        "@dataclass(frozen=True)\n"
        "class Happened:\n"
        "    number: int\n"
    )
    source.write_text(text)
    module = importlib.import_module(module_name)
    before = module.Happened(1)
    source.write_text(text + "    more: str = 'new'\n")
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path(importlib.util.cache_from_source(str(source))).unlink(missing_ok=True)  # type: ignore[attr-defined]
    module = importlib.reload(module)
    assert type(before) is not module.Happened
    with RedisStore.from_url(f"memory://{module_name}", namespace="x") as store:
        store.append("w", [before, module.Happened(2, "x")])
        assert list(store.stream("w")) == [module.Happened(1, "new"), module.Happened(2, "x")]


def test_one_file_imported_under_two_names_is_one(tmp_path: Path) -> None:
    """This happens to a script that imports itself, and to a package found from two folders."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "events.py").write_text(
        "from dataclasses import dataclass\n"
        "from runic_redis import event\n"
        "@event('shop.happened')\n"
        "@dataclass\n"
        "class Happened:\n"
        "    number: int\n"
    )
    (package / "main.py").write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(tmp_path)!r}, {str(package)!r}]\n"
        "from dataclasses import dataclass\n"
        "from runic_redis import RedisStore, event\n"
        "@event('shop.started')\n"
        "@dataclass\n"
        "class Started:\n"
        "    number: int\n"
        "if __name__ == '__main__':\n"
        "    import shop.main, shop.events, events\n"
        "    with RedisStore.from_url('memory://', namespace='x') as store:\n"
        "        store.append('w', [Started(1), shop.main.Started(2), events.Happened(3), shop.events.Happened(4)])\n"
        "        print([event.number for event in store.stream('w')])\n"
    )
    done = subprocess.run([sys.executable, package / "main.py"], capture_output=True, text=True, check=False)
    assert done.stdout == "[1, 2, 3, 4]\n", done.stderr


def test_a_library_s_types_are_there_for_the_second_thread_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Value:
        pass

    Value.__module__ = "some_library"
    seen: list[Any] = []
    second = threading.Thread(target=lambda: seen.append(EventRegistry().of(Value)))

    def load() -> None:
        second.start()
        second.join(0.2)  # the second thread ends earlier only if it does not wait for the types
        monkeypatch.setitem(registry_module._built_in_by_class, Value, "its type")

    monkeypatch.setitem(registry_module._loaders, "some_library", load)
    assert EventRegistry().of(Value) == "its type"
    second.join()
    assert seen == ["its type"]


def test_the_package_s_decorator_is_that_of_the_default_registry() -> None:
    assert event == default_registry.event
