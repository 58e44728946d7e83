"""Tiny random models of many families, with one tokenizer: nothing is downloaded."""

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

WORDS = [
    "the",
    "a",
    "city",
    "river",
    "house",
    "walks",
    "reads",
    "blue",
    "green",
    "seven",
    "under",
    "over",
    "near",
    "train",
    "bread",
    "music",
    "paper",
    "winter",
    "north",
]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
WIDTH = 32
_SHAPE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}
_GPT: dict[str, Any] = {"n_embd": WIDTH, "n_layer": 3, "n_head": 4, "n_positions": 512}
_OLD: dict[str, Any] = {key: value for key, value in _SHAPE.items() if key != "num_key_value_heads"}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _SHAPE),
    "gpt2": ("GPT2Config", _GPT),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "hidden_size": WIDTH,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 512,
        },
    ),
    "gpt_neox": ("GPTNeoXConfig", _OLD),
    "gptj": ("GPTJConfig", _GPT | {"rotary_dim": 8}),
    "codegen": ("CodeGenConfig", _GPT | {"rotary_dim": 8}),
    "qwen2": ("Qwen2Config", _SHAPE),
    "qwen3": ("Qwen3Config", _SHAPE | {"head_dim": 8}),
    "mistral": ("MistralConfig", _SHAPE),
    "gemma": ("GemmaConfig", _SHAPE | {"head_dim": 8}),
    "gemma2": ("Gemma2Config", _SHAPE | {"head_dim": 8, "sliding_window": 64}),
    "gemma3": ("Gemma3TextConfig", _SHAPE | {"head_dim": 8, "sliding_window": 64}),
    "phi": ("PhiConfig", _SHAPE),
    "phi3": ("Phi3Config", _SHAPE),
    "olmo": ("OlmoConfig", _SHAPE),
    "olmo2": ("Olmo2Config", _SHAPE),
    "opt": (
        "OPTConfig",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "max_position_embeddings": 512,
            "word_embed_proj_dim": WIDTH,
        },
    ),
    "bloom": ("BloomConfig", {"hidden_size": WIDTH, "n_layer": 3, "n_head": 4}),
    "falcon": ("FalconConfig", {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4}),
    "mpt": ("MptConfig", {"d_model": WIDTH, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}),
    "stablelm": ("StableLmConfig", _SHAPE),
    "cohere": ("CohereConfig", _SHAPE),
    "granite": ("GraniteConfig", _SHAPE | {"logits_scaling": 4.0}),
    "glm4": ("Glm4Config", _SHAPE | {"head_dim": 8}),
    "smollm3": ("SmolLM3Config", _SHAPE),
    "mixtral": ("MixtralConfig", _SHAPE | {"num_local_experts": 4}),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        _SHAPE
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    ),
    "olmoe": ("OlmoeConfig", _SHAPE | {"num_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v2": (
        "DeepseekV2Config",
        _SHAPE
        | {
            "num_key_value_heads": 4,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
    ),
    "mamba": ("MambaConfig", {"hidden_size": WIDTH, "num_hidden_layers": 2, "state_size": 8}),
    "mamba2": (
        "Mamba2Config",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 16,
        },
    ),
    "rwkv": (
        "RwkvConfig",
        {"hidden_size": WIDTH, "num_hidden_layers": 2, "attention_hidden_size": WIDTH, "context_length": 512},
    ),
    "xlstm": (  # whose cache rounds these factors up to 64 in all, and whose layers do not
        "xLSTMConfig",
        {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_heads": 4, "qk_dim_factor": 2.0, "v_dim_factor": 2.0},
    ),
    "recurrent_gemma": (
        "RecurrentGemmaConfig",
        _SHAPE | {"num_key_value_heads": 1, "lru_width": WIDTH, "attention_window_size": 64},
    ),
}
"""By family: its configuration's class in transformers, and small numbers for it."""
_BOTH: dict[str, Any] = {
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 512,
    "decoder_start_token_id": 0,
}
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", _OLD),
    "roberta": ("RobertaConfig", _OLD),
    "albert": ("AlbertConfig", _OLD | {"embedding_size": 16}),
    "distilbert": ("DistilBertConfig", {"dim": WIDTH, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "modernbert": ("ModernBertConfig", _OLD | {"cls_token_id": 1, "sep_token_id": 2}),
    "electra": ("ElectraConfig", _OLD | {"embedding_size": WIDTH}),
}
ENCODER_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (
        "T5Config",
        {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    ),
    "bart": ("BartConfig", _BOTH),
    "marian": ("MarianConfig", _BOTH),
}

_SEES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
VISION: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTConfig", "ViTModel", _SEES | {"intermediate_size": 64}),
    "dinov2": ("Dinov2Config", "Dinov2Model", _SEES | {"mlp_ratio": 2}),
    "dinov2_with_registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        _SEES | {"mlp_ratio": 2, "num_register_tokens": 2},
    ),
    "clip_vision_model": ("CLIPVisionConfig", "CLIPVisionModel", _SEES | {"intermediate_size": 64}),
    "siglip_vision_model": ("SiglipVisionConfig", "SiglipVisionModel", _SEES | {"intermediate_size": 64}),
}
"""By family: its configuration's class, its model's, and small numbers."""
_HEARS: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16, 16),
    "conv_kernel": (400, 2),
    "conv_stride": (160, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
AUDIO: dict[str, tuple[str, str, dict[str, Any]]] = {
    "whisper": (
        "WhisperConfig",
        "WhisperForConditionalGeneration",
        {
            "d_model": WIDTH,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "num_mel_bins": 16,
            "max_source_positions": 100,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 3,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        },
    ),
    "hubert": ("HubertConfig", "HubertModel", _HEARS),
    "wav2vec2": ("Wav2Vec2Config", "Wav2Vec2Model", _HEARS),
}


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(20, 60))) + "." for _ in range(count)]


def reactions(count: int, seed: int = 0) -> list[str]:
    """Lines of SMILES that look like esterifications, with a solvent; whether they run nobody says."""
    draw = random.Random(seed)
    groups = ["C", "CC", "CC(C)C", "c1ccccc1", "CCCl", "c1ccncc1", "C(F)(F)F", "CC(N)=O"]
    lines = []
    for _ in range(count):
        acid, alcohol = draw.choices(groups, k=2)
        lines.append(f"OC(=O){acid}.O{alcohol}.{draw.choice(['ClCCl', 'C1CCOC1'])}>>O=C(O{alcohol}){acid}.O")
    return lines


def tokenizer(size: int = 400) -> Any:
    """A byte-level tokenizer of the sentences' words, with Gemma's special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet)
    raw.train_from_iterator(sentences(200), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def save(family: str, folder: Path, *, extra_rows: int = 0, head: str = "") -> Path:
    """A random model of the family in a folder; weights are large, and norms far from 1, so that a slip shows.

    `extra_rows` are rows of the embedding that no token has; negative: tokens that have no row. `head` is the class of
    transformers that makes the model, by default the one with logits.
    """
    import transformers

    kind, numbers = (FAMILIES | ENCODERS | ENCODER_DECODERS)[family]
    usual = "MaskedLM" if family in ENCODERS else "Seq2SeqLM" if family in ENCODER_DECODERS else "CausalLM"
    words = tokenizer()
    base = {"vocab_size": len(words) + extra_rows, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(1)
    config = getattr(transformers, kind)(**numbers, **base)
    model = getattr(transformers, head or f"AutoModelFor{usual}").from_config(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.25)
            elif "weight" in name:
                parameter.add_(torch.randn_like(parameter) * 0.4)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def models_of(root: Path) -> Callable[[str], Any]:
    """Opens the model of a family, saved under `root` when it is first asked for."""
    from interp.models import open_model

    return cache(lambda family: open_model(str(save(family, root / family)), dtype="float32"))


def save_media(family: str, folder: Path) -> Path:
    """A random model of pictures or sound in a folder, with the way its input is prepared."""
    import transformers

    kind, model_kind, numbers = (VISION | AUDIO)[family]
    if family == "whisper":
        words = tokenizer()
        words.save_pretrained(folder)
        numbers = numbers | {"vocab_size": len(words)}
    torch.manual_seed(1)
    model = getattr(transformers, model_kind)(getattr(transformers, kind)(**numbers)).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "conv" not in name:
                parameter.normal_(0, 0.25)
    model.save_pretrained(folder)
    if family in VISION:
        size = {"height": 28, "width": 28}
        transformers.ViTImageProcessorPil(size=size).save_pretrained(folder)
    elif family == "whisper":  # clips of two seconds, 200 columns of the spectrogram
        transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)
    else:
        transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def pictures(folder: Path, count: int = 40, seed: int = 0) -> Path:
    """Pictures of a bright square somewhere on noise, half of them red and half blue, in a folder of each colour."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(seed)
    for number in range(count):
        pixels = draw.integers(0, 60, (40, 40, 3), dtype=np.uint8)
        row, column = draw.integers(0, 30, 2)
        pixels[row : row + 10, column : column + 10, 0 if number % 2 else 2] = 255
        path = folder / ("red" if number % 2 else "blue") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def clips(folder: Path, count: int = 12) -> Path:
    """Tones and noise of about a second, some at 44,100 samples a second and in two channels."""
    import numpy as np
    import soundfile

    draw = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rate = 44_100 if number % 3 == 0 else 16_000
        time = np.arange(int(rate * (0.8 + 0.05 * number))) / rate
        tone = np.sin(2 * np.pi * (200 + 100 * number) * time)
        sound = (tone if number % 2 else draw.standard_normal(len(time))) * 0.3
        both = np.stack([sound, sound * 0.5], 1)
        soundfile.write(folder / f"{number}.wav", both if number % 3 == 0 else sound, rate)
    return folder
