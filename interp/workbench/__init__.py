"""The workbench: one open SAE with its model, its index and its labels.

wb = Workbench.open("saes/smollm2-135m-instruct/blocks.15.hook_resid_post/batchtopk-9216")
for hit in wb.search("token:/Paris|London/"):
    print(hit.feature, hit.label, hit.score)

A room of the workbench is a file of functions whose first argument is what is open (`opening.Opened`); the class below
offers them to scripts as methods.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from interp.checkpoint.files import resolve
from interp.evidence.card import EvidenceTable
from interp.renamed import warn_renamed
from interp.render import table_html, title_html
from interp.steering import Direction, FeatureEdit, SamplingOptions, Steerable, SteeredModel
from interp.types import FeatureRef
from interp.workbench import (
    comparing,
    evidencing,
    explaining,
    falsifying,
    finding,
    indexing,
    known,
    labelling,
    mapping,
    measuring,
    reading,
    replaying,
    replicating,
    reporting,
    sharing,
    steering,
    transferring,
)
from interp.workbench import lenses as reads
from interp.workbench import presets as kept
from interp.workbench import says as disposed
from interp.workbench.comparing import compare
from interp.workbench.indexing import INDEXED
from interp.workbench.opening import EMBEDDED, Opened
from interp.workbench.sharing import convert, pull_checkpoint, verify


class Workbench(Opened):
    """One SAE and everything that can be asked of it; opened by `Workbench.open`."""

    search = finding.search
    matching = finding.matching
    search_neurons = finding.search_neurons
    save_search = finding.save_search
    rerun_search = finding.rerun_search
    saved_searches = finding.saved_searches
    feature = finding.feature
    neuron = finding.neuron

    encode = reading.encode
    spectrum = reading.spectrum
    layers_say = reading.layers_say
    largest = reading.largest

    steer = steering.steer
    steer_many = steering.steer_many
    sweep = steering.sweep
    verdict = steering.verdict
    effects = steering.effects
    ablate = steering.ablate
    transcribe = steering.transcribe
    difference_of_means = steering.difference_of_means
    bind = steering.bind
    bind_sweep = steering.bind_sweep
    request = steering.request
    check_edits = steering.check_edits
    stand_in = steering.stand_in
    steerable = known.steerable
    detection = known.detection
    replay = replaying.replay
    presets = kept.presets
    preset = kept.preset
    save_preset = kept.save_preset

    build_index = indexing.build_index
    neurons = indexing.neurons
    build_neuron_index = indexing.build_neuron_index
    neuron_index = indexing.neuron_index

    fit_lenses = reads.fit_lenses
    lenses = reads.lenses
    judge_lenses = reads.judge_lenses
    judged_lenses = reads.judged
    says = reads.says
    make_lenses = disposed.make_lenses

    evaluate = measuring.evaluate
    compare = comparing.compare_with
    meaning = measuring.meaning
    report = reporting.report

    autolabel = labelling.autolabel
    build_evidence = evidencing.build_evidence
    replication = replicating.replication
    stability = replicating.stability
    random_null = replicating.random_null
    explain = explaining.explain
    edit_tests = falsifying.edit_tests
    show_edit = falsifying.show_edit
    transfer_labels = transferring.transfer_labels

    make_map = mapping.make_map
    feature_map = mapping.feature_map

    publish = sharing.publish
    lacks = sharing.lacks
    pack = sharing.pack
    push = sharing.push
    export = sharing.export

    @property
    def evidence(self) -> EvidenceTable:
        """What is known of every feature and was tested; InterpError, with the command, when it was not made."""
        return evidencing.evidence(self)

    # ---- names of before, for one release ----

    @property
    def stage(self) -> SteeredModel:
        """`steered`."""
        warn_renamed("Workbench.stage", "Workbench.steered")
        return self.steered

    def subject(
        self, feature: int | FeatureRef | Direction, *, largest: float | None = None, words: str | None = None
    ) -> Steerable:
        """`steerable`."""
        warn_renamed("Workbench.subject", "Workbench.steerable")
        return known.steerable(self, feature, largest=largest, words=words)

    def check_steering(
        self,
        prompts: Sequence[str],
        variants: Sequence[Sequence[FeatureEdit]],
        **options: Unpack[SamplingOptions],
    ) -> None:
        """`request`, without what it gives."""
        warn_renamed("Workbench.check_steering", "Workbench.request")
        steering.request(self, prompts, variants, **options)

    def contrast(
        self,
        toward: Sequence[str] | str | Path,
        away: Sequence[str] | str | Path,
        *,
        hook_name: str | None = None,
        name: str = "contrast",
    ) -> Direction:
        """`difference_of_means`."""
        warn_renamed("Workbench.contrast", "Workbench.difference_of_means")
        return steering.difference_of_means(self, toward, away, hook_name=hook_name, name=name)

    def _repr_html_(self) -> str:
        metrics = {k: v for k, v in self.card.metrics.items() if isinstance(v, (int, float))}
        rows = [
            ("model", self.card.model),
            ("hook", self.card.hook_name),
            ("features", self.sae.d_sae),
            *metrics.items(),
        ]
        return title_html(self.card.name) + table_html(["", ""], rows)


__all__ = ["EMBEDDED", "INDEXED", "Opened", "Workbench", "compare", "convert", "pull_checkpoint", "resolve", "verify"]
