"""Random-weight copies of models: what is kept, what is not, and that nothing takes one for the model."""

import pytest
import torch

from interp.checkpoint.readme import model_name
from interp.models import open_model
from interp.models.open import open_text
from interp.models.randomised import randomise, read_name, spelt
from interp.types import InterpError
from tests.families import FAMILIES, save

torch.set_num_threads(1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_copy_of_any_family_has_its_shapes_and_values_and_says_other_things(tmp_path, family):
    folder = str(save(family, tmp_path / family))
    own, copy = (open_model(folder, dtype="float32", random=seed) for seed in (None, 1))
    tokens = torch.tensor([own.prompt("the city of blue music and the river seven")])
    said, other = own.run(tokens).logits, copy.run(tokens).logits
    assert own.shapes() == copy.shapes()
    assert said.shape == other.shape
    assert bool(torch.isfinite(other).all())
    assert not torch.allclose(said, other, atol=0.1 * float(said.std()))
    assert own.named_weights.keys() == copy.named_weights.keys()
    for name, values in own.named_weights.items():
        assert torch.equal(values.flatten().sort().values, copy.named_weights[name].flatten().sort().values), name
    assert own.fingerprint() != copy.fingerprint()


def test_embeddings_and_norms_are_kept_and_all_other_weights_moved(tiny_folder):
    own, copy = (open_model(str(tiny_folder), dtype="float32", random=seed) for seed in (None, 1))
    assert len(own.named_weights) > 10
    for name, values in own.named_weights.items():
        kept = "embed_tokens" in name or "norm" in name
        assert torch.equal(values, copy.named_weights[name]) == kept, name
        if values.ndim == 2 and not kept:
            flat = torch.stack([values.flatten(), copy.named_weights[name].flatten()])
            assert abs(float(torch.corrcoef(flat)[0, 1])) < 0.2, name


def test_a_tied_unembedding_stays_with_the_embedding():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=50, tie_word_embeddings=True, **small))
    before = model.lm_head.weight.clone()
    randomise(model, 1)
    assert torch.equal(model.lm_head.weight, before)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_random_copy_is_the_same_at_any_time_and_in_any_number_type_and_named_so(tiny_folder):
    copy = open_model(str(tiny_folder), dtype="float32", random=1)
    assert copy.name == f"random-1:{tiny_folder.name}"
    assert copy.source == f"random-1:{tiny_folder.resolve()}"
    again = open_model(copy.source, dtype="bfloat16")
    assert (again.name, again.source, again.fingerprint()) == (copy.name, copy.source, copy.fingerprint())
    assert open_model(str(tiny_folder), dtype="float32", random=2).fingerprint() != copy.fingerprint()
    assert open_text(copy.source, 0).tokenize("Paris") == copy.tokenize("Paris")


def test_a_seed_that_is_none_or_two_of_them_are_refused(tiny_folder):
    assert read_name(spelt("smollm2", 7)) == ("smollm2", 7)
    assert read_name("random-words") == ("random-words", None)
    with pytest.raises(InterpError, match="must be at least 0"):
        open_model(str(tiny_folder), random=-1)
    with pytest.raises(InterpError, match="names the seed 1, and 2 was asked"):
        open_model(f"random-1:{tiny_folder}", random=2)
    with pytest.raises(InterpError, match="must be at least 0"):
        open_model(f"random-9999999999:{tiny_folder}")


def test_a_copy_of_a_model_in_a_folder_is_shown_without_the_folders_place(tmp_path):
    assert model_name(f"random-1:{tmp_path}/tiny") == "random-1:tiny"
    assert model_name(f"{tmp_path}/tiny") == "tiny"
    assert model_name("random-1:org/name") == "random-1:org/name"
