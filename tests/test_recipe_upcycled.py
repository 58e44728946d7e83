"""The recipe of the upcycled mixture, small: its logits are the dense model's, its training goes on where it stopped, its figures."""

import importlib.util
import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from interp.corpus import open_corpus
from interp.models import open_model
from tests.conftest import ROOT
from tests.families import sentences


@pytest.fixture(scope="module")
def recipe():
    """Its functions over models."""
    spec = importlib.util.spec_from_file_location("upcycled_model", ROOT / "recipes" / "upcycled_model.py")
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def dense(tiny_folder):
    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()


TOKENS = torch.arange(1, 121).reshape(3, 40)


def logits(model):
    with torch.inference_mode():
        return model(TOKENS).logits


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_equal_routers_and_a_power_of_two_of_experts_give_the_same_bits(recipe, dense, top_k):
    """Each weight is then a power of two, the copies' outputs are the same numbers, and their weighted sum is exact."""
    made = recipe.upcycle(dense, experts=4, top_k=top_k, seed=0, router_std=0.0)
    assert torch.equal(logits(made), logits(dense))


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_random_routers_give_the_same_logits_but_for_rounding(recipe, dense, top_k):
    """Weights sum to one but for rounding, and an expert's product is of fewer rows."""
    made = recipe.upcycle(dense, experts=4, top_k=top_k, seed=0, router_std=0.5)
    torch.testing.assert_close(logits(made), logits(dense), atol=2e-5, rtol=1e-5)
    with torch.no_grad():
        for e in range(4):
            made.model.layers[1].mlp.experts.down_proj[e] *= 1 + e
    assert (logits(made) - logits(dense)).abs().max() > 1e-3


def test_it_opens_as_any_mixtral_with_hook_points_of_routers_and_experts(recipe, dense, tiny, tmp_path):
    made = recipe.upcycle(dense, experts=4, top_k=2, seed=0)
    made.save_pretrained(tmp_path)
    tiny.tokenizer.save_pretrained(tmp_path)
    model = open_model(str(tmp_path), dtype="float32")
    assert torch.equal(model.run(TOKENS, logits=True).logits, logits(made))
    hooks = ["blocks.1.mlp.hook_router_logits", "blocks.1.mlp.experts.3.hook_out"]
    read = model.run(TOKENS, hooks).activations
    sent = (read[hooks[0]].topk(2).indices == 3).any(-1)
    assert 0 < sent.sum() < sent.numel()
    assert torch.equal(~read[hooks[1]].isnan().any(-1), sent)


def test_training_moves_experts_alone_and_goes_on_where_it_stopped(recipe, tiny_folder, tmp_path, monkeypatch):
    config = recipe.Training(lr=1e-2, router_lr=1e-2, warmup=2, save_every=4)
    rows = torch.randint(1, 60, (1, 2, 24), generator=torch.Generator().manual_seed(0)).expand(8, 2, 24)

    def trained(into):
        dense = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
        mixture = recipe.upcycle(dense, experts=4, top_k=2, seed=0)
        before = {name: value.clone() for name, value in mixture.state_dict().items()}
        parameters = recipe.mixed(dense, mixture, [1])
        log = recipe.train(dense, parameters, rows, 0, into, config)
        moved = {name for name, value in mixture.state_dict().items() if not torch.equal(value, before[name])}
        torch.testing.assert_close(logits(mixture), logits(dense), atol=2e-5, rtol=1e-5)
        return log, moved, mixture

    log, moved, whole = trained(tmp_path / "whole")
    assert moved == {f"model.layers.1.mlp.{n}" for n in ("gate.weight", "experts.gate_up_proj", "experts.down_proj")}
    assert log[-1]["loss"] < log[0]["loss"] - 0.1
    assert all(row["balance"] > 1.9 for row in log)  # two of four, evenly: 2
    keep = recipe._keep

    def killed(*state):
        keep(*state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(recipe, "_keep", killed)
        trained(tmp_path / "half")
    again, _, resumed = trained(tmp_path / "half")
    assert again == log
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_pieces_are_of_documents_of_their_split(recipe, tmp_path):
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in sentences(300)))
    corpus = open_corpus(tmp_path)
    for split in ("train", "heldout"):
        whole = [doc.text for doc in corpus.documents(split)]
        pieces = list(recipe.in_pieces(corpus, 30, split).documents())
        assert 0.9 * len(whole) < len(pieces) <= len(whole)
        assert all(len(doc.text) <= 30 and doc.split == "train" for doc in pieces)
        assert all(any(doc.text in text for text in whole) for doc in pieces)
