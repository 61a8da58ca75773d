"""What data and code are, by their content: two that would train the same model have one digest in any process.

Nothing here depends on addresses, on the order of sets or on how often an object is shared. Data are read to the last
value. Of code, a function's bytecode, constants, names, defaults, attributes and closure, and likewise what it names of
the user's own modules; an installed library counts by its version, and a function that it made while it ran by what
that one holds besides. What cannot be seen: what a name will mean that is looked up only while the code runs (getattr,
eval), what another program or a file does that the code opens, and what the user's modules import in their turn.
Another version of Python compiles other bytecode.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib.util
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from divulge.doors.names import shown
from divulge.errors import InputError
from divulge.shipping import installed

UNREAD = "data="
"""A tag that starts so stands for what cannot be read."""

_PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None), type(Ellipsis))


def data_digest(*values: object, tag: str = "") -> str:
    """A name for data by their content: any value, dtype, order or shape that differs gives another.

    Args:
        values: arrays, tensors, tables, lists, mappings and what else can be pickled.
        tag: where it starts with "data=", what cannot be read counts by its type alone.

    Raises:
        InputError: DV403, what cannot be read.

    >>> data_digest(np.arange(3)) == data_digest(np.arange(3)), data_digest(np.arange(3.0)) == data_digest(np.arange(3))
    (True, False)
    """
    return _Reader(tag, files=True).digest(values)


def code_digest(fit: object, *, tag: str = "") -> str:
    """A name for a fit by its code and settings, and by the versions of the libraries that it names.

    Args:
        fit: a function, or an object that is called, such as a frozen dataclass.
        tag: as of `data_digest`.

    Raises:
        InputError: DV403, settings or closures that cannot be read.

    >>> def one(data, rows, seed): return 1
    >>> def two(data, rows, seed): return 2
    >>> code_digest(one) == code_digest(one), code_digest(one) == code_digest(two)
    (True, False)
    """
    return _Reader(tag, files=False).digest(fit)


class _Reader:
    """Walks one value, and feeds a hash with what it finds: each part begins with its kind and length."""

    def __init__(self, tag: str, *, files: bool) -> None:
        self.tag, self.files = tag, files
        self.forgiving = tag.startswith(UNREAD)
        self.hash = hashlib.sha256()
        self.on_the_way: dict[int, int] = {}  # objects that are being read, which a cycle may come back to
        self.met: dict[Any, int] = {}  # functions and classes, read once each: code that names each other is a web

    def digest(self, value: object) -> str:
        try:
            self.read(value)
        except RecursionError as error:
            raise InputError(
                "DV403", "expected data that can be read for the store, got some nested too deeply. Give arrays."
            ) from error
        return self.hash.hexdigest()

    def say(self, kind: str, *parts: str | bytes | bytearray) -> None:
        for part in (kind, *parts):
            data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            self.hash.update(len(data).to_bytes(8, "little"))
            self.hash.update(data)

    def read(self, value: Any) -> None:
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self.say(type(value).__name__, value if isinstance(value, bytes | bytearray) else repr(value))
            return
        if id(value) in self.on_the_way:
            self.say("cycle", str(len(self.on_the_way) - self.on_the_way[id(value)]))
            return
        self.on_the_way[id(value)] = len(self.on_the_way)
        try:
            self.compound(value)
        finally:
            del self.on_the_way[id(value)]

    def compound(self, value: Any) -> None:
        origin = _home(type(value)).partition(".")[0]
        if isinstance(value, np.ndarray | np.generic):
            self.array(value)
        elif isinstance(value, list | tuple) and type(value) in (list, tuple):
            self.sequence(value)
        elif isinstance(value, dict) and type(value) is dict:
            self.say("dict", str(len(value)))
            for key, item in value.items():
                self.read(key)
                self.read(item)
        elif isinstance(value, set | frozenset):
            self.say(type(value).__name__, *sorted(self.apart(item) for item in value))
        elif isinstance(value, type):
            self.type(value)
        elif origin == "torch" and hasattr(value, "untyped_storage"):
            self.tensor(value)
        elif hasattr(value, "iloc") and hasattr(value, "to_numpy"):
            self.pandas(value)
        elif hasattr(value, "__arrow_c_stream__"):
            self.arrow(value)
        elif hasattr(value, "tocsr") and hasattr(value, "shape"):
            rows = value.tocsr()
            self.say("sparse", type(value).__name__)
            self.read((tuple(rows.shape), rows.data, rows.indices, rows.indptr))
        elif hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape"):
            self.array(np.asarray(value))
        elif isinstance(value, PurePath):
            self.path(value)
        else:
            self.code(value)

    def apart(self, value: object) -> str:
        """The digest of a member of a set, whose order must not matter."""
        reader = _Reader(self.tag, files=self.files)
        reader.on_the_way = dict(self.on_the_way)
        reader.read(value)
        return reader.hash.hexdigest()

    # ------------------------------------------------------------------------------------------------------- data

    def array(self, value: Any) -> None:
        array = np.asarray(value)
        if array.dtype.hasobject and array.dtype.names:
            self.say("structured", str(array.dtype.descr))
            for name in array.dtype.names:
                self.array(array[name])
            return
        if array.dtype.hasobject:  # and texts of any length
            self.say("objects", str(array.dtype), str(array.shape))
            self.sequence(array.ravel().tolist())
            return
        self.say("array", str(array.dtype.descr if array.dtype.names else array.dtype.str), str(array.shape))
        if isinstance(value, np.ma.MaskedArray):
            self.read(np.ma.getmaskarray(value))
        self.hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def sequence(self, value: list[Any] | tuple[Any, ...]) -> None:
        self.say(type(value).__name__, str(len(value)))
        kinds = set(map(type, value))
        if kinds == {str}:  # the usual ones, at once: texts, and numbers
            texts = [text.encode("utf-8", "surrogatepass") for text in value]
            self.say("texts", np.array([len(text) for text in texts], np.int64).tobytes(), b"".join(texts))
        elif kinds == {float}:
            self.say("floats", np.array(value, np.float64).tobytes())
        else:
            for item in value:
                self.read(item)

    def tensor(self, value: Any) -> None:
        plain = value.detach().cpu()
        if str(plain.layout) != "torch.strided" or plain.is_quantized:
            self.pickled(value)
            return
        plain = plain.resolve_conj().resolve_neg().contiguous()
        self.say("tensor", str(plain.dtype), str(tuple(plain.shape)))
        import torch

        self.hash.update(plain.reshape(-1).view(torch.uint8).numpy())

    def pandas(self, value: Any) -> None:
        """A pandas table or column: its names, dtypes, index and values."""
        self.say(type(value).__name__)
        self.read(value.index.to_numpy())
        columns = [value] if value.ndim == 1 else [value.iloc[:, i] for i in range(value.shape[1])]
        for column in columns:
            self.read(column.name)
            self.say("column", str(column.dtype))
            if str(column.dtype) == "category":
                self.read(column.cat.categories.to_numpy())
                self.read(column.cat.codes.to_numpy())
                continue
            missing = column.isna().to_numpy()
            values = column.to_numpy()
            if values.dtype == object:  # a missing value may be None, NaN, NaT or NA: one mark for all
                values = np.where(missing, None, values)
            self.read(missing)
            self.read(values)

    def arrow(self, value: Any) -> None:
        """A table or column that Arrow reads, whatever its chunks."""
        import pyarrow as pa

        columns: Iterable[tuple[str, Any]]
        if hasattr(value, "columns") or hasattr(value, "column_names"):
            table = pa.table(value)
            columns = zip(table.column_names, table.columns, strict=True)
        else:
            columns = [("", pa.chunked_array(value))]
        self.say("table")
        for name, column in columns:
            self.say("column", name, str(column.type))
            if (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and not column.null_count:
                self.array(column.to_numpy())
            else:
                self.sequence(column.to_pylist())

    def path(self, value: PurePath) -> None:
        """Of data a file by its bytes, since they are the data; else the words, since it may be where output goes."""
        if not self.files:
            self.say("path", str(value))
        elif isinstance(value, Path) and value.is_file():
            with value.open("rb") as file:
                self.say("file", hashlib.file_digest(file, "sha256").hexdigest())
        elif isinstance(value, Path) and value.is_dir():
            self.unread(value, "a folder")
        else:
            self.say("path", str(value))

    # ------------------------------------------------------------------------------------------------------- code

    def code(self, value: Any) -> None:
        if isinstance(value, types.CodeType):
            self.compiled(value)
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif isinstance(value, types.MethodType):
            self.say("method")
            self.read(value.__func__)
            self.read(value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            self.say(type(value).__name__)
            self.read(value.__func__)
        elif isinstance(value, property):
            self.say("property")
            self.read((value.fget, value.fset, value.fdel))
        elif isinstance(value, functools.cached_property):  # it holds a lock
            self.say("cached_property")
            self.read(value.func)
        elif isinstance(value, types.MappingProxyType):
            self.say("mappingproxy")
            self.read(dict(value))
        elif isinstance(value, types.ModuleType):
            self.module(value.__name__)
        elif isinstance(value, types.BuiltinFunctionType | types.WrapperDescriptorType | types.MethodDescriptorType):
            self.named(value)
        else:
            self.pickled(value)

    def compiled(self, code: types.CodeType) -> None:
        """Bytecode without line numbers and file names, which other lines of the file would change."""
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        self.say("code", code.co_code, getattr(code, "co_exceptiontable", b""), str(counts))
        self.read((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars))
        self.read(code.co_consts)

    def again(self, value: Any) -> bool:
        """Whether this was read before; if so, it stands by its number among those met."""
        if value in self.met:
            self.say("again", str(self.met[value]))
            return True
        self.met[value] = len(self.met)
        return False

    def function(self, function: types.FunctionType) -> None:
        if _found_by_name(function):
            self.named(function)
            return
        if self.again(function):
            return
        self.say("function")
        own = not installed(function.__module__)
        if own:
            self.read(function.__code__)
        else:  # such as optax.adam(0.1) holds: its code by the version, and its 0.1 by the closure
            self.named(function)
        self.read((function.__defaults__, function.__kwdefaults__))
        dispatching = isinstance(vars(function).get("registry"), types.MappingProxyType)
        self.attributes(function, _DISPATCHERS_OWN if dispatching else ())
        for cell in () if dispatching else function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # a name that is bound later
                self.say("unbound")
            else:
                self.read(content)
        if not own:
            return
        for name in _names(function.__code__):
            if name in function.__globals__:
                self.say("global", name)
                self.read(function.__globals__[name])
        for name in _imports(function.__code__):
            self.module(name)

    def type(self, kind: type) -> None:
        if _found_by_name(kind):
            self.named(kind)
            return
        if self.again(kind):
            return
        self.say("class", kind.__qualname__)
        self.read(type(kind))
        for base in kind.__bases__:
            self.read(base)
        self.attributes(kind)

    def attributes(self, value: Any, without: tuple[str, ...] = ()) -> None:
        """What was set on a function or class; methods that dataclass wrote too, which say the order of fields."""
        for name, item in sorted(vars(value).items()):
            if isinstance(item, types.GetSetDescriptorType | types.MemberDescriptorType) or name in _OF_NO_MATTER:
                continue
            if name not in without:
                self.say("attribute", name)
                self.read(item)

    def module(self, name: str) -> None:
        """A library by its version, a user's module by its file."""
        if installed(name):
            self.say("library", name, _version(name))
            return
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            found = None
        origin = found.origin if found is not None else None
        file = Path(origin) if origin else None
        self.say("module", name, file.read_bytes() if file is not None and file.is_file() else b"")

    def named(self, value: Any) -> None:
        module = _home(value)
        bound = getattr(value, "__self__", None)
        self.say("name", module, getattr(value, "__qualname__", type(value).__name__), _version(module))
        if bound is not None and not isinstance(bound, types.ModuleType):
            self.read(bound)

    def pickled(self, value: Any) -> None:
        """Anything else by what it would be pickled from: its class, and its state."""
        try:
            reduced = copyreg.dispatch_table.get(type(value))
            parts = value.__reduce_ex__(4) if reduced is None else reduced(value)
        except Exception as error:  # each type says in its own way that it cannot be pickled
            self.unread(value, str(error).partition("\n")[0])
            return
        self.say("object")
        self.read(type(value))
        if isinstance(parts, str):
            self.called(value, parts)
            return
        made, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        if any(_home(kind) == "flax.linen.module" for kind in type(value).__mro__) and is_dataclass(value):
            # It lets nothing but fields be set, and keeps a random number besides.
            state = {field.name: getattr(value, field.name) for field in fields(value)}
        elif type(value).__name__ == "PjitFunction":  # of jax.jit: what it calls knows the line that it stands in
            state = {name: item for name, item in state.items() if name != "cache_miss"}
        self.read(made)
        self.read(tuple(argument for argument in arguments if argument is not type(value)))
        self.read(dict(sorted(state.items())) if isinstance(state, dict) and all(map(_text, state)) else state)
        self.read(None if items is None else list(items))
        self.read(None if pairs is None else list(pairs))

    def called(self, value: Any, name: str) -> None:
        """What would be pickled as a name alone: what it wraps, or what an installed module has under that name."""
        if "__wrapped__" in getattr(value, "__dict__", {}):  # by functools.cache: what it remembers makes no difference
            self.attributes(value)
            return
        package = _package_of(value, name)
        if package or _home(type(value)) == "typing":  # typing's stand in annotations
            self.say("name", package, name, _version(package))
        else:
            self.unread(value, f"it is known by its name alone, {name}")

    def unread(self, value: object, reason: str) -> None:
        if not self.forgiving:
            raise InputError(
                "DV403",
                f"expected data and code that can be known by their content, got a {type(value).__name__}: "
                f"{shown(reason)}. Give arrays, tables or lists; or a tag that begins with 'data=' and stands for it.",
            )
        self.say("unread", _home(type(value)), type(value).__qualname__)


_OF_NO_MATTER = (
    "__module__", "__doc__", "__dict__", "__weakref__", "__abstractmethods__", "_abc_impl", "__firstlineno__",
    "__static_attributes__", "__dataclass_fields__", "__dataclass_params__", "__match_args__", "__annotations__",
    "__orig_bases__", "__parameters__", "__qualname__", "__classcell__", "__annotate__", "__annotations_cache__",
    "__annotate_func__", "__type_params__",
)  # fmt: skip
_DISPATCHERS_OWN = ("register", "dispatch", "_clear_cache")
"""What functools.singledispatch sets on its function beside the registry; like its closure, it holds a cache."""


def _home(value: Any) -> str:
    """The module of a function or class; compiled ones may not say."""
    module = getattr(value, "__module__", "")
    return module if isinstance(module, str) else ""


def _found_by_name(value: Any) -> bool:
    """Whether a function or class is an installed module's own; what its code makes while it runs has settings."""
    module, name = _home(value), value.__qualname__
    if not installed(module) or "<locals>" in name:
        return False
    return module != "types" or hasattr(types, name)  # its new_class and make_dataclass give classes its own name


def _package_of(value: Any, name: str) -> str:
    """The installed package that has this very thing under its name, in one of its modules; "" where none has."""
    for place in (_home(value) or _home(type(value)), *list(sys.modules)):
        if installed(place) and getattr(sys.modules.get(place), "__dict__", {}).get(name) is value:
            return place.partition(".")[0]
    return ""


def _text(value: object) -> bool:
    return isinstance(value, str)


def _names(code: types.CodeType) -> list[str]:
    """What code looks up by name, its inner functions' included, in order."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return sorted({*code.co_names, *(name for part in inner for name in _names(part))})


def _imports(code: types.CodeType) -> list[str]:
    """Modules that code imports while it runs."""
    found = {
        step.argval
        for step in dis.get_instructions(code)
        if step.opname == "IMPORT_NAME" and isinstance(step.argval, str) and step.argval
    }
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return sorted(found.union(*(_imports(part) for part in inner)))


@functools.cache
def _version(module: str) -> str:
    from importlib import metadata

    root = module.partition(".")[0]
    if root in sys.stdlib_module_names or not root:
        return "{}.{}".format(*sys.version_info[:2])
    for name in (_DISTRIBUTIONS.get(root, root), root):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return str(getattr(sys.modules.get(root), "__version__", ""))


_DISTRIBUTIONS: Mapping[str, str] = {"sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python"}
