"""The proxy passes everything unchanged and counts each byte once, by exchange."""

import socket
import threading
import time

import pytest
from farm import counting_proxy, traffic


@pytest.fixture
def server():
    """(address) of a server that answers a request `<n>\\n…` with n bytes; closes with its client."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client:
            while data := client.recv(1 << 20):
                client.sendall(b"x" * int(data.split(b"?")[1].split(b" ")[0]))

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()
    listener.close()


def ask(connection: socket.socket, path: str, size: int, body: bytes = b"") -> int:
    """Send a request and read all of its answer; returns the request's length."""
    request = f"POST {path}?{size} HTTP/1.1\r\n\r\n".encode() + body
    connection.sendall(request)
    left = size
    while left:
        left -= len(connection.recv(1 << 16))
    return len(request)


def test_every_byte_is_counted_once_by_exchange_and_by_path(server, tmp_path):
    with counting_proxy.CountingProxy(server, tmp_path) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port)) as one:
            sizes = [ask(one, "/a", 10), ask(one, "/b", 300_000), ask(one, "/a", 7, b"y" * 500)]
        with socket.create_connection(("127.0.0.1", proxy.port)) as two:
            sizes.append(ask(two, "/b", 1))
        assert proxy.totals == (sum(sizes), 300_018)
        assert [(e.path, e.up, e.down) for e in proxy.exchanges] == [
            ("/a?10", sizes[0], 10),
            ("/b?300000", sizes[1], 300_000),
            ("/a?7", sizes[2], 7),
            ("/b?1", sizes[3], 1),
        ]
        found = counting_proxy.by_path(proxy.exchanges)
        assert next(iter(found)) == "/b?300000" and found["/a?7"] == (1, sizes[2], 7)
        time.sleep(0.2)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == sum(sizes) + 300_018
    assert b"y" * 500 in (tmp_path / "00001-up").read_bytes()


def test_a_server_that_is_not_there_closes_the_connection():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = free.getsockname()
    with counting_proxy.CountingProxy(gone) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as one:
        assert one.recv(10) == b"" and proxy.exchanges == []


def test_large_messages_are_compared_apart_from_the_small_ones(tmp_path):
    ledger = tmp_path / "bytes.csv"
    ledger.write_text(
        "phase,round,user,direction,payload,record,wire\n"
        "stage1,1,a,down,0,0,200000\nstage1,1,a,up,0,0,50\nstage2,0,a,down,0,0,40\n"
    )
    exchange = counting_proxy.Exchange
    seen = {"a": [exchange("/pull", 900, 201_000), exchange("/push", 1000, 300), exchange("/poll", 500, 200)]}
    measured = traffic.compare(seen, ledger, flower={"total-bytes": 5}, tls=False)
    down, up = measured["devices"]["a"]["down"], measured["devices"]["a"]["up"]
    assert (down["measured"], down["ledger"], down["messages"]) == (201_500, 200_040, 2)
    assert down["large"] == {"measured": 201_000, "ledger": 200_000}
    assert (up["measured"], up["ledger"], up["large"]) == (2400, 50, {"measured": 0, "ledger": 0})
    assert measured["paths"]["/pull"] == {"exchanges": 1, "up": 900, "down": 201_000}
    assert [kind["path"] for kind in measured["small"]] == [
        "/push",
        "/poll",
    ]  # what carries a large object is not small
    assert "1.005" in traffic.table(measured) and "201,500" in traffic.table(measured)
    assert "paths" not in traffic.compare(seen, ledger, tls=True)


def test_the_small_exchanges_of_a_kind_are_summed_up_and_told_by_their_median():
    exchange = counting_proxy.Exchange
    seen = [exchange("/v1/fleet/pull-messages", 850, 128)] * 2 + [exchange("/v1/fleet/pull-messages", 854, 9_000)]
    (polling,) = traffic.small([*seen, exchange("/v1/fleet/pull-object", 900, traffic.LARGE + 1)])
    assert (polling["exchanges"], polling["up"], polling["down"]) == (3, 2554, 9_256)
    assert (polling["median_up"], polling["median_down"]) == (850, 128)
