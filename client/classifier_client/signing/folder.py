"""A folder and its signature: every file is there, and none that was not signed.

Stricter than the format: nothing is left out but the signature itself, and no symbolic link is followed.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..errors import SignatureError
from .bundle import SIGNATURE, open_bundle, read_statement
from .keys import RefusalError
from .verify_key import VerifyKey

_MAX_SIGNATURE_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 20
_MAX_NAMES = 3

_State = tuple[int, ...]


class SignedFolder:
    """A folder with a signature that verifies and with the files that it names; contents are checked as they are read.

    Args:
        folder: of a version, or any other that was signed.
        verify_key: what it must be signed with.

    Raises:
        SignatureError: the signature is missing, damaged or somebody else's, or the files have other names.
    """

    def __init__(self, folder: Path, verify_key: VerifyKey) -> None:
        self._folder = folder
        self._states: dict[str, _State] = {}
        names = set(self._list_files())
        if not os.path.lexists(folder / SIGNATURE):
            self._refuse(f"has no {SIGNATURE}")
        try:
            with (folder / SIGNATURE).open("rb") as file:
                content = file.read(_MAX_SIGNATURE_BYTES)
            self._digests = read_statement(open_bundle(content, verify_key))
        except RefusalError as exc:
            self._refuse(str(exc))
        except OSError as exc:
            self._refuse_unreadable(SIGNATURE, exc)
        except (ValueError, TypeError, LookupError, RecursionError):
            self._refuse(f"has a damaged {SIGNATURE}")
        if added := names - self._digests.keys():
            self._refuse(f"holds {_show(sorted(added))}, which the signature does not name")
        if missing := self._digests.keys() - names:
            self._refuse(f"does not hold {_show(sorted(missing))}, which the signature names")

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def read(self, name: str) -> bytes:
        """Return the content of a file as it was signed, whatever becomes of the file afterwards.

        Raises:
            SignatureError: it has another content, or was not signed.
        """
        if name not in self._digests:
            self._refuse(f"has no {name!r} that was signed")
        try:
            content = (self._folder / name).read_bytes()
        except OSError as exc:
            self._refuse_unreadable(name, exc)
        self._compare(name, hashlib.sha256(content).hexdigest())
        return content

    def check(self) -> None:
        """Check the contents of all files.

        Raises:
            SignatureError: one is not what was signed.
        """
        for name in self._digests:
            try:
                digest, self._states[name] = hash_file(self._folder / name)
            except OSError as exc:
                self._refuse_unreadable(name, exc)
            self._compare(name, digest)

    def check_untouched(self) -> None:
        """Check that nothing was added, taken away or written since `check`, for what reads the files by itself.

        Raises:
            SignatureError: something was.
        """
        names = set(self._list_files())
        for name in sorted(names | self._digests.keys()):
            try:
                state = _describe((self._folder / name).lstat())
            except FileNotFoundError:
                state = ()
            if self._states.get(name) != state:
                self._refuse(f"was changed while it was loaded: {name!r}")

    def _list_files(self) -> list[str]:
        try:
            return list_files(self._folder)
        except RefusalError as exc:
            self._refuse(str(exc))
        except OSError as exc:
            self._refuse_unreadable(".", exc)

    def _compare(self, name: str, digest: str) -> None:
        if digest != self._digests[name]:
            self._refuse(f"holds another {name!r} than the one that was signed")

    def _refuse_unreadable(self, name: str, exc: OSError) -> NoReturn:
        self._refuse(f"cannot be read: {name!r}: {exc.strerror or exc}")

    def _refuse(self, reason: str) -> NoReturn:
        raise SignatureError(str(self._folder), reason) from None


def list_files(folder: Path) -> list[str]:
    """Return the files below a folder but its signature, by their names with slashes, sorted.

    Raises:
        RefusalError: something is neither a file nor a folder, such as a symbolic link.
        OSError: a folder cannot be listed.
    """
    names = []
    waiting = [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            mode, name = path.lstat().st_mode, path.relative_to(folder).as_posix()
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif stat.S_ISREG(mode):
                names.append(name)
            else:
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
                raise RefusalError(f"holds {name!r}, which is {kind}: only files can be signed")
    return sorted(name for name in names if name != SIGNATURE)


def hash_file(path: Path) -> tuple[str, _State]:
    """Return the SHA-256 of a file, and its state before it was read.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        state = _describe(os.fstat(file.fileno()))
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest(), state


def _describe(status: os.stat_result) -> _State:
    """Return what changes with a file. The last number nobody sets by hand: when anything of it changed."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _show(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(map(repr, names[:_MAX_NAMES])) + more
