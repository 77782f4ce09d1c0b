"""Keys made by the library are what openssl and OpenSSH make of them, and are never overwritten."""

import shutil
import stat
import subprocess

import pytest


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is the reference")
def test_openssl_trusts_the_servers_certificate_by_its_ca_for_its_hosts_alone(command, tmp_path):
    hosts = ("--host", "fed.example.org", "--host", "192.0.2.7")
    assert command("device_keys", "server", tmp_path, *hosts).code == 0
    verify = ["openssl", "verify", "-CAfile", str(tmp_path / "ca.crt"), "-purpose", "sslserver"]
    for host, code in (
        ("-verify_hostname fed.example.org", 0),
        ("-verify_ip 192.0.2.7", 0),
        ("-verify_ip 127.0.0.1", 0),  # the SuperLink's own ServerApp comes from there
        ("-verify_ip 192.0.2.8", 2),
    ):
        done = subprocess.run([*verify, *host.split(), str(tmp_path / "server.crt")], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert stat.S_IMODE((tmp_path / "server.key").stat().st_mode) == 0o600


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is the reference")
def test_ssh_keygen_derives_the_same_public_key(command, tmp_path):
    assert command("device_keys", "device", tmp_path / "alice").code == 0
    derived = subprocess.run(["ssh-keygen", "-y", "-f", str(tmp_path / "alice")], capture_output=True, text=True)
    assert derived.stdout.split()[:2] == (tmp_path / "alice.pub").read_text().split()[:2]
    assert derived.stdout.startswith("ecdsa-sha2-nistp384 ")
    assert stat.S_IMODE((tmp_path / "alice").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(command, tmp_path):
    assert command("device_keys", "device", tmp_path / "alice").code == 0
    before = (tmp_path / "alice").read_bytes()
    ended = command("device_keys", "device", tmp_path / "alice")
    assert ended.code == 1 and "never overwritten" in ended.err
    assert (tmp_path / "alice").read_bytes() == before
