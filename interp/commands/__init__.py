"""Everything that can be asked for: one plain function each, which knows no face.

`COMMANDS` has them by name with what a face must know besides the signature; the command line, the MCP server and jobs
all read the same one. Defaults live in these signatures.
"""

from collections.abc import Callable
from dataclasses import dataclass

from interp.commands import (
    circuits,
    comparing,
    evaluating,
    evidence,
    finding,
    indexing,
    labelling,
    machine,
    mapping,
    planning,
    sharing,
    steering,
    texts,
    training,
)
from interp.commands.machine import installed_version, use_threads
from interp.commands.opening import open_sae
from interp.commands.options import EMBEDDED, Option, Parameter, read_parameters
from interp.commands.records import as_json


@dataclass(frozen=True)
class Command:
    """A function and what its signature does not say."""

    call: Callable[..., object]
    resumes: bool = False
    """Stopped and called again with the same arguments, it takes up its work."""
    computes: bool = True
    """Without, it needs no PyTorch and starts in a moment."""
    changes: bool = True
    """Without, it only reads: nothing that stays is written."""

    @property
    def parameters(self) -> list[Parameter]:
        """What a face may give it."""
        return read_parameters(self.call)

    @property
    def about(self) -> str:
        """Its docstring."""
        return self.call.__doc__ or ""


COMMANDS: dict[str, Command] = {
    "models": Command(texts.models, changes=False),
    "corpora": Command(texts.corpora, changes=False),
    "hooks": Command(texts.hooks, changes=False),
    "overlap": Command(texts.overlap, changes=False),
    "plan": Command(planning.plan, changes=False),
    "harvest": Command(training.harvest, resumes=True),
    "train": Command(training.train, resumes=True),
    "sweep": Command(training.sweep, resumes=True),
    "selftest": Command(training.selftest, changes=False),
    "index": Command(indexing.index, resumes=True),
    "evaluate": Command(evaluating.evaluate, resumes=True),
    "compare": Command(comparing.compare),
    "meaning": Command(indexing.meaning),
    "lenses": Command(indexing.lenses, resumes=True),
    "map": Command(mapping.map_features, resumes=True),
    "search": Command(finding.search),
    "keys": Command(finding.keys, computes=False, changes=False),
    "feature": Command(finding.feature, changes=False),
    "neuron": Command(finding.neuron, changes=False),
    "spectrum": Command(finding.spectrum, changes=False),
    "library": Command(finding.library, computes=False, changes=False),
    "label": Command(labelling.label, computes=False),
    "autolabel": Command(labelling.autolabel, resumes=True),
    "evidence": Command(evidence.evidence, resumes=True),
    "explain": Command(labelling.explain, resumes=True),
    "undo_label": Command(labelling.undo_label, computes=False),
    "import_labels": Command(labelling.import_labels, computes=False),
    "export_labels": Command(labelling.export_labels, computes=False),
    "merge_labels": Command(labelling.merge_labels, computes=False),
    "transfer_labels": Command(labelling.transfer_labels),
    "steer": Command(steering.steer),
    "sweep_strengths": Command(steering.sweep_strengths),
    "effects": Command(steering.effects, changes=False),
    "ablate": Command(steering.ablate, changes=False),
    "transcribe": Command(steering.transcribe, changes=False),
    "replay": Command(steering.replay, changes=False),
    "presets": Command(steering.presets, changes=False),
    "preset": Command(steering.preset, changes=False),
    "circuit": Command(circuits.circuit),
    "check-circuit": Command(circuits.check_circuit),
    "circuit-edge": Command(circuits.circuit_edge),
    "compare-circuits": Command(circuits.compare_circuits, changes=False),
    "circuit-faithfulness": Command(circuits.circuit_faithfulness, changes=False),
    "publish": Command(sharing.publish),
    "pack": Command(sharing.pack),
    "unpack": Command(sharing.unpack),
    "push": Command(sharing.push),
    "pull": Command(sharing.pull),
    "convert": Command(sharing.convert),
    "verify": Command(sharing.verify),
    "export": Command(sharing.export),
    "setup": Command(machine.setup),
    "dashboard": Command(machine.dashboard, changes=False),
    "mcp": Command(machine.mcp, computes=False, changes=False),
}
"""By name. Jobs keep these names on disk."""

__all__ = [
    "COMMANDS",
    "EMBEDDED",
    "Command",
    "Option",
    "Parameter",
    "as_json",
    "installed_version",
    "open_sae",
    "read_parameters",
    "use_threads",
]
