"""The Lua scripts: what a head declares is what its script uses."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runic_redis import RedisStore
from runic_redis.operations import (
    appending,
    asking,
    checking,
    collecting,
    confirming,
    facts,
    importing,
    leasing,
    lifecycle,
    listing,
    opening,
    snapshots,
)
from runic_redis.scripts import load_script, scripts_directory

SCRIPTS = sorted(scripts_directory().glob("*.lua"))
CALLERS = (
    appending,
    checking,
    collecting,
    confirming,
    facts,
    importing,
    leasing,
    lifecycle,
    listing,
    opening,
    snapshots,
)


def head_and_body(path: Path) -> tuple[str, str]:
    lines = path.read_text().splitlines()
    head = [line for line in lines if line.startswith("--")]
    with_includes = load_script(path.stem).text.splitlines()
    return "\n".join(head), "\n".join(line.partition("--")[0] for line in with_includes)


def numbers(pattern: str, text: str) -> set[int]:
    return {int(number) for number in re.findall(pattern, text)}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_head_declares_what_the_script_uses(path: Path) -> None:
    head, body = head_and_body(path)
    assert numbers(r"(?m)^-- KEYS\[(\d+)\]", head) == numbers(r"KEYS\[(\d+)\]", body)
    assert numbers(r"(?m)^-- ARGV\[(\d+)\]", head) == numbers(r"ARGV\[(\d+)\]", body)
    assert "-- Reply " in head
    if further := re.search(r"ARGV\[([2-9])…\]", head):
        assert (
            f"local at = {further[1]}\n" in body
            or f"at = {further[1]}, #ARGV" in body
            or f"(ARGV, {further[1]})" in body
        )
    elif "…" in head:
        # Of each of many: named by the loop that goes through them.
        assert "-- KEYS[1…]" in head
        assert "-- ARGV[1…]" in head
        assert re.search(r"while at < #ARGV do", body)
    declared = set(re.findall(r"\b[A-Z]+_[A-Z]+\b|\bDAMAGED\b", head.partition("-- Errors")[2]))
    assert declared == set(re.findall(r"'([A-Z]+_[A-Z]+|DAMAGED)\b", body))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_called_with_as_many_keys_as_it_declares(path: Path) -> None:
    sources = "".join(inspect.getsource(module) for module in CALLERS)
    assert f'"{path.stem}"' in sources, "nobody calls it"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_error_of_a_script_is_turned_into_an_exception(path: Path) -> None:
    for error in re.findall(r"'([A-Z]+_[A-Z]+|DAMAGED)\b", load_script(path.stem).text):
        assert error == "DAMAGED" or error in asking._NAMED


def test_a_script_is_named_by_its_sha() -> None:
    script = load_script("append")
    assert re.fullmatch("[0-9a-f]{40}", script.sha)
    assert script is load_script("append")


def test_scripts_are_loaded_again_when_the_server_forgets_them(valkey: object, namespace: str) -> None:
    with RedisStore.from_url(valkey.url(), namespace=namespace) as store, valkey.client() as client:  # type: ignore[attr-defined]
        for number in range(1, 5):
            client.script_flush()
            assert store.append("order-1", [{"n": number}]) == number
        client.script_flush()
        assert store.append_many([(f"w-{number}", [{"n": 1}]) for number in range(20)]) == [1] * 20


def test_every_key_that_a_script_touches_is_of_one_slot(opener: Callable[[], RedisStore]) -> None:
    with opener() as store:
        for workflow_id in ("order-1", "{other}", "}{"):
            keys = store._context.keys.workflow(workflow_id)
            tags = {getattr(keys, name).partition("}")[0] for name in keys.__slots__}
            assert len(tags) == 1
            assert tags.pop().startswith("{" + store._context.keys.namespace + ":")
