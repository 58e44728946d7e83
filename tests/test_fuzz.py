"""Broken and hostile files: some 31,000, seeded, and each is either read or answered with an InterpError."""

import json
import random
import shutil
from pathlib import Path

import pytest

from interp.checkpoint import Card, load, pack, unpack
from interp.checkpoint.formats import read
from interp.types import InterpError
from interp.verification.numbers import read_checks
from tests import test_published as published
from tests.test_pack import folder  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow
PEERS = Path(__file__).parent / "fixtures" / "peers" / "theirs"
ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, 1e308, float("inf"), float("nan"), "", "x", "../x", "\x00",
    "é" * 300, "1", [], [1], [[]], {}, {"a": 1}, {"metadata": None}, [None] * 50, "topk", "jumprelu", "none",
]  # fmt: skip
BYTES = [
    b"",
    b"\x00",
    b"\xff" * 9,
    b"../",
    b"{",
    b"]",
    b'"',
    b"\x80\x04.",
    b"PK\x03\x04",
    b"9" * 40,
    b"-",
    b"null",
    b"1e999",
]


def mangled(raw, draw):
    """The bytes with one to four places changed, cut, repeated or filled with something else."""
    out = bytearray(raw)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(out) + 1)
        kind = draw.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            out[at:at] = draw.choice(BYTES)
        elif kind == 3:
            end = min(at + draw.randrange(200), len(out))
            out[at:at] = out[at:end]
        elif kind == 4:
            del out[at : at + draw.randrange(40)]
        else:
            out[at : at + draw.randrange(20)] = draw.randbytes(draw.randrange(20))
    return bytes(out)


def twisted(value, draw):
    """The JSON value with one part of it replaced, removed or renamed."""
    value = json.loads(json.dumps(value))
    spots = []

    def walk(part):
        if isinstance(part, dict | list):
            for key in list(part) if isinstance(part, dict) else range(len(part)):
                spots.append((part, key))
                walk(part[key])

    walk(value)
    for _ in range(draw.randint(1, 3)):
        if not spots:
            break
        part, key = draw.choice(spots)
        kind = draw.randrange(4)
        if kind == 0 and isinstance(part, dict):
            part.pop(key, None)
        elif kind == 1 and isinstance(part, dict):
            part[str(draw.choice(ODD))[:50]] = part.pop(key, None)
        elif isinstance(part, dict) or key < len(part):
            part[key] = draw.choice(ODD)
    return json.dumps(value).encode()


def tried(reader, path, inputs):
    """How many inputs were read after all; anything but an InterpError is raised to the test."""
    good = 0
    for number, raw in enumerate(inputs):
        path.unlink(missing_ok=True)  # much faster than writing over it, on some file systems
        path.write_bytes(raw)
        try:
            reader()
            good += 1
        except InterpError:
            continue
        except Exception as error:
            pytest.fail(f"input {number}, {raw[:200]!r}: {error!r}")
    return good


def variants(raw, count, seed):
    """Half mangled bytes, half JSON with one value changed."""
    draw = random.Random(seed)
    value = json.loads(raw)
    yield from (mangled(raw, draw) if i % 2 else twisted(value, draw) for i in range(count))


@pytest.fixture
def small(folder, tmp_path):  # noqa: F811
    """The least of a checkpoint, so that thousands are read in seconds."""
    shutil.rmtree(folder / ".run")
    for name in ("trainer_state.pt", "presets.json", "README.md"):
        (folder / name).unlink()
    return folder


def test_archives(small, tmp_path):
    """8,000: nothing but the target is ever written, and it is the whole checkpoint or not there."""
    pack(small, tmp_path / "good.tar")
    raw, place, draw = (tmp_path / "good.tar").read_bytes(), tmp_path / "place", random.Random(1)
    place.mkdir()
    manifest = raw[512 : 512 + raw[512:].index(b"\0")]

    def inputs():
        for i in range(8_000):
            if i % 3 == 2:  # the manifest alone, its length kept, so that later checks are reached
                new = mangled(manifest, draw)[: len(manifest)].ljust(len(manifest), b" ")
                yield raw[:512] + new + raw[512 + len(manifest) :]
            else:
                yield mangled(raw, draw)

    def reader():
        unpack(place / "a.tar", place / "out")
        shutil.rmtree(place / "out")

    before = sorted(path for path in tmp_path.rglob("*") if place not in path.parents)
    good = tried(reader, (place / "a.tar"), inputs())
    assert sorted(path.name for path in place.iterdir()) == ["a.tar"]
    assert sorted(path for path in tmp_path.rglob("*") if place not in path.parents) == before
    assert good < 80  # those whose mutation changed nothing


def test_cards(small):
    raw = (small / "card.json").read_bytes()
    tried(lambda: Card.read(small), (small / "card.json"), variants(raw, 6_000, 2))


def test_configurations(small):
    (small / "card.json").unlink()
    raw = (small / "cfg.json").read_bytes()
    tried(lambda: load(small), (small / "cfg.json"), variants(raw, 3_000, 3))


def test_old_configurations(tmp_path):
    shutil.copytree(PEERS / "saelens-old-topk", tmp_path / "s")
    raw = (tmp_path / "s" / "cfg.json").read_bytes()
    tried(lambda: read(tmp_path / "s"), (tmp_path / "s" / "cfg.json"), variants(raw, 2_000, 4))


def test_weights(small):
    (small / "card.json").unlink()
    path, draw = small / "sae_weights.safetensors", random.Random(5)
    raw = path.read_bytes()
    head = int.from_bytes(raw[:8], "little") + 8
    inputs = (mangled(raw[:head], draw) + raw[head:] if i % 2 else mangled(raw, draw) for i in range(3_000))
    tried(lambda: load(small), path, inputs)


def test_stored_numbers(tmp_path):
    value = {
        "format": 1, "probe": 1, "dtype": "float32", "l0": 3.5, "ev": 0.8, "histogram": [1, 2, 3], "tokens": ["0 5 6", "0 7 8"],
        "sample": ["1 3 0.5", "2 4 1.5"],
        "tolerances": {kind: dict.fromkeys(("codes", "values", "l0", "ev", "histogram"), 0.1) for kind in ("same", "other")},
    }  # fmt: skip
    raw = json.dumps(value).encode()
    tried(lambda: read_checks(tmp_path), (tmp_path / "checks.json"), variants(raw, 2_000, 6))


@pytest.mark.parametrize(
    ("name", "config", "seed"),
    [
        ("sparsify/layers.15", "cfg.json", 7),
        ("dictionary_learning-MatryoshkaBatchTopKSAE", "config.json", 8),
        ("dictionary_learning-AutoEncoderTopK", "config.json", 9),
        ("llamascopium-jumprelu", "config.json", 10),
    ],
)
def test_other_libraries_configurations(tmp_path, name, config, seed):
    shutil.copytree(PEERS / name, tmp_path / "s")
    raw = (tmp_path / "s" / config).read_bytes()
    tried(lambda: read(tmp_path / "s"), (tmp_path / "s" / config), variants(raw, 300, seed))


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("dictionary_learning-BatchTopKSAE", "ae.pt", 150),
        ("dictionary_learning-GatedAutoEncoder", "ae.pt", 150),
        ("llamascopium-topk", "sae_weights.safetensors", 200),
        ("circuit-tracer-relu-skip", "layer_15.safetensors", 200),
        ("circuit-tracer-relu-skip", "config.yaml", 150),
    ],
)
def test_other_libraries_weights(tmp_path, name, file, count):
    shutil.copytree(PEERS / name, tmp_path / "s")
    (tmp_path / "s" / "expected.safetensors").unlink()
    raw, draw = (tmp_path / "s" / file).read_bytes(), random.Random(11)
    tried(lambda: read(tmp_path / "s"), (tmp_path / "s" / file), (mangled(raw, draw) for _ in range(count)))


def _published(tmp_path, kind):
    """(what is read, its configuration or None, its weights) of a folder as it was published."""
    if kind == "llama-scope":
        folder = published.llama_scope(tmp_path)
        return folder, folder / "hyperparams.json", folder / "checkpoints" / "final.safetensors"
    if kind == "gemma-scope":
        config = {"architecture": "jump_relu", "width": 12, "model_name": "m", "affine_connection": False, "type": "sae",
                  "hf_hook_point_in": "model.layers.3.output", "hf_hook_point_out": "model.layers.3.output"}  # fmt: skip
        folder = published.folder_of(tmp_path / "resid_post" / "layer_3", config=config)
        published.save_file(published.SCOPE, folder / "params.safetensors")
        return folder, folder / "config.json", folder / "params.safetensors"
    if kind == "gemma-scope-1":
        folder = published.folder_of(tmp_path / "layer_3")
        published.np.savez(folder / "params.npz", **{k: v.numpy() for k, v in published.SCOPE.items()})
        return folder, None, folder / "params.npz"
    if kind == "openai":
        file = published.openai(tmp_path, activation="ReLU", activation_state_dict={})
        return file, None, file
    if kind == "qwen-scope":
        file = published.folder_of(tmp_path / "SAE-Res-Q-W32K-L0_3") / "layer4.sae.pt"
        published.torch.save(
            {
                "W_enc": published.W_ENC.T,
                "b_enc": published.B_ENC,
                "W_dec": published.W_DEC.T,
                "b_dec": published.B_DEC,
            },
            file,
        )
        return file, None, file
    if kind == "attn-saes":
        config = {"act_size": 8, "dict_size": 12, "act_name": "blocks.5.attn.hook_z"}
        published.folder_of(tmp_path, a_cfg=config)
        published.torch.save(published.PLAIN, tmp_path / "a.pt")
        return tmp_path / "a.pt", tmp_path / "a_cfg.json", tmp_path / "a.pt"
    if kind == "linear":
        names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
        parts = (published.W_ENC.T, published.B_ENC, published.W_DEC.T, published.B_DEC)
        published.torch.save(dict(zip(names, parts, strict=True)), tmp_path / "x-SAE-l3.pt")
        return tmp_path / "x-SAE-l3.pt", None, tmp_path / "x-SAE-l3.pt"
    whiten = kind == "whitened"
    more = {"topk_threshold": published.torch.tensor(0.4)} if not whiten else {}
    changes = {"normalize_activations": "covariance_whitening"} if whiten else {"architecture": "batchtopk", "k": 3.5}
    folder = published.saelens(tmp_path, published.PLAIN | more, **changes)
    if not whiten:
        return folder, folder / "cfg.json", folder / "sae_weights.safetensors"
    white = {"mean": published.B_DEC, "matrix": published.drawn(8, 8), "inverse_matrix": published.drawn(8, 8, seed=1)}
    published.save_file(white, folder / "activation_whitening.safetensors")
    return folder, folder / "cfg.json", folder / "activation_whitening.safetensors"


PUBLISHED = (
    "llama-scope", "gemma-scope", "gemma-scope-1", "openai", "qwen-scope", "attn-saes", "linear", "unfinished", "whitened",
)  # fmt: skip


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_layouts(tmp_path, kind):
    """300 configurations and 200 files of weights each."""
    place, config, weights = _published(tmp_path, kind)
    read(place)
    for file, inputs in (
        (config, variants(config.read_bytes(), 300, 12) if config else ()),
        (weights, (mangled(weights.read_bytes(), random.Random(at)) for at in range(200))),
    ):
        if file is None:
            continue
        raw = file.read_bytes()
        good = tried(lambda: read(place), file, list(inputs))
        assert file == weights or good > 0
        file.write_bytes(raw)


def test_folders_of_anything_are_refused_in_a_sentence(tmp_path):
    """Every known name with every odd content, alone in a folder, read by its name and opened."""
    names = ["cfg.json", "config.json", "config.yaml", "hyperparams.json", "ae.pt", "layer1.sae.pt", "x.pt", "params.npz",
             "params.safetensors", "sae.safetensors", "sae_weights.safetensors", "layer_0.safetensors", "card.json"]  # fmt: skip
    draw, place = random.Random(13), tmp_path / "f"
    for _ in range(400):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        for name in draw.sample(names, draw.randint(1, 4)):
            content = draw.choice([*BYTES, *(json.dumps(odd, default=str).encode() for odd in ODD)])
            (place / name).write_bytes(content)
        for opens in (read, load):
            with pytest.raises(InterpError):
                opens(place)
