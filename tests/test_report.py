"""The report of an SAE: sections of measures, kept as they are made, and read back as they were."""

import json
from dataclasses import replace

import pytest

from interp.evals import evaluate
from interp.evals.figure import Section
from interp.evals.measures import MEASURES, Setting, find_measures
from interp.types import InterpError

CUTOFF = 1e9


@pytest.fixture(scope="module")
def blocks(store):
    return replace(store.blocks, tokens_NT=store.blocks.tokens_NT[:4], document_NT=store.blocks.document_NT[:4])


@pytest.fixture
def setting(tiny, sae, blocks):
    return Setting(model=tiny, sae=sae, blocks=blocks, norm_cutoff={str(sae.reads[0]): CUTOFF})


def test_the_section_of_fidelity_has_the_figures_of_evaluate(setting):
    (measure,) = find_measures(("fidelity",))
    section = measure.make(setting)
    assert section.name == measure.name
    found = evaluate(setting.model, setting.sae, setting.blocks, norm_cutoff=setting.norm_cutoff)
    for figure in section.figures:
        if hasattr(found, figure.name):
            assert figure.value == pytest.approx(getattr(found, figure.name), rel=1e-6), figure.name
    assert section["fvu"].interval == pytest.approx(found.fvu_interval, rel=1e-6)
    assert section.of["tokens_sha256"] == setting.blocks.sha256()
    assert Section.from_dict(json.loads(json.dumps(section.to_dict()))) == section


def test_the_headline_names_figures_that_are_there(setting):
    """Of measures that need nothing but a model, an SAE and text."""
    (measure,) = find_measures(("fidelity",))
    assert set(measure.headline) <= {figure.name for figure in measure.make(setting).figures}


def test_a_section_that_no_measure_makes_is_refused():
    with pytest.raises(InterpError, match="'fidelty'.*fidelity"):
        find_measures(("fidelty",))
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)


def test_the_old_name_of_the_figures_of_fidelity_goes_on_working():
    import interp.evals

    with pytest.warns(DeprecationWarning, match="interp.evals.Report is now interp.evals.fidelity.Fidelity"):
        assert interp.evals.Report is interp.evals.Fidelity
