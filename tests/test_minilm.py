"""The sentence encoder inside a package as a model with hook points: real weights of an encoder-only model."""

import pytest
import torch

from interp.models import Edit, open_model
from interp.models.sentence import sentence_encoder

torch.set_num_threads(1)
TEXT = "The Eiffel Tower is in Paris."


@pytest.fixture(scope="module")
def minilm():
    return open_model("minilm", dtype="float32")


def test_its_last_layer_is_what_sentence_vectors_are_made_of(minilm):
    ids = minilm.prompt(TEXT)
    assert [minilm.vocabulary[token] for token in (ids[0], ids[-1])] == ["[CLS]", "[SEP]"]
    hook = "blocks.5.hook_resid_post"
    x_TD = minilm.run(torch.tensor([ids]), [hook]).activations[hook][0]
    ours = torch.nn.functional.normalize(x_TD.mean(0), dim=0)
    assert float(ours @ sentence_encoder().encode([TEXT])[0].float()) > 0.999


def test_edits_of_one_layer_change_what_follows_and_nothing_before(minilm):
    tokens = torch.tensor([minilm.prompt(TEXT)])
    hooks = ["blocks.1.hook_resid_post", "blocks.4.hook_resid_post"]
    plain = minilm.run(tokens, hooks).activations
    gone = minilm.run(tokens, hooks, [Edit("blocks.2.hook_mlp_out", lambda x, site: torch.zeros_like(x))]).activations
    assert torch.equal(gone[hooks[0]], plain[hooks[0]])
    assert not torch.allclose(gone[hooks[1]], plain[hooks[1]])
