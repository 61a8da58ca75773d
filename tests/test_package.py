"""What the package as a whole promises: a light import, its names, its codes."""

import ast
import doctest
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import import_module, resources
from pathlib import Path

import pytest

import divulge
from divulge.codes import CODES

SOURCE = Path(divulge.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = [
    "scipy",
    "sklearn",
    "pyarrow",
    "narwhals",
    "torch",
    "tensorflow",
    "keras",
    "jax",
    "pandas",
    "polars",
    "rich",
    "click",
    "altair",
    "jinja2",
    "xgboost",
    "lightgbm",
    "catboost",
    "flax",
    "lightning",
    "onnxruntime",
    "transformers",
    "matplotlib",
]


def run_python(code):
    """What a fresh interpreter prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE.parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ----------------------------------------------------------------------------------------------------- the import


def test_importing_divulge_loads_no_framework():
    loaded = run_python("import sys, divulge; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert not set(HEAVY) & set(loaded)


def test_making_evidence_from_arrays_loads_no_framework():
    code = """
import sys, numpy as np, divulge
side = {"logits": 3 * np.eye(3), "labels": np.arange(3)}
divulge.Evidence.from_splits(side, side)
print(*{name.partition('.')[0] for name in sys.modules})
"""
    assert not {"torch", "tensorflow", "jax", "pandas", "polars", "sklearn"} & set(run_python(code).split())


def test_collecting_from_a_function_loads_no_framework():
    code = """
import sys, numpy as np, divulge
side = np.eye(3), np.arange(3)
divulge.collect(lambda x: 3 * x, side, side)
print(*{name.partition('.')[0] for name in sys.modules})
"""
    assert not {*HEAVY} & set(run_python(code).split())


def test_no_module_imports_at_its_top_what_only_some_functions_need():
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found = {name.partition(".")[0] for name in names}
            assert not found & set(HEAVY) - {"click"}, path  # click: the command line's, which nothing else imports


# ------------------------------------------------------------------------------------------------------ the names

NAMES = [
    "membership_probability",
    "DivulgeError",
    "Estimate",
    "Evidence",
    "InputError",
    "MembershipProbability",
    "Monitor",
    "Policy",
    "PolicyError",
    "PrivacyGateError",
    "References",
    "Report",
    "Series",
    "Tail",
    "Unavailable",
    "Verdict",
    "__version__",
    "audit",
    "collect",
]


def test_the_exported_names_are_known():
    """A name that goes is a break; one that comes is added here on purpose (`compare`, say)."""
    assert set(NAMES) <= set(divulge.__all__)
    assert sorted(divulge.__all__) == sorted(set(divulge.__all__))
    for name in divulge.__all__:
        assert getattr(divulge, name) is not None


def modules():
    for path in FILES:
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if parts[-1] != "__main__":
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_has_the_name_of_a_public_function():
    """`from divulge import x` must not depend on what was imported before."""
    functions = {name for name in divulge.__all__ if inspect.isroutine(getattr(divulge, name))}
    assert "audit" in functions
    assert not functions & {name.rpartition(".")[2] for name in modules()}


def doctests_of(thing):
    """Examples in a public thing's docstring or its methods'."""
    texts = [inspect.getdoc(thing) or ""]
    if inspect.isclass(thing):
        texts += [inspect.getdoc(method) or "" for name, method in vars(thing).items() if not name.startswith("_")]
    return sum(len(doctest.DocTestParser().get_examples(text)) for text in texts)


@pytest.mark.parametrize("name", [name for name in divulge.__all__ if not name.startswith("_")])
def test_every_public_name_has_a_doctest_of_its_own(name):
    thing = getattr(divulge, name)
    assert "__doc__" in vars(thing) or inspect.isroutine(thing)
    assert thing.__doc__
    assert doctests_of(thing) > 0


def public_functions():
    for module_name in modules():
        module = import_module(module_name)
        for name, thing in vars(module).items():
            own = getattr(thing, "__module__", None) == module_name
            if own and not name.startswith("_") and (inspect.isfunction(thing) or inspect.isclass(thing)):
                yield f"{module_name}.{name}", thing


def test_everything_without_an_underscore_says_what_it_gives():
    assert [name for name, thing in public_functions() if not (thing.__doc__ or "").strip()] == []


def test_the_version_is_one_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z0-9.]+)?", divulge.__version__)


def test_what_is_not_python_is_shipped():
    assert resources.files("divulge").joinpath("schemas/run-1.schema.json").is_file()


# ------------------------------------------------------------------------------------------------------ the codes


def codes_in_source():
    """(code, file) of each text constant that is a code or starts with one."""
    for path in FILES:
        if path.name == "codes.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for code in re.findall(r"\bDV\d{3}\b", node.value):
                    yield code, path.relative_to(SOURCE).as_posix()


def test_every_code_in_the_source_is_explained():
    assert {(code, path) for code, path in codes_in_source() if code not in CODES} == set()


def test_a_code_is_written_once():
    tree = ast.parse((SOURCE / "codes.py").read_text(encoding="utf-8"))
    keys = [key.value for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    assert [code for code, count in Counter(keys).items() if count > 1] == []
    assert list(keys) == sorted(keys)


@pytest.mark.parametrize("code", CODES)
def test_a_code_has_a_title_a_cause_and_a_fix(code):
    assert re.fullmatch(r"DV[0-9]\d\d", code)
    title, cause, fix = CODES[code]
    assert title[0].islower() or title.startswith("divulge")
    assert not title.endswith(".") and cause.endswith((".", "?")) and fix.endswith(".")
    assert len(title) < 100


def test_titles_tell_codes_apart():
    assert len({entry.title for entry in CODES.values()}) == len(CODES)
