"""Two data or codes have one digest where they would train the same model, and two where they might not."""

import collections
import dataclasses
import functools
import os
import subprocess
import sys
import textwrap
import threading
import typing
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from divulge import InputError
from divulge.references.digests import code_digest, data_digest

FRAME = {"age": [30.0, None, 50.0], "city": ["Rome", None, "Oslo"], "count": [1, 2, 3]}


def frame(**changes):
    return pd.DataFrame({**FRAME, **changes})


# ------------------------------------------------------------------------------------------------------- of data


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(6).reshape(2, 3),
        lambda: np.array(["a", None, 3], object),
        lambda: [1, 2.5, "three", None, True, b"x"],
        lambda: {"x": [1.0, 2.0], "y": ("a", {"b": {1, 2, "c"}})},
        lambda: pd.DataFrame(FRAME),
        lambda: pd.DataFrame({"c": pd.Categorical(["a", "b", "a"]), "t": pd.date_range("2024-01-01", periods=3)}),
        lambda: pl.DataFrame(FRAME),
        lambda: pa.table(FRAME),
        lambda: scipy.sparse.random(9, 4, 0.3, "csr", rng=0),
        lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
        lambda: np.random.default_rng(3),
        lambda: StandardScaler().fit(np.eye(3)),
        lambda: collections.OrderedDict(a=1, b=np.ones(2)),
        lambda: collections.deque([1, 2]),
        lambda: Path("no/such/file"),
    ],
)
def test_data_made_anew_have_the_same_digest(make):
    assert data_digest(make()) == data_digest(make())


def test_how_often_an_object_is_shared_or_how_it_lies_in_memory_makes_no_difference():
    row = [1.0, "x"]
    assert data_digest([row, row]) == data_digest([[1.0, "x"], [1.0, "x"]])
    array = np.arange(12.0).reshape(3, 4)
    assert data_digest(np.asfortranarray(array)) == data_digest(array)
    assert data_digest(np.repeat(array, 2, axis=0)[::2]) == data_digest(array)
    whole = pa.table(FRAME)
    assert data_digest(pa.concat_tables([whole.slice(0, 1), whole.slice(1)])) == data_digest(whole)


DIFFERENT = [
    [np.arange(4), np.arange(4.0), np.arange(4).astype(np.int32), np.arange(4).reshape(2, 2), np.array([0, 1, 3, 2])],
    [np.zeros(3), np.zeros(4), [0.0, 0.0, 0.0], (0.0, 0.0, 0.0), -np.zeros(3), ["0.0"] * 3],
    [["ab", "c"], ["a", "bc"], ["abc"], [["ab"], "c"], np.array(["ab", "c"]), np.array(["ab", "c"], object)],
    [1, 1.0, True, "1", b"1", None, np.int64(1), np.float32(1), [1]],
    [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 2, "b": 1}, [("a", 1), ("b", 2)], {"a", "b"}],
    [
        frame(),
        frame(age=[30.0, None, 51.0]),
        frame(city=["Rome", "", "Oslo"]),
        frame(count=[1.0, 2.0, 3.0]),
        frame()[["city", "age", "count"]],
        frame().rename(columns={"age": "years"}),
        frame().iloc[::-1],
        frame().set_index(np.array([5, 6, 7])),
        pl.DataFrame(FRAME),
        pl.DataFrame(FRAME)[::-1],
        pl.DataFrame({**FRAME, "age": [30.0, 0.0, 50.0]}),
        pl.DataFrame(FRAME)["age"],
        pl.DataFrame(FRAME)["city"],
    ],
    [pd.Series(pd.Categorical(["a", "b"])), pd.Series(pd.Categorical(["a", "b"], ["b", "a"])), pd.Series(["a", "b"])],
    [scipy.sparse.csr_array(np.eye(3)), scipy.sparse.csr_array(2 * np.eye(3)), scipy.sparse.csr_array((3, 3))],
    [np.ma.masked_array([1.0, 2.0], [True, False]), np.ma.masked_array([1.0, 2.0], [False, False])],
    [StandardScaler().fit(np.eye(3)), StandardScaler().fit(2 * np.eye(3)), StandardScaler()],
    [collections.deque([1, 2]), collections.deque([2, 1]), collections.deque([1, 2], maxlen=5)],
]


@pytest.mark.parametrize("values", DIFFERENT)
def test_data_that_differ_have_different_digests(values):
    assert len({data_digest(value) for value in values}) == len(values)


@given(arrays.arrays(np.float64, st.integers(1, 20)), st.data())
def test_one_value_that_changes_changes_the_digest(array, data):
    i = data.draw(st.integers(0, len(array) - 1))
    changed = array.copy()
    changed[i] = 7.0 if array[i] != 7.0 else 8.0
    assert data_digest(array) != data_digest(changed)
    assert data_digest(array.tolist()) != data_digest(changed.tolist())
    assert data_digest(list(map(str, array))) != data_digest(list(map(str, changed)))


def test_tensors_are_read_by_their_values(require):
    torch = require("torch")
    tensors = [
        torch.ones(3),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(3, 1),
        torch.tensor([1.0, 1.0, 2.0]),
        torch.tensor(1.0),
        torch.eye(2).to_sparse(),
        torch.utils.data.TensorDataset(torch.ones(3)),
        torch.utils.data.TensorDataset(torch.zeros(3)),
        np.ones(3, np.float32),
    ]
    assert len({data_digest(tensor) for tensor in tensors}) == len(tensors)
    assert data_digest(torch.ones(4)[::2]) == data_digest(torch.ones(2))
    assert data_digest(torch.ones(3, requires_grad=True)) == data_digest(torch.ones(3))


def test_arrays_of_jax_are_read_by_their_values(require):
    jnp = require("jax.numpy")
    assert data_digest(jnp.arange(3)) == data_digest(jnp.arange(3)) != data_digest(jnp.arange(4))


def test_a_file_that_is_data_counts_by_its_bytes(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("1")
    assert data_digest(tmp_path / "a") == data_digest(tmp_path / "b")
    before = data_digest(tmp_path / "a")
    (tmp_path / "a").write_text("2")
    assert data_digest(tmp_path / "a") != before


def test_what_comes_back_to_itself_is_read_once():
    def loop(last):
        value = [1, {"inner": [last]}]
        value[1]["inner"].append(value)
        return value

    assert data_digest(loop(3)) == data_digest(loop(3)) != data_digest(loop(4))


@pytest.mark.parametrize("value", [threading.Lock(), (i for i in range(3)), sys.stdout.buffer, Path(".")])
def test_what_cannot_be_read_is_refused_unless_a_tag_stands_for_it(value):
    with pytest.raises(InputError) as caught:
        data_digest({"x": [value]})
    assert caught.value.code == "DV403"
    assert "data=" in str(caught.value)
    assert data_digest([value, 1], tag="data=mine") != data_digest([value, 2], tag="data=mine")


@dataclasses.dataclass
class Split:
    name: str


def test_data_that_are_no_field_of_their_dataclass_count():
    splits = []
    for x in (np.zeros(3), np.ones(3)):
        splits.append(Split("train"))
        splits[-1].x = x
    assert data_digest(splits[0]) != data_digest(splits[1])


def test_structured_arrays_are_read_to_their_objects():
    kind = np.dtype([("age", "i4"), ("city", object)])
    arrays = [np.array(rows, kind) for rows in ([(1, "Rome")], [(1, "Oslo")], [(2, "Rome")])]
    assert len({data_digest(array) for array in arrays}) == 3
    with pytest.raises(InputError) as caught:
        data_digest(np.array([(1, threading.Lock())], kind))
    assert caught.value.code == "DV403"
    texts = [np.array(values, np.dtypes.StringDType()) for values in (["a", "b"], ["a", "c"])]
    assert data_digest(texts[0]) == data_digest(texts[0].copy()) != data_digest(texts[1])


def test_too_deep_a_nesting_is_refused():
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InputError) as caught:
        data_digest(value)
    assert caught.value.code == "DV403"
    while value:  # taken apart by hand: freeing it at once would overflow the stack of some Pythons
        value = value[0]


# ------------------------------------------------------------------------------------------------------- of code

SOURCE = '''
import functools
import os
import numpy as np
from dataclasses import dataclass
from sklearn.linear_model import LogisticRegression

EPOCHS = 3
UNUSED = 1

def scaled(x):
    return centered(x) / 2

def centered(x):
    return x - x.mean()

class Model:
    width = 8
    def __init__(self, rate):
        self.rate = rate
    def train(self, x):
        return scaled(x) * self.rate

@dataclass(frozen=True)
class Fit:
    rate: float = 0.1
    build: object = centered
    def __call__(self, data, rows, seed):
        return self.build(data) * self.rate

def fit(data, rows, seed=0, *, rate=0.5):
    """Train."""
    model = Model(rate)
    if seed in {1, 2, 3}:
        return lambda data, rows, query: model.train(data[rows]) + EPOCHS * 2
    return lambda data, rows, query: LogisticRegression(C=2.0).fit(data, rows)

def made(scale):
    def inner(data, rows, seed):
        return scaled(data) * scale
    return inner
'''


def loaded(changes=(), name="experiment"):
    source = SOURCE
    for old, new in changes:
        assert source.count(old) == 1
        source = source.replace(old, new)
    namespace = {"__name__": name}
    exec(compile(source, "experiment.py", "exec"), namespace)
    return namespace


CHANGES = [
    [("EPOCHS = 3", "EPOCHS = 4")],
    [("x.mean()", "x.max()")],
    [("centered(x) / 2", "centered(x) / 3")],
    [("width = 8", "width = 9")],
    [("scaled(x) * self.rate", "scaled(x) + self.rate")],
    [("rate=0.5", "rate=0.6")],
    [("{1, 2, 3}", "{1, 2, 4}")],
    [("C=2.0", "C=3.0")],
    [("C=2.0", "tol=2.0")],
    [("EPOCHS * 2", "EPOCHS * 2.5")],
]


@pytest.mark.parametrize("changes", CHANGES)
def test_code_that_changes_changes_the_digest_however_far_it_is(changes):
    assert code_digest(loaded()["fit"]) != code_digest(loaded(changes)["fit"])


def test_what_makes_no_difference_does_not_change_the_digest():
    expected = code_digest(loaded()["fit"])
    assert code_digest(loaded()["fit"]) == expected
    assert code_digest(loaded([("EPOCHS = 3", "# a comment\n\n\nEPOCHS = 3")])["fit"]) == expected
    assert code_digest(loaded([("UNUSED = 1", "UNUSED = 2")])["fit"]) == expected


def test_closures_partials_objects_and_estimators_count_with_their_settings():
    first, again = loaded(), loaded()
    fits = [
        lambda names: names["made"](1),
        lambda names: names["made"](2),
        lambda names: functools.partial(names["fit"], rate=1),
        lambda names: functools.partial(names["fit"], rate=2),
        lambda names: names["Fit"](),
        lambda names: names["Fit"](rate=0.2),
        lambda names: names["Fit"](build=names["scaled"]),
        lambda names: names["Model"](1).train,
        lambda names: names["Model"](2).train,
        lambda names: LogisticRegression(),
        lambda names: LogisticRegression(C=2.0),
        lambda names: make_pipeline(StandardScaler(), LogisticRegression()),
        lambda names: make_pipeline(StandardScaler(), LogisticRegression(C=2.0)),
        lambda names: len,
        lambda names: np.add,
        lambda names: np.linalg.solve,
    ]
    digests = [code_digest(fit(first)) for fit in fits]
    assert digests == [code_digest(fit(again)) for fit in fits]
    assert len(set(digests)) == len(fits)


MADE = {
    "functools.cache": "@functools.cache\ndef scale(): return {}\ndef fit(data, rows, seed): return scale()",
    "functools.lru_cache": "@functools.lru_cache(8)\ndef fit(data, rows, seed): return {}",
    "a cached method": "class Fit:\n  @functools.cache\n  def __call__(self, data): return {}\nfit = Fit()",
    "an attribute of a function": "def fit(data, rows, seed): return fit.rate\nfit.rate = {}",
    "an attribute of a partial": "def fit(data): return fit.rate\nfit = functools.partial(fit)\nfit.rate = {}",
    "singledispatch": "@functools.singledispatch\ndef fit(data): return 0\n@fit.register\ndef _(data: list): return {}",
    "a method, executed": "class Fit:\n  def __call__(self, data): return {}\nfit = Fit()",
    "of a metaclass": "class Meta(type):\n  rate = {}\nclass fit(metaclass=Meta): pass",
    "no field": "@dataclass\nclass Fit:\n  name: str = ''\nfit = Fit()\nfit.rate = {}",
    "no field, frozen": "@dataclass(frozen=True)\nclass Fit:\n  def __post_init__(self):\n"
    "    object.__setattr__(self, 'rate', {})\nfit = Fit()",
    "a dataclass's items": "@dataclass\nclass Fit(list):\n  name: str = ''\nfit = Fit()\nfit.append({})",
    "a field's factory": "@dataclass\nclass fit:\n  rates: list = field(default_factory=lambda: [{}])",
    "make_dataclass": "def call(self, data): return {}\n"
    "fit = make_dataclass('Fit', [], namespace={{'__call__': call}})()",
    "a library's closure": "names = {{'__name__': 'numpy.x'}}\n"
    "exec('def make(x):\\n  def made(): return x\\n  return made', names)\nfit = names['make']({})",
}


def made(source):
    names = {"__name__": "__main__"}
    exec("import functools\nfrom dataclasses import dataclass, field, make_dataclass\n" + source, names)
    return names["fit"]


@pytest.mark.parametrize("source", MADE.values(), ids=MADE)
def test_whatever_holds_a_setting_it_counts(source):
    assert code_digest(made(source.format(1))) == code_digest(made(source.format(1)))
    assert code_digest(made(source.format(1))) != code_digest(made(source.format(5)))


def test_the_order_of_fields_counts():
    source = "@dataclass\nclass Fit:\n  {}: int\n  {}: int\ndef fit(data, rows, seed): return Fit(1, 2)"
    assert code_digest(made(source.format("a", "b"))) != code_digest(made(source.format("b", "a")))


def test_what_was_asked_before_makes_no_difference():
    for name in ("functools.cache", "singledispatch"):
        fit = made(MADE[name].format(1))
        before = code_digest(fit)
        fit([]) if name == "singledispatch" else fit(None, None, 0)
        assert code_digest(fit) == before


def test_what_has_a_name_alone_is_refused_unless_an_installed_module_has_it_under_that_name():
    def double(x):
        return 2 * x

    assert len({code_digest(ufunc) for ufunc in (np.add, np.exp, scipy.special.expit)}) == 3
    with pytest.raises(InputError) as caught:
        code_digest(np.frompyfunc(double, 1, 1))
    assert caught.value.code == "DV403"
    assert "double" in str(caught.value)
    kind = typing.TypeVar("kind")
    assert code_digest(lambda data, rows, seed: typing.cast(kind, data))


def test_optimisers_and_modules_count_with_their_settings(require):
    optax, jax, linen = require("optax"), require("jax"), require("flax.linen")

    class Net(linen.Module):
        width: int = 8

        def __call__(self, x):
            return self.width * x

    makes = [
        lambda: optax.adam(0.1),
        lambda: optax.adam(0.2),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10)),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 20)),
        lambda: jax.jit(lambda x: x),
        lambda: jax.jit(lambda x, y: x, static_argnums=1),
        lambda: Net().apply,
        lambda: Net(9).apply,
    ]
    digests = [code_digest(make()) for make in makes]
    assert digests == [code_digest(make()) for make in makes]
    assert len(set(digests)) == len(makes)


def test_what_is_remembered_counts_by_its_code_not_by_what_is_in_it():
    class Mean:
        @functools.cached_property
        def value(self):
            return 1

    def of(value):
        cached = functools.cache(lambda: value)
        return lambda data, rows, seed: cached()

    assert code_digest(of(1)) == code_digest(of(1)) != code_digest(of(2))
    assert code_digest(functools.cache(len)) != code_digest(functools.cache(sum))
    assert code_digest(Mean) == code_digest(Mean)


def test_functions_that_name_each_other_are_read_in_short_time():
    """A web of 40 functions, each of which calls all others: read once each, not once for each way to it."""
    source = "".join(f"def f{i}(x):\n    return {' + '.join(f'f{j}(x)' for j in range(40))} + {i}\n" for i in range(40))
    first, again, changed = {"__name__": "web"}, {"__name__": "web"}, {"__name__": "web"}
    exec(source, first)
    exec(source, again)
    exec(source.replace("+ 39\n", "+ 40\n"), changed)
    assert code_digest(first["f0"]) == code_digest(again["f0"]) != code_digest(changed["f0"])


def test_the_users_modules_count_by_their_text_and_libraries_by_their_version(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "recipe_of_mine.py").write_text("def build():\n    return 1\n")
    source = "def fit(data, rows, seed):\n    import recipe_of_mine, json\n    return recipe_of_mine.build()\n"
    names = {"__name__": "experiment"}
    exec(source, names)
    before = code_digest(names["fit"])
    assert code_digest(names["fit"]) == before
    (tmp_path / "recipe_of_mine.py").write_text("def build():\n    return 2\n")
    assert code_digest(names["fit"]) != before


def test_paths_in_code_are_words():
    def fit(folder):
        return lambda data, rows, seed: folder

    assert code_digest(fit(Path("."))) == code_digest(fit(Path("."))) != code_digest(fit(Path("..")))


def test_digests_are_the_same_in_another_process_whatever_its_hashes():
    code = f"""
        import numpy as np, pandas as pd
        from divulge.references.digests import code_digest, data_digest
        names = {{"__name__": "experiment"}}
        exec(compile({SOURCE!r}, "elsewhere.py", "exec"), names)
        print(code_digest(names["fit"]), code_digest(names["Fit"]()), code_digest(names["made"](1)))
        print(data_digest({{"a": {{"x", "y", "z"}}, "b": np.arange(3)}}, pd.DataFrame({{"t": ["u", None]}})))
    """
    names = loaded()
    expected = [code_digest(names["fit"]), code_digest(names["Fit"]()), code_digest(names["made"](1))]
    expected.append(data_digest({"a": {"x", "y", "z"}, "b": np.arange(3)}, pd.DataFrame({"t": ["u", None]})))
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            timeout=120,
        )
        assert done.stdout.split() == expected, done.stderr
