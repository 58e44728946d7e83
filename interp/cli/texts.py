"""Models, hook points and texts on the command line."""

import json

from interp.cli.app import Asked, register
from interp.commands.texts import EmbeddedCorpus, EmbeddedModel, HookPoint, Overlap
from interp.render.terminal import table

OVERLAP = ("source", "held-out documents", "near-duplicates", "share", "too short to tell")


def _models(models: list[EmbeddedModel], _: Asked) -> None:
    table(["model", "about"], [[model.name, model.about] for model in models])


def _corpora(corpora: list[EmbeddedCorpus], _: Asked) -> None:
    rows = [[text.name, text.about, text.licence, text.version] for text in corpora]
    table(["corpus", "about", "licence", "version"], rows)


def _hooks(hooks: list[HookPoint], _: Asked) -> None:
    table(["hook point", "shape"], [[point.hook, " x ".join(map(str, point.shape))] for point in hooks])


def _overlap(sources: list[Overlap], _: Asked) -> None:
    table(OVERLAP, [_row(source) for source in sources])


def _overlap_json(sources: list[Overlap], _: Asked) -> str:
    return json.dumps([dict(zip(OVERLAP, _row(source), strict=True)) for source in sources], indent=2)


def _row(source: Overlap) -> list[str | int | float]:
    return [source.source, source.documents, source.near, source.share, source.short]


register("models", _models, "interp models")
register("corpora", _corpora, "interp corpora")
register("hooks", _hooks, "interp hooks smollm2 --match resid_post")
register("overlap", _overlap, "interp overlap sae-probes --min-chars 400", to_json=_overlap_json)
