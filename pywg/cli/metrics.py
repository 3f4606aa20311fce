"""`pywg metrics`: the exporter for Prometheus, a process of its own that asks daemons and the kernel."""

from __future__ import annotations

import errno
import json
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from pywg.errors import PywgError

if TYPE_CHECKING:
    from pywg.observe.metrics import WireGuardCollector

DEFAULT_LISTEN = "127.0.0.1:9586"


@click.command("metrics")
@click.argument("interfaces", nargs=-1, metavar="[INTERFACE]...")
@click.option(
    "--listen",
    default=DEFAULT_LISTEN,
    metavar="ADDRESS:PORT",
    show_default=True,
    help="Where to answer; port 0: any, which is printed.",
)
@click.option("--once", is_flag=True, help="Print the metrics once, and leave.")
def command(interfaces: tuple[str, ...], listen: str, once: bool) -> None:
    """Serve metrics of WireGuard interfaces to Prometheus: all, or those named.

    \b
    /metrics  Prometheus or OpenMetrics text, as the client asks
    /healthz  200 while this process runs
    /readyz   200 when every interface answers and is up, else 503 with reasons

    Nothing is encrypted and nobody is asked who they are: with another address than the loopback's, whoever
    reaches it can read public keys, addresses and traffic counts.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app

        from pywg.observe.metrics import WireGuardCollector
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise PywgError(
            f"metrics need the package prometheus-client: {sys.executable} -m pip install prometheus-client"
        ) from None
    collector = WireGuardCollector(interfaces)
    registry = CollectorRegistry()
    registry.register(collector)
    if once:
        click.echo(generate_latest(registry), nl=False)
        return
    metrics = make_wsgi_app(registry, disable_compression=True)
    with _open_server(listen, _application(metrics, collector)) as server:
        host, port = str(server.server_address[0]), server.server_address[1]
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"pywg: metrics at http://{shown}:{port}/metrics", err=True)
        _serve_until_told_to_end(server)


def _application(
    metrics: Callable[..., Iterable[bytes]], collector: WireGuardCollector
) -> Callable[..., Any]:
    """The WSGI application with all paths."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            try:
                return metrics(environ, start_response)
            except PywgError as error:
                return answer(start_response, "503 Service Unavailable", {"error": str(error)})
        if path == "/healthz":
            return answer(start_response, "200 OK", {"status": "running"})
        if path == "/readyz":
            failing = collector.failing()
            status = "503 Service Unavailable" if failing else "200 OK"
            value = {"status": "failing" if failing else "ready", "reasons": failing}
            return answer(start_response, status, value)
        return answer(start_response, "404 Not Found", {"paths": ["/metrics", "/healthz", "/readyz"]})

    def answer(start_response: Callable[..., Any], status: str, value: dict[str, Any]) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps(value).encode() + b"\n"]

    return application


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each client, so that a slow one keeps nobody waiting."""

    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    timeout = 30.0

    def log_message(self, format: str, *arguments: Any) -> None:
        """Scrapes are no news."""


def _open_server(listen: str, application: Callable[..., Any]) -> WSGIServer:
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise click.UsageError(f"--listen takes ADDRESS:PORT, such as {DEFAULT_LISTEN}, not '{listen}'")
    kind = _Server6 if ":" in host else _Server
    try:
        return make_server(host, int(port), application, kind, _QuietHandler)
    except OSError as error:
        hints = {
            errno.EADDRINUSE: f"; `ss -ltnp 'sport = :{port}'` shows who has the port",
            errno.EADDRNOTAVAIL: "; `ip address show` shows the addresses of this host",
            errno.EACCES: "; ports below 1024 need root",
        }
        hint = hints.get(error.errno or 0, "")
        raise PywgError(f"{listen} cannot be listened on: {error.strerror or error}{hint}") from None


def _serve_until_told_to_end(server: WSGIServer) -> None:
    def end(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()  # from this thread it would wait for itself

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    server.serve_forever()
