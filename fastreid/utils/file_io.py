"""Writing files so that a reader never sees half of one, and a crash of the machine never leaves one.

Where a user chose the path: `check_output_file` or `check_output_folder` before the work whose result goes
there, `named_output` around the writing.
"""

import errno
import fcntl
import hashlib
import itertools
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once

LONGEST_PATH, LONGEST_NAME = 4000, 255  # bytes; Linux has 4095, and we append names


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "wb") -> Iterator[IO]:
    """Open a temporary file beside `path`; on success fsync it, rename it to `path` and fsync the folder.

    An exception inside the block leaves an existing `path` untouched and removes the temporary file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: str | os.PathLike) -> None:
    """Make renames in `folder` outlast a crash of the machine, where its file system can promise that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no such thing
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: str | os.PathLike, wait: bool = False) -> Iterator[bool]:
    """Hold the lock that the file `path` stands for, and remove it; give False if another process has it.

    The system lets go of it when the process dies, whatever killed it, and knows it on every machine that
    shares the folder (NFS included). Processes forked from this one do not have it. Where the file system has
    no locks, everybody gets it, with a warning.

    Args:
        wait: until it is free.
    """
    while True:
        with open(path, "ab") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    yield False
                    return
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
                    raise
                problem = f"{Path(path).parent} cannot be locked ({error.strerror})"
                warn_once(__name__, problem, "start no second program there")
            if not _is_at(file, path):  # who had it has removed it
                continue
            try:
                yield True
            finally:
                with suppress(OSError):  # the next one can also do with the file that is there
                    os.unlink(path)
            return


def _is_at(file: IO, path: str | os.PathLike) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def set_aside(path: str | os.PathLike) -> Path:
    """Rename what stands at `path`, whatever it is, to a name that is free; return that."""
    path = Path(path)
    names = (path.with_name(f"{path.name}.aside.{number}") for number in itertools.count(1))
    free = next(name for name in names if not os.path.lexists(name))
    os.rename(path, free)
    sync_folder(path.parent)
    return free


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def sha256_of(path: str | os.PathLike) -> str:
    """Return the digest of a file's content, in hexadecimal digits. OSError if it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_path(path: str | os.PathLike, named: str) -> None:
    """Check that `path` can be that of a file, be there one or not.

    Args:
        named: what the user named it with, for the message.

    Raises:
        UserError: if it is too long for the system, or holds characters that no path may have.
    """
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise UserError(f"{named} {path!r} is no path: {error.reason}") from error
    if b"\0" in name:
        raise UserError(f"{named} {str(path)!r} is no path: it holds a NUL character")
    longest = max(map(len, name.split(b"/")))
    if len(name) > LONGEST_PATH or longest > LONGEST_NAME:
        raise UserError(
            f"{named} is too long for a path: {len(name)} bytes, beginning with {str(path)[:40]!r}",
            f"a path has {LONGEST_PATH} bytes at most, each of its names {LONGEST_NAME}",
        )


@contextmanager
def named_output(path: str | os.PathLike) -> Iterator[None]:
    """Make the folder of the file `path`, and turn a failure of the block to write it into a UserError."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def check_output_file(path: str | os.PathLike, option: str) -> None:
    """Check that the file can be written, as far as that shows beforehand; makes nothing.

    Args:
        option: what the user named it with, for the message.

    Raises:
        UserError: if it is a folder, or its folder cannot be made or written.
    """
    if os.path.isdir(path):
        raise UserError(f"{option} {str(path)!r} is a folder, not a file", "choose another")
    check_output_folder(Path(path).parent, option)


def check_output_folder(folder: str | os.PathLike, option: str) -> None:
    """Check that the folder can be made and written, as far as that shows beforehand; makes nothing.

    A full disk is no reason to refuse it: a log on the screen may be worth the work, and room can be made.

    Args:
        option: what the user named it with, for the message.

    Raises:
        UserError: if it cannot.
    """
    path = Path(folder).absolute()
    existing = next(place for place in (path, *path.parents) if os.path.exists(place))
    if not existing.is_dir():
        raise UserError(f"{option} {str(folder)!r}: {existing} is a file, not a folder", "choose another")
    try:
        tempfile.TemporaryFile(dir=existing).close()  # root may write in /proc, by its permissions
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{option} {str(folder)!r}: no permission to write in {existing} ({error.strerror})",
                "choose another",
            ) from error
