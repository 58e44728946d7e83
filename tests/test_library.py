import shutil
import threading
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from interp import workbench
from interp.checkpoint.files import below, called, resolve
from interp.library import library
from interp.types import InterpError
from interp.workbench import EMBEDDED, Workbench
from tests.conftest import HOOK, PICTURES, ROOT, SHIPPED


@pytest.fixture
def shelf(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    shutil.copytree(checkpoint, tmp_path / "saes" / "b" / "tiny")
    shutil.copytree(checkpoint, tmp_path / "saes" / "plain", ignore=shutil.ignore_patterns("card.json", "index"))
    (tmp_path / "saes" / "broken").mkdir()
    (tmp_path / "saes" / "broken" / "cfg.json").write_text("{")
    return tmp_path / "saes"


def test_every_checkpoint_is_listed_and_a_broken_one_says_why(shelf):
    tiny, broken, plain = library(shelf)
    assert (tiny.name, tiny.hook, tiny.features, tiny.indexed) == ("tiny", HOOK, 64, 8192)
    assert tiny.mib > 0
    assert "has no sae_weights.safetensors" in broken.problem
    assert (plain.name, plain.hook, plain.problem) == ("plain", HOOK, "")


def test_folders_that_come_and_go_meanwhile_are_passed_over(tmp_path):
    (tmp_path / "stays").mkdir()
    (tmp_path / "stays" / "cfg.json").write_text("{")
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            for number in range(8):
                (tmp_path / f"goes{number}" / "a").mkdir(parents=True)
            for number in range(8):
                shutil.rmtree(tmp_path / f"goes{number}")

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(300):
            assert below(tmp_path) == [tmp_path / "stays"]
    finally:
        over.set()
        other.join()


def test_labels_and_figures_of_the_card_are_shown(shelf):
    Workbench.open(shelf / "b" / "tiny").labels.set(3, "three")
    assert library(shelf)[0].labels == 1
    (shown,) = [entry for entry in library(ROOT / "saes") if "batchtopk-9216" in entry.name]
    assert shown.l0 == pytest.approx(32.0, abs=0.1)
    assert shown.ev == pytest.approx(0.867, abs=1e-3)
    assert shown.delta_ce == pytest.approx(0.090, abs=1e-3)


def test_a_verdict_is_remembered_until_a_file_changes(shelf):
    tiny = shelf / "b" / "tiny"
    assert library(shelf)[0].verified == "not verified"
    workbench.verify(tiny, numbers=False)
    assert library(shelf)[0].verified.startswith("files only 2")
    (tiny / "labels.jsonl").write_text("")
    assert library(shelf)[0].verified.startswith("changed since 2")


def test_from_any_folder_the_shipped_sae_is_listed_and_opened_by_a_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [entry.name for entry in library()] == [PICTURES, *SHIPPED]
    names = ["batchtopk-9216", "blocks.15.hook_resid_post/batchtopk-9216", EMBEDDED, EMBEDDED.removeprefix("saes/")]
    assert {resolve(name).resolve() for name in names} == {(ROOT / EMBEDDED).resolve()}
    with pytest.raises(InterpError, match=r"batchtopk-4608 is the name of several SAEs: .*blocks\.5\.hook"):
        resolve("batchtopk-4608")
    assert called(ROOT / EMBEDDED, EMBEDDED.removeprefix("saes/")) == EMBEDDED.removeprefix("saes/")
    assert called(ROOT / EMBEDDED, "mine") == str(ROOT / EMBEDDED), "a name that leads nowhere"
    assert called(ROOT / EMBEDDED, SHIPPED[0]) == str(ROOT / EMBEDDED), "a name that leads elsewhere"
    assert resolve("blocks.5.hook_resid_post/batchtopk-4608").is_dir()


def test_a_short_name_of_several_saes_is_refused_and_one_here_goes_with_those_shipped(shelf, monkeypatch):
    monkeypatch.chdir(shelf.parent)
    shutil.copytree(shelf / "b" / "tiny", shelf / "a" / "tiny")
    with pytest.raises(InterpError, match=r"tiny is the name of several SAEs: saes/a/tiny, saes/b/tiny"):
        resolve("tiny")
    assert resolve("b/tiny") == Path("saes/b/tiny")
    assert {"tiny", PICTURES, *SHIPPED} <= {e.name for e in library()}
    with pytest.raises(InterpError, match="there is no SAE at iny"):
        resolve("iny")


def test_a_folder_that_is_not_there_is_answered_in_a_sentence(tmp_path):
    with pytest.raises(InterpError, match="there is no folder"):
        library(tmp_path / "nowhere")


def test_the_page_shows_the_embedded_sae_and_links_to_it(monkeypatch):
    from tests.test_ui import run

    monkeypatch.chdir(ROOT)
    app = run("library")
    links = [link.proto for link in app.get("page_link")]
    for name in (PICTURES, *SHIPPED):
        folder = quote_plus(str((ROOT / "saes" / name).resolve()))
        assert any(link.query_string == f"sae={folder}" for link in links), name
    assert "is not in the folders that these pages were given" in run("library", root="/nowhere").error[0].value
