"""The commands that share, as a user meets them."""

import json
import shutil

import pytest

from tests.conftest import PICTURES, SHIPPED
from tests.test_cli import call


def test_the_whole_way_from_packing_to_verifying(monkeypatch, capsys, checkpoint, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    shutil.copytree(checkpoint, tmp_path / "mine")
    assert call(monkeypatch, capsys, "verify", "mine", "--write")[0] == 0
    code, out, err = call(monkeypatch, capsys, "pack", "mine", "--into", "m.interp.tar")
    assert code == 0, err
    assert "files" in out
    assert call(monkeypatch, capsys, "unpack", "m.interp.tar")[0] == 0  # into saes/m
    code, out, _ = call(monkeypatch, capsys, "verify", "saes/m", "--json")
    assert code == 0
    assert json.loads(out)["verdict"] == "verified"
    assert call(monkeypatch, capsys, "convert", "saes/m", "--to", "llamascopium", "--into", "theirs")[0] == 0
    code, out, _ = call(monkeypatch, capsys, "convert", "theirs", "--into", "saes/back", "--json")
    assert code == 0
    assert json.loads(out)["source"] == "llamascopium"
    assert call(monkeypatch, capsys, "export", "saes/m", "--into", "pages", "--limit", "3")[0] == 0
    assert len(list((tmp_path / "pages").glob("feature-*.html"))) == 3
    assert call(monkeypatch, capsys, "push", "saes/m", f"file://{tmp_path}/x.interp.tar")[0] == 0
    assert call(monkeypatch, capsys, "pull", f"file://{tmp_path}/x.interp.tar", "--into", "saes/y")[0] == 0
    code, out, _ = call(monkeypatch, capsys, "library", "--json")
    names = [row["name"] for row in json.loads(out)]
    assert names[:3] == ["back", "tiny", "tiny"]
    assert names[3:] == [PICTURES, *SHIPPED]  # which are listed wherever one stands, unless a folder is named
    assert json.loads(out)[1]["verified"].startswith("verified 2")
    assert call(monkeypatch, capsys, "library")[0] == 0


def test_what_differs_is_one_sentence_and_exit_code_2(monkeypatch, capsys, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "s")
    raw = bytearray((tmp_path / "s" / "sae_weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "s" / "sae_weights.safetensors").write_bytes(raw)
    code, _, err = call(monkeypatch, capsys, "verify", tmp_path / "s", "--files-only")
    assert code == 2
    assert "is not what it says. file sae_weights.safetensors: other SAE weights than the card names" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "nowhere"], "there is no SAE at nowhere"),
        (["pack", "nowhere"], "there is no SAE at nowhere"),
        (["unpack", "nowhere.tar"], "cannot use nowhere.tar"),
        (["convert", "nowhere", "--into", "x"], "there is nothing at nowhere"),
        (["convert", "SAE", "--to", "sparsify", "--into", "x"], "sparsify has no place for thresholds"),
        (["convert", "SAE", "--to", "sparsity", "--into", "x"], "did you mean sparsify"),
        (["export", "SAE", "--to", "htm", "--into", "x"], "did you mean html"),
        (["push", "SAE", "somewhere"], "is no place to share"),
        (["pull", "hf:x", "--into", "x"], "is no place to share"),
        (["library", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(monkeypatch, capsys, checkpoint, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *[checkpoint if a == "SAE" else a for a in arguments])
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
