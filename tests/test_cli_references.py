"""`divulge references`, and `divulge audit --references --records`: from a Python file to an audit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

import divulge
from divulge.cli import main
from divulge.errors import InputError
from divulge.references import design, fit_references
from divulge.references.definition import MODULE, defined
from divulge.references.matching import with_references
from divulge.references.store import rows_of

N = 120
MINE = f"""
import numpy as np
import beside

_rng = np.random.default_rng(0)
x, y = _rng.normal(size=({N}, 3)), np.arange({N}) % 3
data = x, y
ids = 1000 + _rng.permutation({N})
member = _rng.random({N}) < 0.5


def fit(data, rows, seed):
    return beside.centred(data[0][rows].mean(axis=0))
"""
BESIDE = """
class centred:
    def __init__(self, center):
        self.center = center

    def __call__(self, data, rows, query):
        return 3 * (data[0][rows] - self.center)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a references file and one that it imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    Path("mine.py").write_text(MINE)
    Path("beside.py").write_text(BESIDE)
    return tmp_path


def stored():
    return sorted(path.name for path in Path("refs").glob("*.npy"))


def run(*more, executor="loop", models=4, file="mine.py"):
    return main(["references", "run", file, "--store", "refs", "--models", str(models), "--executor", executor, *more])


def evidence_of(order=None, *, ids=True, labels=None):
    """Evidence of the file's records, in some order."""
    with defined("mine.py") as given:
        order = np.arange(N) if order is None else order
        truth = given.data[1] if labels is None else labels
        return divulge.Evidence(
            given.member[order],
            labels=truth[order],
            outputs=given.data[0][order],
            kind="logits",
            ids=given.ids[order] if ids else None,
        )


# ------------------------------------------------------------------------------------------------------------ run


def test_run_trains_what_is_missing_and_the_store_says_so(folder, capsys):
    assert run() == 0
    captured = capsys.readouterr()
    assert "4 reference models of 120 records" in captured.out and "--references refs" in captured.out
    assert "4 to train" in captured.err
    first = stored()
    assert len(first) == 4
    assert run(models=6) == 0
    assert "4 found in the store, 2 to train" in capsys.readouterr().err
    assert set(first) < set(stored()) and len(stored()) == 6
    assert main(["references", "status", "refs"]) == 0
    out = capsys.readouterr().out
    assert "6 of 6 reference models are finished" in out and "120 records" in out


def test_run_gives_what_fit_references_gives(folder):
    assert run("--seed", "3") == 0
    with defined("mine.py") as given:
        expected = fit_references(given.fit, given.data, design(N, 4, seed=3), seed=3)
        known = rows_of("refs")
        np.testing.assert_array_equal(known.ids, given.ids)
        np.testing.assert_array_equal(known.member, given.member)
    found = divulge.load_references("refs")
    np.testing.assert_array_equal(found.trained_on, expected.trained_on)
    for name, array in expected.signals.items():
        np.testing.assert_array_equal(found.signals[name], array)


def test_a_file_that_changed_meets_no_old_models(folder, capsys):
    assert run() == 0
    before = stored()
    Path("mine.py").write_text(MINE + "\n# a word more\n")
    assert run() == 0
    assert "0 found in the store, 4 to train" in capsys.readouterr().err
    assert len(set(stored()) - set(before)) == 4


def test_a_file_that_an_imported_one_imports_counts_too(folder, capsys):
    Path("deeper.py").write_text("FACTOR = 3\n")
    Path("beside.py").write_text("import deeper\n" + BESIDE.replace("3 *", "deeper.FACTOR *"))
    assert run() == 0
    Path("deeper.py").write_text("FACTOR = 4.5\n")  # another length: Python knows its compiled files by that, too
    capsys.readouterr()
    assert run() == 0
    assert "0 found in the store, 4 to train" in capsys.readouterr().err
    assert run() == 0
    assert "4 found in the store, 0 to train" in capsys.readouterr().err


def test_what_the_file_defines_reaches_the_run(folder):
    Path("mine.py").write_text(
        MINE.replace("data = x, y", "def data():\n    return {'x': x}\n\nlabels = y")
        + "    \n\n"
        + "def fit(data, rows, seed):\n    return lambda data, rows, query: data['x'][rows] + query\n\n"
        + "def target(data, rows, query):\n    return data['x'][rows]\n\n"
        + f"groups = np.arange({N}) // 2\nsignal = ('loss', 'margin')\nqueries = 2\nkind = 'logits'\n"
        + "fraction = 0.25\ntag = 'data=mine'\n"
    )
    assert run(models=8) == 0
    found, known = divulge.load_references("refs"), rows_of("refs")
    assert {name: array.shape for name, array in found.signals.items()} == {"loss": (8, N, 2), "margin": (8, N, 2)}
    assert set(found.target) == {"loss", "margin"}
    assert (known.trained_on.sum(axis=0) == 2).all()
    assert (known.trained_on[:, ::2] == known.trained_on[:, 1::2]).all()
    assert main(["references", "status", "refs", "--json"]) == 0


def test_an_estimator_is_a_fit(folder):
    Path("mine.py").write_text(
        MINE.partition("def fit")[0] + "from sklearn.naive_bayes import GaussianNB\nfit = GaussianNB()\n"
    )
    with defined("mine.py") as given:
        assert repr(given.fit).startswith("Sklearn(GaussianNB(")


def test_the_store_is_where_the_command_was_called(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Path("mine.py").write_text(MINE + f"\nimport os\nos.chdir({str(elsewhere)!r})\n")
    assert run() == 0
    assert not (elsewhere / "refs").exists()
    assert len(list((folder / "refs").glob("*.npy"))) == 4


@pytest.mark.slow
def test_workers_get_the_file_and_what_lies_beside_it(folder):
    assert run() == 0
    expected = divulge.load_references("refs").signals["log_odds"]
    Path("refs").rename("loop")
    assert run("--workers", "2", executor="processes") == 0
    np.testing.assert_array_equal(divulge.load_references("refs").signals["log_odds"], expected)


def test_the_file_leaves_nothing_behind(folder):
    before, path = set(sys.modules), list(sys.path)
    with defined("mine.py"):
        assert "beside" in sys.modules and MODULE in sys.modules
    assert not {"beside", MODULE} & set(sys.modules) and sys.path == path
    assert not {name for name in set(sys.modules) - before if name.startswith("beside")}


SLOW = """
import pathlib, time
import numpy as np
data = np.zeros((40, 2)), np.arange(40) % 2
def fit(data, rows, seed):
    while not pathlib.Path("go").exists() and len(list(pathlib.Path("refs").glob("*.npy"))) >= 2:
        pathlib.Path("waiting").touch()  # the second is in its place, and counted
        time.sleep(0.01)
    return lambda data, rows, query: np.eye(2)[data[1][rows]]
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_keeps_what_is_finished_and_says_so(folder, capsys, number, status):
    Path("mine.py").write_text(SLOW)
    source = str(Path(divulge.__file__).parents[1])
    command = [sys.executable, "-m", "divulge", "references", "run", "mine.py", "--store", "refs"]
    environment = {**os.environ, "PYTHONPATH": source}
    process = subprocess.Popen(
        [*command, "--models", "6", "--executor", "loop"], stderr=subprocess.PIPE, env=environment, text=True
    )
    until = time.monotonic() + 60
    while not Path("waiting").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert "2 of 6 models are finished and kept in refs" in said and "stopped" in said and "Traceback" not in said
    assert main(["references", "status", "refs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 2
    Path("go").touch()
    assert run(models=6) == 0
    assert "2 found in the store, 4 to train" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- plan, status


def test_plan_says_what_it_would_cost_and_what_it_picks(folder, capsys):
    assert main(["references", "plan", "mine.py", "--models", "2", "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 reference models of 120 records" in out and out.count("<- picked") == 1 and "loop" in out
    assert not Path("refs").exists()


def test_status_names_damaged_files_and_json_has_all(folder, capsys):
    assert run() == 0
    damaged = stored()[0]
    Path("refs", damaged).write_bytes(b"not a model")
    capsys.readouterr()
    assert main(["references", "status", "refs"]) == 0
    out = capsys.readouterr().out
    assert "3 of 4 reference models are finished" in out and damaged in out and "left one by one" in out
    assert main(["references", "status", "refs", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"] == 4 and found["finished"] == 3 and found["bad"] == [damaged] and found["rows"] == N
    assert found["signals"] == ["log_odds", "log_prob@T=2"] and found["parts"]["seed"] == 0
    assert run() == 0
    assert main(["references", "status", "refs"]) == 0
    assert "4 of 4" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["plan"], ["run"], ["status"]])
def test_help_says_that_the_file_is_run(capsys, command):
    assert main(["references", *command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Usage" in out
    assert command or "FILE.py is run as it stands" in out


# -------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("data = 1\nx = (\n", r"line 2: '\(' was never closed"),
        ("\n\ny = undefined\n", "line 3: NameError: name 'undefined'"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError"),
        ("import beside\nbeside.nothing()\n", "line 2: AttributeError"),
        ("raise SystemExit(0)\n", "line 1: SystemExit"),
        ("fit = print\n", "does not define data"),
        ("data = [[1], [2]], [0, 1]\n", "does not define fit"),
        ("data = [[1], [2]], [0, 1]\nfitt = print\n", "line 2: 'fitt' .* did you mean fit"),
        ("data = [[1], [2]], [0, 1]\nfit = print\nlables = [0, 1]\n", "line 3: 'lables' .* did you mean labels"),
        ("data = [[1], [2]], [0, 1]\nfit = print\ngroup, ids = [0, 1], [1, 2]\n", "'group' .* did you mean groups"),
        ("data = [[1], [2]], [0, 1]\nfit = 3\n", "fit: expected a fit"),
        ("data = [1, 2, 3]\nfit = print\n", r"data is a list, expected \(x, y\)"),
        ("def data():\n    return 1 / 0\nfit = print\n", "line 2: ZeroDivisionError"),
        ("data = [[1], [2]], [0, 1]\nfit = print\ntag = 3\n", "tag is a int"),
        ("data = [[1]] * 4, [0, 1] * 2\ndef fit(data, rows, seed):\n    return nothing\n", r"\(bad.py, line 3\)"),
    ],
)
def test_an_error_in_the_file_is_said_with_its_line(folder, capsys, text, says):
    Path("bad.py").write_text(text)
    assert run(file="bad.py") == 2
    captured = capsys.readouterr()
    code = "DV402" if "line 3\\)" in says else "DV411"
    assert captured.out == "" and "Traceback" not in captured.err
    assert re.search(says, captured.err)
    assert f"{code} " in captured.err and f"divulge explain {code}" in captured.err


RAISING = """
import numpy as np
from sklearn.linear_model import LogisticRegression
data = np.full((40, 2), np.nan), np.arange(40) % 2
fit = LogisticRegression()
"""


@pytest.mark.parametrize("command", [["plan"], ["run", "--store", "refs"]])
def test_an_estimator_that_raises_in_a_trial_is_no_failure_of_divulge(folder, capsys, command):
    Path("bad.py").write_text(RAISING)
    assert main(["references", *command, "bad.py", "--models", "2"]) == 2
    assert "DV402 a trial of the training failed: ValueError: Input X contains NaN" in capsys.readouterr().err


def test_an_error_in_another_process_has_its_line_and_verbose_its_traceback(folder, capsys):
    Path("bad.py").write_text("data = [[1]] * 4, [0, 1] * 2\ndef fit(data, rows, seed):\n    return nothing\n")
    for executor in ("loop", "processes"):
        assert run("--workers", "1", "-v", executor=executor, file="bad.py") == 2
        said = capsys.readouterr().err
        assert "(bad.py, line 3)" in said
        assert "Traceback (most recent call last)" in said and "in fit" in said


def test_names_for_the_files_own_use_are_let_be(folder):
    Path("mine.py").write_text(MINE + "\n_label = 3\nfits = 4\nuses = fits\nfor label in [1]:\n    uses = label\n")
    assert run() == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "nothing.py", "--store", "refs"], "DV411"),
        (["run", ".", "--store", "refs"], "DV411"),
        (["run", "notes.txt", "--store", "refs"], "DV411"),
        (["plan", "nothing.py"], "DV411"),
        (["run", "mine.py", "--store", "notes.txt"], "DV035"),
        (["run", "mine.py", "--store", "notes.txt/refs"], "DV035"),
        (["status", "nowhere"], "DV030"),
        (["status", "empty"], "DV030"),
    ],
)
def test_a_wrong_place_is_status_2_with_its_code(folder, capsys, arguments, code):
    Path("notes.txt").write_text("no Python")
    Path("empty").mkdir()
    before = sorted(folder.rglob("*"))
    more = ["--executor", "loop"] if arguments[0] == "run" else []
    assert main(["references", *arguments, *more]) == 2
    assert f"{code} " in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "mine.py"], "--store"),
        (["run", "mine.py", "--store", "refs", "--executor", "procesess"], "processes"),
        (["run", "mine.py", "--store", "refs", "--models", "0"], "--models"),
        (["rum"], "run"),
        ([], "Usage"),
    ],
)
def test_a_wrong_call_is_status_2_and_says_what_is_right(folder, capsys, arguments, says):
    assert main(["references", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err and captured.out == "" and not Path("refs").exists()


# ------------------------------------------------------------------------------------------------- for an audit


def same_rows(evidence):
    """Whether each row's references are those of its record, told by the file's own order."""
    found = with_references(evidence, "refs").references
    whole = divulge.load_references("refs")
    with defined("mine.py") as given:
        place = {key.tobytes(): row for row, key in enumerate(given.data[0])}
    order = [place[row.tobytes()] for row in evidence.outputs]
    np.testing.assert_array_equal(found.signals["log_odds"], whole.signals["log_odds"][:, order])
    np.testing.assert_array_equal(found.trained_on, whole.trained_on[:, order])


def test_records_are_found_by_ids_in_any_order(folder):
    assert run() == 0
    same_rows(evidence_of(np.random.default_rng(1).permutation(N)[:50]))


def test_records_are_found_by_their_order_or_members_first(folder):
    assert run() == 0
    same_rows(evidence_of(ids=False))
    member = evidence_of().member
    same_rows(evidence_of(np.argsort(~member, kind="stable"), ids=False))


def test_labels_are_compared_as_classes(folder):
    Path("mine.py").write_text(MINE.replace("data = x, y", "data = x, np.array(['b', 'c', 'a'])[y]"))
    assert run() == 0
    with defined("mine.py") as given:
        texts, x, member = given.data[1], given.data[0], given.member
    for classes in (["a", "b", "c"], ["c", "a", "b"]):  # the columns of the outputs need not be sorted
        codes = np.array([classes.index(text) for text in texts])
        evidence = divulge.Evidence(member, labels=codes, outputs=x, kind="logits", classes=tuple(classes))
        same_rows(evidence)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: evidence_of(np.arange(N)[::-1], ids=False), "neither in this order nor members first"),
        (lambda: evidence_of(np.arange(50), ids=False), "120 records, the evidence 50"),
        (lambda: evidence_of(labels=(np.arange(N) + 1) % 3), "labels"),
        (lambda: divulge.Evidence(np.arange(N) < 60, signals={"loss": np.zeros(N)}), "no labels"),
    ],
)
def test_records_that_may_be_others_are_refused(folder, change, says):
    assert run() == 0
    with pytest.raises(InputError, match=says) as caught:
        with_references(change(), "refs")
    assert caught.value.code == "DV409"


def test_ids_that_only_one_side_has_are_asked_for(folder):
    Path("mine.py").write_text(MINE.replace("ids = 1000", "_ids = 1000").replace("member = ", "_member = "))
    assert run() == 0
    evidence = divulge.Evidence(
        np.arange(N) < 60, labels=np.arange(N)[::-1] % 3, outputs=np.zeros((N, 3)), kind="logits"
    )
    with pytest.raises(
        InputError, match=r"Add ids to the evidence \(.*\) and to the store \(.*\); or member in FILE.py"
    ):
        with_references(evidence, "refs")


def test_an_audit_with_references_runs_their_attacks(folder, capsys):
    assert run(models=8) == 0
    evidence_of().save("predictions.npz")
    arguments = ["audit", "predictions.npz", "--min-n", "10", "--control", "ties"]
    assert main([*arguments, "--references", "refs", "--json", "with.json"]) == 0
    assert main([*arguments, "--json", "without.json"]) == 0
    ran = [
        {row["attack"] for row in divulge.Report.load(f"{name}.json").rows("attacks") if row["status"] == "ran"}
        for name in ("with", "without")
    ]
    assert "ratio" in ran[0] and "ratio" not in ran[1]
    assert main([*arguments, "--references", "nowhere"]) == 2
    assert "DV030" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_records_go_to_a_file_of_their_own_with_a_warning(folder, capsys, suffix):
    assert run() == 0
    evidence_of().save("predictions.npz")
    arguments = ["audit", "predictions.npz", "--references", "refs", "--control", "ties", "-q"]
    assert main([*arguments, "--records", f"records.{suffix}", "--json", "run.json"]) == 0
    assert "names persons" in capsys.readouterr().err
    read = pyarrow.csv.read_csv if suffix == "csv" else pyarrow.parquet.read_table
    frame = read(f"records.{suffix}")
    assert sorted(frame["id"].to_pylist()) == sorted(evidence_of().ids.tolist())
    assert {"member", "score", "exposure"} <= set(frame.column_names)
    with defined("mine.py") as given:
        known = dict(zip(given.ids.tolist(), given.member.tolist(), strict=True))
    assert [known[key] for key in frame["id"].to_pylist()] == frame["member"].to_pylist()
    assert "records" not in json.loads(Path("run.json").read_text())["tables"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--records", "records.txt"], "ends in .csv or .parquet"),
        (["--records", "x.csv", "--json", "./x.csv"], "both name"),
        (["--records", "table.csv"], "overwrite"),
        (["--records", "nowhere/x.csv"], "DV035"),
    ],
)
def test_a_place_that_records_cannot_go_to_is_refused_first(folder, capsys, more, says):
    evidence_of().save("table.csv")
    before = Path("table.csv").read_bytes()
    assert main(["audit", "table.csv", *more]) == 2
    assert says in capsys.readouterr().err and Path("table.csv").read_bytes() == before
