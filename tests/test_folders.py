"""Which folder of pictures a feature prefers: found where it is planted, and not found in items drawn at random."""

import numpy as np

from interp.index.folders import LEAST, Q, find_preferences
from interp.index.wording import parts_of

TITLES = [f"stamps/{kind}/{n}.png" for kind in ("animals", "plants", "tools") for n in range(40)] + [
    f"skies/{n}.jpg" for n in range(80)
]


def drawn(of, count, seed):
    return np.random.default_rng(seed).choice(of, count, replace=False).tolist()


def test_a_planted_folder_is_found_and_counted_on_items_that_it_was_not_chosen_by():
    everywhere = list(range(len(TITLES)))
    items = [drawn(everywhere, 16, seed) for seed in range(200)]
    items[7] = drawn(range(40, 80), 16, 7)
    found = find_preferences(TITLES, items)
    assert (found[7].folder, found[7].hits, found[7].of) == ("stamps/plants", 8, 8)
    assert found[7].share == 40 / len(TITLES)
    assert [feature for feature, one in found.items() if one.told] == [7], "at random nothing is told"
    assert found[7].q <= Q


def test_the_first_half_alone_chooses():
    plants, others = list(range(40, 48)), list(range(160, 168))
    items = [[one for pair in zip(plants, others, strict=True) for one in pair]]
    (one,) = find_preferences(TITLES, items).values()
    assert (one.folder, one.hits, one.of) == ("stamps/plants", 0, 8)
    assert not one.told


def test_few_items_and_items_in_no_folder_say_nothing():
    assert find_preferences(TITLES, [list(range(2 * LEAST - 1)), []]) == {}
    assert find_preferences(["a.png"] * 40, [list(range(16))]) == {}


def test_what_is_said_is_shown_as_text():
    assert parts_of("pictures", 1, "") == "patches of 1 picture"
    assert parts_of("sound", 3, "a b\n") == "‘a b↵’ most, frames of 3 clips"
