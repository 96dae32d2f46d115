"""Downloads from a local server: truncation, wrong hash, 404, dropped connection, resume, mirror, offline."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from faceveil.pipelines.core.errors import WeightsError
from faceveil.weights.catalog import Card, card, cards
from faceveil.weights.fetch import OFFLINE, fetch

DATA = bytes(range(256)) * 5000


class _Server(ThreadingHTTPServer):
    mode = "whole"
    ranges: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers.get("Range", ""))
        if self.server.mode == "404":
            self.send_error(404)
            return
        start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        data = DATA[start:] if self.server.mode != "wrong" else b"x" * len(DATA)
        self.send_response(206 if start else 200)
        # "dropped" announces the full length and closes early; "short" announces less than the size in the card.
        self.send_header("Content-Length", str(len(data) // 2 if self.server.mode == "short" else len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if self.server.mode in ("dropped", "short") else data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server():
    httpd = _Server(("127.0.0.1", 0), _Handler)
    httpd.ranges = []
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def model(server) -> Card:
    url = f"http://127.0.0.1:{server.server_port}/model.bin"
    return Card(
        "test", "model.bin", "faceveil", "here", "1", "CC0", "a test", url, hashlib.sha256(DATA).hexdigest(), len(DATA)
    )


def test_downloads_once(server, model, tmp_path) -> None:
    steps = []
    path = fetch(model, tmp_path, consent=True, progress=lambda *step: steps.append(step))
    assert path.read_bytes() == DATA
    assert steps[-1] == (len(DATA), len(DATA), "model.bin")
    fetch(model, tmp_path, consent=False)
    assert len(server.ranges) == 1
    assert [p.name for p in path.parent.iterdir()] == ["model.bin"]


@pytest.mark.parametrize("mode", ["dropped", "short"])
def test_an_incomplete_download_is_kept_and_resumed(server, model, tmp_path, mode) -> None:
    server.mode = mode
    with pytest.raises(WeightsError, match="run it again to resume"):
        fetch(model, tmp_path, consent=True)
    assert not (tmp_path / "faceveil" / "model.bin").exists()
    server.mode = "whole"
    assert fetch(model, tmp_path, consent=True).read_bytes() == DATA
    assert server.ranges[-1] == f"bytes={len(DATA) // 2}-"


def test_a_wrong_file_is_not_kept(server, model, tmp_path) -> None:
    server.mode = "wrong"
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        fetch(model, tmp_path, consent=True)
    assert list((tmp_path / "faceveil").iterdir()) == []


def test_not_found(server, model, tmp_path) -> None:
    server.mode = "404"
    with pytest.raises(WeightsError, match="HTTP status 404"):
        fetch(model, tmp_path, consent=True)


def test_a_mirror_replaces_the_address(server, model, tmp_path) -> None:
    from dataclasses import replace

    unreachable = replace(model, url="http://127.0.0.1:9/none")
    with pytest.raises(WeightsError, match="was interrupted"):
        fetch(unreachable, tmp_path, consent=True, timeout=2)
    assert fetch(unreachable, tmp_path, consent=True, mirror=model.url).read_bytes() == DATA


def test_no_download_without_consent_or_offline(server, model, tmp_path, monkeypatch) -> None:
    with pytest.raises(WeightsError, match="downloads need your consent"):
        fetch(model, tmp_path, consent=False)
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(WeightsError, match=OFFLINE):
        fetch(model, tmp_path, consent=True)
    assert server.ranges == []


def test_an_interruption_keeps_the_partial_file(server, model, tmp_path) -> None:
    class Interrupt(Exception):
        pass

    def stop(*_: object) -> None:
        raise Interrupt

    with pytest.raises(Interrupt):
        fetch(model, tmp_path, consent=True, progress=stop)
    assert (tmp_path / "faceveil" / "model.bin.part").exists()


def test_a_card_with_an_address_needs_a_hash() -> None:
    with pytest.raises(WeightsError, match="no SHA-256"):
        Card("x", "x", "x", "x", "1", "CC0", "x", url="http://example.org/x")


def test_every_card_states_its_license() -> None:
    assert all(c.license and c.purpose and c.origin for c in cards())
    with pytest.raises(WeightsError, match="known names are"):
        card("none")
