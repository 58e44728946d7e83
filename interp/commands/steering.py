"""Steer: texts with and without edits, a feature at many strengths, what an edit does to the next token; replays, presets.

An edit is written as JSON has it, `{"kind": "Clamp", "feature": 1234, "strength": 8.0}` (`interp.steering.edits`); a
feature of another SAE is `{"sae": NAME, "feature": NUMBER}`, and `{"toward": TEXTS, "away": TEXTS}` is the difference of
the mean activations of two sets of texts, each the name of a file or corpus.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from interp.commands.opening import open_sae
from interp.commands.options import Feature, Option, Sae
from interp.types import FeatureRef, InterpError

if TYPE_CHECKING:
    from interp.steering import Ablation, Effects, FeatureEdit, Replay, SteerBatch, SteerRun, StrengthSweep
    from interp.workbench import Workbench
    from interp.workbench.steering import Transcript

Edits = Annotated[Sequence[Mapping[str, Any]], Option("Edits to make, in this order, each a JSON object.")]
Tokens = Annotated[int, Option("How many tokens to write.", low=1)]
Seeds = Annotated[
    Sequence[int], Option("Number from which sampling begins; repeatable, for sweeps and several prompts.")
]
Temperature = Annotated[float, Option("How freely tokens are sampled; 0 takes the likeliest each time.", low=0.0)]
TopP = Annotated[float, Option("Sample from the likeliest tokens that hold this much probability.")]
Stop = Annotated[Sequence[str], Option("Stop once this text was written; repeatable.")]
Chat = Annotated[bool, Option("Put the texts into the model's chat template, as a user's words.")]
Special = Annotated[bool, Option("Read special tokens that the text spells (a rendered chat template's) as such.")]
Record = Annotated[Path | None, Option("File to write the run's record into, which `interp replay` repeats.")]
Kind = Annotated[str, Option("What a sweep does with the feature: clamp or add.")]
Where = Annotated[
    str, Option("Tokens at which edits act: all, prompt, generated, from:I (from the I-th on) or token:/REGEX/.")
]


def steer(
    sae: Sae,
    prompt: Annotated[Sequence[str], Option("Texts to continue.")],
    *,
    edits: Edits = (),
    preset: Annotated[str, Option("Edits to make before the others: a preset's name or file.")] = "",
    tokens: Tokens = 40,
    seed: Seeds = (0,),
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    stop: Stop = (),
    chat: Chat = False,
    special: Special = False,
    record: Record = None,
    save_preset: Annotated[str, Option("Keep these edits as a preset of this name.")] = "",
    on_text: Callable[[str, str], None] | None = None,
) -> "SteerRun | SteerBatch":
    """Continue texts with and without edits of features: a run, or of several prompts or seeds a batch.

    `on_text` is told the baseline and the steered text after every token of a single run. Raises InterpError, before
    anything is generated, when an edit cannot be made or a prompt cannot be continued.
    """
    if not prompt:
        raise InterpError("there is no text to continue; give a prompt, or --sweep FEATURE.")
    bench, seeds = open_sae(sae), list(seed) or [0]
    sampling = _sampling(tokens, temperature, top_p, stop, chat, special)
    made = (bench.preset(preset).edits if preset else []) + _read_edits(bench, edits, stand_in=True)
    bench.request(prompt, [made], seed=seeds[0], **sampling)
    # What comes of texts takes the model's passes, so all else was checked with a direction that stands in.
    made[len(made) - len(edits) :] = _read_edits(bench, edits)
    if save_preset:
        from interp.render.terminal import say

        say(f"preset in {bench.save_preset(save_preset, made)}")
    run: SteerRun | SteerBatch
    if len(prompt) > 1 or len(seeds) > 1:
        run = bench.steer_many(prompt, [[], made] if made else [[]], seeds=seeds, **sampling)
    else:
        run = bench.steer(prompt[0], made, seed=seeds[0], on_text=on_text, **sampling)
    _write_record(run, record)
    return run


def sweep_strengths(
    sae: Sae,
    feature: Annotated[
        str,
        Option("The feature's number, or SAE#NUMBER for another SAE's. Without: the direction of --toward, --away."),
    ] = "",
    *,
    toward: Annotated[str, Option("File or corpus of texts towards which a direction points.")] = "",
    away: Annotated[str, Option("File or corpus of texts away from which it points.")] = "",
    amount: Annotated[float, Option("The strength of a direction that 1 stands for.")] = 1.0,
    prompt: Annotated[Sequence[str], Option("Texts to continue. Without: neutral ones.")] = (),
    strengths: Annotated[
        Sequence[float], Option("Strengths, as multiples of the feature's largest activation (of --amount).")
    ] = (),
    kind: Kind = "clamp",
    where: Where = "all",
    target: Annotated[
        Sequence[str],
        Option("Token whose probability is followed; repeatable. Without: those that it is measured to make likely."),
    ] = (),
    regex: Annotated[str, Option("Regular expression (RE2) that is counted in the texts.")] = "",
    controls: Annotated[bool, Option("Run the controls, or leave them out.")] = True,
    verdict: Annotated[bool, Option("Say whether the feature is a controller, a detector, both or neither.")] = True,
    tokens: Tokens = 40,
    seed: Seeds = (0,),
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    stop: Stop = (),
    chat: Chat = False,
    special: Special = False,
    record: Record = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> "StrengthSweep":
    """Dose and response of one feature, or of a direction: its texts at many strengths, controls and a verdict.

    `on_note` is told what begins. Raises InterpError, before anything is generated, when the sweep cannot be made.
    """
    from interp.steering import StrengthSweepConfig

    bench, own = open_sae(sae), sweep_defaults()
    sampling = _sampling(tokens, temperature, top_p, stop, chat, special)
    config = StrengthSweepConfig(
        seeds=tuple(seed) or (0,),
        kind=kind,
        where=where,
        targets=tuple(target),
        controls=controls,
        verdict=verdict,
        regex=regex or None,
        prompts=tuple(prompt) or own[0],
        factors=tuple(strengths) or own[1],
    )
    if toward or away:
        texts = _texts(toward, away)
        bench.bind_sweep(bench.stand_in(), config=config, largest=amount, **sampling)
        run = bench.sweep(bench.difference_of_means(*texts), config=config, largest=amount, note=on_note, **sampling)
    else:
        run = bench.sweep(read_feature(feature), config=config, note=on_note, **sampling)
    _write_record(run, record)
    return run


def sweep_defaults() -> tuple[tuple[str, ...], tuple[float, ...]]:
    """(prompts, strengths) of a sweep that names none."""
    from interp.steering import StrengthSweepConfig

    config = StrengthSweepConfig()
    return tuple(config.prompts), tuple(config.factors)


def effects(
    sae: Sae,
    number: Feature,
    *,
    contexts: Annotated[int, Option("How many of the feature's examples to use.", low=1)] = 45,
    strength: Annotated[float | None, Option("Activation to hold the feature at. Without: its largest.")] = None,
) -> "Effects":
    """What ablating and holding a feature does to the next token where it fires; nothing is generated.

    Raises InterpError when there is no such feature, and when it fires nowhere.
    """
    return open_sae(sae).effects(number, contexts=contexts, strength=strength)


def ablate(
    sae: Sae,
    number: Feature,
    text: Annotated[str, Option("The text in which the feature is ablated.")],
) -> "Ablation":
    """What ablating a feature changes in what the model gives for a text; also of models that continue nothing.

    Raises InterpError when there is no such feature, and for a text that is empty or too long.
    """
    return open_sae(sae).ablate(text, number)


def transcribe(
    sae: Sae,
    clip: Annotated[Sequence[str], Option("Files of speech.")],
    *,
    feature: Annotated[Sequence[int], Option("A feature of the encoder to hold; repeatable.")] = (),
    strength: Annotated[float, Option("Activation to hold them at; 0 takes them out.")] = 0.0,
) -> "list[Transcript]":
    """What a model of speech writes down of files, and what with features of its encoder held.

    Raises InterpError for a model that writes nothing down, a feature that does not exist and a file that cannot be read.
    """
    from interp.steering import Clamp

    return open_sae(sae).transcribe(clip, [Clamp(feature=number, strength=strength) for number in feature])


def replay(
    file: Annotated[Path, Option("A record that `interp steer --record` wrote.")],
    *,
    sae: Annotated[str, Option("The SAE's folder. Without: found by the name in the record.")] = "",
) -> "Replay":
    """Repeat a recorded run and say whether it is identical or where it first differs (exit code 1).

    Raises InterpError when the file is no record, or was made with other weights.
    """
    from interp.places import read_json
    from interp.steering.replay import check_record

    record = read_json(file)
    made = check_record(record)
    return open_sae(sae or made["sae"]).replay(record)


def presets(sae: Sae) -> list[dict[str, Any]]:
    """Sets of edits kept for an SAE, as their files hold them."""
    bench = open_sae(sae)
    return [bench.preset(name).to_dict() for name in bench.presets()]


def preset(
    sae: Sae, name: Annotated[str, Option("A preset's name or file.")] = "", *, content: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One preset, as its file holds it; `content` is what an uploaded file held.

    Raises InterpError when it is none, or for another SAE.
    """
    return open_sae(sae).preset(name if content is None else content).to_dict()


def save_preset(sae: Sae, name: str, edits: Edits, *, note: str = "") -> Path:
    """Keep edits under a name; the file that comes back can be passed on. Raises InterpError when they cannot be made."""
    bench = open_sae(sae)
    return bench.save_preset(name, _read_edits(bench, edits), note=note)


def check_edits(sae: Sae, edits: Edits) -> list[str]:
    """The edits in words. Raises InterpError when one cannot be made."""
    from interp.steering.edits import describe

    bench = open_sae(sae)
    made = _read_edits(bench, edits, stand_in=True)
    bench.check_edits(made)
    return [describe(edit) for edit in made]


def largest_activation(sae: Sae, number: Feature) -> float:
    """The feature's largest activation in the index. Raises InterpError when there is no such feature."""
    return float(open_sae(sae).index.row(number)["max"])


def read_feature(text: str) -> int | FeatureRef:
    """A number, or NAME#NUMBER for a feature of another SAE. Raises InterpError for anything else."""
    name, _, number = str(text).strip().rpartition("#")
    try:
        return FeatureRef(sae=name, feature=int(number)) if name else int(number)
    except ValueError:
        raise InterpError(f"{text!r} is no feature; write its number, or SAE#NUMBER for another SAE's.") from None


def _read_edits(bench: "Workbench", edits: Edits, *, stand_in: bool = False) -> "list[FeatureEdit]":
    """The edits as `interp.steering` has them; with `stand_in`, a direction of texts is only one of its width."""
    from interp.steering.edits import from_dict, to_dict

    made = []
    for edit in edits:
        given = dict(edit)
        of: Any = given.get("feature")
        if isinstance(of, Mapping) and "toward" in of:
            texts = _texts(str(of["toward"]), str(of.get("away", "")))
            direction = bench.stand_in() if stand_in else bench.difference_of_means(*texts)
            given["feature"] = vars(direction)
        made.append(from_dict(given if isinstance(edit, Mapping) else to_dict(edit)))
    return made


def _texts(toward: str, away: str) -> list[list[str]]:
    """The texts of two files or corpora. Raises InterpError where one is not named."""
    from interp.corpus import read_texts, second_set

    if not toward or not away:
        raise InterpError(f"a direction needs two sets of texts, and here are {toward!r} and {away!r}; name both.")
    return [list(read_texts(name)) for name in (toward, second_set(toward, away))]


def _sampling(
    tokens: int, temperature: float, top_p: float, stop: Sequence[str], chat: bool, special: bool
) -> dict[str, Any]:
    given = {"max_new_tokens": tokens, "temperature": temperature, "top_p": top_p, "chat": chat, "special": special}
    return {**given, "stop": tuple(stop)}


def _write_record(run: "SteerRun | SteerBatch | StrengthSweep", record: Path | None) -> None:
    from interp import places

    if record is not None:
        places.write_json(record, json.loads(run.to_json()))
