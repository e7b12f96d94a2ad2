"""The Lua scripts: what a head declares is what its script uses."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from runic_redis import Append, DurabilityError, Fact, RedisStore, Tagged, projection, replicated
from runic_redis.keys import WorkflowKeys
from runic_redis.operations.appending import _HEAD, _add_extras, append_call
from runic_redis.operations.life import Life
from runic_redis.protocol import refusals
from runic_redis.protocol.effects import Argument
from runic_redis.protocol.scripts import load_script, scripts_directory
from tests import servers
from tests.faults import make_faulty
from tests.servers import RunningServer, wait_until
from tests.test_archives import export, load
from tests.test_verifying import verify

SCRIPTS = sorted(scripts_directory().glob("*.lua"))
PARTS = sorted(scripts_directory().glob("shared/*.lua"))
# What a key can be, as the heads name it.
KINDS = {*WorkflowKeys.__slots__, "config", "bucket", "times", "touch"}
# Without an index of all tags, a workflow's tags are passed in its place.
KINDS.remove("tagged")


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
        assert re.search(r"while true do\n.*unpack\(KEYS, key,", body)
    declared = set(re.findall(r"\b[A-Z]+_[A-Z]+\b|\bDAMAGED\b", head.partition("-- Errors")[2]))
    assert declared == set(re.findall(r"'([A-Z]+_[A-Z]+|DAMAGED)\b", body))


def consume(store: RedisStore) -> None:
    """Call the scripts of subscriptions."""
    store.append("w", [{"n": 1}])
    with store.subscribe("reader", wait_s=0) as subscription:
        subscription.park(next(subscription), "not now")
    store.drop_parked("reader", "w")


def call_every_script(store: RedisStore, directory: Path) -> None:
    """Run operations that call them all."""
    client, keys = store._connected.server._client, store.context.keys
    store.save_fact("alone", 1)
    store.append_many([("w", [{"n": 1}]), ("v", [{"f": Fact("with it")}])])
    lease = store.acquire("w", "me")
    store.renew(lease)
    store.append("w", [{"f": Fact("by a lease")}], snapshot=b"s", lease=lease, queue="other")
    store.save("w", [{"n": 1}])
    store.save("w", [{"f": Fact("in a log")}, {"f": Fact("and another")}], lease=lease)
    store.save_snapshot("w", 2, b"two", lease=lease)
    assert len(list(store.feed(wait_s=0))) == 3
    store.trim("w", lease=lease)
    store.release(lease)
    store.park(store.claim("me", queues=["other"])[0], "not now")
    store.unpark("w")
    store.send("w", {"n": 1})
    store.append("w", [{"n": 1}], tags=["a", "b"])
    assert len(store.find("w", prefix="")) == 2
    store.append("w", [{"f": Fact("in an answer")}], consumes=store.inbox("w"), ends_timer=True, unless_cancelled=True)
    assert sorted(store.list()) == ["v", "w"]
    export(store, directory / "archive")
    client.zrem(keys.workflow("v").index, "v")
    client.delete(keys.workflow("v").feed)
    assert {one.repaired for one in verify(store, repair=True).findings} == {True}
    store.complete("w")
    store.expire("w", 1000)
    store.delete("w")
    assert store.collect(0) > 0
    assert load(store, directory / "archive").complete
    store.context.slots_matter = True
    store.append("w", [{"f": Fact("elsewhere")}])
    store.save("w", [{"f": Fact("elsewhere too")}])


def call_every_script_of_the_feed(store: RedisStore) -> None:
    """Run operations that call those of a namespace with a feed."""
    store.append_all([Append("w", [{"n": 1}]), Append("v", [{"f": Fact("of a group")}], snapshot=b"s", queue="q")])
    with projection(store, "board", lambda state, commit: state + 1, 0, ttl=0.1) as board:
        board.catch_up()
        client, key = store._connected.server._client, store.context.keys.projection("board")
        saved = client.hget(key, "until")
        wait_until(lambda: client.hget(key, "until") > saved, "the heartbeat to renew the lease")


def call_every_script_of_the_index(store: RedisStore) -> None:
    """Run operations that call those of a namespace with an index of all tags."""
    store.append_all([Append("w", [Tagged({"n": 1}, ["a"]), {"n": 2}], tags=["b"])], unless=[["a", "b"], ["c"]])
    assert len(store.read_where([["b"]]).events) == 2
    assert verify(store).findings == []
    store.save_snapshot("w", 2, b"s")
    store.trim("w")
    store.delete("w")


@pytest.fixture(scope="module")
def calls(
    valkey: RunningServer, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[list[str], list[Argument]]]]:
    """What is sent to call each script: the keys and the further arguments of each call."""
    found: dict[str, list[tuple[list[str], list[Argument]]]] = {path.stem: [] for path in SCRIPTS}
    scripts = [load_script(name) for name in found]
    names = {script.sha: script.name for script in scripts} | {script.text: script.name for script in scripts}
    with RedisStore.from_url(valkey.url(), namespace="every-script", partitions=3, feed=True) as store:
        faulty = make_faulty(store)
        call_every_script(store, tmp_path_factory.mktemp("scripts"))
        rounds = faulty.rounds
        faulty = make_faulty(store, deadline_s=0.01)
        with pytest.raises(DurabilityError):
            store.append("w", [], durability=replicated(1))
        store.delete_namespace()
    with RedisStore.from_url(valkey.url(), namespace="every-script-with-feed", partitions=3, feed=True) as store:
        follower = make_faulty(store)
        call_every_script_of_the_feed(store)
        consume(store)
        assert store.trim_feed(keep=1, force=True) > 0
        store.delete_namespace()
    with RedisStore.from_url(valkey.url(), namespace="every-script-with-index", partitions=1, feed=True) as store:
        tagging = make_faulty(store)
        call_every_script_of_the_index(store)
        store.delete_namespace()
    for call in (call for sent in (*rounds, *faulty.rounds, *follower.rounds, *tagging.rounds) for call in sent):
        for command in (call.args, *(call.confirming.commands(call.key) if call.confirming else ())):
            if command[0] in {"EVAL", "EVALSHA"}:
                first = 3 + int(command[2])
                found[names[command[1]]].append((list(command[3:first]), list(command[first:])))
    return found


def declared(head: str, what: str) -> tuple[list[str], bool]:
    """What a head says of each of the first KEYS or ARGV, and whether further ones may follow."""
    said = re.findall(rf"(?ms)^-- {what}\[\d+(…?)\] (.*?)(?=^-- (?:{what}\[|ARGV\[1|Reply))", head)
    each = [" ".join(text.replace("\n--", "").split()) for _, text in said]
    further = [number for number, (dots, text) in enumerate(said) if dots or "for each" in text]
    return (each[: further[0]], True) if further else (each, False)


def kind(key: str) -> str:
    """What a key is."""
    own = re.search(r"\}:(?:import-)?(\w+)", key)
    return own[1] if own else "bucket"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_called_with_as_many_keys_as_it_declares(
    path: Path, calls: dict[str, list[tuple[list[str], list[Argument]]]]
) -> None:
    head, _ = head_and_body(path)
    assert calls[path.stem], "nobody calls it"
    for keys, arguments in calls[path.stem]:
        for given, what in ((keys, "KEYS"), (arguments, "ARGV")):
            each, further = declared(head, what)
            assert len(given) >= len(each) if further else len(given) == len(each), (what, given)
        each, _ = declared(head, "KEYS")
        for key, said in zip(keys, each, strict=False):
            assert kind(key) == said.split()[0] or said.split()[0] not in KINDS, (key, said)
        for key in keys[len(each) :]:
            assert re.search(rf"\b{kind(key)}\b", head.partition("-- ARGV")[0]), key


@pytest.mark.parametrize("path", [*SCRIPTS, *PARTS], ids=lambda path: path.stem)
def test_keys_and_arguments_are_named_at_the_top_of_a_block(path: Path) -> None:
    at_top = True
    for line in path.read_text().splitlines():
        assert len(line) < 120, line
        code = line.partition("--")[0].strip()
        if not code:
            continue
        is_naming = re.search(r"\b(?:KEYS|ARGV)\[|\bunpack\((?:KEYS|ARGV)\b", code) is not None
        if re.search(r"\b(?:KEYS|ARGV)\[", code):
            assert at_top, line
            assert code.startswith("local "), line
        at_top = is_naming or re.search(r"(?:^local function .*\)|\b(?:do|then|else))$", code) is not None


def test_the_arguments_of_a_commit_have_the_same_names_and_order_everywhere() -> None:
    text = (scripts_directory() / "append.lua").read_text()
    unpacked = re.search(r"local ([\w, ]+) = unpack\(ARGV, at, at \+ (\d+)\)", text)
    assert unpacked is not None
    assert tuple(unpacked[1].split(", ")) == _HEAD
    assert int(unpacked[2]) == len(_HEAD) - 1
    head = text.partition("ARGV[1…]")[2].partition("and for each")[0]
    assert tuple(re.findall(r"(?m)^--           (\w+)(?:  .*)?$", head)) == _HEAD
    # Each letter that the script reads is described, and is sent by the only functions that send any.
    described = set(re.findall(r"(?m)^--                      (\w)  ", head))
    assert described == set(re.findall(r"given\.(\w)\b", load_script("append").text))
    sending = "".join(map(inspect.getsource, (append_call, _add_extras, Life)))
    assert described == set(re.findall(r'"(\w)"', sending))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_error_of_a_script_is_turned_into_an_exception(path: Path) -> None:
    for error in re.findall(r"'([A-Z]+_[A-Z]+|DAMAGED)\b", load_script(path.stem).text):
        assert error == "DAMAGED" or error in refusals._NAMED


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
            keys = store.context.keys.workflow(workflow_id)
            tags = {getattr(keys, name).partition("}")[0] for name in keys.__slots__}
            assert len(tags) == 1
            assert tags.pop().startswith("{" + store.context.keys.namespace + ":")


@pytest.mark.parametrize("workflow_id", ["there", "new"])
def test_a_replica_rejects_the_whole_call_of_an_append(tmp_path: Path, workflow_id: str) -> None:
    """As the driver must see it, which then looks for the primary."""
    with servers.running(servers.valkey_program(), tmp_path) as server, server.client() as client:
        with RedisStore.from_url(server.url(), partitions=1) as store:
            store.append("there", [{"n": 1}])
            command = append_call(store.context, workflow_id, [{"n": 2}], {})
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(redis.ReadOnlyError):
            client.eval(command.script.text, len(command.keys), *command.keys, *command.args)
