"""Push and pull against a local server that speaks the hub's HTTP (tests/hub_server.py), and files by fsspec URL."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from interp import places
from interp.checkpoint import load, pull, push
from interp.checkpoint.remote import shown
from interp.types import InterpError
from tests.hub_server import Hub
from tests.test_pack import contents, folder  # noqa: F401  (a fixture)

ROOT = Path(__file__).parent.parent
SECRET = "hf_averysecrettokenthatmustnotleak"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with Hub() as server:
        yield server
        server.shutdown()


@pytest.fixture
def plain(folder):  # noqa: F811
    """The checkpoint without its README, so that one is written."""
    (folder / "README.md").unlink()
    return folder


def test_what_was_pushed_is_pulled_with_a_readme_that_says_how_to_open_it(hub, plain, tmp_path):
    moved = push(plain, "hf:me/sae", endpoint=hub.endpoint)
    assert moved.left_out == [".run/state.safetensors", "trainer_state.pt"]
    assert hub.commits["me/sae"] == 1
    text = hub.repos["me/sae"]["README.md"].decode()
    assert "SAE.load_from_disk" in text
    assert "interp pull hf:me/sae" in text
    assert text.startswith("---\nlicense: other\n")
    pull("hf:me/sae", tmp_path / "out", endpoint=hub.endpoint)
    assert contents(tmp_path / "out") == hub.repos["me/sae"]
    assert load(tmp_path / "out").d_sae == 64
    assert not list((places.cache() / "pulls").glob("*"))


def test_a_folder_inside_a_repository_and_a_second_checkpoint_beside_it(hub, plain, tmp_path):
    push(plain, "hf:me/many/a", endpoint=hub.endpoint)
    push(plain, "hf:me/many/b/c", endpoint=hub.endpoint)
    pull("hf:me/many/b/c", tmp_path / "out", endpoint=hub.endpoint)
    assert load(tmp_path / "out").d_sae == 64
    with pytest.raises(InterpError, match=r"holds no checkpoint at its top. It has checkpoints in a, b/c"):
        pull("hf:me/many", tmp_path / "other", endpoint=hub.endpoint)


def test_no_token_is_in_what_is_pushed_printed_or_left_behind(hub, plain, tmp_path, capfd):
    push(plain, "hf:me/sae", endpoint=hub.endpoint)
    pull("hf:me/sae", tmp_path / "out", endpoint=hub.endpoint)
    with pytest.raises(InterpError) as error:
        pull("hf:me/nothing", tmp_path / "x", endpoint=hub.endpoint)
    out, err = capfd.readouterr()
    kept = b"".join([*hub.repos["me/sae"].values(), *contents(tmp_path / "out").values()])
    assert SECRET not in out + err + str(error.value) + kept.decode("latin-1")
    assert shown("s3://key:secret@bucket/a?token=x") == "s3://bucket/a"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.update({"cfg.json": b"{}"}), "cfg.json is not the file that card.json names"),
        (lambda files: files.update({"checks.json": b"[]"}), "SHA-256 differs|checks.json"),
        (lambda files: files.update({"labels.jsonl": b"\x80\x04."}), "labels.jsonl is not readable"),
        (lambda files: files.update({"index/index.json": b"\x80\x04."}), "index/index.json is not readable"),
        (lambda files: files.pop("cfg.json"), "holds no checkpoint at its top"),
        (lambda files: files.update({"card.json": b"[]"}), "later format"),
    ],
)
def test_a_repository_that_is_not_what_it_says_leaves_nothing(hub, plain, tmp_path, spoil, message):
    from dataclasses import replace

    from interp.checkpoint import Card

    (plain / "checks.json").write_text("{}")
    card = Card.read(plain)
    replace(card, files=card.files | {"checks.json": places.sha256_file(plain / "checks.json")}).write(plain)
    push(plain, "hf:me/sae", endpoint=hub.endpoint)
    spoil(hub.repos["me/sae"])
    with pytest.raises(InterpError, match=message):
        pull("hf:me/sae", tmp_path / "out", endpoint=hub.endpoint)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))
    assert not list((places.cache() / "pulls").glob("*"))


def test_another_librarys_folder_or_file_is_converted_on_the_way(hub, tmp_path):
    """With the repository's name among those of folders, for Qwen Scope's k and Gemma Scope's place are in it."""
    from tests import test_published as published

    qwen = published.folder_of(tmp_path / "q") / "layer4.sae.pt"
    weights = {
        "W_enc": published.W_ENC.T,
        "b_enc": published.B_ENC,
        "W_dec": published.W_DEC.T,
        "b_dec": published.B_DEC,
    }
    published.torch.save(weights, qwen)
    name = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_3"
    hub.repos[name] = {"layer4.sae.pt": qwen.read_bytes(), "layer5.sae.pt": b"x", "README.md": b"x", "evil.py": b"x"}
    sparse = published.sparsify(tmp_path, "h.1.mlp", transcode=True)
    hub.repos["me/run"] = {f"h.1.mlp/{path.name}": path.read_bytes() for path in sparse.iterdir()}
    hub.repos["me/run"] |= {"config.json": b'{"model": "gpt2"}', "h.2.mlp/cfg.json": b"{}"}
    hub.commits |= {name: 1, "me/run": 1}
    with pytest.raises(
        InterpError, match=r"there are 2 SAEs there \(layer4.sae.pt, layer5.sae.pt…\); add one to the address"
    ):
        pull(f"hf:{name}", tmp_path / "out", endpoint=hub.endpoint)
    moved = pull(f"hf:{name}/layer4.sae.pt", tmp_path / "out", endpoint=hub.endpoint)
    assert moved.files == ["cfg.json", "sae_weights.safetensors"]
    found = load(tmp_path / "out")
    assert (found.k, found.hook_name) == (3, "blocks.4.hook_resid_post")
    moved = pull("hf:me/run/h.1.mlp", tmp_path / "mlp", endpoint=hub.endpoint)
    found = load(tmp_path / "mlp")
    assert (found.hook_name, found.hook_name_out) == ("blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out")
    assert "was read from the folder's name 'h.1.mlp'" in " ".join(moved.left_out)
    hub.repos["me/run"]["h.1.mlp/cfg.json"] = b'{"signed": true, "k": 3}'
    with pytest.raises(InterpError, match="keep their sign"):
        pull("hf:me/run/h.1.mlp", tmp_path / "signed", endpoint=hub.endpoint)
    assert not (tmp_path / "signed").exists()
    assert not list((places.cache() / "pulls").glob("*"))


def test_names_that_are_no_checkpoints_stay_on_the_hub(hub, plain, tmp_path):
    push(plain, "hf:me/sae", endpoint=hub.endpoint)
    hub.repos["me/sae"] |= {"evil.py": b"x", "../up.json": b"{}", "model.pkl": b"x"}
    moved = pull("hf:me/sae", tmp_path / "out", endpoint=hub.endpoint)
    assert moved.left_out == ["../up.json", "evil.py", "model.pkl"]
    assert not (tmp_path / "up.json").exists()


def test_a_changed_checkpoint_is_not_pushed(hub, plain):
    (plain / "cfg.json").write_text((plain / "cfg.json").read_text() + " ")
    with pytest.raises(InterpError, match=r"cfg.json is not the file that card.json names"):
        push(plain, "hf:me/sae", endpoint=hub.endpoint)
    assert not hub.repos


CHILD = """
import sys
import huggingface_hub.constants as constants
constants.HF_HUB_DISABLE_XET = True
from interp.checkpoint import pull, push
work, a, b, endpoint = sys.argv[1:]
{"push": push, "pull": pull}[work](a, b, endpoint=endpoint)
"""


def killed_at(hub, event, *arguments):
    """A client in a process of its own, killed by -9 while the server stands still at the event."""
    hub.stall, environment = event, os.environ | {"HF_HUB_DISABLE_XET": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments), hub.endpoint], cwd=ROOT, env=environment
    )
    assert hub.stalled.wait(60)
    child.send_signal(signal.SIGKILL)
    child.wait()
    hub.stall = ""


@pytest.mark.slow
@pytest.mark.parametrize("event", ["upload", "commit"])
def test_kill_9_in_a_push_leaves_the_old_state_and_the_next_push_goes_on(hub, plain, event):
    push(plain, "hf:me/sae", endpoint=hub.endpoint)
    old = dict(hub.repos["me/sae"])
    (plain / "index" / "features.parquet").write_bytes(b"PAR1" + bytes(5_000) + b"PAR1")
    killed_at(hub, event, "push", plain, "hf:me/sae")
    assert hub.repos["me/sae"] == old
    uploads = hub.uploads
    push(plain, "hf:me/sae", endpoint=hub.endpoint)
    assert hub.repos["me/sae"]["index/features.parquet"] == (plain / "index" / "features.parquet").read_bytes()
    assert hub.uploads == uploads + (event == "upload")  # what was uploaded before is not uploaded again


@pytest.mark.slow
def test_kill_9_in_a_pull_leaves_nothing_and_the_next_pull_goes_on(hub, plain, tmp_path):
    push(plain, "hf:me/sae", endpoint=hub.endpoint)
    killed_at(hub, "download", "pull", "hf:me/sae", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    hub.seen.clear()
    pull("hf:me/sae", tmp_path / "out", endpoint=hub.endpoint)
    assert contents(tmp_path / "out") == hub.repos["me/sae"]
    assert not any(line.startswith("GET") and line.endswith("card.json") for line in hub.seen)  # it was there already


def test_a_url_takes_one_packed_file(plain, tmp_path):
    place = f"file://{tmp_path}/shared/a.interp.tar"
    push(plain, place)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["a.interp.tar"]
    pull(place, tmp_path / "out")
    assert load(tmp_path / "out").d_sae == 64
    push(plain, "memory://b/a.interp.tar")
    pull("memory://b/a.interp.tar", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:///nowhere/a.tar", "could not be read"),
        ("nosuch://user:pw@b/a.tar", "nosuch://b/a.tar is of no kind that fsspec opens"),
        ("hf:onlyname", "is no place to share"),
        ("hf:a/../b", "is no place to share"),
        ("gemma-scope-2b-pt-rez/layer_0", "did you mean gemma-scope-2b-pt-res"),
        ("gpt2-small-res-jb/blocks.8.hook_resid_prf", "did you mean blocks.8.hook_resid_pre"),
    ],
)
def test_places_that_are_not_there_are_answered_in_a_sentence(tmp_path, source, message):
    with pytest.raises(InterpError, match=message) as error:
        pull(source, tmp_path / "out")
    assert "pw" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_published_sae_is_taken_through_sae_lens_list(monkeypatch, tmp_path):
    """sae-lens' own download is replaced: no hub is in reach. Its list and its SAE classes are the real ones."""
    import sae_lens
    import torch

    made = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(d_in=8, d_sae=12))
    made.cfg.metadata.hook_name = "blocks.8.hook_resid_pre"
    torch.nn.init.uniform_(made.threshold, 0.1, 1.0)
    monkeypatch.setattr(sae_lens.SAE, "from_pretrained", lambda *a, **k: made)
    pull("gpt2-small-res-jb/blocks.8.hook_resid_pre", tmp_path / "out")
    x = torch.randn(50, 8)
    with torch.no_grad():
        assert torch.allclose(load(tmp_path / "out").encode(x), made.encode(x), atol=1e-5)
    assert json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]["model_name"] == "gpt2-small"


def test_a_pulled_sae_without_a_card_gets_one_where_its_model_opens(hub, checkpoint, tiny_folder, tmp_path):
    import shutil

    from interp.workbench import Workbench, pull_checkpoint

    shutil.copytree(checkpoint, tmp_path / "plain", ignore=shutil.ignore_patterns("card.json", "index"))
    push(tmp_path / "plain", "hf:me/plain", endpoint=hub.endpoint)
    _, note = pull_checkpoint("hf:me/plain", tmp_path / "a", model=str(tiny_folder), endpoint=hub.endpoint)
    assert note == ""
    ours, theirs = Workbench.open(checkpoint, labels="sqlite://"), Workbench.open(tmp_path / "a", labels="sqlite://")
    text = "The capital of France is Paris."
    assert theirs.spectrum(text).features.tolist() == ours.spectrum(text).features.tolist()
    _, note = pull_checkpoint("hf:me/plain", tmp_path / "b", model="/nowhere", endpoint=hub.endpoint)
    assert "it has no card, and none could be made" in note


def test_the_workbench_pushes_labels_when_asked(hub, wb):
    wb.labels.set(3, "three", author="me")
    wb.push("hf:me/labelled", labels=True, endpoint=hub.endpoint)
    assert json.loads(hub.repos["me/labelled"]["labels.jsonl"])["text"] == "three"
    wb.push("hf:me/plain", endpoint=hub.endpoint)
    assert "labels.jsonl" not in hub.repos["me/plain"]
