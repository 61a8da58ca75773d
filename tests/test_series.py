"""Series: reports in order, their folder, their comparison, their picture."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import divulge
from divulge import charts
from divulge.cli import main
from divulge.errors import InputError, Unavailable
from divulge.series import INDEX, SCHEMA, Series, in_folder


@cache
def evidence(leak: float) -> divulge.Evidence:
    n = np.arange(800)
    rng = np.random.default_rng(0)
    labels, outputs = rng.integers(0, 3, 800), rng.normal(size=(800, 3))
    outputs[n, labels] += 1 + leak * (n < 400)
    return divulge.Evidence(n < 400, labels=labels, outputs=outputs, kind="logits", ids=n)


LEAKS = (0.0, 0.5, 1.0, 2.0)


@cache
def reports() -> tuple[divulge.Report, ...]:
    return tuple(divulge.audit(evidence(leak), controls=()) for leak in LEAKS)


def series(**options: object) -> Series:
    return Series.of(reports(), **{"steps": (1, 10, 40, 80), "axis": "epoch", **options})


def texts(found: Series) -> list[str]:
    return [report.to_json() for report in found.reports]


# ----------------------------------------------------------------------------------------------------- what it is


def test_names_come_from_the_steps_the_paths_or_the_order(tmp_path) -> None:
    assert series().names == ("epoch 1", "epoch 10", "epoch 40", "epoch 80")
    assert Series.of(reports()[:2]).names == ("run 1", "run 2")
    assert Series.of(reports()[:2], names=["cnn", "vit"], steps=[3e5, 1e6]).names == ("cnn", "vit")
    for name, report in zip(("small", "large"), reports(), strict=False):
        report.save(tmp_path / f"{name}.json")
    assert Series.of([tmp_path / "small.json", str(tmp_path / "large.json")]).names == ("small", "large")


@pytest.mark.parametrize(
    "change",
    [
        {"steps": [1, 2]},
        {"steps": [1, 2, 2, 3]},
        {"steps": [1, 2, 3, math.inf]},
        {"steps": [1, 2, 3, math.nan]},
        {"names": ["a", "b"]},
        {"names": ["a", "b", "c", "a"]},
    ],
    ids=str,
)
def test_names_and_steps_are_one_a_run_and_all_different(change) -> None:
    with pytest.raises(InputError) as caught:
        series(**change)
    assert caught.value.code == "DV067"


@pytest.mark.parametrize("runs", [[], "run.json", Path("run.json")], ids=str)
def test_runs_are_a_list(runs) -> None:
    with pytest.raises(InputError, match="a list of reports"):
        Series.of(runs)
    with pytest.raises(InputError, match="a list of reports"):
        Series.of(reports()[0])


def test_rows_are_the_comparisons_with_their_steps() -> None:
    rows = series().rows()
    without = [{name: cell for name, cell in row.items() if name != "step"} for row in rows]
    assert repr(without) == repr(divulge.compare(*reports(), names=series().names).rows())  # == says NaN is not NaN
    assert [row["step"] for row in rows if row["metric"] == "score"] == [1, 10, 40, 80]
    assert all(math.isnan(row["step"]) for row in Series.of(reports()).rows())
    scores = [row["value"] for row in rows if row["metric"] == "score"]
    assert scores == [report.score.value for report in reports()] and scores == sorted(scores)


def test_with_evidence_the_runs_are_paired() -> None:
    given = [evidence(leak) for leak in LEAKS]
    paired = [row for row in series(evidence=given).rows() if row["metric"] == "score"][1]
    apart = [row for row in series().rows() if row["metric"] == "score"][1]
    assert (paired["pairing"], apart["pairing"]) == ("paired", "unpaired")
    assert paired["diff_high"] - paired["diff_low"] < apart["diff_high"] - apart["diff_low"]


def test_the_frame_holds_the_rows() -> None:
    frame = series().to_frame(backend="pandas")
    assert len(frame) == len(series().rows()) and list(frame["step"][:4]) == [1, 10, 40, 80]
    with pytest.raises(InputError):
        series().to_frame(backend="excel")


def test_one_run_is_a_series_without_a_comparison() -> None:
    one = Series.of(reports()[:1])
    assert len(one) == 1 and "'run 1'" in repr(one)
    with pytest.raises(InputError, match="two or more"):
        one.rows()
    with pytest.raises(Unavailable, match="two runs"):
        charts.over(one)


# --------------------------------------------------------------------------------------------------- the folder


def test_a_saved_series_loads_as_it_was(tmp_path) -> None:
    for at, own in enumerate((series(), series(names=["d", "c", "b", "a"]), Series.of(reports()))):
        own.save(tmp_path / f"deep/{at}")
        back = Series.load(tmp_path / f"deep/{at}")
        assert (back.names, back.steps, back.axis) == (own.names, own.steps, own.axis)
        assert texts(back) == texts(own)
        files = sorted(path.name for path in (tmp_path / f"deep/{at}").iterdir() if path.name != INDEX)
        assert [name[:5] for name in files] == ["0001-", "0002-", "0003-", "0004-"]


def test_saving_again_replaces_what_it_wrote_and_nothing_else(tmp_path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    reports()[0].save(tmp_path / "mine.json")
    series().save(tmp_path)
    first = set(tmp_path.iterdir())
    series().save(tmp_path)
    assert set(tmp_path.iterdir()) == first
    shorter = Series.of(reports()[2:], names=["x", "y"])
    shorter.save(tmp_path)
    assert Series.load(tmp_path).names == ("x", "y")
    assert len(list(tmp_path.iterdir())) == 5 and (tmp_path / "mine.json").exists()


def test_a_save_that_is_cut_short_leaves_the_earlier_series(tmp_path, monkeypatch) -> None:
    series().save(tmp_path)
    before = texts(Series.load(tmp_path))
    monkeypatch.setattr("divulge.series.write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Series.of(reports()[::-1]).save(tmp_path)
    assert texts(Series.load(tmp_path)) == before


def test_a_folder_of_run_files_loads_by_name(tmp_path) -> None:
    for name, report in zip("cab", reports(), strict=False):
        report.save(tmp_path / f"{name}.json")
    back = Series.load(tmp_path)
    assert back.names == ("a", "b", "c") and back.steps is None
    assert texts(back) == [reports()[at].to_json() for at in (1, 2, 0)]


def test_an_empty_or_missing_folder_is_an_error(tmp_path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            Series.load(folder)
        assert caught.value.code == "DV055"


RUN = {"file": "a.json", "name": "a", "step": 1}


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"schema": "other", "axis": "x", "runs": [RUN]}),
        json.dumps({"schema": SCHEMA, "axis": "x", "runs": []}),
        json.dumps({"schema": SCHEMA, "axis": "x", "runs": [{"file": "a.json"}]}),
        json.dumps({"schema": SCHEMA, "axis": "x", "runs": [{**RUN, "file": "../a.json"}]}),
        json.dumps({"schema": SCHEMA, "axis": "x", "runs": [{**RUN, "step": "one"}]}),
        json.dumps({"schema": SCHEMA, "axis": "x", "runs": [RUN, {**RUN, "name": "b", "step": None}]}),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, body) -> None:
    reports()[0].save(tmp_path / "a.json")
    (tmp_path / INDEX).write_text(body)
    with pytest.raises(InputError) as caught:
        Series.load(tmp_path)
    assert caught.value.code == "DV067"


def test_a_place_that_is_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError) as caught:
        series().save(tmp_path / "taken")
    assert caught.value.code == "DV035"


# --------------------------------------------------------------------------------------- the page, command line


def test_the_page_shows_the_picture_over_the_steps() -> None:
    page = series().to_html()
    assert page == series().to_html()
    question = "How does leakage change along the way"
    assert question in page and question not in series().comparison.to_html()
    assert page.count("epoch 80") > 3 and "<script" not in page


def test_divulge_compare_reads_a_series_folder_in_its_order_by_its_names(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = series(names=["late 4", "c", "b", "a <b>"], steps=(80, 40, 10, 1))
    own.save("runs")
    reports()[0].save("runs/stray.json")
    assert main(["compare", "runs", "--json", "-"]) == 0
    said = capsys.readouterr()
    assert [run["name"] for run in json.loads(said.out)["runs"]] == ["late 4", "c", "b", "a <b>"]
    assert "skipped runs/stray.json" in said.err and "series.json" not in said.err
    assert main(["compare", "runs", "--html", "page.html", "-q"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "How does leakage change along the way" in page and "a &lt;b&gt;" in page
    capsys.readouterr()
    assert main(["compare", "runs", "runs/stray.json", "--json", "-", "-q"]) == 0  # with others, by file
    names = [run["name"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert [name[:4] for name in names] == ["0001", "0002", "0003", "0004", "stra"]
    assert [len(found) for found in in_folder("runs")] == [4, 1]


def test_divulge_compare_pairs_a_series_with_evidence(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    series().save("runs")
    given = []
    for at, leak in enumerate(LEAKS):
        evidence(leak).save(f"{at}.npz")
        given += ["--evidence", f"{at}.npz"]
    assert main(["compare", "runs", "--json", "-", "-q", *given]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["runs"][1]["pairing"]["members"] == 400


# -------------------------------------------------------------------------------------------------- the picture


def drawn(chart: object) -> tuple[list[dict[str, object]], dict[str, object]]:
    spec = chart.to_dict()
    return [row for rows in spec["datasets"].values() for row in rows], spec


def test_the_picture_shows_score_and_accuracy_with_their_intervals() -> None:
    rows, spec = drawn(charts.over(series()))
    for metric in ("score", "nonmember_accuracy"):
        for report, step in zip(reports(), (1, 10, 40, 80), strict=True):
            value, low, high = report.estimate(metric)[:3]
            assert {"value": value, "low": low, "high": high, "step": step}.items() <= next(
                row for row in rows if row.get("step") == step and row["value"] == value
            ).items()
    assert [panel["layer"][-1]["encoding"]["x"]["title"] for panel in spec["vconcat"]] == ["epoch", "epoch"]
    assert {"value": 0.0, "word": "chance"} in rows
    assert "epoch 1 to" in spec["title"]["subtitle"][0] and "highest at epoch 80" in spec["description"]


def scale(**options: object) -> dict[str, object]:
    return drawn(charts.over(series(**options)))[1]["vconcat"][0]["layer"][-1]["encoding"]["x"].get("scale", {})


def test_noise_over_more_than_a_decade_is_logarithmic() -> None:
    wide = (0.1, 0.3, 1, 4)
    assert scale(steps=wide, axis="noise multiplier").get("type") == "log"
    assert scale(steps=wide, axis="ε at δ = 1e-5").get("type") == "log"
    assert scale(steps=wide, axis="epoch").get("type") != "log"
    assert scale(steps=(0.5, 1, 2, 4), axis="noise multiplier").get("type") != "log"
    assert scale(steps=(0, 0.3, 1, 4), axis="noise multiplier").get("type") != "log"


def test_many_runs_get_a_band_and_names_an_axis_of_their_own() -> None:
    def marks(found: Series) -> set[str]:
        return {layer["mark"]["type"] for panel in drawn(charts.over(found))[1]["vconcat"] for layer in panel["layer"]}

    many = Series.of(reports() * 4, steps=range(16), axis="epoch")
    assert "area" in marks(many) and "area" not in marks(series())
    assert "line" in marks(series()) and "line" not in marks(series(steps=None))


def test_without_labels_there_is_only_the_score() -> None:
    n = np.arange(400)
    own = [divulge.audit(divulge.Evidence(n < 200, signals={"x": np.sin(n * n) + d * (n < 200)})) for d in (0, 1)]
    _, spec = drawn(charts.over(Series.of(own, steps=[1, 2])))
    assert len(spec["vconcat"]) == 1 and "ccuracy" not in spec["description"]
