"""Dictionaries of one model by hook point, as objects and out of folders."""

from dataclasses import replace

import pytest
import torch

import interp
from interp.checkpoint import Card, save
from interp.sae import SAE, Bundle
from interp.types import Hook, InterpError


def make(name, reads, writes=None, d=4):
    zero = {"b_enc": torch.zeros(3), "b_dec": torch.zeros(d)}
    return SAE(
        W_enc=torch.eye(d)[:, :3], W_dec=torch.eye(d)[:3], **zero, k=1, name=name, reads=reads, writes=writes,
        centred=writes is None,
    )  # fmt: skip


def card(sae, model_sha256="m"):
    return Card(
        name=sae.name, model="tiny", model_sha256=model_sha256, hook_name=sae.hook_name, hook_name_out=sae.hook_name_out,
        dtype="float32", attention="eager", architecture="topk", norm_cutoff=9.0, separator=0, context=8,
    )  # fmt: skip


def test_a_bundle_iterates_in_the_order_of_a_pass():
    hooks = [
        "ln_final.hook_in", "blocks.10.hook_resid_post", "blocks.2.hook_resid_post", "blocks.2.hook_mlp_out",
        "blocks.2.mlp.hook_post", "blocks.2.mlp.hook_in", "blocks.2.hook_attn_out", "blocks.2.hook_resid_pre",
        "hook_embed",
    ]  # fmt: skip
    bundle = Bundle(make(f"s{n}", hook) for n, hook in enumerate(hooks))
    assert [hook.name for hook in bundle.reads] == hooks[::-1]
    assert bundle.names[:2] == ("s8", "s7")
    own = Bundle([make("a", "last"), make("b", "first")], order=["first", "last"])
    assert own.names == ("b", "a")


def test_a_dictionary_is_found_by_its_hook_point_and_by_its_name():
    bundle = Bundle([make("t1", "in1", "out"), make("t0", "in0", "out")])
    assert bundle["in1"].name == bundle[Hook("in1", 4)].name == bundle.named("t1").name == "t1"
    assert "in0" in bundle
    assert "out" not in bundle
    assert len(bundle) == 2
    assert bundle.writes == (Hook("out", 4),)
    with pytest.raises(InterpError, match="no dictionary at hook point 'in2': did you mean in"):
        bundle["in2"]
    with pytest.raises(InterpError, match="no dictionary 't2'"):
        bundle.named("t2")


def test_every_dictionary_encodes_what_it_reads():
    bundle = Bundle([make("a", "h0"), make("b", "h1")])
    rows = {"h0": torch.tensor([[0.0, 5.0, 0.0, 0.0]]), "h1": torch.tensor([[0.0, 0.0, 7.0, 0.0]])}
    found = {name: (active.features.tolist(), active.values.tolist()) for name, active in bundle.active(rows).items()}
    assert found == {"a": ([1], [5.0]), "b": ([2], [7.0])}
    with pytest.raises(InterpError, match="b reads h1, and there are activations of h0 only"):
        bundle.active({"h0": rows["h0"]})


@pytest.mark.parametrize(
    ("dictionaries", "models", "said"),
    [
        ([], [], "a bundle needs at least one dictionary"),
        ([make("a", "h"), make("b", "h")], [], "a and b both read h; a bundle has one dictionary a hook point"),
        ([make("a", "h0"), make("a", "h1")], [], "two dictionaries are named a"),
        ([make("a", "")], [], "a does not say which hook point it reads"),
        ([make("a", "h0"), make("b", "h1")], ["x", "y"], "a is of another model \\(x\\) than b \\(y\\)"),
        ([make("a", "h0")], ["x", "y"], "1 dictionaries were given with the models of 2"),
    ],
)
def test_what_is_no_bundle_is_refused(dictionaries, models, said):
    with pytest.raises(InterpError, match=said):
        Bundle(dictionaries, models=models)


def test_a_bundle_opens_from_the_folder_of_its_checkpoints_and_from_a_list(tmp_path):
    saes = [make("deep", "blocks.9.hook_resid_post"), make("early", "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")]
    for sae in saes:
        save(sae, tmp_path / sae.name, card(sae))
    for given in (tmp_path, str(tmp_path), [tmp_path / "deep", tmp_path / "early"], [tmp_path, tmp_path / "deep"]):
        bundle = interp.open_bundle(given)
        assert bundle.names == ("early", "deep")
        assert bundle["blocks.1.mlp.hook_in"].writes == (Hook("blocks.1.hook_mlp_out", 4),)
    assert interp.open_bundle(tmp_path / "deep").names == ("deep",)


def test_checkpoints_of_different_models_are_not_opened_together(tmp_path):
    for name, model in (("a", "1" * 64), ("b", "2" * 64)):
        sae = make(name, f"blocks.{name == 'b':d}.hook_resid_post")
        save(sae, tmp_path / name, card(sae, model))
    with pytest.raises(InterpError, match="a is of another model \\(1{16}\\) than b \\(2{16}\\)"):
        interp.open_bundle(tmp_path)
    replace(Card.read(tmp_path / "b"), model_sha256="1" * 64).write(tmp_path / "b")
    assert len(interp.open_bundle(tmp_path)) == 2


def test_a_folder_without_a_checkpoint_is_no_bundle(tmp_path):
    with pytest.raises(InterpError, match="is not a checkpoint: it has no cfg.json"):
        interp.open_bundle(tmp_path)
