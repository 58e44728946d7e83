"""Transcoders of all layers as one file: rows are off by half a step at most, and what is expanded is an ordinary folder."""

import json
import shutil

import pytest
import torch

from interp.activations import stream
from interp.checkpoint import load
from interp.checkpoint.eight_bit import CARDS, FILE, expanded, open_layers, pack_layers, to_rows
from interp.circuits.replacement import make_replacement
from interp.corpus import open_corpus
from interp.models import open_model
from interp.recipe.layers import train_layers
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench.replacing import open_circuits


@pytest.fixture(scope="module")
def trained(tiny, text_folder, tmp_path_factory):
    """A transcoder for each layer of the tiny model, from one pass."""
    layers = sorted({int(name.split(".")[1]) for name in tiny.hook_names() if name.startswith("blocks.")})
    pairs = {f"layer-{n}": (f"blocks.{n}.mlp.hook_in", f"blocks.{n}.hook_mlp_out") for n in layers}
    hooks = [hook for pair in pairs.values() for hook in pair]
    source = stream(tiny, open_corpus(str(text_folder)), hooks, 20_000)
    into = tmp_path_factory.mktemp("layers")
    made = train_layers(source, pairs, into, d_sae=48, k=8, batch=256, buffer=8_192, config=TrainConfig(seed=0))
    return into, made, (source, pairs)


def test_a_row_is_off_by_half_a_step_at_most():
    w = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    w[3] = 0
    rows, scales = to_rows(w)
    assert ((rows.float() * scales[:, None] - w).abs() <= scales[:, None] / 2 + 1e-7).all()


def test_transcoders_of_one_pass_are_those_that_are_trained_alone_and_are_kept(trained, capsys):
    into, made, (source, pairs) = trained
    assert [one.hook_name_out for one in made.values()] == [pair[1] for pair in pairs.values()]
    name, hooks = next(iter(pairs.items()))
    alone = train_layers(source, {name: hooks}, into.parent / "alone", d_sae=48, k=8, batch=256, buffer=8_192)
    torch.testing.assert_close(alone[name].W_dec, made[name].W_dec, atol=0, rtol=0)
    capsys.readouterr()
    again = train_layers(source, pairs, into, d_sae=48, k=8, batch=256, buffer=8_192, config=TrainConfig(seed=0))
    assert torch.equal(again[name].W_dec, made[name].W_dec)
    assert "exist already" in capsys.readouterr().err
    with pytest.raises(InterpError, match="another folder, or --restart"):
        train_layers(source, pairs, into, d_sae=48, k=4, batch=256, buffer=8_192)


def test_a_packed_set_is_expanded_into_folders_that_sae_lens_opens(trained, tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    into, made, _ = trained
    packed = pack_layers({name: into / name for name in made}, tmp_path / "set")
    assert sorted(path.name for path in packed.iterdir()) == [CARDS, FILE]
    bundle, cutoffs, model_sha256 = open_layers(packed)
    assert model_sha256 == tiny.fingerprint()
    assert set(cutoffs) == {hook for one in made.values() for hook in (one.hook_name, one.hook_name_out)}
    for name, one in made.items():
        scale = one.W_dec.abs().amax(1, keepdim=True) / 127
        rounding = one.W_dec.abs() * 2**-10  # checkpoints are float16
        assert ((bundle.named(name).W_dec - one.W_dec).abs() <= scale / 2 + rounding + 1e-6).all()
    from sae_lens import SAE as Theirs

    folder = expanded(packed) / "layer-0"
    theirs = Theirs.load_from_disk(str(folder))
    x = torch.randn(8, made["layer-0"].d_in)
    torch.testing.assert_close(theirs.encode(x), load(folder).encode(x), atol=1e-4, rtol=1e-4)
    model = open_model(tiny.source, dtype="float32")
    opened = open_circuits(packed, model=tiny.source)
    assert opened.folders == tuple((packed / name).as_posix() for name in made), "not where they lie in the cache"
    assert make_replacement(model, bundle, cutoffs).read(torch.tensor(model.prompt("the quick brown fox"))).entries > 0


def test_a_damaged_set_is_refused(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    into, made, _ = trained
    packed = pack_layers({name: into / name for name in made}, tmp_path / "set")
    for number, spoil in enumerate((_cut, _other_name, _no_cards)):
        spoilt = tmp_path / f"spoilt-{number}"
        shutil.copytree(packed, spoilt)
        spoil(spoilt)
        with pytest.raises(InterpError):
            open_layers(spoilt)
    assert not list((tmp_path / "home").rglob("layer-*")), "nothing is half expanded"


def _cut(folder):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-100])


def _other_name(folder):
    told = json.loads((folder / CARDS).read_text())
    told["layers"] = {f"../{name}": card for name, card in told["layers"].items()}
    (folder / CARDS).write_text(json.dumps(told))


def _no_cards(folder):
    (folder / CARDS).write_text("[]")
