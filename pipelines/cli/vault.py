"""Commands ``restore``, ``vault-key`` and ``vault-person``, and the flags of a key."""

from __future__ import annotations

import argparse
import os
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.files import check_outputs, exists, write_whole
from ..core.sealing import Secret
from ..imaging.encoders import LOSSLESS, holds
from ..imaging.formats import VIDEO_CODECS
from .terminal import OK, add_overwrite, command, progress_bar, say
from .videos import is_video

if TYPE_CHECKING:
    from ..jobs.vault import Vault

PASSPHRASE = "FACEVEIL_PASSPHRASE"
"""Variable of the environment that a passphrase is taken from, for scripts."""


def add_commands(commands: Any) -> None:
    restore = command(commands, "restore", _restore, "bring back faces from a vault, as they were")
    restore.add_argument("input", type=Path, help="the veiled image or video")
    restore.add_argument("--vault", type=Path, required=True, metavar="FILE", help="written by: anonymize --vault")
    restore.add_argument("-o", "--output", type=Path, required=True, help="the restored file (.png, or a video)")
    restore.add_argument(
        "--video-codec",
        choices=VIDEO_CODECS,
        default=LOSSLESS,
        help=f"of a restored video (default: {LOSSLESS}, which keeps every pixel)",
    )
    restore.add_argument("--person", type=int, metavar="N", help="only this person (default: all)")
    choice = add_key_flags(restore)
    choice.add_argument("--person-key", type=Path, metavar="FILE", help="key of one person, from: vault-person")
    add_overwrite(restore)
    key = command(commands, "vault-key", _new_key, "make a random key file for vaults")
    key.add_argument("output", type=Path)
    person = command(commands, "vault-person", _person, "list the people of a vault, or export the key of one")
    person.add_argument("vault", type=Path)
    person.add_argument("--person", type=int, metavar="N", help="whose key to export")
    person.add_argument("-o", "--output", type=Path, help="file of the person's key")
    add_key_flags(person)
    add_overwrite(person)


def add_key_flags(parser: Any) -> Any:
    """Add ``--key`` and ``--passphrase``; returns their group."""
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--key", type=Path, metavar="FILE", help="key file of the vault, from: faceveil vault-key")
    choice.add_argument("--passphrase", action="store_true", help=f"ask for a passphrase (or take {PASSPHRASE})")
    return choice


def secret_from(options: argparse.Namespace, new: bool = False) -> Secret:
    """The key that the flags name.

    Args:
        new: ask for a passphrase twice.

    Raises:
        InputError: there is none, or it cannot be used.
    """
    if options.key is not None:
        return Secret.from_file(options.key)
    if not options.passphrase:
        raise InputError("a vault needs --key FILE or --passphrase")
    text = os.environ.get(PASSPHRASE)
    if text is None:
        text = getpass("passphrase of the vault: ")
        if new and getpass("once more: ") != text:
            raise InputError("the two passphrases differ; try again")
    return Secret.from_passphrase(text)


def _opened(options: argparse.Namespace) -> Vault:
    from ..jobs.vault import Vault

    person_key = getattr(options, "person_key", None)
    if person_key is None:
        return Vault.open(options.vault, secret_from(options))
    if not exists(person_key) or not person_key.is_file():
        raise InputError(f"there is no key file {person_key.name}; check its name and folder")
    return Vault.open_for_person(options.vault, person_key.read_bytes())


def _restore(options: argparse.Namespace) -> int:
    keys = [p for p in (options.key, options.person_key) if p is not None]
    check_outputs([options.output], [options.input, options.vault, *keys], options.overwrite)
    vault = _opened(options)
    from ..imaging.video import VideoSource
    from ..imaging.video_write import VideoFormat
    from ..jobs.restore import restore_image, restore_video

    if not is_video(options.input):
        count = restore_image(options.input, vault, options.output, options.person)
        say(f"{options.output}: {count} face{'s' * (count != 1)} restored")
        return OK
    if options.video_codec == LOSSLESS and not holds(options.output.suffix.lower(), LOSSLESS):
        raise InputError(
            f"{options.output.name} cannot hold a lossless video, so the faces would differ from the originals;"
            " name a .mkv file, or accept that with --video-codec h264"
        )
    with progress_bar() as progress:
        source = VideoSource(options.input)
        count = restore_video(source, vault, options.output, VideoFormat(options.video_codec), options.person, progress)
    say(f"{options.output}: faces in {count} frame{'s' * (count != 1)} restored")
    return OK


def _new_key(options: argparse.Namespace) -> int:
    check_outputs([options.output], [], overwrite=False)
    write_whole(options.output, Secret.new().value, private=True)
    say(f"{options.output}: keep it apart from the vaults; who has both sees the originals, without it they are lost")
    return OK


def _person(options: argparse.Namespace) -> int:
    if (options.person is None) != (options.output is None):
        raise InputError("--person N and -o FILE belong together; without both, the people are listed")
    vault = _opened(options)
    if options.output is None:
        for number in sorted(vault.keys):
            count = len(vault.faces(number))
            name = "faces that nobody knows" if number < 0 else f"person {number}"
            say(f"{name}: in {count} image{'s' * (count != 1)} or frames")
        return OK
    check_outputs([options.output], [options.vault, *([options.key] if options.key else [])], options.overwrite)
    write_whole(options.output, vault.person_key(options.person), private=True)
    say(f"{options.output}: restores person {options.person}, and nobody else")
    return OK
