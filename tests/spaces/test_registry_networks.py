"""Spaces that give a network for each architecture: networks of draws, counts, points, canonical forms, wrong text."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_digits import write as small_digits

import jnas
from jnas import data
from jnas.errors import InputError
from jnas.estimators.settings import Train
from jnas.nets import own
from jnas.spaces import SPACES, distinct, get, hierarchical, multi_branch, nasnet
from jnas.types import Candidates

OWN = sorted(name for name, space in SPACES.items() if own.is_own(space))


@pytest.mark.parametrize("name", OWN)
def test_networks_of_draws_give_logits(name):
    space = get(name)
    row = np.asarray(space.sample(jax.random.key(0), 1))[0]
    # Nothing is compiled: shapes alone.
    own.build(space, space.choices(row), (8, 8, 1), 10)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("multi_branch", 2 * 6**6 * 2**15),
        ("mobilenet", 7371**5),
        ("transformer", 3 * (6**2 + 6**3 + 6**4)),
        ("grammar", 75_549_915 * 5**6),
    ],
)
def test_counts(name, count):
    assert distinct.count(get(name)) == count


def test_codes():
    assert get("hierarchical").size == 7**46
    assert get("nasnet").size == (8**10 * (2 * 3 * 4 * 5 * 6) ** 2) ** 2
    # ENAS's macro space, but for the join.
    assert multi_branch.multi_branch(12).size == 2 * 6**12 * 2**66


def test_uniform_draws_of_the_grammar_favour_long_words():
    """72,335,025 of 75,549,915 words are of the production with four levels; a third of draws over decisions."""
    space = get("grammar")
    long = np.asarray(distinct.sample(space, jax.random.key(0), 4000))[:, 0] == 2
    assert abs(long.mean() - 45**2 * 189**2 / 75_549_915) < 5 * np.sqrt(0.25 / 4000)
    assert abs((np.asarray(space.sample(jax.random.key(0), 4000))[:, 0] == 2).mean() - 1 / 3) < 0.04


def test_chain_residual_and_dense_are_points_of_one_space():
    space = multi_branch.multi_branch(3, 8)

    def network(join, bits):
        choices = {f"layer_{layer}": "conv_3x3" for layer in (1, 2, 3)}
        names = ["skip_1_2", "skip_1_3", "skip_2_3"]
        text = {"join": join, **choices, **dict(zip(names, bits, strict=True))}
        order = ["join", "layer_1", "layer_2", "skip_1_2", "layer_3", "skip_1_3", "skip_2_3"]
        row = space.from_string("|".join(f"{key}={text[key]}" for key in order))
        return own.build(space, space.choices(row), (8, 8, 1), 10).module, own.sizes(
            space, space.choices(row[None]), (8, 8, 1), 10
        ).params[0]

    chain, size_of_chain = network("sum", (0, 0, 0))
    assert chain.sources == ((0,), (1,), (2,)) and network("concatenation", (0, 0, 0))[1] == size_of_chain
    residual, size_of_residual = network("sum", (1, 0, 1))
    assert residual.sources == ((0,), (1, 0), (2, 1)) and size_of_residual == size_of_chain
    dense, size_of_dense = network("concatenation", (1, 1, 1))
    assert dense.sources == ((0,), (1, 0), (2, 0, 1))
    # A 1x1 convolution and a normalisation of two and of three layers.
    assert size_of_dense == size_of_chain + (16 + 24) * 8 + 2 * 16


@settings(max_examples=20)
@given(st.integers(0, 2**31 - 1))
def test_hierarchies_of_renamed_motifs_are_one(seed):
    generator = np.random.default_rng(seed)
    edges, motifs = generator.integers(0, 7, 10), generator.integers(0, 7, (6, 6))
    order = generator.permutation(6)
    renamed = np.where(edges > 0, np.argsort(order)[edges - 1] + 1, 0)
    # A motif that no edge holds is anything.
    moved = motifs[order]
    unused = np.setdiff1d(np.arange(6), renamed - 1)
    moved[unused] = generator.integers(0, 7, (len(unused), 6))
    both = (np.concatenate([e, m.reshape(-1)]) for e, m in ((edges, motifs), (renamed, moved)))
    first, second = (np.asarray(HIERARCHICAL(code)) for code in both)
    assert np.array_equal(first, second)
    used = list(dict.fromkeys(first[:10][first[:10] > 0].tolist()))
    assert used == list(range(1, len(used) + 1))


HIERARCHICAL = jax.jit(hierarchical.canonical)


def test_pairs_of_a_block_have_no_order():
    row = np.asarray(get("nasnet").sample(jax.random.key(0), 1)[0])
    turned = row.reshape(20 // 2, 2, 2)[:, ::-1].reshape(-1)
    assert np.array_equal(nasnet.canonical(row), nasnet.canonical(turned))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hierarchical", "none"), ("hierarchical", " | ".join(["none " * 6] * 6) + " + 0"), ("nasnet", "identity<0"),
        ("nasnet", ", ".join(["identity<0 identity<9"] * 5)), ("mobilenet", "depth_1=9"), ("transformer", "depth=2"),
        ("grammar", "network=linear9"), ("multi_branch", "join=product"),
    ],
)  # fmt: skip
def test_wrong_text_is_told_in_a_line(name, text):
    with pytest.raises(InputError) as error:
        get(name).from_string(text)
    assert "\n" not in str(error.value)


def test_a_transformer_is_trained_and_zen_says_why_not(tmp_path):
    digits = data.load(small_digits(tmp_path / "small.npz", 64, 16))
    space = get("transformer")
    row = space.from_string("embedding=32|depth=2|heads_1=2|ratio_1=2|heads_2=2|ratio_2=2")
    values = Train(epochs=1, batch=16, augment=False).make(space, digits).evaluate(
        jax.random.key(0), Candidates(architectures=row[None])
    )  # fmt: skip
    assert 0 <= values.value[0, 0] <= 100
    with pytest.raises(InputError, match="zen") as error:
        jnas.score(
            "transformer", [space.to_string(row)], ["zen"], "digits", settings={"network": {"batch": 4}}
        )
    assert "\n" not in str(error.value)
