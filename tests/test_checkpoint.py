import json
import shutil

import pytest
import torch
from safetensors import safe_open

from interp.checkpoint import Card, load, save, save_weights
from interp.sae import SAE
from interp.types import Hook, InterpError


def card(**changes):
    values = {
        "name": "t", "model": "m", "model_sha256": "x", "hook_name": "blocks.0.hook_resid_post", "dtype": "float32",
        "attention": "sdpa", "architecture": "batchtopk", "norm_cutoff": 9.0, "separator": 0, "context": 256,
    }  # fmt: skip
    return Card(**(values | changes))


def make(rule):
    torch.manual_seed(0)
    W = torch.nn.functional.normalize(torch.randn(64, 16), dim=1).half().float()
    bias = {"b_enc": (torch.randn(64) * 0.1).half().float(), "b_dec": torch.randn(16).half().float()}
    extra = {"threshold": torch.full((64,), 0.5)} if rule == "jumprelu" else {"k": 4}
    return SAE(W_enc=W.T.contiguous(), W_dec=W, **bias, **extra)


@pytest.mark.parametrize("rule", ["jumprelu", "topk"])
def test_sae_lens_opens_the_folder_and_computes_the_same(tmp_path, rule):
    import sae_lens

    save(make(rule), tmp_path, card())
    ours, theirs = load(tmp_path), sae_lens.SAE.load_from_disk(tmp_path)
    x = torch.randn(200, 16) * 3
    with torch.no_grad():
        assert torch.allclose(theirs.encode(x), ours.encode(x), atol=1e-6)
        assert torch.allclose(theirs(x), ours(x), atol=1e-5)
    assert str(theirs.cfg.dtype) in ("float32", "torch.float32")
    assert theirs.cfg.metadata.hook_name == "blocks.0.hook_resid_post"
    assert theirs.cfg.metadata.prepend_bos is False


def test_saving_and_loading_gives_the_same_sae(tmp_path):
    sae = make("jumprelu")
    written = save(sae, tmp_path, card())
    again = load(tmp_path)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec", "threshold"):
        assert torch.equal(getattr(again, name), getattr(sae, name))
    assert Card.read(tmp_path) == written
    assert len(written.sae_sha256) == 64


def test_weights_saved_with_their_hook_points_open_as_what_they_are(tmp_path):
    sae = make("jumprelu")
    sae.centred = False
    save_weights(sae, tmp_path / "t", hooks=("in", "out"))
    again = load(tmp_path / "t")
    assert (again.hook_name, again.hook_name_out, sae.hook_name) == ("in", "out", "")
    assert json.loads((tmp_path / "t" / "cfg.json").read_text())["architecture"] == "jumprelu_transcoder"
    sae.centred = True
    sae.set_hooks([Hook("", 8), Hook("", 8)])
    for hooks, names in ((("a", "b"), ["a", "b"]), ((), [])):
        save_weights(sae, tmp_path / "c", hooks=hooks)
        assert json.loads((tmp_path / "c" / "cfg.json").read_text())["hook_names"] == names


def test_weights_that_were_changed_are_not_opened(tmp_path):
    save(make("jumprelu"), tmp_path, card())
    path = tmp_path / "sae_weights.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InterpError, match="SHA-256 differs"):
        load(tmp_path)


def test_a_folder_without_a_card_opens_as_far_as_it_goes(tmp_path):
    save(make("topk"), tmp_path, card())
    (tmp_path / "card.json").unlink()
    assert load(tmp_path).k == 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "there is no folder"),
        (lambda f: (f / "sae_weights.safetensors").unlink(), "has no sae_weights"),
        (lambda f: (f / "cfg.json").write_text("{"), "not readable as JSON"),
        (
            lambda f: (f / "card.json").unlink() or (f / "cfg.json").write_text('{"architecture": "gated"}'),
            "has no tensor b_gate, b_mag, r_mag",
        ),
        (lambda f: (f / "card.json").write_text("[]"), "later format"),
        (lambda f: (f / "card.json").write_text('{"format": 1}'), "has no name, model"),
        (
            lambda f: (f / "card.json").unlink() or (f / "sae_weights.safetensors").write_bytes(b"12345678901"),
            "cannot be read",
        ),
    ],
)
def test_a_broken_checkpoint_is_answered_in_a_sentence(tmp_path, spoil, message):
    save(make("jumprelu"), tmp_path / "s", card())
    spoil(tmp_path / "s")
    with pytest.raises(InterpError, match=message):
        load(tmp_path / "s")


def test_cfg_and_weights_that_disagree_are_refused(tmp_path):
    save(make("jumprelu"), tmp_path, card())
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(cfg | {"d_sae": 65}))
    with pytest.raises(InterpError, match="cfg.json is not the file that card.json names"):
        load(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(InterpError, match="says W_enc is \\(16, 65\\) and W_dec \\(65, 16\\), the weights"):
        load(tmp_path)


@pytest.mark.parametrize("value", [1e6, 1e-9])
def test_a_tensor_that_float16_cannot_hold_is_kept_in_float32(tmp_path, value):
    sae = make("jumprelu")
    sae.b_dec.fill_(value)
    save(sae, tmp_path, card())
    assert torch.equal(load(tmp_path).b_dec, sae.b_dec)
    with safe_open(tmp_path / "sae_weights.safetensors", framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in ("W_enc", "W_dec")} == {torch.float16}


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    sae = make("jumprelu")
    sae.b_dec[0] = float("inf")
    with pytest.raises(InterpError, match="b_dec has values that float32 cannot hold"):
        save(sae, tmp_path, card())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["sae_sha256", "model_sha256"])
def test_a_hash_in_a_card_cannot_be_a_path(checkpoint, tmp_path, key):
    """Hashes name folders under INTERP_HOME."""
    shutil.copytree(checkpoint, tmp_path / "sae", ignore=shutil.ignore_patterns("index"))
    card = json.loads((tmp_path / "sae" / "card.json").read_text())
    (tmp_path / "sae" / "card.json").write_text(json.dumps(card | {key: "../../elsewhere"}))
    with pytest.raises(InterpError, match=f"gives {key} the value"):
        Card.read(tmp_path / "sae")
