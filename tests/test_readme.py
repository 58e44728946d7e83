"""What README.md and docs/tutorial.md say of features of the embedded SAE, looked up: each example does what its sentence says."""

import re

import numpy as np
import pytest

from interp import Clamp
from interp.steering.measures import loops
from interp.workbench import Workbench
from tests.conftest import EMBEDDED, ROOT

README = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/tutorial.md"))
SCHOOL = 5152


@pytest.fixture(scope="module")
def shipped() -> Workbench:
    return Workbench.open(ROOT / EMBEDDED, labels="sqlite://")


def test_the_first_hit_is_the_feature_that_the_readme_names_and_fires_on_every_school(shipped):
    assert f'wb.search("token:/^ ?[Ss]chools?$/")[0].feature  # {SCHOOL}:' in README
    for query in ("token:/^ ?[Ss]chools?$/", "token:/^ ?[Ss]chools?$/ density:1e-5..1e-2"):
        assert query in README
        first = shipped.search(query, limit=1)[0]
        assert first.feature == SCHOOL
        assert "recall 1.00" in first.why["token"]


def test_the_label_is_true_of_all_strongest_examples_and_weak_ones_are_on_other_words(shipped):
    assert "interp label $SAE 5152 'school' --author me --note 'all of its 20 strongest examples'" in README
    examples = [e for e in shipped.index.examples(SCHOOL) if not e.unread]  # of mail and sayings only with --texts
    peaks = [(e.band, e.tokens[e.peak].strip().lower()) for e in examples]
    strongest = [token for band, token in peaks if band == 0]
    assert len(strongest) >= 15
    assert set(strongest) == {"school"}
    assert "its strongest examples peak on “school”; weak ones on other words" in README
    assert {token for band, token in peaks if band == 5} - {"school", "schools"}


def test_as_many_features_promote_the_token_as_the_readme_says_and_as_the_weights_give(shipped):
    said = int(re.search(r'promotes:" France"\'\s+# from the weights: (\d+) features', README)[1])
    hits = shipped.search('promotes:" France"', limit=9216)
    unembed_VD, gain_D = shipped.model.unembedding()
    rows_FD = shipped.sae.W_dec if shipped.said is None else shipped.said.lens("next").map(shipped.sae.W_dec)
    effects_FV = (rows_FD @ (unembed_VD * gain_D).T).numpy()
    token = shipped.index.vocabulary.index(" France")
    z_F = (effects_FV[:, token] - effects_FV.mean(1)) / effects_FV.std(1)
    assert {hit.feature for hit in hits} == set(np.flatnonzero(z_F >= 2).tolist())
    assert hits.total == said
    assert not hits.partial


def test_the_steered_text_is_about_a_school_and_stays_text(shipped):
    """At its largest activation, as in the script and on the command line."""
    assert "interp steer $SAE 'When we arrived, we saw' --clamp 5152=65 --tokens 40" in README
    assert round(shipped.feature(SCHOOL).max) == 65
    run = shipped.steer("When we arrived, we saw", [Clamp(feature=SCHOOL, strength=65.0)], max_new_tokens=40)
    about = re.compile(r"school|students")
    assert about.search(run.steered)
    assert not about.search(run.baseline)
    assert not loops(run.steered_tokens)
