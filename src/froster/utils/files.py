"""Writing so that a killed process, a full disk or a second run never leaves half a file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from froster.errors import FrosterError, UsageError, WriteError

CALIBRATION = "calibration.json"
"""Beside the weights in a model folder."""

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def cannot_write(path: Path, error: Exception) -> WriteError:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return WriteError(f"cannot write {path}: {cause}")


def named(path: Path) -> Path:
    """The same place by a path that ends in a name, which `.` and `..` do not. Raises UsageError
    for /, which has none."""
    if path.name in ("", ".."):
        path = Path(os.path.realpath(path))
    if not path.name:
        raise UsageError(f"{path} is the root of all folders: choose another --out")
    return path


def refuse_current(path: Path) -> None:
    """Raises UsageError where a folder would be replaced that the shell is in: it would be left in
    one that is gone."""
    with suppress(FileNotFoundError):  # it is gone already
        if Path.cwd().is_relative_to(os.path.realpath(path)):
            raise UsageError(
                f"{path} is the folder that you are in, or one above it, and would be replaced:"
                " choose another --out"
            )


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder that appears at `path` whole or not at all. Raises FrosterError when it cannot
    be written."""
    refuse_current(path)
    path = named(path)
    part = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                flush(file)
        replace_folder(part, path)
    except Exception as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, FrosterError):
            raise
        if isinstance(error, OSError) or type(error).__module__.startswith(
            ("safetensors", "torch")
        ):
            raise cannot_write(path, error) from error
        raise
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def replace_folder(part: Path, path: Path) -> None:
    """Rename over what may be there. The old folder is out of sight before the new one takes its
    name."""
    path = named(path)
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(part, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when the block ends without an error."""
    path = named(path)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        flush(part)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def absolute(path: str | Path | None) -> str | None:
    """The whole path, for a file that another command will read from another folder."""
    return None if path is None else str(Path(path).absolute())


@contextmanager
def exclusive(path: Path, taken: str) -> Iterator[None]:
    """Holds the lock file `path`. Raises UsageError, which says `taken`, while another process
    holds it.

    The lock is the system's and ends with the process, however that ends; a file that is left
    behind locks nothing. Where the system or the file system has no such locks, nothing is locked.
    """
    if fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    except BlockingIOError:
        raise UsageError(taken) from None
    except OSError as error:
        raise cannot_write(path, error) from error
    _held.add(file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(file)
        os.close(file)


_held: set[int] = set()
"""The lock files that this process holds open."""


def _let_go() -> None:
    """In a forked child: with an open copy, one that outlives a killed parent would hold its lock."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def sole_writer(folder: Path) -> AbstractContextManager[None]:
    """Held as long as a command writes into a folder that it has claimed. Raises UsageError while
    another one does."""
    return exclusive(
        folder / ".lock",
        f"another froster is writing {folder}: wait until it ends, or choose another --out",
    )


def sole_maker(path: Path) -> AbstractContextManager[None]:
    """The same for a file or folder that appears whole, or is made of several: its lock lies beside
    it, as these do."""
    whole = Path(os.path.realpath(path))
    taken = f"another froster is writing {path}: wait until it ends, or choose another --out"
    return exclusive(whole.parent / f".{whole.name}.lock", taken)


def _locked(path: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
            # The last holder may have removed the file after we opened it: then others lock a new
            # one of that name.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file)):
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def flush(path: Path) -> None:
    """Onto the disk, not only into its cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def claim_folder(path: Path, marker: str, again: str) -> None:
    """Make an output folder, or take one over that a run of the same kind left behind.

    `marker` is a file by which such a folder is known; `again` says in the error what to do about
    any other folder. Raises UsageError when `path` is a file or a folder of something else,
    FrosterError when it cannot be written.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file; --out needs a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).exists():
        raise UsageError(f"{path} exists and holds something else: {again}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / marker).exists():
            (path / marker).touch()
    except OSError as error:
        raise cannot_write(path, error) from error
