"""The report of an SAE: sections of measures, kept as they are made, and read back as they were."""

import json
import re
import shutil
from dataclasses import asdict, replace

import pytest
import torch

from interp.checkpoint import Card
from interp.checkpoint.files import REPORT, check_content
from interp.corpus import open_corpus
from interp.evals import evaluate
from interp.evals.depths import class_curves, side_by_side, side_by_side_page
from interp.evals.figure import Figure, Section
from interp.evals.meaning import CLASSES
from interp.evals.measures import MEASURES, Measure, Setting, find_measures
from interp.evals.nulls import RANDOM_MODEL, ROWS, with_shuffled_rows
from interp.evals.page import page
from interp.evals.report import Of, Report, make_report, read_report
from interp.evals.told import markdown
from interp.models import Model
from interp.models.above import Above
from interp.render.sheet import HEAD
from interp.sae import SAE
from interp.types import Hook, InterpError
from interp.verification import verify
from interp.workbench import Workbench

CUTOFF = 1e9


@pytest.fixture(scope="module")
def blocks(store):
    return replace(store.blocks, tokens_NT=store.blocks.tokens_NT[:4], document_NT=store.blocks.document_NT[:4])


@pytest.fixture
def setting(tiny, sae, blocks):
    return Setting(model=tiny, sae=sae, blocks=blocks, norm_cutoff={str(sae.reads[0]): CUTOFF})


def test_the_section_of_fidelity_has_the_figures_of_evaluate(setting):
    (measure,) = find_measures(("fidelity",))
    section = measure.make(setting)
    assert section.name == measure.name
    found = evaluate(setting.model, setting.sae, setting.blocks, norm_cutoff=setting.norm_cutoff)
    for figure in section.figures:
        own = getattr(found, figure.name, None)
        if own is not None:
            assert figure.value == pytest.approx(own, rel=1e-6), figure.name
    assert section["fvu"].interval[0] < found.fvu < section["fvu"].interval[1]  # over documents, not over blocks
    assert section.of["tokens_sha256"] == setting.blocks.sha256()
    assert Section.from_dict(json.loads(json.dumps(section.to_dict()))) == section


def test_the_headline_names_figures_that_are_there(setting):
    """Of measures that need nothing but a model, an SAE and text."""
    (measure,) = find_measures(("fidelity",))
    assert set(measure.headline) <= {figure.name for figure in measure.make(setting).figures}


def test_a_section_that_no_measure_makes_is_refused():
    with pytest.raises(InterpError, match="'fidelty'.*fidelity"):
        find_measures(("fidelty",))
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_the_old_name_of_the_figures_of_fidelity_goes_on_working():
    import interp.evals

    with pytest.warns(DeprecationWarning, match="interp.evals.Report is now interp.evals.fidelity.Fidelity"):
        assert interp.evals.Report is interp.evals.Fidelity


# ---- the whole report ----


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def bench(checkpoint, tmp_path, home):
    shutil.copytree(checkpoint, tmp_path / "mine")
    return Workbench.open(tmp_path / "mine")


def counting(name: str, figures: tuple[Figure, ...], calls: list[str], version: int = 1) -> Measure:
    """A measure that says when it is made."""

    def make(setting: Setting) -> Section:
        calls.append(name)
        return Section(name=name, title=name.title(), figures=figures)

    return Measure(name=name, title=name.title(), version=version, make=make, headline=(figures[0].name,))


def failing(setting: Setting) -> Section:
    raise InterpError("the data set of it is not installed; `interp setup` installs it.")


ONE = Figure(name="a", says="share of a & <b>", value=0.25, interval=(0.2, 0.3), n=8, unit="documents", better="higher")
TWO = Figure(name="c", says="c in nats", value=1.5, interval=(1.0, 2.0), n=8, unit="documents", better="lower")
OF = Of(
    name="an | sae", model="tiny", model_sha256="m" * 64, sae_sha256="a" * 64, hook_name="blocks.3.hook_resid_post", d_sae=9,
    text={"name": "docs", "split": "heldout"}, tokens_sha256="t" * 64, positions=512, documents=7, seed=0,
)  # fmt: skip


def beside_null(z: float) -> Section:
    row = {
        "section": "one", "figure": "a", "null": "frozen decoder", "z": z, "null_mean": 0.2, "null_sd": 0.01, "null_n": 3, "note": "",
    }  # fmt: skip
    return Section(name="discrimination", title="Nulls", figures=(), rows=(row,))


def small(z: float | None = None) -> Report:
    sections = [Section(name="one", title="One", figures=(ONE,)), Section(name="two", title="Two", figures=(TWO,))]
    nulls = [] if z is None else [beside_null(z)]
    return Report(
        of=OF, sections=(*sections, *nulls), missing={"three": "its data set is not there."}, headline=("one.a", "two.c"),
        measured={"one": 1, "two": 1}, versions={"python": "3"},
    )  # fmt: skip


def test_a_killed_report_goes_on_and_a_section_of_another_version_text_or_seed_is_made_again(setting, tmp_path):
    calls: list[str] = []
    one, two = counting("one", (ONE,), calls), counting("two", (TWO,), calls)

    def stops(_: Setting) -> Section:
        raise KeyboardInterrupt

    def make(of, *measures):
        return make_report(of, setting, measures, tmp_path, named=False, versions={}, among=measures)

    with pytest.raises(KeyboardInterrupt):
        make(OF, one, replace(two, make=stops))
    whole = make(OF, one, two)
    assert calls == ["one", "two"]
    assert make(OF, one, two) == whole
    assert calls == ["one", "two"]
    make(OF, replace(one, version=2), two)
    make(replace(OF, tokens_sha256="u" * 64), one, replace(two, text=False))
    make(replace(OF, seed=1), one)
    make(replace(OF, sae_sha256="b" * 64), one)
    assert calls == ["one", "two", "one", "one", "two", "one", "one"]
    kept = next(tmp_path.glob("two-*.json"))
    for path in tmp_path.glob("one-*.json"):
        path.write_text(path.read_text()[:40], encoding="utf-8")
    assert make(OF, one, two).sections == whole.sections
    assert (calls[-1], kept.exists()) == ("one", True)


def test_a_section_that_came_with_the_sae_stays_where_it_cannot_be_made_here(setting, tmp_path):
    calls: list[str] = []
    one, two = counting("one", (ONE,), calls), counting("two", (TWO,), calls)

    def make(of, before, *measures, among):
        return make_report(of, setting, measures, tmp_path, named=False, versions={}, among=among, before=before)

    before = replace(small(), of=OF)
    unable = replace(two, make=failing)
    made = make(OF, before, one, unable, among=(one, unable))
    assert (made["two"], made.missing, made.measured) == (before["two"], {}, {"one": 1, "two": 1})
    assert make(OF, before, one, among=(one, two))["two"] == before["two"]  # nobody asked for it
    others = {"sae_sha256": "b" * 64, "model_sha256": "n" * 64, "seed": 1, "tokens_sha256": "u" * 64}
    for name, other in others.items():
        assert (
            "not installed"
            in make(replace(OF, **{name: other}), before, one, unable, among=(one, unable)).missing["two"]
        )
    newer = replace(unable, version=2)
    assert "not installed" in make(OF, before, newer, among=(newer,)).missing["two"]
    assert calls.count("two") == 0


def test_what_cannot_be_measured_is_said_first_and_refused_when_it_was_named(setting, tmp_path):
    calls: list[str] = []
    measures = (counting("one", (ONE,), calls), replace(counting("three", (TWO,), calls), make=failing))
    made = make_report(OF, setting, measures, tmp_path, named=False, versions={}, among=measures)
    assert "`interp setup`" in made.missing["three"]
    text = markdown(made)
    assert text.index("not installed") < text.index("## One")
    assert page(made).index("not installed") < page(made).index("</h2>")
    with pytest.raises(InterpError, match="data set"):
        make_report(OF, setting, measures, tmp_path, named=True, versions={}, among=measures)
    with pytest.raises(InterpError, match="no section three: the data set"):
        made["three"]


def test_a_figure_that_does_not_separate_is_marked_and_kept_out_of_the_headline():
    assert set(small().summary()) == {"one.a", "two.c"}
    assert set(small(12.0).summary()) == {"one.a", "two.c"}
    assert small(12.0).summary()["one.a"]["z"] == 12.0
    weak = small(2.9)
    assert set(weak.summary()) == {"two.c"}
    assert [f"{one.section}.{one.figure.name}" for one in weak.unseparated()] == ["one.a"]
    assert "z 2.9: does not separate" in markdown(weak)
    assert "z 2.9: does not separate" in page(weak)
    assert "does not separate" not in markdown(small(12.0))


def test_a_table_keeps_the_order_of_its_columns_through_its_file(tmp_path):
    rows = ({"place": "news", "ev": 0.5, "counted": 7},)
    made = replace(small(), sections=(Section(name="one", title="One", figures=(ONE,), rows=rows),))
    (tmp_path / "report.json").write_text(made.to_json(), encoding="utf-8")
    again = read_report(tmp_path / "report.json")
    assert list(again.sections[0].rows[0]) == ["place", "ev", "counted"]
    assert markdown(again) == markdown(made)


def test_a_report_comes_back_from_its_file_and_one_of_other_weights_or_format_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(small(12.0).to_json(), encoding="utf-8")
    assert read_report(path, "a" * 64) == small(12.0)
    with pytest.raises(InterpError, match="a report of other weights"):
        read_report(path, "b" * 64)
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"format": 99}), encoding="utf-8")
    with pytest.raises(InterpError, match="has format 99, and this version reads 1"):
        read_report(path)
    path.write_text(json.dumps(raw | {"of": {"name": "x"}}), encoding="utf-8")
    with pytest.raises(InterpError, match="was not written whole"):
        read_report(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InterpError, match="no report of an SAE"):
        read_report(path)


def test_the_page_needs_nothing_else_and_nothing_of_it_runs():
    made = page(small(12.0))
    assert made.startswith(HEAD)
    assert "<script" not in made
    assert not re.search(r'(src|href)="(?!#)', made)
    assert "share of a &amp; &lt;b&gt;" in made
    assert "<b>" not in markdown(small())
    assert made.count("<svg") == 2


def test_in_a_notebook_a_report_shows_its_headline_and_what_is_missing():
    made = small(2.9)._repr_html_()
    assert "c in nats" in made
    assert "share of a" not in made  # it does not separate, and the page says so
    assert "its data set is not there" in made
    assert "<b>" in small()._repr_html_()
    assert "&lt;b&gt;" in small()._repr_html_()
    assert "25.0%" in small()._repr_html_()


def test_the_report_of_an_sae_is_kept_sealed_verified_and_published(bench, text_folder, tmp_path, home):
    made = bench.report(open_corpus(text_folder), 2_048, beside=True)
    figures = asdict(bench.evaluate(open_corpus(text_folder), 2_048))
    assert made["fidelity"]["fvu"].value == pytest.approx(figures["fvu"], rel=1e-6)
    assert "evidence" in made.missing
    card = Card.read(bench.folder)
    assert set(REPORT) <= set(card.files)
    assert card.metrics["report"]["headline"] == json.loads(json.dumps(made.summary()))
    assert {check.verdict for check in verify(bench.folder).checks if "report" in check.what} == {"holds"}
    bench = Workbench.open(bench.folder)
    done = bench.publish(tmp_path / "out")
    assert "report" in done.carries
    assert read_report(tmp_path / "out" / "report.json", card.sae_sha256) == made
    assert verify(tmp_path / "out").verdict == "verified"
    edited = json.loads((tmp_path / "out" / "report.json").read_text())
    told = next(each for each in edited["sections"][0]["figures"] if each["name"] == "fvu")  # one of the headline's
    told["value"] = 0.001
    (tmp_path / "out" / "report.json").write_text(json.dumps(edited))
    assert {"file report.json", "report"} <= {check.what for check in verify(tmp_path / "out").differs}


def test_a_page_with_a_script_is_no_file_of_a_checkpoint(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(small()), encoding="utf-8")
    check_content("report.html", path)
    path.write_text("<html><script>alert(1)</script></html>", encoding="utf-8")
    with pytest.raises(InterpError, match="refusing scripts"):
        check_content("report.html", path)


def test_an_sae_that_does_not_fit_and_a_text_that_is_too_short_are_refused(bench, text_folder):
    with pytest.raises(InterpError, match="too few for an interval.*--tokens"):
        bench.report(open_corpus(text_folder), 256)
    with pytest.raises(InterpError, match="'fidelty'"):
        bench.report(open_corpus(text_folder), 1_024, only=("fidelty",))
    card = replace(bench.card, metrics={"held_out": {"fvu": 0.001}})
    other = Workbench(replace_weights(bench.sae), card, bench.folder, bench.labels)
    with pytest.raises(InterpError, match="unexplained here, and its card tells of 0% at most"):
        other.report(open_corpus(text_folder), 1_024)
    wide = Workbench(widened(bench.sae), bench.card, bench.folder, bench.labels)
    with pytest.raises(InterpError, match="reads vectors of length"):
        wide.report(open_corpus(text_folder), 1_024)


def replace_weights(sae: SAE) -> SAE:
    """One that explains nothing."""
    zero = torch.zeros_like(sae.W_dec)
    return SAE(
        W_enc=sae.W_enc, b_enc=sae.b_enc, W_dec=zero, b_dec=sae.b_dec * 0, threshold=sae.threshold, k=sae.k, reads=sae.reads,
        writes=sae.writes, centred=sae.centred,
    )  # fmt: skip


def widened(sae: SAE) -> SAE:
    width = sae.d_in + 1
    W = torch.zeros(width, 2)
    hook = Hook(sae.reads[0].name, width)
    return SAE(
        W_enc=W, b_enc=torch.zeros(2), W_dec=W.T, b_dec=torch.zeros(width), threshold=torch.zeros(2), reads=(hook,), writes=(hook,),
        centred=False,
    )  # fmt: skip


def test_saes_are_set_beside_one_another_by_figure_and_depth():
    def at(block: int, share: float) -> Report:
        shares = [
            Figure(name=name.replace("-", "_"), says="share", value=share, interval=(0, 1), n=9, unit="features") for name in CLASSES
        ]  # fmt: skip
        meaning = Section(name="meaning", title="Meaning", figures=tuple(shares))
        of = replace(OF, hook_name=f"blocks.{block}.hook_resid_post")
        return replace(small(), of=of, sections=(*small().sections, meaning))

    late, early = at(25, 0.75), at(5, 0.25)
    rows = {(section, name): values for section, name, _, *values in side_by_side([late, early, small()])}
    assert rows["meaning", "token"] == ["75.0% (0.0% to 100.0%)", "25.0% (0.0% to 100.0%)", ""]
    assert rows["two", "c"] == ["1.5 (1 to 2)"] * 3
    assert [(point.x, point.y) for point in class_curves([late, early])["next-token"]] == [(5.0, 25.0), (25.0, 75.0)]
    assert "block" in side_by_side_page([late, early])


def test_saes_measured_together_share_the_untouched_pass_and_get_what_each_gets_alone(setting, monkeypatch):
    measure = find_measures(("fidelity",))[0]
    saes = tuple(with_shuffled_rows(setting.sae, n) for n in (0, 1))
    alone = [measure.make(replace(setting, sae=each, rows=[], baselines=[])) for each in saes]
    ran = []
    for kind, name in ((Model, "run"), (Above, "logits")):
        real = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *a, real=real, **k: (ran.append(1), real(self, *a, **k))[1])
    shared = replace(setting, baselines=[], together=saes, losses={}, null=ROWS)
    first = measure.make(replace(shared, sae=saes[0], rows=[]))
    there = len(ran)
    second = measure.make(replace(shared, sae=saes[1], rows=[]))
    assert there > len(ran) - there == 0
    assert [one.figures for one in (first, second)] == [one.figures for one in alone]
    assert not shared.losses
    # Losses of a random-weight model are no measure for another's, so no pass is run for them.
    bare = measure.make(replace(shared, sae=saes[0], rows=[], null=RANDOM_MODEL))
    assert len(ran) == there
    assert bare["fvu"] == first["fvu"]
    assert "kl" not in {one.name for one in bare.figures}


def test_every_figure_is_held_against_saes_that_found_nothing(bench, text_folder, tmp_path):
    folder = tmp_path / "twins"
    for kind in ("trained", "frozen"):
        for seed in (0, 1):
            shutil.copytree(bench.folder, folder / kind / f"seed-{seed}", ignore=shutil.ignore_patterns("index"))
    made = bench.report(open_corpus(text_folder), 1_024, only=("fidelity", "discrimination"), nulls=str(folder))
    rows = {(row["figure"], row["null"]): row for row in made["discrimination"].rows if row["section"] == "fidelity"}
    assert {null for _, null in rows} == {"frozen decoder", "shuffled codes", "shuffled rows"}
    shuffled = rows["fvu", "shuffled codes"]
    assert shuffled["null_mean"] > 1 > shuffled["trained"] > 0
    # The same SAE twice: no seed differs, so there is nothing to measure z by.
    assert rows["fvu", "frozen decoder"]["z"] is None
    assert rows["fvu", "frozen decoder"]["null_mean"] == shuffled["trained"]
    assert shuffled["z"] > 3
    with pytest.raises(InterpError, match="has no checkpoints in trained/"):
        bench.report(open_corpus(text_folder), 1_024, only=("discrimination",), nulls=str(tmp_path / "none"))
    with pytest.raises(InterpError, match="smollm2_nulls.py"):
        bench.report(open_corpus(text_folder), 2_048, only=("discrimination",))
