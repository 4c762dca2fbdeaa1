"""HTTPS: checks of certificate and key, handshakes, and clients."""

import asyncio
import logging
import ssl
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from service.client import Client
from service.connections import Connections
from service.errors import MisuseError
from service.metrics.process import ProcessMetrics
from service.settings.schema import ServeSettings, TlsFiles
from service.tls import load_context

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


def make(folder: Path, name: str = "shop.example", *options: str) -> TlsFiles:
    """Make a certificate and its key."""
    files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    openssl(*words.split(), *names, "-keyout", files.key, "-out", files.cert, *(options or ("-days", "30")))
    files.key.chmod(0o600)
    return files


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """A valid certificate."""
    return make(tmp_path_factory.mktemp("tls"))


def now() -> datetime:
    return datetime.now(UTC)


def test_a_valid_certificate_is_taken(files: TlsFiles) -> None:
    """Versions of TLS before 1.2 are refused."""
    assert load_context(files, now).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_certificate_that_expires_soon_is_reported(files: TlsFiles, caplog: pytest.LogCaptureFixture) -> None:
    """The warning has the number of days."""
    with caplog.at_level(logging.WARNING):
        load_context(files, now)
        assert caplog.messages == []
        load_context(files, lambda: now() + timedelta(days=20))
    assert "expires in 9 days" in caplog.text


def test_files_that_cannot_serve_are_named(files: TlsFiles, tmp_path: Path) -> None:
    """Missing, of another certificate, no PEM, encrypted, or with a key that others may read."""
    other = make(tmp_path, "other.example")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    encrypted = tmp_path / "encrypted.key"
    openssl("pkcs8", "-topk8", "-in", other.key, "-out", encrypted, "-passout", "pass:secret")
    for cert, key, said in (
        (tmp_path / "missing.pem", other.key, r"missing.pem cannot be read: No such file"),
        (files.cert, other.key, r"key values mismatch"),
        (text, other.key, r"text.pem and .* are not a certificate in PEM"),
        (other.cert, encrypted, r"not a certificate in PEM and its key without a passphrase"),
    ):
        encrypted.chmod(0o600)
        with pytest.raises(MisuseError, match=said):
            load_context(TlsFiles(cert, key), now)
    other.key.chmod(0o644)
    with pytest.raises(MisuseError, match=r"is open to other users: run `chmod o= "):
        load_context(other, now)
    other.key.chmod(0o640)  # as Debian's group ssl-cert reads it
    load_context(other, now)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    """Before the start, in place of a failure at every client."""
    files, request, config = make(tmp_path, "old.example"), tmp_path / "request.pem", tmp_path / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca=d\n[d]\ndatabase={tmp_path}/index\nrand_serial=yes\nnew_certs_dir={tmp_path}\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    (tmp_path / "index").touch()
    openssl("req", "-new", "-key", files.key, "-subj", "/CN=old.example", "-out", request)
    days = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"]
    signer = ["-selfsign", "-keyfile", files.key]
    openssl("ca", "-batch", "-config", config, *signer, *days, "-in", request, "-out", files.cert, "-notext")
    with pytest.raises(MisuseError, match=r"old.example.pem is refused: certificate has expired"):
        load_context(files, now)


class Server:
    """A server with TLS on a free port, in a thread of its own."""

    def __init__(self, files: TlsFiles, **limits: Any) -> None:
        self.metrics = ProcessMetrics("m", log_queue_rows=lambda: 0)
        self.connections = Connections(ServeSettings(**limits), self.metrics, tls=load_context(files, now))
        self._config = uvicorn.Config(self._app, interface="asgi3", lifespan="off", log_config=None, ws="none")
        self._config.load()
        self.schemes: list[str] = []

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.schemes.append(scope["scheme"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"15")]})
        await send({"type": "http.response.body", "body": b'{"ready": true}'})

    async def listen(self) -> asyncio.Server:
        loop, state = asyncio.get_running_loop(), ServerState()
        return await loop.create_server(
            lambda: self.connections.protocol(config=self._config, server_state=state, app_state={}, _loop=loop),
            "127.0.0.1",
            0,
        )


def drive(story: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function; a timeout fails the test."""

    async def limited() -> None:
        await asyncio.wait_for(story(), 600)

    uvloop.run(limited())


def port_of(server: asyncio.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


def test_a_request_is_answered_over_tls(files: TlsFiles) -> None:
    """The application sees the scheme https; a connection answers several requests."""

    async def story() -> None:
        server = Server(files)
        async with await server.listen() as listener:
            trust = ssl.create_default_context(cafile=files.cert)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port_of(listener), ssl=trust, server_hostname="shop.example"
            )
            for _ in range(2):
                writer.write(GET)
                assert (await reader.readuntil(b"true}")).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()
            await writer.wait_closed()
        assert server.schemes == ["https", "https"]

    drive(story)


def test_a_stalled_handshake_counts_as_a_connection(files: TlsFiles) -> None:
    """It gives way to others beyond the limit, and is closed at the deadline of a header."""

    async def story() -> None:
        server = Server(files, connections=2, stall_seconds=2.0)
        async with await server.listen() as listener:
            silent = [await asyncio.open_connection("127.0.0.1", port_of(listener)) for _ in range(3)]
            assert await silent[0][0].read() == b""  # the first gave way to the third
            with Client(url(listener), ca=files.cert, any_name=True) as client:
                assert (await asyncio.to_thread(client.ready)).ready
            for reader, _ in silent[1:]:
                assert await reader.read() == b""
            for _, writer in silent:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    drive(story)


def url(listener: asyncio.Server) -> str:
    return f"https://127.0.0.1:{port_of(listener)}"


@pytest.fixture
def address(files: TlsFiles) -> Iterator[str]:
    """Address of a server with TLS in another thread."""
    loop, found = uvloop.new_event_loop(), []
    over = asyncio.Event()

    async def serve() -> None:
        async with await Server(files).listen() as listener:
            found.append(url(listener))
            started.set_result(None)
            await over.wait()

    started = loop.create_future()
    thread = Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    while not found:
        thread.join(0.01)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


def test_a_client_trusts_a_named_certificate_only(address: str, files: TlsFiles, tmp_path: Path) -> None:
    """Without it, with another one, and for another name it refuses, and its error has the option."""
    other = make(tmp_path, "other.example")
    with Client(address, ca=files.cert, any_name=True) as client:
        assert client.ready().ready
    for ca in (None, files.cert, other.cert):
        with Client(address, ca=ca) as client, pytest.raises(MisuseError, match=r"no TLS connection to .*--ca FILE"):
            client.ready()


def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    """Before a connection is opened."""
    with pytest.raises(MisuseError, match=r"missing.pem cannot be read as a PEM file of certificates"):
        Client("https://127.0.0.1:1", ca=tmp_path / "missing.pem")
