"""Models of sound: Whisper's encoder, HuBERT, wav2vec2, WavLM.

A clip is mixed to one channel, brought to 16,000 samples a second, and cut or filled with silence to a fixed length: 30 seconds
for Whisper, whose encoder takes no other, 10 for the others. Its positions are frames of 20 milliseconds, called by their time:
`3.48s`. Frames of the silence that fills a clip are masked.

Whisper writes what it hears (`Model.transcribe`), also while features of its encoder are edited.

Axes    B clip, T frame.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.families.family import Family, Frame
from interp.models.families.media import Media, Places, processor
from interp.models.families.parts import name_layers, stack_path
from interp.models.families.taps import tap_modules
from interp.models.passes import Site
from interp.render.look import NO_PLACE
from interp.types import InterpError

RATE = 16_000
"""Samples a second that all of these models take."""
CLIP_SECONDS = 10
"""Of a model that takes any length."""
WAVES = frozenset(("hubert", "wav2vec2", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat"))
"""`model_type`s of those that read the waveform itself."""


def read_sound(path: Path) -> Float[np.ndarray, " N"]:
    """The samples of a file, float32 in -1..1, one channel at `RATE`; InterpError when it is no sound file."""
    return hear(path, 0.0, None)


def hear(path: Path, first: float, seconds: float | None) -> Float[np.ndarray, " N"]:
    """As `read_sound`, of a stretch that begins at a second, so many seconds or all; what lies outside of the file is left out.

    Only the stretch is decoded. Raises InterpError when it is no sound file, or holds nothing there.
    """
    import soundfile
    from scipy.signal import resample_poly

    try:
        with soundfile.SoundFile(path) as file:
            rate = int(file.samplerate)
            start = min(int(first * rate), file.frames)
            file.seek(start)
            count = -1 if seconds is None else math.ceil(seconds * rate)
            samples = file.read(count, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, RuntimeError, TypeError) as error:
        why = "there is no such file" if not path.exists() else "it is no sound file that can be read"
        raise InterpError(f"{path}: {why}; give a .wav, .flac, .ogg or .mp3.") from error
    one = samples.mean(1)
    if not len(one):
        raise InterpError(f"{path} holds no sound{f' after {first:.2f} s' if first else ''}; leave it out.")
    if rate == RATE:
        return np.asarray(one)
    common = math.gcd(rate, RATE)
    return np.asarray(resample_poly(one, RATE // common, rate // common), dtype=np.float32)


def _opens(config: Any) -> type[Any]:
    from transformers import AutoModel, WhisperForConditionalGeneration

    return WhisperForConditionalGeneration if config.model_type == "whisper" else AutoModel


def _points(module: nn.Module, config: Any, frame: Frame) -> dict[str, nn.Module]:
    # Of Whisper the encoder's alone: the decoder's positions are no frames.
    points = {name: tap for name, tap in tap_modules(module).items() if "decoder" not in name.split(".")}
    path = stack_path(module, config.num_hidden_layers, inside="encoder")
    return points | (name_layers(points, path, config.num_hidden_layers, "blocks") if path else {})


def _call(module: nn.Module, site: Site, frame: Frame, options: Mapping[str, Any]) -> Tensor:
    assert site.given is not None, "sound is read, not tokens"
    given = site.given.to(next(module.parameters()).dtype)
    encoder = module.get_encoder() if hasattr(module, "proj_out") else module  # type: ignore[operator]
    made = encoder(given, **options).last_hidden_state
    assert isinstance(made, Tensor)
    return made


def media(module: nn.Module, config: Any, folder: Path | None, name: str) -> Media:
    """How the model reads sound; InterpError when its files do not say how it is prepared."""
    from transformers import AutoFeatureExtractor

    prepare = processor(AutoFeatureExtractor, folder, name)
    whisper = config.model_type == "whisper"
    samples = int(prepare.n_samples) if whisper else CLIP_SECONDS * RATE
    if int(prepare.sampling_rate) != RATE:
        raise InterpError(f"{name} takes {prepare.sampling_rate} samples a second; models of {RATE} can be opened.")

    def made(sound: np.ndarray) -> Tensor:
        out = prepare(sound, sampling_rate=RATE, return_tensors="pt")
        return torch.as_tensor(out["input_features" if whisper else "input_values"][0])

    silence = made(np.zeros(samples, dtype=np.float32))
    frames = config.max_source_positions if whisper else _frames(module, samples)
    step = samples / RATE / frames

    def read(path: Path) -> Places:
        sound = hear(path, 0.0, samples / RATE + 0.1)  # no longer clip is decoded than is read, with room to resample
        heard = min(len(sound), samples)
        own = math.ceil(heard / samples * frames)
        whole = np.zeros(samples, dtype=np.float32)
        whole[:heard] = sound[:heard]
        return Places([*range(1, own + 1), *[0] * (frames - own)], made(whole))

    words = [NO_PLACE, *(f"{frame * step:.2f}s" for frame in range(frames))]
    return Media("sound", words, list(range(1, frames + 1)), read, tuple(silence.shape))


def _frames(module: nn.Module, samples: int) -> int:
    return int(module._get_feat_extract_output_lengths(samples))  # type: ignore[operator]


AUDIO = Family(
    name="audio",
    about="positions are frames of sound; features are ablated, and of Whisper's the transcript watched",
    opens=_opens,
    frame=lambda tokenizer, config, embedded: Frame(0, 0),
    points=_points,
    call=_call,
    context=lambda module, config: 2**20,
    generates=False,
    vocabulary=lambda module: False,
    caches=False,
    media=media,
)
