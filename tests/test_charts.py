"""The pictures: each can be saved, carries its words, shows the report's own numbers, and can do without colour."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pytest

import divulge
import reports
from divulge import charts
from divulge.charts import crowd, look
from divulge.charts.curves import measured_from, thinned
from divulge.charts.single import _ticks
from divulge.comparison import Comparison, compare
from divulge.report import Report, table_of
from divulge.series import Series
from divulge.slices import EVERYONE

OF_RUNS = {"baseline", "rocs", "runs", "tradeoff"}
QUESTION = {"rocs": "roc"}  # a picture that answers another's question


@cache
def runs(count: int = 3) -> Comparison:
    audits = [reports.outputs_report(0.4 * at, n=300, controls=()) for at in range(count)]
    return compare(*audits, names=[f"noise {count - at}" for at in range(count)])


def drawn(name: str) -> Any:
    if name == "over":
        return charts.over(Series.of(runs().reports, steps=[0.1, 1, 10], axis="noise"))
    if name == "reliability":
        member = np.arange(400) < 200
        scores = np.random.default_rng(0).normal(size=400) + member
        return charts.reliability(divulge.membership_probability(divulge.Evidence(member, signals={"loss": scores})))
    return getattr(charts, name)(runs() if name in OF_RUNS else reports.leaking())


def values(chart: Any) -> list[dict[str, Any]]:
    """Every row of a chart's own data."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def rows_with(chart: Any, *keys: str) -> list[dict[str, Any]]:
    return [row for row in values(chart) if set(keys) <= set(row)]


# ------------------------------------------------------------------------------------------------------ every one


@pytest.mark.parametrize("name", charts.__all__)
def test_a_chart_can_be_saved_and_carries_its_words(name, tmp_path) -> None:
    chart = drawn(name)
    assert isinstance(chart, alt.TopLevelMixin)
    for form, start in (("svg", b"<svg"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("json", b"{")):
        path = tmp_path / f"{name}.{form}"
        chart.save(path, **({"scale_factor": 0.3} if form == "png" else {}))
        assert path.read_bytes().startswith(start)
    spec = chart.to_dict()
    assert spec["title"]["text"] == look.QUESTIONS[QUESTION.get(name, name)]
    sentence = " ".join(spec["title"]["subtitle"])
    assert sentence.endswith(".") and len(sentence) > 30
    assert spec["description"].startswith(sentence[:30])
    for text in (sentence, spec["description"]):
        assert not re.search(r"\bnan\b|\bNone\b|\binf\b|\[\]|  ", text)


@pytest.mark.parametrize("name", charts.__all__)
def test_a_chart_has_no_colour_of_its_own(name) -> None:
    import vl_convert

    svg = vl_convert.vegalite_to_svg(drawn(name).to_dict())
    found = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg)) - {"none", "transparent"}
    assert found <= set(look.PALETTE.values())
    assert len(found) > 2


@pytest.mark.parametrize("name", charts.__all__)
def test_a_chart_can_be_restyled(name) -> None:
    chart = drawn(name).configure(background="#123456").properties(title="Mine")
    assert chart.to_dict()["title"] == "Mine" and chart.to_dict()["config"]["background"] == "#123456"


def test_every_question_is_asked_by_a_picture() -> None:
    assert set(look.QUESTIONS) == {QUESTION.get(name, name) for name in charts.__all__}


# ------------------------------------------------------------------------------------------------- its own numbers


def test_the_roc_is_the_curve_of_each_attack_with_the_bests_band() -> None:
    report = reports.leaking()
    curve = {(row["attack"], row["fpr"], row["tpr"]): row for row in report.rows("curve")}
    floor = 0.001
    names = {row["attack"] for row in report.rows("curve")}
    shown = rows_with(charts.roc(report), "curve")
    assert {row["curve"] for row in shown} == names
    raised = {(a, max(f, floor), max(t, floor)): row for (a, f, t), row in curve.items()}
    for row in shown:
        point = raised[row["curve"], row["fpr"], row["tpr"]]
        assert (row["low"], row["high"]) == (max(point["low"], floor), max(point["high"], floor))
    for name in names:
        ends = [row["fpr"] for row in shown if row["curve"] == name]
        assert max(ends) == 1.0 and len(ends) > 30
    grey = rows_with(charts.roc(report), "to")
    assert {row["to"] for row in grey} == {measured_from(report)} == {0.01}


def test_it_is_grey_as_far_as_the_report_measures_nothing() -> None:
    for report in (reports.loss_only(), reports.sliced(), reports.leaking()):
        limit = measured_from(report)
        tprs = [row for row in report.rows("results") if row["metric"] == "tail_tpr"]
        assert any(row["reason"] for row in tprs) or limit <= min(row["fpr"] for row in tprs)
        for row in tprs:
            assert (row["fpr"] <= limit) if row["reason"] else (row["fpr"] >= limit)


def test_thinning_keeps_both_ends_and_the_order() -> None:
    fpr = np.sort(np.random.default_rng(0).random(5000))
    rows = [{"fpr": float(x), "tpr": float(x) ** 0.5} for x in (*fpr, 1.0)]
    kept = thinned(rows, 1e-3)
    assert len(kept) <= 91 and kept[-1] is rows[-1]
    assert [row["fpr"] for row in kept] == sorted(row["fpr"] for row in kept)
    assert kept[0]["fpr"] < 0.0015


@pytest.mark.parametrize("attack", [None, "modified_entropy"])
def test_the_distributions_are_the_shares_of_each_side(attack) -> None:
    report = reports.leaking()
    name = attack or "loss"
    bins = [row for row in report.rows("distribution") if row["attack"] == name]
    shown = rows_with(charts.distributions(report, attack), "share")
    for side, key in (("members", "members"), ("non-members", "nonmembers")):
        shares = [row["share"] for row in sorted(shown, key=lambda row: row["at"]) if row["side"] == side]
        assert sum(shares[:-1]) == pytest.approx(1) and shares[-1] == shares[-2]
        assert shares[:-1] == pytest.approx([row[key] / sum(r[key] for r in bins) for row in bins])


def ends(rows: list[dict[str, Any]], *keys: str) -> set[tuple[Any, ...]]:
    return {tuple(row[key] for key in keys or ("value", "low", "high")) for row in rows}


def test_the_attacks_are_the_aucs_and_the_control() -> None:
    report = reports.invalid()
    aucs = [row for row in report.rows("results") if row["metric"] == "auc" and row["slice"] == EVERYONE]
    shift = [row for row in report.rows("controls") if row["control"] == "shift"]
    shown = rows_with(charts.attacks(report), "name", "value")
    assert ends(shown) == ends(aucs) | ends(shift)
    assert {row["kind"] for row in shown if row["value"] == 0.9} == {"control"}


@pytest.mark.parametrize("worst", [1, 30])
def test_the_slices_are_the_scores_with_the_highest_lower_ends(worst) -> None:
    report = reports.sliced()
    scores = [row for row in report.rows("results") if row["metric"] == "score" and row["slice"] != EVERYONE]
    first = sorted(scores, key=lambda row: -row["low"])[:worst]
    chart = charts.slices(report, worst)
    shown = rows_with(chart, "name", "value")
    assert ends(shown, "name", "value", "low", "high") == ends(first, "slice", "value", "low", "high")
    said = chart.to_dict()["description"]
    assert f"{sum(row['low'] > 0 for row in scores)} of 1,000 slices" in said
    assert f"The picture shows the {worst} with the highest" in said


def test_the_gates_are_the_figures_against_their_limits() -> None:
    report = reports.leaking()
    chart = charts.gates(report)
    gates = report.rows("gates")
    assert ends(rows_with(chart, "limit"), "limit", "value", "low", "high") == ends(
        gates, "limit", "value", "low", "high"
    )
    titles = [part["title"]["subtitle"].split(":")[0] for part in chart.to_dict()["vconcat"]]
    assert titles == sorted(("✗ FAIL" if row["outcome"] == "FAIL" else "✓ PASS" for row in gates), reverse=True)


def test_the_records_are_the_bands() -> None:
    report = reports.leaking()
    rows = report.rows("bands")
    shown = rows_with(charts.records(report), "name", "value")
    assert ends(shown) == ends(rows, "probability", "low", "high")
    shares = [float(re.search(r": ([\d.]+) % of members", row["name"])[1]) for row in shown]
    assert sum(shares[: len(rows)]) == pytest.approx(100, abs=0.3)


def test_several_runs_are_the_comparisons_figures() -> None:
    rows = runs().rows()
    shown = ends(rows_with(charts.runs(runs()), "name", "value"))
    for metric in ("score", "tail_lift", "auc"):
        wanted = [row for row in rows if row["metric"] == metric and not math.isnan(row["value"])]
        assert wanted and ends(wanted) <= shown
    points = rows_with(charts.tradeoff(runs()), "score", "accuracy", "low", "left")
    for metric, keys in (("score", ("score", "low", "high")), ("nonmember_accuracy", ("accuracy", "left", "right"))):
        assert ends(points, *keys) == ends([row for row in rows if row["metric"] == metric])
    both = compare(reports.sound(), reports.leaking(), names=("baseline", "this run"))
    changed = next(row["difference"] for row in both.rows() if row["metric"] == "score" and row["run"] == "this run")
    assert f"this run: the score differs by +{changed:.3f} " in charts.baseline(both).to_dict()["description"]


def test_only_five_curves_are_drawn_and_it_says_so() -> None:
    several = runs(7)
    chart = charts.rocs(several)
    assert {row["curve"] for row in rows_with(chart, "curve")} == set(several.names[:5])
    assert "The first 5 of 7 runs" in chart.to_dict()["description"]
    assert "The first" not in charts.rocs(runs()).to_dict()["description"]


def test_runs_that_are_called_alike_when_cut_are_told_apart() -> None:
    own = reports.sound()
    both = compare(own, own, names=["z" * 500, "z" * 501])
    for chart in (charts.rocs(both), charts.runs(both), charts.tradeoff(both)):
        names = {row.get("curve") or row.get("name") or row.get("run") for row in values(chart)} - {None}
        assert len(names) == 2


# --------------------------------------------------------------------------------------------------------- people


@pytest.mark.parametrize("of", [reports.leaking, reports.sound, reports.sliced])
def test_the_people_are_1000_and_named_at_the_attackers_rates(of) -> None:
    report = of()
    tail = report.tail
    shown = rows_with(charts.people(report), "crowd")
    found = crowd.crowds(report)
    assert [one.members for one in found] == [500, 100, 10]
    for one in found:
        icons = [row for row in shown if row["crowd"].startswith(f"{one.members} of")]
        kinds = [row["kind"] for row in icons]
        assert len(icons) == len({(row["x"], row["y"]) for row in icons}) == 1000
        named, wrongly = kinds.count("member, named"), kinds.count("not a member, named")
        assert named + kinds.count("member, not named") == one.members
        assert named == pytest.approx(one.members * tail.tpr.value, abs=0.5)
        assert wrongly == pytest.approx((1000 - one.members) * tail.fpr, abs=0.5)
        right = one.prior * tail.lift.value / (one.prior * tail.lift.value + 1 - one.prior)
        assert one.right == pytest.approx(right) and one.low <= one.right <= one.high


# --------------------------------------------------------------------------------------------------------- absent


def without(report: Report, *names: str) -> Report:
    return replace(report, tables={name: table for name, table in report.tables.items() if name not in names})


def without_aucs() -> Report:
    own = reports.loss_only()
    rows = [row for row in own.rows("results") if row["metric"] in ("score", "tail_tpr", "tail_lift")]
    return replace(own, tables={**own.tables, "results": table_of("results", rows)})


ABSENT = {
    "people": (reports.loss_only, "not measurable: needs 200 non-members at FPR 0.05, has 150"),
    "gates": (reports.loss_only, "there is no policy"),
    "slices": (reports.loss_only, "no slice was asked for"),
    "roc": (lambda: without(reports.leaking(), "curve"), "no ROC curve"),
    "distributions": (lambda: without(reports.leaking(), "distribution"), "no distribution of scores of 'loss'"),
    "records": (lambda: without(reports.leaking(), "bands"), "an older run file"),
    "attacks": (without_aucs, "no AUC was asked for"),
    "tradeoff": (lambda: compare(reports.loss_only(), reports.loss_only()), "needs two runs or more with a valid test"),
    "rocs": (lambda: compare(*[without(reports.leaking(), "curve")] * 2), "no run holds a ROC curve"),
}


@pytest.mark.parametrize("name", ABSENT)
def test_what_a_report_does_not_carry_is_said(name) -> None:
    of, why = ABSENT[name]
    with pytest.raises(divulge.Unavailable, match=re.escape(why)):
        getattr(charts, name)(of())


def test_of_an_invalid_test_no_people_are_drawn() -> None:
    with pytest.raises(divulge.Unavailable, match="cannot be trusted"):
        charts.people(reports.invalid())


def test_an_unknown_attack_has_no_distribution() -> None:
    with pytest.raises(divulge.Unavailable, match="distribution of scores of 'lira'"):
        charts.distributions(reports.leaking(), "lira")


# --------------------------------------------------------------------------------------------------------- colour

SERIES = ("member", "other", "third", "fourth", "ink", "muted")
APART = 11  # least distance of two series' colours in CIELAB (1976), in every way of seeing; 2.3 is just noticeable
SEEING = {
    # Of linear RGB, severity 1. Source: Machado, Oliveira, Fernandes, A physiologically-based model for simulation of
    # color vision deficiency, IEEE TVCG 15(6), 2009, table 1.
    "trichromat": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanope": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranope": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanope": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


@cache
def palettes() -> dict[str, dict[str, str]]:
    """The colours of the style sheet in light and dark, by name."""
    sheet = Path(charts.__file__).parents[1] / "reporters" / "templates" / "style.css"
    rules = re.findall(r"\.divulge\{(--page[^}]*)\}", sheet.read_text(encoding="utf-8"))
    found = [dict(re.findall(r"--(\w+):(#[0-9a-f]{6})\b", rule)) for rule in rules]
    return {"light": found[0], "dark": found[1]}


def lab(color: str, seeing: str) -> np.ndarray:
    """A colour in CIELAB (D65), as somebody sees it."""
    srgb = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SEEING[seeing]) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ seen / (0.95047, 1.0, 1.08883)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_the_distance_of_colours_is_the_textbooks() -> None:
    assert lab("#ffffff", "trichromat") == pytest.approx([100, 0, 0], abs=0.02)
    assert lab("#ff0000", "trichromat") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    red, green = lab("#a06000", "deuteranope"), lab("#608000", "deuteranope")
    assert np.linalg.norm(red - green) < np.linalg.norm(lab("#a06000", "trichromat") - lab("#608000", "trichromat")) / 2


@pytest.mark.parametrize("seeing", SEEING)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_series_are_told_apart_by_every_eye(mode, seeing) -> None:
    palette = palettes()[mode]
    distances = {
        pair: np.linalg.norm(lab(palette[pair[0]], seeing) - lab(palette[pair[1]], seeing))
        for pair in combinations(SERIES, 2)
    }
    assert min(distances.values()) >= APART, min(distances, key=distances.__getitem__)


def test_the_page_has_the_pictures_colours() -> None:
    light, dark = palettes()["light"], palettes()["dark"]
    assert {name: light[name] for name in look.PALETTE} == look.PALETTE
    assert set(dark) == set(light) and not set(dark.values()) & set(light.values())
    assert [look.PALETTE[name] for name in SERIES] == list(look.SERIES)


def test_series_differ_by_dash_or_shape_as_well() -> None:
    assert len({tuple(dash) for dash in look.DASHES}) == len(look.DASHES) == len(look.SERIES)
    assert len(set(look.SHAPES)) == len(look.SHAPES) == len(look.SERIES)
    for chart, channel in (
        (charts.roc(reports.leaking()), "strokeDash"),
        (charts.rocs(runs()), "strokeDash"),
        (charts.people(reports.leaking()), "shape"),
        (charts.attacks(reports.invalid()), "shape"),
        (charts.tradeoff(runs()), "shape"),
        (charts.runs(runs()), "shape"),
    ):
        encodings = [found for found in encoded(chart.to_dict()) if "scale" in found.get("color", {})]
        assert encodings
        marked = [found for found in encodings if channel in found]
        assert marked
        for found in marked:
            assert found[channel]["scale"]["domain"] == found["color"]["scale"]["domain"]
            ways = [str(way) for way in found[channel]["scale"]["range"]]
            assert len(set(ways)) == len(ways)


def encoded(spec: Any) -> Iterator[dict[str, Any]]:
    if isinstance(spec, dict):
        if "encoding" in spec:
            yield spec["encoding"]
        for part in spec.values():
            yield from encoded(part)
    elif isinstance(spec, list):
        for part in spec:
            yield from encoded(part)


def test_the_gates_that_are_shown_are_the_nearest_to_their_limits() -> None:
    own = reports.outputs_report(0.0, controls=())
    high = own.estimate("advantage", attack="loss").high
    judged = own.judged(
        divulge.Policy.from_mapping({"gate": {"score": {"max": 0.9}, "advantage": {"max": high + 0.05}}})
    )
    rows = judged.rows("gates")
    assert [row["outcome"] for row in rows] == ["PASS", "PASS"]
    many = divulge.report.table_of("gates", [rows[0]] * 13 + [rows[1]])
    told = charts.gates(replace(judged, tables={**judged.tables, "gates": many})).to_dict()["description"]
    assert "14 PASS" in told and "Shown are the worst 12. advantage" in told


@pytest.mark.parametrize("worst", [0, -1])
def test_a_number_of_slices_below_one_is_refused(worst) -> None:
    with pytest.raises(divulge.InputError) as error:
        charts.slices(reports.leaking(), worst=worst)
    assert error.value.code == "DV061"


def test_ticks_of_a_distribution_stand_where_they_say() -> None:
    edges = np.linspace(-0.73, 0.47, 37).tolist()
    ticks = _ticks(edges)
    assert list(ticks.values()) == ["-0.6", "-0.4", "-0.2", "0", "0.2", "0.4"]
    assert np.allclose(
        [np.interp(at, np.arange(1, 38), edges) for at in ticks], [float(text) for text in ticks.values()]
    )
    uneven = [1.0, 10.0, 100.0, 1000.0]
    assert _ticks(uneven) == {1: "1", 2: "10", 3: "1e+02", 4: "1e+03"}
    assert _ticks([]) == {} and _ticks([0.5]) == {1: "0.5"}
