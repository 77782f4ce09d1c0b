"""Devices in network namespaces: shut in, counted, nothing left behind. Real ones, so only as root with iproute2."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from farm import counting_proxy, network_namespaces
from simulation import processes

REPOSITORY = Path(__file__).resolve().parents[3]

WHY_NOT = network_namespaces.problem()
real = pytest.mark.skipif(bool(WHY_NOT), reason=f"no network namespaces here: {WHY_NOT}")
FRAME = 66  # Ethernet 14, IP 20, TCP with timestamps 32

CONNECT = """
import socket, sys
try:
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
    connection.sendall(b"x" * int(sys.argv[3]) + b"!")
    print(len(connection.recv(1 << 16)))
except OSError as error:
    print(type(error).__name__, error.errno or "timeout")
"""


def connect(link, address: str, port: int, size: int = 0) -> str:
    """What a process in the device's namespace gets: the answer's length, or the error."""
    command = link.command([sys.executable, "-c", CONNECT, address, str(port), str(size)])
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


@pytest.fixture
def two():
    """Two devices with a link each; afterwards no namespace and no interface is left."""
    before = network_namespaces.named(), interfaces()
    with network_namespaces.Namespaces() as made:
        yield made.join(), made.join()
    assert (network_namespaces.named(), interfaces()) == before


@pytest.fixture
def server():
    """(port) of a server on all of the machine's own addresses, which reads up to a `!` and answers `done`."""
    listener = socket.create_server(("0.0.0.0", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while data := client.recv(1 << 16):
                    if data.endswith(b"!"):
                        client.sendall(b"done")

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@real
def test_a_device_reaches_its_own_proxy_and_nothing_else(two, server):
    one, other = two
    with (
        counting_proxy.CountingProxy(("127.0.0.1", server), None, one.listener()) as mine,
        counting_proxy.CountingProxy(("127.0.0.1", server), None, other.listener()) as not_mine,
    ):
        assert connect(one, network_namespaces.SERVER, mine.port) == "4"
        assert connect(other, network_namespaces.SERVER, not_mine.port) == "4"
        # The other's proxy has the same address, and the machine's server is there on all of the machine's addresses.
        assert connect(one, network_namespaces.SERVER, not_mine.port).startswith("ConnectionRefused")
        assert connect(one, network_namespaces.SERVER, server).startswith("ConnectionRefused")
        assert connect(one, "127.0.0.1", server).startswith("ConnectionRefused")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.200", 9))  # nothing is sent; the kernel says which address it would be sent from
            own = probe.getsockname()[0]
        for address in (own, "10.66.0.3", "192.0.2.200"):  # this machine, the other device, the world
            assert connect(one, address, server).startswith("OSError 101"), address  # network is unreachable


@real
def test_the_hub_joins_no_two_devices_even_if_one_of_them_sets_a_route(two):
    one, other = two
    (binary, *_) = one.command([])
    for link, there in ((one, "10.66.0.3"), (other, "10.66.0.2")):
        subprocess.run(link.command([binary, "route", "add", f"{there}/32", "via", "10.66.0.1"]), check=True)
    code = (
        "import socket; s = socket.create_server(('10.66.0.3', 7777)); print(flush=True); s.settimeout(4); s.accept()"
    )
    listening = subprocess.Popen(
        other.command([sys.executable, "-c", code]), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert listening.stdout is not None and listening.stdout.readline() == b"\n"
    assert connect(one, "10.66.0.3", 7777) == "TimeoutError timeout"
    assert listening.wait(10) == 1  # its accept timed out


def sent_again(link) -> int:
    """TCP segments that the device's kernel has sent more than once."""
    shown = subprocess.run(link.command(["cat", "/proc/net/snmp"]), capture_output=True, text=True, check=True).stdout
    names, values = (line.split() for line in shown.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("RetransSegs")])


@real
def test_the_links_counters_are_the_proxys_bytes_and_66_a_frame(two, server):
    link, quiet = two
    with counting_proxy.CountingProxy(("127.0.0.1", server), None, link.listener()) as proxy:
        assert connect(link, network_namespaces.SERVER, proxy.port, 3_000_000) == "4"
        carried = link.carried()
        up, down = proxy.totals
    assert (up, down) == (3_000_001, 4)
    assert carried.frames_up >= up // 1448  # one segment a frame, as on a real Ethernet
    # On a busy machine the kernel sends some segments, of 1,448 bytes at most, once more: not so the proxy. Then an
    # acknowledgment says in up to 28 bytes more which ones came (TCP's selective acknowledgments).
    again = sent_again(link)
    selective = 28 * carried.frames_down if again else 0
    assert -5_000 < carried.up - up - FRAME * carried.frames_up < 5_000 + 1448 * again
    assert -1_000 < carried.down - down - FRAME * carried.frames_down < 1_000 + selective
    assert quiet.carried().up < 1_000


@real
def test_what_was_half_made_is_removed():
    before = network_namespaces.named(), interfaces()
    made = network_namespaces.Namespaces()
    with pytest.raises(network_namespaces.NamespaceError, match="File exists"), made:
        made.join()
        (binary, *_) = network_namespaces.Link("", "", "").command([])
        subprocess.run([binary, "netns", "add", f"{made.run}-2"], check=True)  # in the way of the second
        made.join()
    assert (network_namespaces.named(), interfaces()) == before


@real
def test_two_farms_at_a_time_share_no_name(two):
    with network_namespaces.Namespaces() as others:
        assert others.join().namespace not in {link.namespace for link in two}
        assert len([name for name in network_namespaces.named() if f"perfit-{os.getpid()}-" in name]) == 5


UNPRIVILEGED = """
import os, sys
sys.path.insert(0, sys.argv[1])
from farm import federation
if os.geteuid() == 0:
    os.setuid(65534)
print(federation.use_namespaces(None))
federation.use_namespaces(True)
"""


def test_without_root_there_is_one_line_and_asked_for_it_is_an_error():
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(REPOSITORY / "sims")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.stdout.splitlines() == ["no network namespaces (they need root): devices are on loopback", "False"]
    assert done.stderr.strip().endswith(
        "ValueError: --namespaces: network namespaces cannot be made here (they need root)"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="without root the missing iproute2 is not come to")
def test_without_iproute2_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(network_namespaces, "_ADMINISTRATORS", str(tmp_path))
    assert network_namespaces.problem() == "they need `ip` of iproute2"


def command(tiny_base: Path, folder: Path) -> list[str]:
    settings = {
        "base-model": str(tiny_base),
        "layers": "1,2",
        "data": "synthetic:2",
        "rounds": 1,
        "max-items": 4,
        "max-queries": 1,
        "max-new-tokens": 0,
        "dtype": "float32",
        "output-dir": str(folder / "runs"),
    }
    spelled = " ".join(f"{key}={json.dumps(value)}" for key, value in settings.items())
    words = ["--devices", "1", "--namespaces", "--folder", str(folder / "farm"), "-c", spelled]
    return [sys.executable, str(REPOSITORY / "sims" / "devices.py"), *words]


@real
@pytest.mark.nightly
def test_a_federation_over_tls_in_namespaces(tiny_base, tmp_path):
    before = network_namespaces.named(), interfaces()
    started = subprocess.Popen(
        command(tiny_base, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert started.stdout is not None
    lines, spaces = [], {}
    for line in started.stdout:
        lines.append(line.rstrip("\n"))
        if found := re.search(r"SuperNode (\d+) in network namespace (\S+),", line):
            pid, name = found.groups()
            deadline = time.monotonic() + 10  # `ip` enters the namespace and becomes the SuperNode
            mine = os.stat(f"/var/run/netns/{name}").st_ino
            while os.stat(f"/proc/{pid}/ns/net").st_ino != mine:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            spaces[mine] = name
    assert started.wait() == 0, "\n".join(lines)
    assert len(spaces) == 1 and os.stat("/proc/self/ns/net").st_ino not in spaces
    assert (network_namespaces.named(), interfaces()) == before
    report = json.loads(Path(lines[-1]).read_text())
    measured = report["bytes"]["measured"]
    assert measured["tls"] and report["supernodes"] == len(measured["devices"]) == 1
    for device in measured["devices"].values():
        for way in ("down", "up"):
            cell = device[way]
            framing = cell["link"]["bytes"] - cell["measured"] - FRAME * cell["link"]["frames"]
            # Openings of connections are some bytes more a frame, and a poll may pass between the two readings.
            assert abs(framing) < 0.03 * cell["measured"] + 3_000, cell
    (row,) = (line for line in lines if "on the link" in line)
    assert row.split()[-4:] == ["on", "the", "link", "frames"]


@real
@pytest.mark.nightly
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_or_two_leave_no_namespace_and_no_process(tiny_base, tmp_path, number, code):
    started = subprocess.Popen(command(tiny_base, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout is not None
    for line in started.stdout:
        if "SuperNode" in line:
            break
    children = [int(pid) for pid in Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()]
    leaders = {pid: found[2] for pid in children if (found := processes.stat(pid))}
    assert len([name for name in network_namespaces.named() if f"perfit-{started.pid}-" in name]) >= 2
    started.send_signal(number)
    time.sleep(0.2)
    started.send_signal(number)  # as `timeout` and impatient people do
    started.communicate(timeout=60)
    assert started.returncode == code
    assert len(leaders) >= 2 and processes.alive(leaders) == []  # one that nobody has waited for yet is not alive
    assert not [name for name in network_namespaces.named() if f"perfit-{started.pid}-" in name]
