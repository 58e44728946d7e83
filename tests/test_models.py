"""The model adapter on a tiny random Llama, and on SmolLM2 itself."""

from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from interp.models import Edit, open_model
from interp.models.vocabulary import vocabulary
from interp.types import InterpError

HOOK = "blocks.1.hook_resid_post"


def ids(model, text="The capital of France is Paris."):
    return torch.tensor([model.prompt(text)])


def test_a_pass_ends_at_the_last_hook_point_asked_for(tiny):
    tiny.shapes()  # the one pass, of a few tokens, in which every hook point is tried
    fired = []
    handle = tiny.hook_points["blocks.1.hook_out"].register_forward_hook(lambda *a: fired.append(1))
    run = tiny.run(ids(tiny), ["blocks.0.hook_resid_post"])
    handle.remove()
    assert run.logits is None
    assert not fired
    assert run.activations["blocks.0.hook_resid_post"].shape[2] == 16


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what a process has mapped")
@pytest.mark.parametrize(("dtype", "mapped"), [("float32", True), ("bfloat16", False)])
def test_weights_in_the_files_own_type_are_mapped_from_it_and_not_copied(tiny_folder, dtype, mapped):
    model = open_model(str(tiny_folder), dtype=dtype)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(tiny_folder) in line]
    spans = [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]
    # TransformerLens adds a bias of zeros to an unembedding that has none.
    weights = [weight for weight in model.module.parameters() if weight.ndim > 1]
    inside = [any(a <= weight.data_ptr() < b for a, b in spans) for weight in weights]
    assert len(inside) > 10
    assert inside == [mapped] * len(inside)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_equal_the_bare_models(tiny_folder, attention):
    from transformers import LlamaForCausalLM

    bare = LlamaForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation=attention).eval()
    model = open_model(str(tiny_folder), dtype="float32", attention=attention)
    tokens = ids(model)
    with torch.no_grad():
        assert torch.allclose(model.run(tokens).logits, bare(tokens).logits, atol=1e-5)


def test_a_hook_point_inside_attention_brings_the_bridges_attention_for_that_run(tiny):
    tokens = ids(tiny)
    before = tiny.run(tokens).logits
    pattern = tiny.run(tokens, ["blocks.0.attn.hook_pattern"]).activations["blocks.0.attn.hook_pattern"]
    assert torch.allclose(pattern.sum(-1), torch.ones(1, 2, tokens.shape[1]), atol=1e-5)
    assert torch.equal(tiny.run(tokens).logits, before)


def test_every_listed_hook_point_can_be_read(tiny):
    names = tiny.hook_names()
    assert {"blocks.0.hook_resid_pre", HOOK, "blocks.0.attn.hook_pattern", "blocks.0.hook_mlp_out"} <= set(names)
    assert set(tiny.run(ids(tiny), names, logits=True).activations) == set(names)


def test_an_edit_changes_what_comes_after_and_readers_see_it(tiny):
    tokens = ids(tiny)
    edit = Edit(HOOK, lambda x, site: x + 1.0)
    plain, edited = tiny.run(tokens, [HOOK]), tiny.run(tokens, [HOOK], [edit])
    assert torch.equal(edited.activations[HOOK], plain.activations[HOOK] + 1.0)
    assert not torch.equal(tiny.run(tokens, edits=[edit]).logits, tiny.run(tokens).logits)
    nothing = Edit(HOOK, lambda x, site: x)
    assert torch.equal(tiny.run(tokens, edits=[nothing]).logits, tiny.run(tokens).logits)


def test_cached_generation_equals_running_the_whole_text_again(tiny):
    edit = Edit(HOOK, lambda x, site: x + 0.5 * (site.position_BT > 0)[..., None])
    prompt = tiny.prompt("The capital of")
    for edits in ([], [edit]):
        (answer,) = tiny.generate([prompt], max_new_tokens=12, edits=edits)
        text = list(prompt)
        for token in answer:
            assert int(tiny.run(torch.tensor([text]), edits=edits).logits[0, -1].argmax()) == token
            text.append(token)


def test_a_prompts_answer_does_not_depend_on_its_neighbours(tiny):
    prompts = [tiny.prompt("The capital"), tiny.prompt("A cat sat on the mat; the dog slept")]
    together = tiny.generate(prompts, max_new_tokens=8)
    assert together == [tiny.generate([prompt], max_new_tokens=8)[0] for prompt in prompts]


def test_sampling_repeats_with_its_seed(tiny):
    prompt = tiny.prompt("A cat")
    draw = {
        seed: tiny.generate([prompt], max_new_tokens=20, temperature=1.0, top_p=0.9, seed=seed)[0] for seed in (1, 2)
    }
    assert draw[1] == tiny.generate([prompt], max_new_tokens=20, temperature=1.0, top_p=0.9, seed=1)[0]
    assert draw[1] != draw[2]


def test_the_name_of_the_weights_does_not_depend_on_the_dtype(tiny, tiny_folder):
    assert open_model(str(tiny_folder), dtype="bfloat16").fingerprint() == tiny.fingerprint()


def test_tokens_are_shown_with_their_spaces_and_lone_bytes_as_hex(tiny):
    texts = vocabulary(tiny.tokenizer)
    assert " the" in texts
    assert "\n" in texts
    assert "\\xe2" in texts
    tokens = tiny.tokenize("The capital of France")
    assert "".join(texts[token] for token in tokens) == "The capital of France"


def test_the_final_norms_gain_is_found(smollm2):
    unembed, gain = smollm2.unembedding()
    assert unembed.shape == (49152, 576)
    assert gain.shape == (576,)
    assert not torch.equal(gain, torch.ones(576))


def test_smollm2_is_prefixed_with_its_separator_and_nothing_else(smollm2):
    assert smollm2.prompt("Paris") == [0, 38634]
    chat = smollm2.chat([{"role": "user", "content": "Hi"}])
    assert chat[0] == 1
    assert 0 not in chat


def test_smollm2_knows_the_capital_of_france(smollm2):
    (answer,) = smollm2.generate([smollm2.prompt("The capital of France is")], max_new_tokens=1)
    assert smollm2.decode(answer) == " Paris"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm3", "did you mean smollm2"),
        ("/nowhere/at/all", "no model '/nowhere/at/all'"),
        (".", "holds no model: it has no config.json"),
    ],
)
def test_a_model_that_does_not_exist_is_answered_in_a_sentence(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InterpError, match=message):
        open_model(name)


def test_mistakes_about_hooks_and_lengths_are_answered(tiny):
    with pytest.raises(InterpError, match=r"did you mean blocks\.1\.hook_resid_p"):
        tiny.run(ids(tiny), ["blocks.1.hook_resid_pst"])
    with pytest.raises(InterpError, match="reads at most 511"):
        tiny.prompt("word " * 2000)
    with pytest.raises(InterpError, match="exceed the 512"):
        tiny.generate([tiny.prompt("A cat")], max_new_tokens=600)
    with pytest.raises(InterpError, match="the text is empty"):
        tiny.prompt("")
    with pytest.raises(InterpError, match="no chat template"):
        tiny.chat([{"role": "user", "content": "Hi"}])


def test_two_callers_at_once_convert_the_embedded_model_once(tmp_path, monkeypatch):
    """The conversion itself is replaced by a slow stand-in: what is tested is the lock around it."""
    import threading
    import time

    from interp import places
    from interp.models import embedded

    made = []

    def slow(source, folder, stamp):
        made.append(folder)
        time.sleep(0.3)
        places.write_json(folder / "converted.json", stamp)

    monkeypatch.setenv("INTERP_HOME", str(tmp_path))
    monkeypatch.setattr(embedded, "_convert", slow)
    found = []
    callers = [threading.Thread(target=lambda: found.append(embedded.smollm2_folder())) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(made) == 1
    assert found == [tmp_path / "cache" / "models" / "smollm2-135m-instruct"] * 3


def test_nothing_looks_for_the_network(tmp_path):
    """Opening and running the embedded model in a process that may look up no address."""
    import subprocess
    import sys

    script = """
import socket
asked = []
def no(*arguments, **_):
    asked.append(arguments[0])
    raise OSError("no network in this test")
socket.getaddrinfo = no
socket.create_connection = no
import torch
from torch.profiler import ProfilerActivity, profile
from interp.models import open_model
model = open_model("smollm2")
model.run(torch.tensor([model.prompt("Paris")]), ["blocks.3.hook_resid_post"])
assert not asked, asked
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_sentence_encoder_is_transformers_bert():
    from transformers import BertModel

    from interp import places
    from interp.models.sentence import PACKAGE, open_sentence_encoder, sentence_encoder

    folder = places.package_folder(PACKAGE) / "model"
    texts = ["a cat", "The kitten sat on the mat, and purred.", "stocks fell", ""]
    ours = open_sentence_encoder(folder, torch.float32)
    theirs = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    vectors = ours.encode(texts)
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.tensor([ours.tokenizer.encode(text).ids])
        with torch.no_grad():
            mean = theirs(input_ids=ids).last_hidden_state.mean(1)
        assert torch.allclose(vector, torch.nn.functional.normalize(mean, dim=1)[0], atol=1e-5)
    cosine = vectors @ vectors.T
    assert cosine[0, 1] > cosine[0, 2] + 0.2
    assert torch.allclose(sentence_encoder().encode(texts), vectors, atol=0.03)  # bfloat16


def test_a_norm_is_made_once_and_is_the_same_when_it_is_read_inside(tiny_folder):
    model = open_model(str(tiny_folder), dtype="bfloat16")
    norms = sum(name.endswith("hook_scale") for name in model.hook_points)
    tokens = torch.arange(3, 35).view(2, 16)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        alone = model.run(tokens, logits=True).logits
    assert sum(event.count for event in watched.key_averages() if event.key == "aten::pow") == norms
    read = model.run(tokens, ["blocks.0.ln1.hook_scale", "blocks.0.ln1.hook_normalized"], logits=True)
    assert torch.equal(read.logits, alone)
    assert read.activations["blocks.0.ln1.hook_scale"].shape == (2, 16, 1)
    with pytest.warns(UserWarning, match="edited hook_scale"):
        doubled = model.run(tokens, edits=[Edit("blocks.0.ln1.hook_scale", lambda x, _: 2 * x)], logits=True).logits
    assert not torch.equal(doubled, alone)
