"""Sealed files: opened by their own secret alone, and refused when one bit of header or body is another."""

import json
import os
import stat

import pytest

from fed.privacy import sealed
from fed.privacy.sealed import MAGIC, SealError, Secret, header_of, is_sealed, new_key_file, seal, unseal

BODY = os.urandom(3000)
HEADER = {"user_id": "alice", "base": "0123"}
PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module", params=["key-file", "passphrase"])
def secret(request):
    return Secret("key-file", bytes(range(32))) if request.param == "key-file" else Secret.from_passphrase(PASSPHRASE)


@pytest.fixture(scope="module")
def whole(secret):
    return seal(BODY, HEADER, secret)


def test_what_was_sealed_comes_back_with_its_header(secret, whole):
    assert unseal(whole, secret) == (BODY, HEADER)
    assert is_sealed(whole) and not is_sealed(BODY)


def test_the_header_is_readable_without_the_secret_and_the_body_is_not(secret, whole):
    assert header_of(whole)["user_id"] == "alice"
    assert BODY not in whole and not any(BODY[i : i + 16] in whole for i in range(0, len(BODY) - 16, 16))
    assert secret.value not in whole


def test_two_sealings_of_one_body_have_nothing_in_common_but_the_header(secret, whole):
    again = seal(BODY, HEADER, secret)
    assert header_of(again)["seal"]["nonce"] != header_of(whole)["seal"]["nonce"]
    assert again[-len(BODY) :] != whole[-len(BODY) :]


def test_the_cipher_is_the_one_of_the_standard():
    """Opened again by the library directly, from the bytes of the format alone."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    whole = seal(BODY, HEADER, Secret.from_passphrase(PASSPHRASE))
    size = int.from_bytes(whole[len(MAGIC) : len(MAGIC) + 4], "big")
    front, rest = whole[: len(MAGIC) + 4 + size], whole[len(MAGIC) + 4 + size :]
    entry = json.loads(front[len(MAGIC) + 4 :])["seal"]
    costs = {name: entry["kdf"][name] for name in "nrp"}
    key = Scrypt(salt=bytes.fromhex(entry["kdf"]["salt"]), length=32, **costs).derive(PASSPHRASE.encode())
    assert AESGCM(key).decrypt(bytes.fromhex(entry["nonce"]), rest, front) == BODY


@pytest.mark.parametrize("other", [Secret("key-file", bytes(32)), Secret.from_passphrase("another one")])
def test_another_secret_opens_nothing(whole, other):
    with pytest.raises(SealError) as error:
        unseal(whole, other)
    assert "another one" not in str(error.value) and "\n" not in str(error.value)


def test_every_changed_byte_is_detected():
    key = Secret("key-file", bytes(range(32)))
    whole = seal(b"sixteen numbers!", HEADER, key)
    for place in range(len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 0x01
        with pytest.raises(SealError):
            unseal(bytes(altered), key)
    for cut in (0, 3, len(MAGIC) + 2, len(whole) - 20, len(whole) - 1):
        with pytest.raises(SealError):
            unseal(whole[:cut], key)
    with pytest.raises(SealError):
        unseal(whole + b"x", key)


def test_costs_that_would_exhaust_the_device_are_refused(monkeypatch):
    secret = Secret.from_passphrase(PASSPHRASE)
    monkeypatch.setattr(sealed, "_LARGEST", {"n": 1 << 10, "r": 8, "p": 3})
    with pytest.raises(SealError, match="scrypt's costs"):
        secret.key({"name": "scrypt", "salt": "00", **sealed.SCRYPT})


def test_a_secret_does_not_show_itself():
    secret = Secret.from_passphrase(PASSPHRASE)
    assert PASSPHRASE not in repr(secret) and PASSPHRASE not in f"{secret} {[secret]}"


def test_a_key_file_is_its_owners_alone_and_never_overwritten(tmp_path):
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        new_key_file(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = Secret.from_key_file(path)
    assert len(first.value) == 32 and first.value == path.read_bytes()
    with pytest.raises(FileExistsError):
        new_key_file(path)
    path.chmod(0o640)
    with pytest.raises(SealError, match="chmod 600"):
        Secret.from_key_file(path)


def test_a_passphrase_file_gives_its_first_line(tmp_path):
    path = tmp_path / "p"
    path.write_text(f"{PASSPHRASE}\nsecond line\n")
    path.chmod(0o600)
    assert Secret.from_passphrase_file(path) == Secret.from_passphrase(PASSPHRASE)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_key_file_of_another_length_is_refused_without_showing_it(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SealError, match=f"exactly 32 bytes.* holds {len(content)}") as error:
        Secret.from_key_file(path)
    assert "xxx" not in str(error.value)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r", "\nsecond line", "\r\nsecond\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-with-mark"])
def test_a_passphrase_is_the_same_however_an_editor_ends_and_encodes_its_line(tmp_path, end, encoding):
    phrase, path = "pâss 漢 phrase ", tmp_path / "phrase"
    marked = b"\xfe\xff" + (phrase + end).encode("utf-16-be")
    path.write_bytes(marked if encoding.endswith("mark") else (phrase + end).encode(encoding))
    path.chmod(0o600)
    assert Secret.from_passphrase_file(path) == Secret.from_passphrase(phrase)


def test_half_a_character_of_utf_16_is_refused_in_one_line(tmp_path):
    path = tmp_path / "phrase"
    path.write_bytes("phrase".encode("utf-16")[:-1])
    path.chmod(0o600)
    with pytest.raises(SealError, match="must be UTF-8 or whole UTF-16"):
        Secret.from_passphrase_file(path)


@pytest.mark.parametrize("make", [Secret.from_key_file, Secret.from_passphrase_file])
def test_a_missing_file_is_named(tmp_path, make):
    with pytest.raises(SealError, match="must be readable, and .*nowhere"):
        make(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_passphrase_is_refused(text):
    with pytest.raises(SealError, match="must not be empty"):
        Secret.from_passphrase(text)
