"""Verifying names what differs: each test spoils a sealed checkpoint in one way that shared SAEs go wrong."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from interp import places, workbench
from interp.checkpoint import Card, load, save
from interp.checkpoint.files import hashes
from interp.corpus import open_corpus
from interp.device import native_bfloat16
from interp.index.format import own_sha256
from interp.models import open_model
from interp.sae import SAE
from interp.types import InterpError
from interp.verification import Asked, check_files, seal, verify, verify_plain
from interp.verification.measure import activations
from interp.verification.numbers import open_for as _open
from interp.verification.sample import powers
from interp.verification.seal import checks_of as _checks
from interp.workbench import Workbench
from tests.conftest import HOOK, ROOT, SHIPPED


@pytest.fixture(scope="module")
def sealed(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed") / "tiny"
    shutil.copytree(checkpoint, folder)
    seal(folder)
    return folder


@pytest.fixture
def copy(sealed, tmp_path):
    shutil.copytree(sealed, tmp_path / "s")
    return tmp_path / "s"


def edit_card(folder, **changes):
    """As someone who shares a wrong checkpoint in good faith: the card's hashes are those of the files."""
    card = replace(Card.read(folder), **changes)
    replace(card, files=hashes(folder), sae_sha256=places.sha256_file(folder / "sae_weights.safetensors")).write(folder)


def edit_weights(folder, change):
    path = folder / "sae_weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    edit_card(folder)


def said(found):
    return " | ".join(f"{check.what}: {check.found}" for check in found.differs)


def test_what_was_sealed_verifies_and_every_file_has_a_hash(copy):
    found = verify(copy)
    assert not found.differs, said(found)
    assert found.verdict == "verified"
    assert {c.what for c in found.checks} >= {"model", "tokenizer", "tokenizer on the probe", "numbers of the index"}
    assert not [check for check in found.checks if check.verdict == "unchecked"]
    assert verify(copy, Asked(numbers=False)).verdict == "files only"


def test_a_checkpoint_that_was_never_sealed_is_checked_as_far_as_it_goes(checkpoint):
    found = verify(checkpoint)
    assert found.verdict == "verified", said(found)
    left = {check.what for check in found.checks if check.verdict == "unchecked"}
    assert "probe" in left
    assert {"file index/index.json", "file training_log.jsonl"} <= left  # the index names the hashes of its own files


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "cfg.json", "checks.json", "index/activations.parquet"])
def test_one_changed_byte_of_any_file_is_named(copy, name):
    raw = bytearray((copy / name).read_bytes())
    raw[-2] ^= 1
    (copy / name).write_bytes(raw)
    (check,) = [check for check in check_files(copy) if check.verdict == "differs"]
    assert check.what == f"file {name}"


def test_a_file_that_is_gone_and_one_that_is_not_a_checkpoints_are_named(copy):
    (copy / "index" / "examples.parquet").unlink()
    (copy / "weights.pkl").write_bytes(b"x")
    checks = {check.what: check for check in check_files(copy)}
    assert checks["file index/examples.parquet"].verdict == "differs"
    assert "weights.pkl" in checks["other files"].found


def test_the_hashes_that_index_json_brings_count(copy):
    meta = places.read_json(copy / "index" / "index.json")
    files = {"features.parquet": places.sha256_file(copy / "index" / "features.parquet"), "tokens.parquet": "0" * 64}
    places.write_json(copy / "index" / "index.json", meta | {"files": files})
    card = Card.read(copy)
    replace(card, files={"cfg.json": card.files["cfg.json"]}).write(copy)
    checks = {check.what: check.verdict for check in check_files(copy)}
    assert checks["file index/features.parquet"] == "holds"
    assert checks["file index/tokens.parquet"] == "differs"


def test_other_sae_weights_are_named(copy):
    torch.manual_seed(1)
    edit_weights(copy, lambda t: t.update(W_enc=torch.randn_like(t["W_enc"])))
    assert "other SAE or model weights" in said(verify(copy))


def test_another_hook_point_is_named(copy):
    edit_card(copy, hook_name="blocks.0.hook_resid_post")
    assert f"another hook point: the stored numbers are those of {HOOK}" in said(verify(copy))


def test_a_hook_point_that_does_not_exist_is_named(copy):
    edit_card(copy, hook_name="blocks.7.hook_resid_post")
    assert "has no hook point blocks.7" in said(verify(copy))


def test_a_scale_that_was_not_folded_is_named_with_its_size(copy):
    def unfold(tensors):  # the same SAE, for inputs divided by 8
        for name, factor in (("W_enc", 8.0), ("W_dec", 1 / 8), ("b_dec", 1 / 8)):
            tensors[name] = (tensors[name].float() * factor).half()

    edit_weights(copy, unfold)
    assert "scale not folded: the stored numbers come out when the activations are multiplied by 0.125" in said(
        verify(copy)
    )


def test_another_threshold_is_named(copy):
    edit_weights(copy, lambda t: t.update(threshold=t["threshold"] * 0 + 30))
    assert "another threshold, k or activation function" in said(verify(copy))


def test_other_model_weights_are_named(copy, tiny_folder, tmp_path):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_folder)
    torch.manual_seed(5)
    for weight in model.parameters():
        weight.data += torch.randn_like(weight) * 0.2
    shutil.copytree(tiny_folder, tmp_path / "other")
    model.save_pretrained(tmp_path / "other")
    assert "model: other weights: the card says" in said(verify(copy, Asked(model=str(tmp_path / "other"))))


def test_another_tokenizer_is_named(copy, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "other")
    raw = json.loads((tmp_path / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    raw["model"]["merges"] = raw["model"]["merges"][:40]
    raw["model"]["vocab"] = {t: i for t, i in raw["model"]["vocab"].items() if i < 298}
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    found = verify(copy, Asked(model=str(tmp_path / "other")))
    assert "another tokenizer or separator: the probe text is cut otherwise" in said(found)


def test_another_separator_is_named(copy):
    edit_card(copy, separator=7)
    assert "separator: the card says 7, and tiny-llama puts 0 in front" in said(verify(copy))


def test_numbers_made_without_the_separator_in_front_are_named(copy, tiny):
    raw = places.read_json(copy / "checks.json")
    card, sae = Card.read(copy), load(copy)
    tokens = torch.tensor([[int(t) for t in block.split()] for block in raw["tokens"]])
    x = activations(tiny, [HOOK], tokens[:, 1:])[HOOK]
    dense, rows = sae.encode(x), []
    for position in range(3, 60, 3):
        value, feature = dense[0, position - 1].max(0)
        rows.append(f"{position} {int(feature)} {float(value):.6g}")
    places.write_json(copy / "checks.json", raw | {"sample": rows})
    edit_card(copy)
    assert "another BOS or separator: the stored numbers come out without the separator in front" in said(verify(copy))
    assert card.separator == 0


@pytest.mark.skipif(not native_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16 of its own")
def test_another_dtype_is_named(copy, tiny_folder):
    card, sae = Card.read(copy), load(copy)
    halves = _open(card, "", "cpu", "bfloat16")
    raw = _checks(card, sae, halves, "cpu")
    places.write_json(copy / "checks.json", raw | {"dtype": "float32"})
    edit_card(copy)
    assert "another dtype: the stored numbers are those of bfloat16, and the file says float32" in said(verify(copy))


@pytest.mark.skipif(not native_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16 of its own")
@pytest.mark.parametrize(("dtype", "refused"), [("bfloat16", False), ("float32", True)])
def test_another_processor_rounds_bfloat16_as_another_dtype_does(copy, tiny_folder, dtype, refused):
    edit_card(copy, dtype=dtype)
    card, sae = Card.read(copy), load(copy)
    raw = _checks(card, sae, _open(card, "", "cpu", dtype), "cpu")
    limits = {"same": raw["tolerances"]["same"], "other": raw["tolerances"]["same"] | {"values": 0.2}}
    elsewhere = [f"{p} {f} {1.1 * float(v):.6g}" for p, f, v in (row.split() for row in raw["sample"])]
    places.write_json(copy / "checks.json", raw | {"sample": elsewhere, "tolerances": limits})
    edit_card(copy)
    found = verify(copy)
    assert ("another dtype's would" in said(found)) == refused
    assert any("bfloat16 of another processor" in check.found for check in found.checks) != refused


def test_a_model_that_is_not_here_leaves_the_numbers_unchecked(copy):
    edit_card(copy, model="/nowhere/model")
    found = verify(copy)
    assert found.verdict == "files only"
    assert any("the model cannot be opened" in check.found for check in found.checks)


def test_broken_parquet_files_and_weights_that_were_cut_short_are_named(copy):
    path = copy / "index" / "activations.parquet"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
    path.write_bytes(raw)
    found = said(verify(copy))
    assert "file index/activations.parquet: another file" in found
    assert "index: it cannot be read" in found
    path = copy / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    found = said(verify(copy))
    assert "file sae_weights.safetensors: other SAE weights" in found
    assert "weights: " in found


@pytest.mark.parametrize(
    "spoil",
    [
        {"format": 9}, {"tokens": "x"}, {"tokens": ["a b"]}, {"tokens": []}, {"sample": ["1 2"]}, {"tolerances": {}}, {"l0": []},
        {"histogram": 3}, {"tokens": ["-4 3"]},
    ],
)  # fmt: skip
def test_broken_checks_are_answered_in_a_sentence(copy, spoil):
    places.write_json(copy / "checks.json", places.read_json(copy / "checks.json") | spoil)
    edit_card(copy)
    with pytest.raises(InterpError, match="was not written by|has format 9"):
        verify(copy)


# ---- SAELens folders without a card ----


@pytest.fixture
def plain(copy, tiny_folder):
    (copy / "card.json").unlink()
    return copy


def test_a_folder_without_a_card_is_checked_by_what_it_explains(plain, tiny_folder):
    found = verify_plain(plain, model=str(tiny_folder))
    assert found.verdict == "verified", said(found)
    assert any(c.what == "provenance" and c.verdict == "unchecked" for c in found.checks)
    wrong = verify_plain(plain, model=str(tiny_folder), hook_name="blocks.0.hook_mlp_out")
    assert f"another hook point: at {HOOK}" in said(wrong)


def test_a_folder_without_a_card_or_a_model_says_what_could_not_be_checked(plain):
    cfg = places.read_json(plain / "cfg.json")
    cfg["metadata"]["model_name"] = None
    places.write_json(plain / "cfg.json", cfg)
    found = verify_plain(plain)
    assert found.verdict == "files only"
    assert any("give --model and --hook" in check.found for check in found.checks)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_the_embedded_saes_verify(name):
    found = workbench.verify(ROOT / "saes" / name)
    assert found.verdict == "verified", said(found)


# ---- whoever re-seals: what follows from weights, text and model is made anew ----


def edit_index(folder, file, change):
    """One table of the index changed, and every hash that names it made anew."""
    path = folder / "index" / file
    table = pq.read_table(path)
    pq.write_table(change(table), path)
    meta = places.read_json(folder / "index" / "index.json")
    meta["files"][file] = places.sha256_file(path)
    places.write_json(folder / "index" / "index.json", meta | {"sha256": own_sha256(meta)})
    edit_card(folder)


def column(name, change):
    """A table with one column changed, given and returned as a numpy array."""

    def changed(table):
        values = table[name].to_numpy().copy()
        change(values)
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(values, table[name].type))

    return changed


def swap_rows(tensors):
    rows = tensors["W_dec"].clone()
    rows[[3, 7]] = rows[[7, 3]]
    tensors["W_dec"] = rows


def swap_decoder_rows(folder):
    edit_weights(folder, swap_rows)
    meta = places.read_json(folder / "index" / "index.json") | {"sae_sha256": Card.read(folder).sae_sha256}
    places.write_json(folder / "index" / "index.json", meta | {"sha256": own_sha256(meta)})
    edit_card(folder)


def times(at, factor):
    def change(values):
        values[at] = values[at] * factor

    return change


def another_token(values):
    at = int(np.flatnonzero((values != 0) & (np.arange(len(values)) % 256 > 9))[40])
    values[at] = 300 if values[at] != 300 else 301


RESEALED = {
    "swapped decoder rows": (swap_decoder_rows, "nearest features: those of"),
    "a value of a row": (
        lambda f: edit_index(f, "activations.parquet", column("value", times(500, 0.5))),
        "numbers of the index: 1 rows have values that do not come out",
    ),
    "a density": (lambda f: edit_index(f, "features.parquet", column("density", times(5, 3))), "density of 1 features"),
    "a spread of logits": (
        lambda f: edit_index(f, "features.parquet", column("logit_std", times(5, 3))), "logits of features: those of 1"
    ),
    "a token": (lambda f: edit_index(f, "tokens.parquet", column("token", another_token)), "tokens of the index: those of 1"),
    "a neuron": (lambda f: edit_index(f, "neurons.parquet", column("cosine", times(9, 0.5))), "aligned neurons: 1 of"),
    "attention": (lambda f: edit_card(f, attention="eager"), "attention: the card says eager"),
    "context": (lambda f: edit_card(f, context=128), "sizes: card.json and the files beside it disagree"),
}  # fmt: skip


@pytest.mark.parametrize("edit", RESEALED)
def test_an_edit_that_was_hashed_again_is_named(copy, edit):
    change, message = RESEALED[edit]
    change(copy)
    assert message in said(verify(copy))


def test_a_cut_off_ten_times_too_high_is_named_with_an_index_and_without(copy):
    high = Card.read(copy).norm_cutoff * 10
    edit_card(copy, norm_cutoff=high)
    assert "index: it was made for norm_cutoff" in said(verify(copy))
    meta = places.read_json(copy / "index" / "index.json") | {"norm_cutoff": high}
    places.write_json(copy / "index" / "index.json", meta | {"sha256": own_sha256(meta)})
    edit_card(copy)
    assert "times what a harvest of the index's text would set" in said(verify(copy))
    shutil.rmtree(copy / "index")
    edit_card(copy)
    assert "times what a harvest of the probe text would set" in said(verify(copy))


def test_all_of_an_index_made_anew_is_the_same_bytes_and_a_consistent_lie_is_named(copy):
    found = verify(copy, Asked(full=True))
    assert not found.differs, said(found)
    assert any(c.what == "numbers of the index: all" and "byte for byte" in c.found for c in found.checks)
    edit_index(copy, "features.parquet", column("token_entropy", times(5, 2)))  # which no other table contradicts
    assert not verify(copy).differs
    assert "token_entropy in features.parquet" in said(verify(copy, Asked(full=True)))


def test_the_power_of_the_sample_is_that_of_drawing_without_replacement():
    scattered, together = powers(rows=100, drawn=10, total=200)
    assert scattered == pytest.approx(1 - 0.99**100)
    assert together == pytest.approx(1 - (190 * 189) / (200 * 199))
    assert powers(rows=5, drawn=20, total=20)[1] == 1.0


def test_claims_say_what_was_recomputed_what_is_only_hashed_and_what_nobody_checked(copy):
    (copy / "labels.jsonl").write_text('{"feature": 3, "text": "planted"}\n', encoding="utf-8")
    edit_card(copy, metrics={"held_out": {"fvu": 0.01}}, licences={"weights": "none"})
    found = verify(copy)
    assert found.verdict == "verified", said(found)
    status = {claim.what: claim.status for claim in found.claims}
    assert {status[name] for name in ("model", "hook point", "norm_cutoff", "separator", "index: logits")} == {
        "recomputed"
    }
    assert {status[name] for name in ("metrics, held_out", "licence, weights", "recipe")} == {"only hashed"}
    assert status["labels"] == "not checked"
    assert "only hashed" in found.sentence
    raw = places.read_json(copy / "card.json")
    places.write_json(
        copy / "card.json", raw | {"licences": {"weights": "MIT"}}
    )  # by hand: the card's own hash differs
    assert "file card.json: it was edited after it was written" in said(verify(copy, Asked(numbers=False)))


def test_a_card_from_before_cards_had_hashes_still_verifies(copy):
    raw = places.read_json(copy / "card.json")
    raw.pop("card_sha256")
    places.write_json(copy / "card.json", raw)
    found = verify(copy)
    assert found.verdict == "verified", said(found)
    assert {c.status for c in found.claims if c.what.startswith("licence")} == {"not checked"}


def test_metrics_that_the_card_claims_are_made_anew_on_a_text(copy, text_folder):
    text = open_corpus(text_folder)
    report = Workbench.open(copy, labels="sqlite://").evaluate(text, 2_048).to_dict()
    about = {"text": {"name": text.name, "split": "heldout"}}
    edit_card(copy, metrics={"held_out": report | about})
    found = verify(copy, Asked(metrics=text))
    assert not found.differs, said(found)
    assert {c.status for c in found.claims if c.what == "metrics, held_out"} == {"recomputed"}
    edit_card(copy, metrics={"held_out": report | about | {"fvu": 0.01, "fvu_interval": [0.009, 0.011]}})
    assert "metrics held_out: fvu of the card do not come out" in said(verify(copy, Asked(metrics=text)))
    edit_card(copy, metrics={"fvu": 0.01})
    assert "metrics: fvu of the card do not come out" in said(verify(copy, Asked(metrics=text)))


def test_a_pin_that_was_told_elsewhere_shows_whoever_sealed_again(copy):
    own = verify(copy, Asked(numbers=False)).pin
    assert not verify(copy, Asked(numbers=False, expect=own)).differs
    edit_card(copy, licences={"weights": "MIT"})
    assert "pin: " in said(verify(copy, Asked(numbers=False, expect=own)))
    with pytest.raises(InterpError, match="is no pin; give all 64"):
        verify(copy, Asked(numbers=False, expect=own[:20]))


# ---- hook points at which no position of the probe counts ----


def family(kind, folder, tiny_folder):
    """A random two-block model of another family, with the test tokenizer."""
    import transformers as T

    tokenizer = T.AutoTokenizer.from_pretrained(tiny_folder)
    shape = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"intermediate_size": 32, "num_key_value_heads": 1, "max_position_embeddings": 512}
    gpt2 = {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512}
    made = {"gpt2": lambda: T.GPT2Config(**gpt2), "qwen2": lambda: T.Qwen2Config(**shape, **more)}[kind]()
    torch.manual_seed(0)
    T.AutoModelForCausalLM.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return open_model(str(folder), dtype="float32")


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
@pytest.mark.parametrize("hook", ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out"])
def test_where_no_position_counts_nothing_is_said_for_or_against(kind, hook, tiny_folder, tmp_path):
    model = family(kind, tmp_path / "model", tiny_folder)
    draw = torch.Generator().manual_seed(0)
    W = torch.nn.functional.normalize(torch.randn(32, 16, generator=draw), dim=1)
    zero = {"b_enc": torch.zeros(32), "b_dec": torch.zeros(16), "threshold": torch.zeros(32)}
    sae = SAE(W_enc=W.T.contiguous(), W_dec=W, reads=hook, **zero)
    card = Card(
        name="quiet", model=model.source, model_sha256=model.fingerprint(), hook_name=hook, dtype="float32",
        attention=model.attention, architecture="batchtopk", norm_cutoff=1e-9, separator=model.separator, context=256,
    )  # fmt: skip
    save(sae, tmp_path / "sae", card)
    found = verify(tmp_path / "sae")
    assert not found.differs, said(found)
    assert found.verdict == "files only"
    assert "no positions of the probe text count" in next(c.found for c in found.checks if c.what == "fit")
    seal(tmp_path / "sae")
    found = verify(tmp_path / "sae")
    assert not found.differs, said(found)
    assert found.verdict == "files only"
    assert "says nothing of this SAE" in next(c.found for c in found.checks if c.what == "numbers on the probe")
    assert {c.status for c in found.claims if c.what == "hook point"} == {"only hashed"}
