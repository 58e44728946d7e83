"""Verifying names what differs: each test spoils a sealed checkpoint in one way that shared SAEs go wrong."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp import places, workbench
from interp.checkpoint import Card
from interp.checkpoint.files import hashes
from interp.device import native_bfloat16
from interp.types import InterpError
from interp.verification import check_files, seal, verify, verify_plain
from interp.verification.measure import activations
from interp.verification.run import _checks, _open
from tests.conftest import HOOK


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
    assert verify(copy, numbers=False).verdict == "files only"


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
    assert "model: other weights: the card says" in said(verify(copy, model=str(tmp_path / "other")))


def test_another_tokenizer_is_named(copy, tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "other")
    raw = json.loads((tmp_path / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    raw["model"]["merges"] = raw["model"]["merges"][:40]
    raw["model"]["vocab"] = {t: i for t, i in raw["model"]["vocab"].items() if i < 298}
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")
    found = verify(copy, model=str(tmp_path / "other"))
    assert "another tokenizer or separator: the probe text is cut otherwise" in said(found)


def test_another_separator_is_named(copy):
    edit_card(copy, separator=7)
    assert "separator: the card says 7, and tiny-llama puts 0 in front" in said(verify(copy))


def test_numbers_made_without_the_separator_in_front_are_named(copy, tiny):
    raw = places.read_json(copy / "checks.json")
    card, sae = Card.read(copy), workbench.load(copy)
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
    card, sae = Card.read(copy), workbench.load(copy)
    halves = _open(card, "", "cpu", "bfloat16")
    raw = _checks(card, sae, halves, "cpu")
    places.write_json(copy / "checks.json", raw | {"dtype": "float32"})
    edit_card(copy)
    assert "another dtype: the stored numbers are those of bfloat16, and the file says float32" in said(verify(copy))


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


def test_the_embedded_sae_verifies(embedded):
    found = workbench.verify(embedded.folder)
    assert found.verdict == "verified", said(found)
