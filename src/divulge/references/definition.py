"""A Python file that says what reference models are trained on and how: what `divulge references` runs."""

from __future__ import annotations

import ast
import hashlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from divulge.doors.arrays import to_array
from divulge.errors import DivulgeError, InputError
from divulge.fits import as_fit
from divulge.shipping import shipped

logger = logging.getLogger("divulge")

NEEDED = ("data", "fit")
OPTIONAL = ("labels", "ids", "groups", "member", "signal", "queries", "kind", "target", "fraction", "tag")
MODULE = "divulge_references_file"
"""What the file is called while it runs: its own name may be that of a library."""


class Definition(NamedTuple):
    """What a file defines; as of `divulge.fit_references` and `divulge.design`, None where it does not.

    Attributes:
        rows: n.
        tag: the file's own, and the digest of its bytes and of those of the files beside it that it imports: where one
            changed, no old model is met.
    """

    path: Path
    module: ModuleType
    fit: Callable[..., Any]
    data: Any
    rows: int
    tag: str
    labels: Any
    ids: Any
    groups: Any
    member: Any
    signal: Any
    queries: int
    kind: str | None
    target: Any
    fraction: float


@contextmanager
def defined(path: str | PathLike[str]) -> Iterator[Definition]:
    r"""Run a file, and keep what it defines importable, by worker processes too, while the block runs.

    Args:
        path: Python that defines data, (x, y) or a function that returns it, and fit, a fit or an estimator; and may
            define the names of `OPTIONAL`.

    Raises:
        InputError: DV411, no such file, an error in it (with its line), a name that is missing or misspelt, or a value
            that cannot be used.

    >>> import tempfile
    >>> text = "data = [[0.0], [1.0]], [0, 1]\ndef fit(data, rows, seed): return lambda data, rows, query: rows\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "mine.py")
    ...     _ = file.write_text(text)
    ...     with defined(file) as definition:
    ...         definition.rows, definition.fraction
    (2, 0.5)
    """
    path = Path(path)
    source = _source(path)
    code = _parsed(source, path)
    module = ModuleType(MODULE)
    module.__file__ = str(path.resolve())
    before, known = sys.modules.get(MODULE), set(sys.modules)
    folder = str(path.resolve().parent)
    sys.modules[MODULE] = module
    sys.path.insert(0, folder)
    try:
        with blamed(path):
            exec(compile(code, module.__file__, "exec"), vars(module))
        _check_names(code, module, path)
        beside = _beside(known, folder)
        definition = _definition(path, _digest(source, beside), module)
        with shipped([module, *beside]):
            yield definition
    finally:
        sys.path.remove(folder)
        for one in _beside(known, folder):
            del sys.modules[one.__name__]
        if before is None:
            del sys.modules[MODULE]
        else:
            sys.modules[MODULE] = before


@contextmanager
def blamed(path: Path) -> Iterator[None]:
    """An error that comes out of the user's file is theirs, with its line; any other goes on as it is.

    Raises:
        InputError: DV411, from the file. DivulgeError: DV402, a model that failed, with the line of the file.
    """
    try:
        yield
    except DivulgeError as error:
        if error.code != "DV402":
            raise
        logger.debug("".join(traceback.format_exception(error)))
        line = _line(error.__cause__, path) or _line_elsewhere(error, path)
        if line is None:
            raise
        raise DivulgeError(error.code, f"{error.message} ({path}, line {line})") from error
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        if line is None:
            raise
        logger.debug("".join(traceback.format_exception(error)))
        raise InputError("DV411", f"{path}, line {line}: {type(error).__name__}: {str(error)[:300]}") from error


def _source(path: Path) -> bytes:
    if path.suffix != ".py" or not path.is_file():
        found = "is no .py file" if path.is_file() else "is a folder" if path.is_dir() else "does not exist"
        raise InputError(
            "DV411", f"{path} {found}; expected a Python file that defines data and fit (`divulge references -h`)"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("DV411", f"{path} cannot be read: {error.strerror or error}") from error


def _parsed(source: bytes, path: Path) -> ast.Module:
    try:
        return ast.parse(source, str(path))
    except (SyntaxError, ValueError) as error:  # ValueError: a NUL
        line = getattr(error, "lineno", None)
        where = "" if line is None else f", line {line}"
        raise InputError("DV411", f"{path}{where}: {getattr(error, 'msg', error)}") from error


def _line(error: BaseException | None, path: Path) -> int | None:
    """The last line of the file that the error went through, where it went through it in this process."""
    if error is None:
        return None
    own = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    return lines[-1] if lines else None


def _line_elsewhere(error: DivulgeError, path: Path) -> int | None:
    """As `_line`, of an error in another process, whose traceback is a note."""
    own = re.escape(str(path.resolve()))
    lines = re.findall(rf'File "{own}", line (\d+)', "\n".join(getattr(error, "__notes__", ())))
    return int(lines[-1]) if lines else None


def _check_names(code: ast.Module, module: ModuleType, path: Path) -> None:
    """Refuse what is missing, and what is set, never used and all but one of the names that are read."""
    used = {node.id for node in ast.walk(code) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    unused = {name: line for name, line in _set(code) if name not in used and name not in (*NEEDED, *OPTIONAL)}
    for name, line in unused.items():
        close = [near for near in get_close_matches(name, (*NEEDED, *OPTIONAL), 3, 0.75) if not hasattr(module, near)]
        if close:
            raise InputError(
                "DV411",
                f"{path}, line {line}: {name!r:.80} is none of the names that are read; did you mean {close[0]}? "
                f"Read are {', '.join((*NEEDED, *OPTIONAL))}; what is for your own use begins with _",
            )
    for name in NEEDED:
        if getattr(module, name, None) is None:
            example = "(x, y), or a function that returns it" if name == "data" else "an estimator, or a function"
            raise InputError("DV411", f"{path} does not define {name}; expected {name}, {example}")


def _set(code: ast.Module) -> Iterator[tuple[str, int]]:
    """Names that the file's outermost lines set, with their lines."""
    for node in code.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node.lineno
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(part, ast.Name) and not part.id.startswith("_"):
                    yield part.id, part.lineno


def _digest(source: bytes, beside: list[ModuleType]) -> str:
    """Of the file and of all that it imported from files beside it, which import each other in their turn."""
    digest = hashlib.sha256(source)
    for module in beside:
        content = Path(str(module.__file__)).read_bytes()
        digest.update(f"\n{module.__name__} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _definition(path: Path, digest: str, module: ModuleType) -> Definition:
    given: dict[str, Any] = {name: getattr(module, name, None) for name in OPTIONAL}
    data = module.data
    if callable(data):
        with blamed(path):
            data = data()
    labels = given["labels"]
    if labels is None:
        if not isinstance(data, tuple | list) or len(data) != 2:
            raise InputError(
                "DV411",
                f"{path}: data is a {type(data).__name__}, expected (x, y), or labels beside it",
            )
        labels = data[1]
    rows = len(to_array(labels, "labels", set()))
    tag = given["tag"] or ""
    if not isinstance(tag, str):
        raise InputError("DV411", f"{path}: tag is a {type(tag).__name__}, expected a text")
    try:
        fit = as_fit(module.fit)
    except InputError as error:
        raise InputError("DV411", f"{path}: fit: {error.message}") from error
    for name, otherwise in (("queries", 1), ("fraction", 0.5)):
        given[name] = otherwise if given[name] is None else given[name]
    given["tag"] = f"{tag} file {digest}".strip()
    return Definition(path=path, module=module, fit=fit, data=data, rows=rows, **given)


def _beside(known: set[str], folder: str) -> list[ModuleType]:
    """Modules from files beside this one that it imported: not what was installed, which may lie there too."""
    found = []
    for name in sorted(set(sys.modules) - known - {MODULE}):
        file = Path(getattr(sys.modules[name], "__file__", None) or "")
        installed = {"site-packages", "dist-packages"} & set(file.parts)
        if file.suffix == ".py" and not installed and file.resolve().is_relative_to(folder):
            found.append(sys.modules[name])
    return found
