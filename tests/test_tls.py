"""TLS: which servers a store trusts, and the certificate that it shows to servers; for both kinds of store.

The servers of the wheels speak no TLS, so a proxy with TLS stands in front of their Valkey. A Redis on PATH that was
built with TLS speaks it itself, and passes the same tests.
"""

import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from runic_redis import StoreUnavailable
from runic_redis.drivers.urls import _TLS_OPTIONS
from runic_redis.testing.examples import numbered
from tests import servers
from tests.portal import open_store
from tests.servers import RunningServer


@dataclass
class Papers:
    """The files of an authority, of servers and of a client, and those of strangers with another authority."""

    directory: Path

    def __post_init__(self) -> None:
        for name in ("ours", "strange"):
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.file(f"{name}-ca"))
            for holder, who in (("server", "localhost"), ("node", "127.0.0.1"), ("client", "client@example.org")):
                issued = authority.issue_cert(who)
                issued.cert_chain_pems[0].write_to_path(self.file(f"{name}-{holder}"))
                issued.private_key_pem.write_to_path(self.file(f"{name}-{holder}-key"))

    def file(self, name: str) -> Path:
        return self.directory / f"{name}.pem"

    def trust(self, name: str = "ours") -> str:
        """Return the URL option that trusts an authority."""
        return f"ssl_ca_certs={self.file(f'{name}-ca')}"

    def identity(self, name: str = "ours") -> str:
        """Return the URL options that show a client's certificate."""
        return f"ssl_certfile={self.file(f'{name}-client')}&ssl_keyfile={self.file(f'{name}-client-key')}"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@contextmanager
def proxied(valkey: RunningServer, papers: Papers, *, asks: bool, who: str = "server") -> Iterator[int]:
    """Open a port on loopback that speaks TLS and forwards to a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.file(f"ours-{who}"), papers.file(f"ours-{who}-key"))
    context.load_verify_locations(papers.file("ours-ca"))
    context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                secure = context.wrap_socket(self.request, server_side=True)
            except (ssl.SSLError, OSError):
                return
            with secure, valkey.connect() as upstream:
                back = threading.Thread(target=pump, args=(upstream, secure))
                back.start()
                pump(secure, upstream)
                back.join()

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    class Listener(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Ignore errors: a client may reject the certificate."""

    with Listener(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
            thread.join()


@contextmanager
def native(directory: Path, papers: Papers, *, asks: bool) -> Iterator[int]:
    """Run a Redis that speaks TLS itself, and yield its TLS port."""
    program = servers.path_program()
    if program is None or b"SSL_CTX_new" not in program.read_bytes():
        pytest.skip("no redis-server with TLS on PATH")
    plain, secure = servers.free_ports(2)
    options = {
        "tls-port": str(secure),
        "tls-cert-file": str(papers.file("ours-server")),
        "tls-key-file": str(papers.file("ours-server-key")),
        "tls-ca-cert-file": str(papers.file("ours-ca")),
        "tls-auth-clients": "yes" if asks else "no",
    }
    flat = [part for name, value in options.items() for part in (f"--{name}", value)]
    with servers.running(program, directory, *flat, port=plain):
        yield secure


@pytest.fixture(params=["proxy", "native"])
def listening(
    request: pytest.FixtureRequest, valkey: RunningServer, papers: Papers, tmp_path: Path
) -> Callable[..., Any]:
    """Run a server that speaks TLS, and may ask its clients for a certificate."""
    if request.param == "proxy":
        return partial(proxied, valkey, papers)
    return partial(native, tmp_path / "server", papers)


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest) -> str:
    return request.param


def works(face: str, url: str, namespace: str) -> None:
    with open_store(face, url, namespace) as store:
        assert store.append("order-1", numbered(2)) == 2
        assert list(store.stream("order-1")) == numbered(2)
        store.delete("order-1")


def is_refused(face: str, url: str, because: str) -> None:
    with pytest.raises(StoreUnavailable, match=because), open_store(face, url, "nowhere", deadline_s=0):
        pass


def test_a_server_is_trusted_by_its_authority_and_its_name(
    listening: Any, papers: Papers, face: str, namespace: str
) -> None:
    with listening(asks=False) as port:
        works(face, f"rediss://localhost:{port}?{papers.trust()}", namespace)
        # Neither the system's authorities nor a stranger's vouch for this server.
        is_refused(face, f"rediss://localhost:{port}", "certificate verify failed")
        is_refused(face, f"rediss://localhost:{port}?{papers.trust('strange')}", "certificate verify failed")
        # The certificate says localhost.
        is_refused(face, f"rediss://127.0.0.1:{port}?{papers.trust()}", "certificate is not valid for '127.0.0.1'")
        works(face, f"rediss://127.0.0.1:{port}?{papers.trust()}&ssl_check_hostname=false", namespace)
        works(face, f"rediss://127.0.0.1:{port}?ssl_cert_reqs=none&ssl_check_hostname=false", namespace)


def test_a_server_that_asks_for_a_certificate_is_shown_one(
    listening: Any, papers: Papers, face: str, namespace: str
) -> None:
    with listening(asks=True) as port:
        url = f"rediss://localhost:{port}?{papers.trust()}"
        works(face, f"{url}&{papers.identity()}", namespace)
        # In TLS 1.3, a client gets the rejection after its handshake. The text depends on the moment.
        is_refused(face, url, "cannot be reached")
        is_refused(face, f"{url}&{papers.identity('strange')}", "cannot be reached")


def test_a_server_without_tls_gets_no_command(face: str) -> None:
    heard = []

    class Plain(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(65536))
            self.request.sendall(b"+OK\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Plain) as plain:
        thread = threading.Thread(target=plain.serve_forever, args=(0.01,))
        thread.start()
        try:
            url = f"rediss://ada:s3cret-w0rd@localhost:{plain.server_address[1]}"
            is_refused(face, f"{url}?ssl_cert_reqs=none&ssl_check_hostname=false", "SSL")
        finally:
            plain.shutdown()
            thread.join()
    handshake = b"\x16\x03"
    assert heard
    assert all(said.startswith(handshake) and b"s3cret" not in said for said in heard)


def test_a_cluster_with_tls(papers: Papers, tmp_path: Path, namespace: str) -> None:
    port, bus = servers.free_ports(2)
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-announce-ip", "127.0.0.1")
    with (
        servers.running(servers.valkey_program(), tmp_path / "node", *options, port=port) as node,
        node.client() as client,
        proxied(node, papers, asks=True, who="node") as secure_port,
    ):
        # The node announces the port that speaks TLS to its clients.
        client.config_set("cluster-announce-port", secure_port)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        servers.wait_until(lambda: servers.knows_cluster(client, 1), "the cluster to agree")
        url = f"rediss+cluster://127.0.0.1:{secure_port}?{papers.trust()}"
        for face in ("sync", "asyncio"):
            works(face, f"{url}&{papers.identity()}", namespace)
            is_refused(face, f"rediss+cluster://127.0.0.1:{secure_port}?{papers.identity()}", "cannot be reached")
            is_refused(face, url, "cannot be reached")


def test_the_page_on_security_names_every_option() -> None:
    page = (Path(__file__).parent.parent / "docs" / "security.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| `ssl_")]
    assert set(re.findall(r"ssl_\w+", "".join(table))) == _TLS_OPTIONS
