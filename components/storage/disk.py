"""What went wrong with a disk, in words: the folder, the reason, and what to do about that reason.

Libraries write files, too, and each has an exception of its own for a disk that is full: TensorFlow, h5py, Keras,
LiteRT. What they raise is known by the words of the system in it, or by a disk that has no space left.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.errors import ComponentError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ADVICE = {
    errno.EACCES: "Nothing may be written there: give this user the permission, or choose another folder.",
    errno.EPERM: "Nothing may be written there: give this user the permission, or choose another folder.",
    errno.EROFS: "The disk is read-only: choose another folder.",
    errno.ENOTDIR: "A file is where a folder must be: move it away, or choose another folder.",
    errno.EEXIST: "Something else is there already: move it away, or choose another folder.",
    errno.EMFILE: "Too many files are open: raise the limit, ulimit -n.",
    errno.ENFILE: "Too many files are open: close other programs.",
    errno.EFBIG: "The size of files is limited: raise the limit, ulimit -f.",
}
_TOLD_BY_WORDS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_RESERVE_BYTES = 64 * 1024
"""A disk with less is full: what a library could not write did not fit into it."""


def explain(exc: OSError, folders: Sequence[str | Path] = ()) -> str:
    """Return the path, the reason and the advice of an error of the system.

    Args:
        exc: the error.
        folders: where it may have been, if the error names no path: the fullest is named.
    """
    number, path, reason = _unpack(exc)
    if number in _FULL:
        folder = _find_fullest([path] if path else folders)
        advice = f"Free some space in {folder or 'its folder'}; the same command goes on from here."
        path = path or (str(folder) if folder else None)
    else:
        advice = _ADVICE.get(number or 0, "")
    return f"{path}: {reason}. {advice}".strip() if path else f"{reason}. {advice}".strip()


def find_problem(exc: Exception, folders: Sequence[str | Path]) -> StorageError | None:
    """Return the error of a disk that an exception of any library stands for; `None` if it is another one.

    Args:
        exc: from code that writes to the folders.
        folders: the first that fits is named.
    """
    chain = list(_chain(exc))
    for link in chain:
        # A step's own error explains its cause.
        if isinstance(exc, ComponentError):
            break
        if isinstance(link, OSError) and _unpack(link)[0] in {*_ADVICE, *_FULL}:
            return StorageError(explain(link, folders))
    text = "\n".join(str(link) for link in chain)
    for number in _TOLD_BY_WORDS:
        reason = os.strerror(number)
        if reason in text and "Free some space" not in text:
            named = [folder for folder in folders if str(folder) in text]
            folder = named[0] if named else _find_fullest(folders)
            return StorageError(explain(OSError(number, reason, str(folder)), folders))
    if isinstance(exc, ComponentError):
        return None
    full = next((folder for folder in folders if _free_bytes(folder) < _RESERVE_BYTES), None)
    if full is None:
        return None
    first_line = next(iter(str(exc).splitlines()), "")
    return StorageError(
        f"{full}: {os.strerror(errno.ENOSPC)} ({type(exc).__name__}: {first_line}). "
        f"Free some space in {full}; the same command goes on from here."
    )


def _unpack(exc: OSError) -> tuple[int | None, str | None, str]:
    """Return the number, the path that was written to, and the reason; libraries leave the number in the text."""
    if isinstance(exc, shutil.Error) and exc.args and isinstance(exc.args[0], list):
        # Source, target and reason of every file that could not be copied.
        _, path, reason = exc.args[0][0]
        number = _number_in(str(reason))
        return number, str(path), os.strerror(number) if number else str(reason)
    number = exc.errno or _number_in(str(exc))
    path = exc.filename2 or exc.filename
    reason = exc.strerror or (os.strerror(number) if number else str(exc))
    return number, None if path is None else os.fsdecode(path) if isinstance(path, bytes) else str(path), reason


def _number_in(text: str) -> int | None:
    found = re.search(r"\[?[Ee]rrno\]? ?=? ?(\d+)", text)
    return int(found[1]) if found else None


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    seen: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in seen:
        seen.append(link)
        yield link
        link = link.__cause__ or link.__context__


def _find_fullest(folders: Sequence[str] | Sequence[str | Path]) -> Path | None:
    """Return the folder, or the nearest one above it, whose disk has the least space left."""
    existing = [_existing(Path(folder)) for folder in folders]
    return min(existing, key=_free_bytes, default=None)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _free_bytes(folder: str | Path) -> int:
    return shutil.disk_usage(_existing(Path(folder))).free
