"""Look into a device's vault, take its tensors out, erase them, or change its key.

python -m clients.vault inspect /var/lib/perfit/vault
python -m clients.vault export  /var/lib/perfit/vault --format pyreft --to alice-pyreft          # or easysteer
python -m clients.vault export  runs/lamp7/1/collective.safetensors --format pyreft --to everybody-pyreft
python -m clients.vault erase   /var/lib/perfit/vault --user alice
python -m clients.vault rotate  /var/lib/perfit/vault --key-file old.key --new-key-file new.key
python -m clients.vault new-key /var/lib/perfit/vault.key
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from pathlib import Path

from fed.methods import exported
from fed.privacy.rotation import rotate
from fed.privacy.sealed import Secret, new_key_file
from fed.privacy.tensor_files import VaultError, read_tensors, save_tensors
from fed.privacy.vault import Vault
from fed.resuming.lock import holding

FLASH = (
    "overwritten and removed. On flash media and copy-on-write file systems old blocks can survive that; "
    "what survives of an encrypted vault cannot be read without its key, so erase the key too"
)


SHOWN_SETTINGS = (
    *("task", "method", "layers", "stage2-layers", "stage1-rank", "stage2-rank"),
    *("positions", "stage2-positions", "seed"),
)


def add_secret_options(parser: argparse.ArgumentParser) -> None:
    """What opens an encrypted vault, as options of a command."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--key-file", type=Path, metavar="FILE", help="32 bytes that seal the vault (mode 0600)")
    group.add_argument("--passphrase-file", type=Path, metavar="FILE", help="its first line seals the vault")
    group.add_argument("--passphrase", action="store_true", help="ask for the passphrase")


def secret_of(options: argparse.Namespace) -> Secret | None:
    """The secret that the options name, None for none. Raises ValueError where it cannot be had."""
    if options.key_file:
        return Secret.from_key_file(options.key_file)
    if options.passphrase_file:
        return Secret.from_passphrase_file(options.passphrase_file)
    return Secret.from_passphrase(getpass.getpass("passphrase: ")) if options.passphrase else None


def one_user(vault: Vault, wanted: str | None) -> str:
    """The user that `--user` names, or the only one there is. Raises VaultError."""
    users = vault.users()
    if wanted is None and len(users) == 1:
        return users[0]
    if wanted is None or wanted not in users:
        raise VaultError(
            f"--user must name a user of the vault {str(vault.root)!r}, got {wanted!r}; it holds: "
            f"{', '.join(users) or 'nobody'}"
        )
    return wanted


def inspect(vault: Vault, options: argparse.Namespace) -> None:
    """Print each user's header and what its tensors are; confirmed where the vault opens."""
    users = vault.users()
    for user in [one_user(vault, options.user)] if options.user else users:
        header = vault.header(user)
        closed = vault.is_sealed(user) and not vault.has_secret
        print(f"user        {user}")
        print(f"file        {'encrypted (AES-256-GCM)' if vault.is_sealed(user) else 'not encrypted'}")
        print(f"format      {header.get('format')}")
        print(f"base        {header.get('base')}")
        print(f"collective  {header.get('collective')}")
        if closed:
            print("tensors     closed: give --key-file or --passphrase; the lines above are not confirmed without it")
        else:
            tensors = vault.open(user).tensors
            shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
            print(f"tensors     {shapes}; {sum(t.numel() for t in tensors.values()):,} numbers, checksum holds")
        settings = vault.settings(user)
        print(f"settings    {' '.join(f'{key}={json.dumps(settings.get(key))}' for key in SHOWN_SETTINGS)}")
    for folder in vault.unreadable():
        print(f"{folder} cannot be read; erase --all, or --user with its id, removes it")
    if not users:
        print(f"the vault {str(vault.root)!r} holds nobody's tensors that can be read")


def export(vault: Vault, options: argparse.Namespace) -> None:
    """Write one user's private tensors, and the collective ones that they were trained on, out of the vault."""
    if vault.root.is_file():
        user, private = "everybody", {}
        collective, header = read_tensors(vault.root)
        settings = settings_beside(vault.root)
    else:
        user = one_user(vault, options.user)
        entry = vault.open(user)
        collective, private, header = vault.read_collective(entry.header["collective"]), entry.tensors, entry.header
        settings = dict(json.loads(header["settings"]))
    if options.to.exists():
        raise VaultError(f"--to must be a path where nothing is yet, got {str(options.to)!r}")
    if options.format == "safetensors":
        named = {f"stage1.{n}": t for n, t in collective.items()} | {f"stage2.{n}": t for n, t in private.items()}
        save_tensors(options.to, named, header)
    else:
        exported.write(options.to, options.format, settings, collective, private)
    print(f"{options.to}: the tensors of user {user!r}, not encrypted")


def settings_beside(collective: Path) -> dict[str, object]:
    """The settings of the run that left a collective edit, by the report in its folder. Raises VaultError."""
    report = collective.parent / "report.json"
    try:
        return dict(json.loads(report.read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise VaultError(
            f"a collective edit must lie beside its run's report.json, which says what it edits, and {str(report)!r} "
            "is none; export from the run's folder"
        ) from None


def erase(vault: Vault, options: argparse.Namespace) -> None:
    """Overwrite and remove one user's tensors, or all that the vault holds."""
    users, unreadable = vault.users(), vault.unreadable()
    if not options.all:  # a user's folder is found by the id, whatever its files say
        known = options.user is not None and vault.folder(options.user).exists()
        users, unreadable = [options.user if known else one_user(vault, options.user)], []
    if not options.yes:
        if not sys.stdin.isatty():
            raise VaultError("erase asks before it acts; without a terminal, say --yes")
        whose = ", ".join([*users, *unreadable]) or "nobody"
        if input(f"erase all that is kept of {whose}? [y/N] ").lower() not in ("y", "yes"):
            print("nothing erased")
            return
    with holding(vault.root, f"clients.vault {options.command}", alone=True):  # what a run is about to write would stay
        files = vault.erase_all() if options.all else vault.erase(users[0])
    print(f"{files} files {FLASH}")


def rotate_key(vault: Vault, options: argparse.Namespace) -> None:
    """Seal the vault's files with another secret."""
    old = secret_of(options)
    if options.new_key_file:
        new = Secret.from_key_file(options.new_key_file)
    else:
        new = Secret.from_passphrase_file(options.new_passphrase_file)
    if old is None:
        raise VaultError("rotate needs what opens the vault now: --key-file, --passphrase-file or --passphrase")
    with holding(
        vault.root, f"clients.vault {options.command}", alone=True
    ):  # what a run writes meanwhile would be lost
        files = rotate(vault.root, old, new)
    print(f"{files} files sealed anew; the node config must now name the new secret")


def new_key(path: Path) -> None:
    """Write a new key file."""
    try:
        new_key_file(path)
    except FileExistsError:
        raise VaultError(f"a key is never overwritten, and {str(path)!r} exists") from None
    print(f"{path}: 32 random bytes, mode 0600. Without this file the vault cannot be opened; there is no other way in")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clients.vault", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, action, text in (
        ("inspect", inspect, "what the vault holds, without the numbers themselves"),
        ("export", export, "write one user's tensors to an unencrypted file or folder"),
        ("erase", erase, "overwrite and remove all that is kept of a user, or of everybody"),
        ("rotate", rotate_key, "seal the vault with another key or passphrase"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument("vault", type=Path, help="the folder that node config `vault` names")
        if name != "rotate":
            command.add_argument("--user", metavar="ID", help="whose; needed where the vault holds several users")
        command.set_defaults(action=action)
        if name == "erase":
            command.add_argument(
                "--all", action="store_true", help="everybody's, and the collective edits; needs no header"
            )
            command.add_argument("--yes", action="store_true", help="do not ask")
        else:
            add_secret_options(command)
        if name == "rotate":
            new = command.add_mutually_exclusive_group(required=True)
            new.add_argument("--new-key-file", type=Path, metavar="FILE", help="32 bytes that seal it from now on")
            new.add_argument("--new-passphrase-file", type=Path, metavar="FILE", help="its first line does")
        if name == "export":
            command.add_argument("--format", choices=("safetensors", *exported.FORMATS), default="safetensors")
            command.add_argument("--to", type=Path, required=True, metavar="PATH", help="a file; else a folder")
    key = commands.add_parser("new-key", help="make a key file", description="Make a key file of 32 random bytes.")
    key.add_argument("file", type=Path)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "new-key":
            new_key(options.file)
            return 0
        is_collective = options.command == "export" and options.vault.is_file()
        if not options.vault.is_dir() and not is_collective:
            raise VaultError(f"the vault must be a folder, and there is none at {str(options.vault)!r}")
        options.action(
            Vault(options.vault, None if options.command in ("erase", "rotate") else secret_of(options)), options
        )
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
