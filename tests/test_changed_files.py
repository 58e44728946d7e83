"""A text or pictures that changed under the same name are not what was harvested, indexed or trained on."""

import json
import shutil

import pytest
import torch

from interp import places
from interp.activations import ActivationStore, harvest, stream
from interp.activations.together import StoresTogether
from interp.corpus import open_corpus
from interp.index import IndexConfig, build_index
from interp.models import open_model
from interp.recipe import train_checkpoint
from interp.sae import SAE
from interp.training import TrainConfig
from interp.types import InterpError
from tests.conftest import HOOK
from tests.families import WIDTH, pictures, save_media, sentences

LAYER = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return open_model(str(save_media("vit", tmp_path_factory.mktemp("vit") / "vit")), dtype="float32")


def texts(folder, changed=""):
    folder.mkdir(exist_ok=True)
    for i, text in enumerate(sentences(40)):
        (folder / f"{i:02}.txt").write_text(changed if changed and i == 7 else text, encoding="utf-8")
    return folder


def test_a_harvest_of_texts_that_changed_is_refused(tiny, tmp_path):
    folder = texts(tmp_path / "docs")
    harvest(tiny, open_corpus(folder), [HOOK], 100_000, tmp_path / "acts")
    assert harvest(tiny, open_corpus(folder), [HOOK], 100_000, tmp_path / "acts").positions > 1_000  # the same files
    texts(folder, changed="the river reads a paper of another winter")
    with pytest.raises(InterpError, match=r"harvested from .*docs.* before its files changed: .*07\.txt.*--restart"):
        harvest(tiny, open_corpus(folder), [HOOK], 100_000, tmp_path / "acts")
    assert ActivationStore.open(tmp_path / "acts").positions  # what is there can be used as it is
    harvest(tiny, open_corpus(folder), [HOOK], 100_000, tmp_path / "acts", restart=True)


@pytest.mark.parametrize("change", ["fewer", "more"])
def test_files_that_are_gone_or_new_are_a_change(tiny, tmp_path, change):
    folder = texts(tmp_path / "docs")
    harvest(tiny, open_corpus(folder), [HOOK], 100_000, tmp_path / "acts")
    if change == "fewer":
        (folder / "11.txt").unlink()
    else:
        (folder / "99.txt").write_text("a house near the city", encoding="utf-8")
    with pytest.raises(InterpError, match="before its files changed"):
        harvest(tiny, open_corpus(folder), [HOOK], 100_000, tmp_path / "acts")


def test_a_harvest_of_pictures_that_changed_is_refused_and_one_of_the_same_goes_on(vit, tmp_path, capsys):
    folder = pictures(tmp_path / "p", 6)
    (folder / "broken.png").write_bytes(b"no picture")  # which is left out each time
    harvest(vit, open_corpus(folder), [LAYER], 1_000, tmp_path / "acts")
    harvest(vit, open_corpus(folder), [LAYER], 1_000, tmp_path / "acts")
    one, two = sorted(folder.rglob("*.png"))[-2:]
    shutil.copy(two, one)
    with pytest.raises(InterpError, match=f"before its files changed: .*{one.name}"):
        harvest(vit, open_corpus(folder), [LAYER], 1_000, tmp_path / "acts")


def test_pictures_of_as_many_places_are_not_the_same_to_a_recipe(vit, tmp_path):
    """The numbers of their places are the same, whatever they show."""
    one, two = (pictures(tmp_path / name / "p", 6, seed=seed) for name, seed in (("a", 0), ("b", 1)))
    sources = [stream(vit, open_corpus(folder), [LAYER], 300) for folder in (one, two)]
    assert sources[0].blocks.sha256() == sources[1].blocks.sha256()
    assert sources[0].blocks.items_sha256() != sources[1].blocks.items_sha256()
    how = {"d_sae": 64, "k": 4, "batch": 32, "config": TrainConfig(lr=1e-3)}
    train_checkpoint(sources[0], LAYER, tmp_path / "sae", **how)
    train_checkpoint(sources[0], LAYER, tmp_path / "sae", **how)  # there already
    with pytest.raises(InterpError, match="items_sha256"):
        train_checkpoint(sources[1], LAYER, tmp_path / "sae", **how)
    card = json.loads((tmp_path / "sae" / "card.json").read_text())
    del card["corpus"]["items_sha256"]  # as cards of before are
    places.write_json(tmp_path / "sae" / "card.json", card)
    train_checkpoint(sources[0], LAYER, tmp_path / "sae", **how)


def test_pictures_of_as_many_places_are_not_the_same_to_an_index(vit, tmp_path):
    one, two = (pictures(tmp_path / name / "p", 6, seed=seed) for name, seed in (("a", 0), ("b", 1)))
    stores = [harvest(vit, open_corpus(f), [LAYER], 300, tmp_path / f"acts-{f.parent.name}") for f in (one, two)]
    eye = torch.eye(WIDTH)
    sae = SAE(W_enc=eye, b_enc=torch.zeros(WIDTH), W_dec=eye, b_dec=torch.zeros(WIDTH), k=4, reads=LAYER, name="eye")
    into, config = tmp_path / "index", IndexConfig(only_missing=True)

    def built(store):
        build_index(sae, store, vit, into, config, norm_cutoff=1e9)
        return json.loads((into / "index.json").read_text()), (into / "index.json").stat().st_mtime_ns

    meta, when = built(stores[0])
    assert built(stores[0])[1] == when  # nothing was missing
    assert built(stores[1])[0]["texts"] != meta["texts"]
    with pytest.raises(InterpError, match="differ in the pictures"):
        StoresTogether.of(stores)
