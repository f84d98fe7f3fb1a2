# SPDX-License-Identifier: Apache-2.0
"""Serving the metrics over HTTP, on the daemon's own loop: a scrape needs one thread for a moment and nothing between scrapes."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from xdpchain.daemon import log as events

TIMEOUT_S = 10.0
"""in which a client must have sent its request and taken the answer"""
REQUEST_BYTES = 8192
MAX_CLIENTS = 16


class Exporter:
    """An HTTP server for one collector. `address` is where it listens ("off": nowhere), `problem` why it does not where it should."""

    def __init__(self, collector: Collector) -> None:
        self.address = "off"
        self.problem = ""
        self._wanted = "off"
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        self._server: asyncio.Server | None = None
        self._clients = 0
        self._scraper = ThreadPoolExecutor(1, "scrape")
        self._log = events.get_logger()

    async def listen(self, address: str) -> None:
        """Serve at `address` ("HOST:PORT" or "off") from now on. An address that cannot be had is logged and tried again next time."""
        if address == self._wanted and not self.problem:
            return
        await self._stop()
        self._wanted, self.problem = address, ""
        if address == "off":
            return
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(self._serve, host.strip("[]"), int(port), limit=REQUEST_BYTES)
        except OSError as error:
            self.problem = error.strerror or str(error)
            self._log.warning(
                "metrics_unavailable", address=address, error=self.problem, hint="set another [node] metrics, or stop who has it"
            )
            return
        self.address = address
        self._log.info("metrics_started", address=address)

    async def close(self) -> None:
        """End for good."""
        await self._stop()
        self._scraper.shutdown(cancel_futures=True)

    def text(self, accept: str) -> bytes:
        """All metrics in the format that an Accept header asks for."""
        return choose_encoder(accept)[0](self._registry)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._server, self.address = None, "off"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._answer(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # a scraper that went away or never was one
            writer.transport.abort()
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path = [*head[0].split(" "), ""][:2]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        status, kind, body = "200 OK", "text/plain; charset=utf-8", b""
        if method not in {"GET", "HEAD"}:
            status, body = "405 Method Not Allowed", b"GET only\n"
        elif path.partition("?")[0] not in {"/", "/metrics"}:
            status, body = "404 Not Found", b"the metrics are at /metrics\n"
        else:
            kind = choose_encoder(headers.get("accept", ""))[1]
            try:
                body = await asyncio.get_running_loop().run_in_executor(self._scraper, self.text, headers.get("accept", ""))
            except Exception:  # noqa: BLE001 - a scrape must not end the server
                self._log.exception("internal_error", during="a scrape")
                status, kind, body = "500 Internal Server Error", "text/plain; charset=utf-8", b"see the daemon's log\n"
        lines = (f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close", "", "")
        writer.write("\r\n".join(lines).encode("latin-1") + (b"" if method == "HEAD" else body))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.write_eof()
