"""Packing and unpacking: the same bytes every time, and nothing that a hostile archive says is believed."""

import hashlib
import io
import json
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp import places
from interp.checkpoint import Card, load, pack, push, save, unpack
from interp.checkpoint.archive import _header, _manifest
from interp.checkpoint.files import pin, present
from interp.types import InterpError
from tests.test_checkpoint import card, make


@pytest.fixture
def folder(tmp_path):
    """A checkpoint with something of everything, and two files that are none of its own."""
    into = tmp_path / "sae"
    save(make("jumprelu"), into, card())
    (into / "index").mkdir()
    (into / "index" / "features.parquet").write_bytes(b"PAR1" + bytes(700) + b"PAR1")
    (into / "index" / "index.json").write_text("{}")
    (into / "labels.jsonl").write_text('{"feature": 1, "text": "ünï"}\n', encoding="utf-8")
    (into / "presets.json").write_text("[]")
    (into / "README.md").write_text("# an SAE\n")
    (into / "trainer_state.pt").write_bytes(pickle.dumps({"a": 1}))
    (into / ".run").mkdir()
    (into / ".run" / "state.safetensors").write_bytes(b"x")
    return into


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unpacking_gives_back_every_file_and_names_what_was_left_out(folder, tmp_path):
    packed = pack(folder, tmp_path / "a.tar")
    assert packed.left_out == [".run/state.safetensors", "trainer_state.pt"]
    out = unpack(tmp_path / "a.tar", tmp_path / "out")
    assert contents(tmp_path / "out") == {k: v for k, v in contents(folder).items() if k not in packed.left_out}
    assert out.files == packed.files
    assert torch.equal(load(tmp_path / "out").W_enc, load(folder).W_enc)


def test_the_same_folder_gives_the_same_bytes_whatever_its_times_and_modes(folder, tmp_path):
    pack(folder, tmp_path / "a.tar")
    for path in folder.rglob("*.json"):
        path.chmod(0o600)
        path.touch()
    pack(folder, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    unpack(tmp_path / "a.tar", tmp_path / "out")
    pack(tmp_path / "out", tmp_path / "c.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "c.tar").read_bytes()


def test_any_tar_lists_it_and_the_manifest_comes_first(folder, tmp_path):
    pack(folder, tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
        manifest = json.load(archive.extractfile("manifest.json"))
    assert names == ["manifest.json", *[row["name"] for row in manifest["files"]]]
    for row in manifest["files"]:
        raw = (folder / row["name"]).read_bytes()
        assert (row["size"], row["sha256"]) == (len(raw), hashlib.sha256(raw).hexdigest())


def archive(files, *, rows=None, header=None, tail=b"", order=sorted):
    """An archive as an attacker writes it: whatever files, rows and headers they like."""
    files = dict(order(files.items()))
    rows = rows or [{"name": n, "size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in files.items()]
    out = io.BytesIO()
    for name, raw in {"manifest.json": _manifest(rows), **files}.items():
        made = header(name, len(raw)) if header and name != "manifest.json" else _header(name, len(raw))
        out.write(made + raw + bytes(-len(raw) % 512))
    return out.getvalue() + bytes(1024) + tail


def evil(kind, name="cfg.json"):
    def header(member, size):
        info = tarfile.TarInfo(member)
        info.size, info.mode = size, 0o644
        if member == name:
            info.type, info.linkname = kind, "../../etc/passwd"
        return info.tobuf(tarfile.GNU_FORMAT)

    return header


@pytest.fixture
def good(folder):
    return {name: raw for name, raw in sorted(contents(folder).items()) if "run" not in name and "pt" not in name}


def rows_of(files, **changes):
    rows = [{"name": n, "size": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in files.items()]
    return [row | changes.get(row["name"].partition(".")[0], {}) for row in rows]


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (lambda g: archive(g | {"../evil.json": b"{}"}), "is no file of a checkpoint"),
        (lambda g: archive(g | {"/etc/evil.json": b"{}"}), "is no file of a checkpoint"),
        (lambda g: archive(g | {"index/../../evil.json": b"{}"}), "is no file of a checkpoint"),
        (lambda g: archive(g | {"index\\evil.json": b"{}"}), "is no file of a checkpoint"),
        (lambda g: archive(g | {"state.pt": pickle.dumps({})}), "is no file of a checkpoint"),
        (lambda g: archive(g | {"index/INDEX.json": b"{}"}), "is no file of a checkpoint"),
        (lambda g: archive(g | {"report.json": pickle.dumps({"a": 1})}), "not readable as JSON"),
        (lambda g: archive(g | {"presets.json": b"[" * 100_000}), "not readable as JSON"),
        (lambda g: archive(g | {"labels.jsonl": b"[]\n"}), "not a JSON object"),
        (lambda g: archive(g | {"sae_weights.safetensors": pickle.dumps({"a": 1})}), "not a safetensors file"),
        (lambda g: archive(g | {"index/features.parquet": pickle.dumps({"a": 1})}), "not a Parquet file"),
        (lambda g: archive(g, header=evil(tarfile.SYMTYPE)), "member at cfg.json is another"),
        (lambda g: archive(g, header=evil(tarfile.LNKTYPE)), "member at cfg.json is another"),
        (lambda g: archive(g, header=evil(tarfile.CHRTYPE)), "member at cfg.json is another"),
        (lambda g: archive(g, header=evil(tarfile.GNUTYPE_SPARSE)), "member at cfg.json is another"),
        (lambda g: archive(g, rows=rows_of(g, cfg={"sha256": "0" * 64})), "has not the SHA-256"),
        (lambda g: archive(g, rows=rows_of(g, cfg={"size": 2**49})), "its manifest asks for"),
        (lambda g: archive(g, rows=rows_of(g, cfg={"size": -1})), "the size -1"),
        (lambda g: archive(g, rows=rows_of(g, cfg={"size": True})), "the size True"),
        (lambda g: archive(g, rows=rows_of(g, cfg={"extra": 1})), "a row that is not name, size and sha256"),
        (lambda g: archive(g, rows=[*rows_of(g), rows_of(g)[0]]), "is there twice"),
        (lambda g: archive(g, order=reversed), "not as `interp pack` writes it"),
        (lambda g: archive({k: v for k, v in g.items() if k != "cfg.json"}), "has no cfg.json"),
        (lambda g: archive(g, tail=b"more"), "its manifest asks for"),
        (lambda g: archive(g)[:-700], "its manifest asks for"),
        (lambda g: archive(g)[:300], "no archive"),
        (lambda g: b"", "no archive"),
        (lambda g: b"PK\3\4" + bytes(2000), "no archive"),
        (lambda g: _header("manifest.json", 2**40) + bytes(2048), "does not begin with a manifest"),
        (lambda g: _header("manifest.json", 512) + b"{" * 512 + bytes(1024), "not readable"),
    ],
)  # fmt: skip
def test_an_archive_that_is_not_as_pack_writes_it_is_refused_and_leaves_nothing(good, tmp_path, attack, message):
    place = tmp_path / "place"
    place.mkdir()
    (place / "a.tar").write_bytes(attack(good))
    before = sorted(path for path in tmp_path.rglob("*") if "sae/" not in str(path))
    with pytest.raises(InterpError, match=message):
        unpack(place / "a.tar", place / "out")
    assert sorted(path for path in tmp_path.rglob("*") if "sae/" not in str(path)) == before


def test_the_attackers_archive_is_good_when_nothing_is_wrong_with_it(good, tmp_path):
    (tmp_path / "a.tar").write_bytes(archive(good))
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert contents(tmp_path / "out") == good


def test_a_link_in_the_folder_is_not_followed(folder, tmp_path):
    (tmp_path / "secret.md").write_text("secret")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "secret.md")
    packed = pack(folder, tmp_path / "a.tar")
    assert "README.md" in packed.left_out
    assert b"secret" not in (tmp_path / "a.tar").read_bytes()


def spoiled(name, tensor):
    """A change of the weights after which nobody re-hashed anything but the card."""

    def change(folder):
        tensors = load_file(folder / "sae_weights.safetensors")
        tensors[name] = tensor(tensors[name]) if tensor else None
        kept = {key: value for key, value in tensors.items() if value is not None}
        save_file(kept, folder / "sae_weights.safetensors")
        digest = places.sha256_file(folder / "sae_weights.safetensors")
        old = Card.read(folder)
        replace(old, sae_sha256=digest, files=old.files | {"sae_weights.safetensors": digest}).write(folder)

    return change


def edited(name, old, new):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


def index_says(folder):
    (folder / "index" / "index.json").write_text(json.dumps({"files": {"features.parquet": "0" * 64}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoiled("W_dec", lambda x: x.index_fill(0, torch.tensor([1]), torch.nan)), "W_dec holds a NaN"),
        (spoiled("b_enc", lambda x: x - torch.inf), "b_enc holds a NaN or an infinity"),
        (spoiled("threshold", lambda x: x - torch.inf), "threshold holds a NaN or an infinity"),
        (spoiled("b_dec", lambda x: x[:-1].clone()), r"b_dec has shape \(15,\), where \(16,\) is needed"),
        (spoiled("threshold", None), "has no tensor threshold, which a jumprelu SAE needs"),
        (edited("cfg.json", "float32", "float16"), "cfg.json is not the file that card.json names"),
        (edited("card.json", '"norm_cutoff": 9.0', '"norm_cutoff": 90.0'), "card.json was edited after it was written"),
        (index_says, "index/features.parquet is not the file that index/index.json names"),
        (lambda folder: (folder / "cfg.json").write_text("[]"), "cfg.json"),
    ],
)  # fmt: skip
def test_what_the_checkpoints_own_card_contradicts_and_broken_weights_never_leave(folder, tmp_path, change, message):
    change(folder)
    with pytest.raises(InterpError, match=message):
        pack(folder, tmp_path / "a.tar")
    with pytest.raises(InterpError, match=message):
        push(folder, f"file://{tmp_path}/b.tar")
    assert not list(tmp_path.glob("*.tar"))


def test_a_threshold_of_inf_is_legal_and_leaves(folder, tmp_path):
    spoiled("threshold", lambda x: x.index_fill(0, torch.tensor([1]), torch.inf))(folder)
    pack(folder, tmp_path / "a.tar")
    sae = make("jumprelu")
    sae.threshold[3] = torch.inf
    save(sae, tmp_path / "again", card())
    assert load_file(tmp_path / "again" / "sae_weights.safetensors")["threshold"][3] == torch.inf


def test_the_pin_is_of_names_and_contents_and_is_the_same_on_both_sides(folder, tmp_path):
    packed = pack(folder, tmp_path / "a.tar")
    assert unpack(tmp_path / "a.tar", tmp_path / "out").pin == packed.pin == pin(present(tmp_path / "out")[0])
    listed = "".join(
        f"{hashlib.sha256(raw).hexdigest()}  {name}\n" for name, raw in sorted(contents(tmp_path / "out").items())
    )
    assert packed.pin == hashlib.sha256(listed.encode()).hexdigest()
    (tmp_path / "out" / "README.md").write_text("# another\n")
    assert pin(present(tmp_path / "out")[0]) != packed.pin


def test_unpacking_over_something_is_refused(folder, tmp_path):
    pack(folder, tmp_path / "a.tar")
    with pytest.raises(InterpError, match="exists already"):
        unpack(tmp_path / "a.tar", folder)


STAND_STILL = """
import sys, time, hashlib
from pathlib import Path
from interp.checkpoint import pack, unpack
import interp.checkpoint.archive as module
copy = module.{step}
def slow(out, *rest):
    found = copy(out, *rest)
    if 'safetensors' in str(rest):
        if hasattr(out, 'flush'):
            out.flush()
        print('half way', flush=True)
        time.sleep(60)
    return found
module.{step} = slow
{work}(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("work", "step"), [("pack", "_copy_in"), ("unpack", "_copy_out")])
def test_kill_9_half_way_leaves_the_old_state_and_the_next_call_works(folder, tmp_path, work, step):
    archive_path, target = tmp_path / "a.tar", tmp_path / "out"
    pack(folder, archive_path)
    old = archive_path.read_bytes()
    (folder / "report.md").write_text("more")  # so that the new archive differs
    source, into = (folder, archive_path) if work == "pack" else (archive_path, target)
    with subprocess.Popen(
        [sys.executable, "-c", STAND_STILL.format(step=step, work=work), str(source), str(into)],
        stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent, text=True,
    ) as child:  # fmt: skip
        assert child.stdout.readline() == "half way\n"
        child.send_signal(signal.SIGKILL)
    assert archive_path.read_bytes() == old
    assert not target.exists()
    if work == "pack":
        pack(folder, archive_path)
        assert archive_path.read_bytes() != old
    unpack(archive_path, target)
    assert load(target).d_sae == 64


def test_time_to_pack_is_of_the_order_of_a_copy(folder, tmp_path):
    """No timed limit (benchmarks/sharing.py measures): only that nothing is done byte by byte."""
    (folder / "index" / "activations.parquet").write_bytes(b"PAR1" + bytes(20 * 2**20) + b"PAR1")
    began = time.perf_counter()
    pack(folder, tmp_path / "a.tar")
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert time.perf_counter() - began < 20


def test_packing_with_labels_takes_those_written_here(wb, tmp_path):
    wb.labels.set(3, "three", author="me")
    wb.pack(tmp_path / "a.tar", labels=True)
    wb.pack(tmp_path / "b.tar")
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "labels.jsonl").read_text())["text"] == "three"
    assert "labels.jsonl" not in unpack(tmp_path / "b.tar", tmp_path / "plain").files
