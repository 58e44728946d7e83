"""The whole way with tiny random models of many families: open, run, read the logits, train, index, search, steer."""

import json

import pytest
import torch

from interp.corpus import open_corpus
from interp.models import Edit, open_model
from interp.recipe import train_checkpoint
from interp.steering import Clamp
from interp.training import TrainConfig
from interp.types import InterpError
from interp.workbench import Workbench
from tests.families import ENCODER_DECODERS, ENCODERS, FAMILIES, WIDTH, save, sentences

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each family, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def folder(family):
        if family not in made:
            made[family] = save(family, root / family)
        return made[family]

    return folder


def bare(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def last_layer(model):
    layers = [
        n for n in model.hook_names() if n.endswith(".hook_out") and n.count(".") == 2 and n.startswith("blocks.")
    ]
    return max(layers, key=lambda name: int(name.split(".")[1]))


def mean_effect(model, hook, direction):
    """What the model's own logits gain when the last layer's output moves from x - d/2 to x + d/2, over random x."""
    x = torch.randn(100, 20, WIDTH, generator=torch.Generator().manual_seed(0)) * 10
    tokens = torch.ones(x.shape[:2], dtype=torch.int64)

    def logits(shift):
        return model.run(tokens, edits=[Edit(hook, lambda _, site: x + shift)], logits=True).logits

    total = (logits(direction / 2) - logits(-direction / 2)).double().mean((0, 1))
    return total - total.mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_runs_reads_out_and_continues_as_its_own_library_does(folders, family):
    folder = folders(family)
    model, theirs = open_model(str(folder), dtype="float32"), bare(folder)
    tokens = torch.tensor([model.prompt("the city of blue music and the river seven")])
    assert model.n_ctx == (2048 if family in ("bloom", "falcon", "mamba", "mamba2", "xlstm") else 512)
    with torch.no_grad():
        expected = theirs(tokens).logits
    assert torch.allclose(model.run(tokens).logits, expected, atol=1e-4)
    # Logit effects of random directions against finite differences through the model's own last norm.
    hook = last_layer(model)
    unembed, gain = model.unembedding()
    for seed in (0, 1):
        direction = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) + 0.1 * seed
        ours = ((unembed * gain) @ direction).double()
        ours = ours - ours.mean()
        effect = mean_effect(model, hook, direction)
        assert float(torch.corrcoef(torch.stack([ours, effect]))[0, 1]) > 0.995
        assert len(set(ours.topk(10).indices.tolist()) & set(effect.topk(10).indices.tolist())) >= 8
    # Continued from a cache or not, alone or beside a longer prompt, a text goes on in the same way.
    prompts = [tokens[0].tolist(), model.prompt("seven under")]
    edit = Edit(hook, lambda x, site: x + 0.5 * (site.position_BT > 0)[..., None])
    for edits in ([], [edit]):
        answers = model.generate(prompts, max_new_tokens=5, edits=edits)
        for prompt, answer in zip(prompts, answers, strict=True):
            text = list(prompt)
            for token in answer:
                assert int(model.run(torch.tensor([text]), edits=edits).logits[0, -1].argmax()) == token
                text.append(token)


WHOLE = ["llama", "gpt2", "gpt_neox", "qwen2", "gemma2", "gemma3", "phi", "opt", "bloom", "olmo", "mixtral", "deepseek_v2",
         "mamba", "rwkv", "xlstm", "recurrent_gemma", "bert", "roberta", "albert", "modernbert", "t5", "bart", "marian"]  # fmt: skip
QUICK = ("gemma3", "mixtral", "mamba", "bert", "t5")
"""One of each kind; the others are slow only for being many."""


@pytest.mark.parametrize(
    "family", [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in WHOLE]
)
def test_the_whole_way(folders, family, tmp_path):
    """Train on a stream, index, look at a feature, search by every kind of key, then steer with replay, or ablate."""
    text = tmp_path / "docs.jsonl"
    text.write_text("".join(json.dumps({"text": s}) + "\n" for s in sentences(300)), encoding="utf-8")
    model = open_model(str(folders(family)), dtype="float32")
    hook = ("decoder_" if family in ENCODER_DECODERS else "") + "blocks.1.hook_resid_post"
    from interp.activations import stream

    source = stream(model, open_corpus(text), [hook], 6_000)
    train_checkpoint(source, hook, tmp_path / "sae", d_sae=64, k=8, batch=512, config=TrainConfig(lr=3e-3))
    wb = Workbench.open(tmp_path / "sae", labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(open_corpus(text), 6_000, beside=True)
    alive = int(wb.index.features["density"].to_numpy().argmax())
    page = wb.feature(alive)
    assert page.examples
    queries = ["density:1e-5..1", "token:/city/", "fires:'the blue city'", "like:3"]
    for query in queries + ["promotes:city"] * (family not in ENCODERS):
        wb.search(query)
    spectrum = wb.spectrum("the city reads music")
    assert len(spectrum.tokens) == len(spectrum.counted)
    assert wb.card.model_sha256 == model.fingerprint()
    if model.generates:
        run = wb.steer("the city", [Clamp(feature=alive, strength=2 * page.max)], max_new_tokens=4)
        assert wb.replay(json.loads(run.to_json())).sentence()
    else:
        fires = int(spectrum.features[spectrum.values.argmax()])
        ablation = wb.ablate("the city reads music", fires)
        assert len(ablation.tokens) == len(ablation.change) == len(spectrum.tokens)
        assert max(ablation.activation) == pytest.approx(float(spectrum.values.max()), rel=1e-4)
        assert ablation.largest > 0
        with pytest.raises(InterpError, match="so no token is the next one"):
            wb.effects(alive)


@pytest.mark.parametrize("extra", [40, -1])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_embeddings_of_another_size_than_the_tokenizer(tmp_path, family, extra):
    model = open_model(str(save(family, tmp_path / "m", extra_rows=extra)), dtype="float32")
    words = len(model.tokenizer)
    assert len(model.vocabulary) == len(model.vocabulary_bytes) == max(words, words + extra)
    assert model.run(torch.tensor([model.prompt("the city")])).logits.shape[-1] == words + extra
    last = model.tokenizer.decode([words - 1])
    if extra > 0:
        assert model.vocabulary[words + extra - 1] == f"<{words + extra - 1}>"
        assert model.tokenize(last) == [words - 1]
    else:
        with pytest.raises(
            InterpError, match=rf"\({words - 1}\), which the tokenizer of m knows and its model does not"
        ):
            model.tokenize(last)


def test_a_separator_has_an_embedding(tmp_path):
    """Opened as Qwen's, the tokenizer gains an `<|endoftext|>` past the last row of the embedding."""
    model = open_model(str(save("qwen2", tmp_path / "m")), dtype="float32")
    assert model.separator < model.embedded_tokens


def test_a_text_that_spells_special_tokens_stays_text_unless_asked(folders):
    model = open_model(str(folders("llama")), dtype="float32")
    text = "<bos><start_of_turn>city<end_of_turn>\n"
    special = set(model.tokenizer.all_special_ids)
    plain = model.prompt(text)
    assert plain[0] == model.separator == 1
    assert not special & set(plain[1:])
    assert model.decode(plain[1:]) == text
    read = model.prompt(text, special=True)
    assert read[:2] == [1, 3]
    assert read.count(1) == 1
    assert model.prompt("city", special=True) == model.prompt("city")


def test_every_end_that_the_model_names_ends_a_text(folders, tmp_path):
    import shutil

    from transformers import AutoModelForCausalLM, GenerationConfig

    folder = shutil.copytree(folders("gemma3"), tmp_path / "m")
    model = open_model(str(folder), dtype="float32")
    prompt = model.prompt("the city of")
    free = model.generate([prompt], max_new_tokens=12)[0]
    GenerationConfig(eos_token_id=[2, free[3]], bos_token_id=1, pad_token_id=0).save_pretrained(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder).generate(
        torch.tensor([prompt]), max_new_tokens=12, do_sample=False
    )
    again = open_model(str(folder), dtype="float32")
    assert again.ends == {2, free[3]}
    assert again.generate([prompt], max_new_tokens=12)[0] == theirs[0, len(prompt) :].tolist()


def test_the_attention_that_was_used_is_recorded_and_others_are_refused(folders):
    assert open_model(str(folders("llama"))).attention == "sdpa"
    assert open_model(str(folders("gemma2"))).attention == "eager"
    with pytest.raises(InterpError, match=r"no attention 'flash': there is sdpa, eager"):
        open_model(str(folders("llama")), attention="flash")


def test_the_fingerprint_tells_swapped_layers_and_types_apart(folders, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = folders("llama")
    weights = load_file(folder / "model.safetensors")
    swapped = {
        name.replace(".0.", ".x.").replace(".1.", ".0.").replace(".x.", ".1.") if ".mlp." in name else name: value
        for name, value in weights.items()
    }
    names = set()
    for number, tensors in enumerate([weights, swapped, {n: t.bfloat16() for n, t in weights.items()}]):
        other = shutil.copytree(folder, tmp_path / str(number))
        save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
        model = open_model(str(other), dtype="float32")
        names.add(model.fingerprint())
        if number < 2:  # the first kind of name, which old cards have, cannot tell these two apart
            first = model.fingerprint_like("0" * 64)
            assert first == open_model(str(folder), dtype="float32").fingerprint_like("0" * 64)
    assert len(names) == 3


def test_a_final_norm_that_is_none_of_the_known_is_refused(folders):
    model = open_model(str(folders("llama")), dtype="float32")
    norm = model.module.model.norm
    norm.forward = lambda x: torch.tanh(x)
    with pytest.raises(InterpError, match=r"its final norm .* is neither an RMSNorm nor a LayerNorm"):
        model.unembedding()


def test_a_family_unknown_to_the_bridge_is_read_by_its_modules_paths(tmp_path, capsys):
    from transformers import CTRLConfig, CTRLLMHeadModel

    from tests.families import tokenizer

    words = tokenizer()
    CTRLLMHeadModel(CTRLConfig(vocab_size=len(words), n_embd=32, n_layer=1, n_head=4, dff=64)).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    capsys.readouterr()
    model = open_model(str(tmp_path), dtype="float32")
    told = capsys.readouterr().err
    assert "is a CTRLLMHeadModel, for which TransformerLens finds no hook points" in told
    assert "Its hook points are its modules, by their paths." in told
    assert len(told) < 400
    tokens = torch.tensor([model.prompt("the city of blue music")])
    plain = model.run(tokens, ["transformer.h.0"], logits=True)
    assert plain.activations["transformer.h.0"].shape == (1, tokens.shape[1], 32)
    with torch.inference_mode():
        assert torch.equal(plain.logits, model.module(tokens).logits)
    gone = model.run(tokens, edits=[Edit("transformer.h.0", lambda x, site: torch.zeros_like(x))], logits=True)
    assert not torch.equal(gone.logits, plain.logits)


def test_an_sae_of_one_expert_is_trained_and_indexed_on_the_tokens_sent_to_it(folders, tmp_path):
    text = tmp_path / "docs.jsonl"
    text.write_text("".join(json.dumps({"text": s}) + "\n" for s in sentences(300)), encoding="utf-8")
    model = open_model(str(folders("mixtral")), dtype="float32")
    hook = "blocks.1.mlp.experts.2.hook_out"
    from interp.activations import stream

    source = stream(model, open_corpus(text), [hook], 6_000)
    train_checkpoint(source, hook, tmp_path / "sae", d_sae=64, k=8, batch=512, config=TrainConfig(lr=3e-3))
    wb = Workbench.open(tmp_path / "sae", labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(open_corpus(text), 6_000, beside=True)
    tokens = source.blocks.tokens_NT
    sent = ~model.run(tokens, [hook]).activations[hook].isnan().any(-1)
    assert 0 < wb.index.kept.sum() <= int((sent & source.blocks.real_NT()).sum()) < source.blocks.real_NT().sum()
    alive = int(wb.index.features["density"].to_numpy().argmax())
    prompt = [model.prompt("the city of blue music")]
    plain, steered = (
        model.run(torch.tensor(prompt), edits=wb.steered.compile([edits]), logits=True).logits
        for edits in ([], [Clamp(feature=alive, strength=50.0)])
    )
    assert steered.isfinite().all()
    assert not torch.equal(plain, steered)


def test_a_t5_whose_configuration_names_no_token_that_begins_texts_opens(tmp_path):
    """As those that are published do: only what an answer begins with is named."""
    from transformers import T5Config, T5ForConditionalGeneration

    from tests.families import tokenizer

    words = tokenizer()
    small = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4}
    T5ForConditionalGeneration(T5Config(vocab_size=len(words), decoder_start_token_id=0, **small)).save_pretrained(
        tmp_path
    )
    assert "bos_token_id" not in json.loads((tmp_path / "config.json").read_text())
    words.save_pretrained(tmp_path)
    assert open_model(str(tmp_path), dtype="float32").frame.start == 0
