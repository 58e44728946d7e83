"""What every dictionary is: the hook points it reads and writes, and its rows laid side by side and taken apart."""

import pytest
import torch

from interp.index import Neurons
from interp.sae import SAE, Dictionary, join, split
from interp.sae.dictionary import one_hook, one_read, one_written, reads_what_it_writes
from interp.types import Hook, InterpError, as_hooks, parse_hooks


def make(d_in, d_out, **hooks):
    """Three features; feature f writes 10 f, 10 f + 1 and so on."""
    W_dec = 10 * torch.arange(3.0)[:, None] + torch.arange(float(d_out))
    zero = {"b_enc": torch.zeros(3), "b_dec": torch.zeros(d_out)}
    return SAE(W_enc=torch.ones(d_in, 3), W_dec=W_dec, **zero, k=2, centred=d_in == d_out, name="d", **hooks)


TWO = (Hook("a", 2), Hook("b", 3))


@pytest.mark.parametrize(
    ("text", "hooks"),
    [
        ("", ()),
        ("h", (Hook("h"),)),
        ("h + g", (Hook("h"), Hook("g"))),
        ("1:h+2:h", (Hook("h", model=1), Hook("h", model=2))),
    ],
)
def test_the_spelling_of_files_is_parsed_and_comes_back(text, hooks):
    assert parse_hooks(text) == hooks
    assert "+".join(map(str, hooks)) == text.replace(" ", "")


def test_a_plus_without_a_name_beside_it_is_refused():
    with pytest.raises(InterpError, match="names no hook point on one side of a \\+"):
        parse_hooks("a+")


def test_hook_points_are_given_as_a_name_a_hook_or_several():
    assert as_hooks("a+b") == as_hooks(["a", Hook("b")]) == (Hook("a"), Hook("b"))
    assert as_hooks(Hook("a", 2)) == (Hook("a", 2),)


def test_an_sae_writes_what_it_reads():
    sae = make(4, 4, reads="h")
    assert sae.reads == sae.writes == (Hook("h", 4),)
    assert (sae.hook_name, sae.hook_name_out, sae.widths) == ("h", "", ())
    assert reads_what_it_writes(sae)
    assert one_hook(sae, "steering") == Hook("h", 4)


def test_a_transcoder_writes_another_hook_point():
    sae = make(4, 2, reads="in", writes="out")
    assert (sae.reads, sae.writes) == ((Hook("in", 4),), (Hook("out", 2),))
    assert (sae.hook_name, sae.hook_name_out) == ("in", "out")
    assert not reads_what_it_writes(sae)
    with pytest.raises(InterpError, match="d reads in and writes out; steering needs a dictionary that writes what it"):
        one_hook(sae, "steering")


def test_a_crosscoder_reads_and_writes_several():
    sae = make(5, 5, reads=TWO)
    assert sae.reads == sae.writes == TWO
    assert (sae.hook_name, sae.hook_name_out, sae.widths) == ("a+b", "", (2, 3))
    assert reads_what_it_writes(sae)
    for ask in (one_read, one_hook):
        with pytest.raises(InterpError, match="d reads a, b; an index needs a dictionary that reads one hook point"):
            ask(sae, "an index")
    with pytest.raises(InterpError, match="d writes a, b; an index needs a dictionary that writes one hook point"):
        one_written(sae, "an index")


def test_names_come_after_training_and_keep_the_widths():
    sae = make(5, 5, reads=(Hook("", 2), Hook("", 3)))
    assert sae.hook_name == ""
    sae.set_hooks("1:h+2:h")
    assert sae.reads == (Hook("h", 2, 1), Hook("h", 3, 2))


def test_the_width_of_one_of_several_follows_from_the_others():
    assert make(5, 5, reads=(Hook("a", 2), Hook("b"))).reads == TWO


@pytest.mark.parametrize("reads", ["a+b", Hook("a", 3), (Hook("a", 2), Hook("b", 4)), (Hook("a", 6), Hook("b"))])
def test_widths_that_do_not_add_up_are_refused(reads):
    with pytest.raises(InterpError, match="d reads rows of width 5, which a of width .* do not make"):
        make(5, 5, reads=reads)


def test_join_lays_rows_side_by_side_and_split_takes_them_apart():
    sae = make(5, 5, reads=TWO)
    a, b = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0, 5.0]]])
    x = join(sae, {"b": b, "a": a, "unread": b})
    assert x.tolist() == [[[1.0, 2.0, 3.0, 4.0, 5.0]]]
    apart = split(sae, x)
    assert list(apart) == ["a", "b"]
    assert torch.equal(apart["a"], a)
    assert torch.equal(apart["b"], b)


def test_join_says_what_is_missing_and_what_is_of_another_width():
    sae = make(5, 5, reads=TWO)
    with pytest.raises(InterpError, match="d reads b, and there are activations of a only"):
        join(sae, {"a": torch.zeros(1, 2)})
    with pytest.raises(InterpError, match="b has width 4 and d reads 3 there"):
        join(sae, {"a": torch.zeros(1, 2), "b": torch.zeros(1, 4)})
    with pytest.raises(InterpError, match="2 hook points that have no names of their own yet"):
        join(make(4, 4, reads=(Hook("", 2), Hook("", 2))), {"": torch.zeros(1, 2)})


def test_a_direction_is_the_part_of_the_decoder_row_at_its_hook_point():
    sae = make(5, 5, reads=TWO)
    assert sae.direction(1, "a").tolist() == [10.0, 11.0]
    assert sae.direction(1, TWO[1]).tolist() == [12.0, 13.0, 14.0]
    assert make(2, 2, reads="h").direction(2).tolist() == [20.0, 21.0]
    with pytest.raises(InterpError, match="a direction without its hook point needs"):
        sae.direction(1)
    with pytest.raises(InterpError, match="no hook point that d writes 'c'"):
        sae.direction(1, "c")
    with pytest.raises(InterpError, match="no feature 3 in d"):
        sae.direction(3, "a")


def test_neurons_are_a_dictionary_read_inside_the_mlp_and_written_at_its_output():
    neurons = Neurons("n", 7, torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    assert isinstance(neurons, Dictionary)
    assert isinstance(make(4, 4), Dictionary)
    assert neurons.reads == (Hook("blocks.7.mlp.hook_post", 3),)
    assert neurons.writes == (Hook("blocks.7.hook_mlp_out", 2),)
    for row in range(6):
        assert torch.equal(neurons.direction(row), neurons.W_dec[row])
    assert neurons.direction(3, neurons.writes[0]).tolist() == [-3.0, -4.0]
    with pytest.raises(InterpError, match="no hook point that n writes 'blocks.7.mlp.hook_post'"):
        neurons.direction(3, neurons.reads[0])


def test_old_arguments_work_and_name_the_new_ones():
    with pytest.warns(DeprecationWarning, match="is now SAE\\(reads, writes\\)"):
        sae = make(4, 2, hook_name="in", hook_name_out="out")
    assert (sae.reads, sae.writes) == ((Hook("in", 4),), (Hook("out", 2),))
    with pytest.warns(DeprecationWarning, match="is now SAE\\(reads, writes\\)"):
        assert make(5, 5, hook_name="a+b", widths=(2, 3)).reads == TWO
    with pytest.warns(DeprecationWarning, match="is now SAE.set_hooks"):
        sae.hook_name = "other"
    with pytest.warns(DeprecationWarning, match="is now SAE.set_hooks"):
        sae.hook_name_out = "there"
    assert (sae.reads, sae.writes) == ((Hook("other", 4),), (Hook("there", 2),))
