"""Write a file so that a reader finds the old one or the new one, never half of either."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from divulge.errors import InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`: renamed to `path` if the block ends well, removed if not.

    The temporary lies in the same folder, since a rename is atomic only within one file system, and has the
    same suffix, since writers choose a format by it.

    Raises:
        InputError: DV035, the folder does not exist or cannot be written to, or `path` is a folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "run.txt") as temporary:
    ...         _ = temporary.write_text("0.14")
    ...     float((Path(folder) / "run.txt").read_text())
    0.14
    """
    target = Path(os.path.realpath(path))  # a link stays a link: what it names is replaced
    if target.exists() and not target.is_file() and not target.is_dir():
        raise InputError("DV035", f"cannot write {path}: it is no regular file. Use --json - for a pipe.")
    temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(6)}{target.suffix}")
    if target.is_dir():
        raise InputError("DV035", f"cannot write {target}: it is a folder. Give the name of a file.")
    try:
        temporary.open("xb").close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            "DV035", f"cannot write {target}: {reason}. Make the folder first, or choose another."
        ) from error
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, target)
    except OSError as error:  # a full disk, most often
        reason = error.strerror or type(error).__name__
        raise InputError("DV035", f"cannot write {target}: {reason}. Nothing was changed.") from error
    finally:
        # After the rename there is nothing left to remove; after anything else, Ctrl-C included, there is.
        temporary.unlink(missing_ok=True)


def written(text: str, path: str | os.PathLike[str] | None) -> str:
    """The text, after it was written to the path in UTF-8, if there is one, whole or not at all.

    >>> written("0.14", None)
    '0.14'
    """
    if path is not None:
        with replacing(path) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
    return text


def _to_disk(path: Path) -> None:
    """Wait until the file's bytes are on the disk: a rename may otherwise outlive them in a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
