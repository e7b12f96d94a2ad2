"""docker-compose.yml, as far as tests can check it without Docker: they start its servers by its command lines.

All services of a profile share one network in Docker. Here they share the loopback interface, at other ports.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from runic_redis import RedisStore, replicated
from tests.servers import free_ports, knows_cluster, valkey_program, wait_until

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
README = (ROOT / "README.md").read_text()
PORTS = sorted(set(re.findall(r"127\.0\.0\.1:(\d+):\1", TEXT)))


def test_images_are_pinned_and_servers_are_checked_and_reached_from_this_machine_only() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"redis:\d+\.\d+\.\d+", service["image"]), name
        idle = service["command"] == ["sleep", "infinity"]
        assert name == "cluster-join" or service["healthcheck"]["test"][0] == ("CMD" if idle else "CMD-SHELL"), name
        for port in service.get("ports", []):
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), name
        assert ("network_mode" in service) != ("ports" in service), name
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["redis"]
    volumes = [service["volumes"][0] for service in SERVICES.values() if "volumes" in service]
    assert len(set(volumes)) == len(volumes), "two services share a volume"
    assert {volume.partition(":")[0] for volume in volumes} == set(yaml.safe_load(TEXT)["volumes"])


@contextmanager
def up(profile: str, directory: Path) -> Iterator[Callable[[str], str]]:
    """Run the services of a profile. Yield a function that replaces their ports in a text by the ports in use."""
    cli = shutil.which("redis-cli")
    if cli is None:
        pytest.skip("the health checks need redis-cli on PATH")
    programs = directory / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(valkey_program())
    (programs / "redis-cli").symlink_to(cli)
    environment = {"PATH": f"{programs}:/usr/bin:/bin"}
    # (The nodes of a cluster also use a port that is 10 000 higher.)
    ports: list[int] = []
    while len(ports) < len(PORTS) or max(ports) > 55_000:
        ports = free_ports(len(PORTS))
    moved = dict(zip(PORTS, map(str, ports), strict=True))

    def here(text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: moved[found[1]], text)

    with ExitStack() as stack:
        for name, service in SERVICES.items():
            if service.get("profiles", [""]) != [profile] or service["command"][0] == "sleep":
                continue
            data = directory / name
            data.mkdir()
            command = [here(part).replace("/data", str(data)).replace("$$", "$") for part in service["command"]]
            if name == "cluster-join":
                subprocess.run(command, cwd=data, env=environment, check=True, capture_output=True)
                continue
            if command[0] == "redis-server":
                command += ["--bind", "127.0.0.1"]
                if not profile:
                    command += ["--port", moved["6379"]]
            process = stack.enter_context(
                subprocess.Popen(
                    [str(programs / "redis-server"), *command[1:]] if command[0] == "redis-server" else command,
                    cwd=data,
                    env=environment,
                    stdout=subprocess.DEVNULL,
                )
            )
            stack.callback(process.kill)
            check = here(service["healthcheck"]["test"][1])
            if not profile:
                check = check.replace("redis-cli", f"redis-cli -p {moved['6379']}")
            wait_until(lambda check=check: _is_well(check, environment), f"{name} to be well", process)
        yield here


def _is_well(check: str, environment: dict[str, str]) -> bool:
    return subprocess.run(["sh", "-c", check], env=environment, capture_output=True, check=False).returncode == 0


def test_a_server_that_answers_with_an_error_is_not_well(tmp_path: Path) -> None:
    cli = tmp_path / "redis-cli"
    cli.write_text(
        "#!/bin/sh\necho 'LOADING Redis is loading the dataset in memory'\n"
    )  # like the real redis-cli, it exits with 0
    cli.chmod(0o755)
    for name, service in SERVICES.items():
        shell, *check = service.get("healthcheck", {"test": ["CMD"]})["test"]
        assert shell == "CMD" or not _is_well(check[0], {"PATH": f"{tmp_path}:/usr/bin:/bin"}), name


def url_of(profile: str) -> str:
    """Return the URL that the README gives for a profile."""
    command = f"docker compose --profile {profile} up" if profile else "docker compose up"
    found = re.search(rf"\| `{command}` \|[^|]*\| `([^`]+)` \|", README)
    assert found, profile
    return found[1]


def test_one_redis(tmp_path: Path) -> None:
    with up("", tmp_path) as here, RedisStore.from_url(here(url_of("")), namespace="shop") as store:
        assert store.append("w", [{"n": 1}], durability="fsync") == 1


def test_a_primary_with_replicas_and_sentinels(tmp_path: Path) -> None:
    with up("sentinel", tmp_path) as here, redis.Redis(port=int(here("26379"))) as sentinel:

        def is_watched() -> bool:
            state = sentinel.sentinel_master("shop")
            return (state["num-slaves"], state["num-other-sentinels"], state["flags"]) == (2, 2, "master")

        wait_until(is_watched, "the Sentinels to know each other and the replicas", limit_s=60)
        with RedisStore.from_url(here(url_of("sentinel")), namespace="shop", durability=replicated(2)) as store:
            assert store.append("w", [{"n": 1}]) == 1
            wait_until(lambda: _fails_over(sentinel), "a Sentinel to begin a failover", limit_s=60)
            wait_until(
                lambda: sentinel.sentinel_get_master_addr_by_name("shop")[1] != int(here("6380")),
                "a replica to be promoted",
                limit_s=60,
            )
            assert store.append("w", [{"n": 2}], expected_cursor=1) == 2


def _fails_over(sentinel: redis.Redis) -> bool:
    try:
        return bool(sentinel.execute_command("SENTINEL", "FAILOVER", "shop"))
    except redis.ResponseError:
        return False


def test_a_cluster_of_six(tmp_path: Path) -> None:
    with up("cluster", tmp_path) as here, redis.Redis(port=int(here("7001"))) as node:
        wait_until(lambda: knows_cluster(node, 6), "the cluster to agree")
        wait_until(lambda: str(node.execute_command("CLUSTER", "NODES")).count("slave") == 3, "three replicas")
        with RedisStore.from_url(here(url_of("cluster")), namespace="shop", durability=replicated(1)) as store:
            assert store.append_many([(f"w-{n}", [{"n": n}]) for n in range(20)]) == [1] * 20
            assert len(list(store.list())) == 20
