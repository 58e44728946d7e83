"""Exports: their keys, their sizes, and that no string of a text becomes HTML."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from interp.labels.book import read_jsonl
from interp.render import bars_svg, line_html
from interp.render.html import FORMULA, NUMBER
from interp.types import InterpError

KEYS = json.loads((Path(__file__).parent / "fixtures" / "peers" / "dashboard.json").read_text())


@pytest.fixture
def named(wb):
    wb.labels.set(3, 'three <script>alert(1)</script> "x"', author="<b>me</b>", note="=1+1")
    return wb


def test_a_batch_has_exactly_the_keys_that_sae_dashboards_classes_write(named, tmp_path):
    named.export("neuronpedia", tmp_path / "np")
    batch = json.loads((tmp_path / "np" / "batch-0.json").read_text())
    assert list(batch) == list(KEYS)
    for feature in batch["features"]:
        assert set(feature) == set(KEYS["features"][0])
        assert set(feature["activations"][0]) == set(KEYS["features"][0]["activations"][0])
    first = batch["features"][0]
    page = named.feature(first["feature_index"])
    assert sum(first["freq_hist_data_bar_heights"]) == page.fires
    assert first["frac_nonzero"] == pytest.approx(page.density)
    assert first["pos_str"] == [token for token, _ in page.promoted]
    top = [a for a in first["activations"] if a["bin_contains"] == -1]
    assert top[0]["bin_min"] == -1
    assert top[0]["bin_max"] == pytest.approx(page.max, rel=1e-3)
    assert sum(first["logits_hist_data_bar_heights"]) == len(named.index.vocabulary)
    middles = first["logits_hist_data_bar_values"]
    assert middles == sorted(middles)
    assert page.suppressed[0][1] < middles[0] < middles[-1] < page.promoted[0][1]
    for activation in first["activations"]:
        peak = activation["values"][activation["qualifying_token_index"]]
        low, high = (
            first["activations"][0][key] if activation["bin_contains"] == -1 else activation[key]
            for key in ("bin_min", "bin_max")
        )
        assert low - 2e-3 * high <= peak <= high * 1.002
        assert activation["values"][activation["qualifying_token_index"]] > 0
    skipped = json.loads((tmp_path / "np" / "skipped_indexes.json").read_text())
    exported = {feature["feature_index"] for feature in batch["features"]}
    assert set(skipped["skipped_indexes"]) == set(range(64)) - exported
    explained = [json.loads(line) for line in (tmp_path / "np" / "explanations.jsonl").read_text().splitlines()]
    assert [row["index"] for row in explained] == ["3"]


def test_no_export_writes_a_number_that_json_has_not(named, tmp_path, monkeypatch):
    """A logit that is no number, as a damaged model's would be, is null and neither NaN nor Infinity."""
    logits = named.index.features["promoted_logits"]
    broken = named.index.features.assign(promoted_logits=[x * float("inf") for x in logits])
    monkeypatch.setitem(vars(named.index), "features", broken)

    def refuse(word):
        raise AssertionError(word)

    for form in ("neuronpedia", "csv", "labels"):
        named.export(form, tmp_path / form)
    for path in [*tmp_path.rglob("*.json"), *tmp_path.rglob("*.jsonl")]:
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=refuse)
    batch = json.loads((tmp_path / "neuronpedia" / "batch-0.json").read_text())
    assert None in batch["features"][0]["pos_values"]
    with (tmp_path / "csv" / "features.csv").open() as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any("Infinity" in cell or "NaN" in cell for cell in cells)


class Reader(HTMLParser):
    """Every element with its attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_pages_hold_no_script_no_request_and_links_that_exist(named, tmp_path):
    lost = named.export("html", tmp_path / "pages", range(40))
    assert "need the dashboard" in lost[0]
    files = {path.name for path in (tmp_path / "pages").iterdir()}
    assert files == {"index.html", *(f"feature-{i}.html" for i in range(40))}
    for path in (tmp_path / "pages").iterdir():
        page = Reader(path.read_text(encoding="utf-8"))
        tags = {tag for tag, _ in page.elements}
        assert not tags & {"script", "img", "iframe", "link", "form", "object"}
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")]
            if tag == "a":
                assert attributes["href"] in files
            if tag == "meta" and "http-equiv" in attributes:
                assert attributes["content"].startswith("default-src 'none'")
        assert path.stat().st_size < 200_000
    shown = Reader((tmp_path / "pages" / "feature-3.html").read_text(encoding="utf-8"))
    assert "three <script>alert(1)</script>" in shown.text  # as text
    assert any("<script>" in Reader((tmp_path / "pages" / f).read_text(encoding="utf-8")).text for f in files)


def test_many_features_are_listed_in_pages_of_500(named, tmp_path, monkeypatch):
    from interp.exports import pages

    monkeypatch.setattr(pages, "LISTED", 10)
    named.export("html", tmp_path / "pages", range(25))
    lists = sorted(path.name for path in (tmp_path / "pages").glob("index*.html"))
    assert lists == ["index-1.html", "index-2.html", "index.html"]
    assert "feature-24.html" in (tmp_path / "pages" / "index-2.html").read_text()


def test_tables_hold_a_row_a_feature_and_a_row_an_example(named, tmp_path):
    named.export("csv", tmp_path / "csv", [3, 5])
    named.export("parquet", tmp_path / "parquet", [3, 5])
    features = pd.read_csv(tmp_path / "csv" / "features.csv")
    assert features["feature"].tolist() == [3, 5]
    assert features["automatic"].tolist() == [False, True]
    assert json.loads(features["promoted"][0]) == [token for token, _ in named.feature(3).promoted]
    examples = pd.read_parquet(tmp_path / "parquet" / "examples.parquet")
    assert len(examples) == sum(len(named.feature(f).examples) for f in (3, 5))
    assert examples["text"][0] == "".join(json.loads(examples["tokens"][0]))


def test_no_cell_of_a_csv_is_a_formula_and_numbers_stay_numbers(wb, tmp_path):
    hostile = ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\tx", "\rx", "＝1"]
    for feature, text in enumerate(hostile):
        wb.labels.set(feature, f"{text} ", author=text, note=text)
    wb.labels.set(9, "-1.5", author="+3e5", note="a=b")
    wb.export("csv", tmp_path / "csv", range(10))
    wb.export("labels", tmp_path / "labels")
    searched = tmp_path / "search.csv"
    searched.write_text(wb.search("labelled:yes").to_csv(), newline="")
    for path in [*tmp_path.glob("*/*.csv"), searched]:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                bad = [cell for cell in row if cell[:1] in FORMULA and cell[:1] and not NUMBER.fullmatch(cell)]
                assert not bad, (path, bad)
    table = pd.read_csv(tmp_path / "labels" / "labels.csv", dtype=str).set_index("feature")
    assert table.loc["0", "author"] == "'=1+1"
    assert (table.loc["9", "text"], table.loc["9", "author"], table.loc["9", "note"]) == ("-1.5", "+3e5", "a=b")


def test_exported_labels_are_read_back(named, tmp_path):
    named.export("labels", tmp_path / "l")
    (label,) = read_jsonl(tmp_path / "l" / "labels.jsonl")
    assert label == named.labels.get(3)


def test_an_unknown_format_a_feature_that_is_not_there_and_a_full_folder_are_answered(named, tmp_path):
    with pytest.raises(InterpError, match="did you mean neuronpedia"):
        named.export("neuronpedi", tmp_path / "x")
    with pytest.raises(InterpError, match="no feature 64"):
        named.export("html", tmp_path / "x", [64])
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "mine.txt").write_text("x")
    with pytest.raises(InterpError, match="exists already"):
        named.export("html", tmp_path / "y")
    assert not (tmp_path / "x").exists()


def test_a_line_shows_each_token_once_and_shades_those_with_a_value():
    shown = line_html(["a", "<b>", "\n"], [0.0, 2.0, 0.0], 2.0, peak=1)
    assert Reader(shown).text == "a<b>↵"
    assert len(re.findall("<b ", shown)) == 1
    assert "<u>" in shown
    assert 'title="2"' in shown


def test_a_histogram_has_a_bar_for_each_bin_that_is_not_empty():
    svg = bars_svg([0, 3, 0, 9], "two <bars>")
    assert svg.count("<rect") == 2
    assert "&lt;bars&gt;" in svg
    assert bars_svg([], "none").count("<rect") == 0
