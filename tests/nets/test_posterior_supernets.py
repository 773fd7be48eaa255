"""The four networks with masked channels: their sizes against the published ones, and what masks do to them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from jnas.errors import InputError
from jnas.nets import operations
from jnas.nets.masked.densenet import DenseNet
from jnas.nets.masked.enas import EnasNetwork
from jnas.nets.masked.four_kernel_resnet import FourKernelResNet, FourKernels
from jnas.nets.masked.shake_shake import ShakeShake, ShiftedPaths
from jnas.nets.modules import Build

BUILD, RUNNING = Build(), Build(statistics="running")
SMALL = {
    "shake_shake": lambda build: ShakeShake(2, 5, build, blocks=1, stem=2),
    "enas": lambda build: EnasNetwork(4, 5, build, layers=1),
    "four_kernel_resnet": lambda build: FourKernelResNet(5, build, width=8, blocks=(1, 1)),
    "densenet": lambda build: DenseNet(5, build, growth=4, blocks=(2, 2)),
}
close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)


def shapes(network, size, channels=3):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, size, size, channels)))


def drawn(params):
    """Values for the shapes `params`, scales and offsets included; by NumPy, which compiles nothing for a shape."""
    generator = np.random.default_rng(0)

    def draw(path, leaf):
        deviation = math.sqrt(2 / math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.3
        mean = float(path[-1].key == "scale")
        return generator.normal(mean, deviation, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


def filled(tree, value):
    return jax.tree.map(lambda leaf: np.full(leaf.shape, value, np.float32), tree)


def count(params, weights_only=False):
    """Numbers in `params`; of kernels alone if `weights_only`."""
    leaves = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1 or not weights_only]
    return sum(math.prod(leaf.shape) for leaf in leaves)


def groups(variables):
    return len(jax.tree.leaves(variables["masks"]))


class TestSizes:
    @pytest.mark.parametrize(("width", "published"), [(6, 26.17), (10, 72.66)])
    def test_shake_shake(self, width, published):
        variables = shapes(ShakeShake(width, 10, BUILD), 32)
        assert round(count(variables["params"], weights_only=True) / 1e6, 2) == published
        # 12 blocks of 4 convolutions, 3 skips of 2, the classifier.
        assert groups(variables) == 12 * 4 + 3 * 2 + 1
        unmasked = set(variables["params"]) - set(variables["masks"])
        assert unmasked == {"stem"}

    @pytest.mark.parametrize(
        ("filters", "parameters", "published"), [(36, 3_894_382, None), (72, 14_784_562, 15.3)]
    )
    def test_enas(self, filters, parameters, published):
        variables = shapes(EnasNetwork(filters, 10, BUILD), 32)
        params = variables["params"]
        # Counted by hand, f filters in the first stage: all of a cell's convolutions have its width, the sums below
        # are of squares and of widths over the 17 cells.
        widths = np.array([filters] * 5 + [2 * filters] * 6 + [4 * filters] * 6)
        reduces = np.isin(np.arange(17), (5, 11))
        read = np.concatenate([[3 * filters] * 2, np.where(reduces, 4, 5) * widths])
        kernels = 27 * 3 * filters + read[-1] * 10
        # 12 pointwise parts and the base, and an identity of stride 2 in reductions; the two layers that are read.
        kernels += sum((13 + reduces) * widths**2) + sum(widths * (read[:-2] + read[1:-1]))
        # Separable twice: 2 of 3x3 and 4 of 5x5 in a normal cell, 3 of each in a reduction.
        kernels += sum(widths * np.where(reduces, 2 * (3 * 9 + 3 * 25), 2 * (2 * 9 + 4 * 25)))
        norms = 2 * 3 * filters + sum(2 * widths * (12 + 1 + 2 + reduces))
        assert count(params, weights_only=True) == kernels
        assert count(params) == kernels + norms + 10 == parameters
        assert groups(variables) == 17 * (12 + 1) + 17 * 2 + 2 + 2 * 2 + 1
        if published:
            auxiliary = 20 * filters * 128 + 4 * 128 * 768 + 768 * 10
            assert round((kernels + auxiliary) / 1e6, 1) == published

    def test_four_kernel_resnet(self):
        variables = shapes(FourKernelResNet(1000, BUILD), 224)
        squares = sum(blocks * (64 * 2**stage) ** 2 for stage, blocks in enumerate((3, 4, 6, 3)))
        # ResNet-50 as torchvision counts it, with 11 weights a square in place of 9.
        assert count(variables["params"]) == 25_557_032 + 2 * squares == 28_071_976
        # 16 blocks of 1 + 4 + 1 convolutions, and a skip in each stage.
        assert groups(variables) == 16 * 6 + 4

    def test_densenet(self):
        variables = shapes(DenseNet(1000, BUILD), 224)
        # DenseNet-121 as torchvision counts it, and the published number of probabilities.
        assert count(variables["params"]) == 7_978_856
        assert groups(variables) == 638


def test_four_kernels_need_a_width_of_quarters():
    with pytest.raises(InputError, match="a width of 6 has no quarters: choose a multiple of 4"):
        shapes(FourKernelResNet(5, BUILD, width=6), 8)


def masked_params(params, masks):
    """`params` with each kernel's input channels multiplied by its masks [C_g]."""
    params = traverse_util.flatten_dict(params)
    for path, leaves in traverse_util.flatten_dict(masks).items():
        kernel = (*path[:-1], "kernel")
        params[kernel] = params[kernel] * np.concatenate(leaves)[:, None]
    return traverse_util.unflatten_dict(params)


@pytest.mark.parametrize("name", SMALL)
class TestMasks:
    def test_masks_are_slices_of_kernels(self, name):
        """Each image with masks of its own equals each alone with masked kernels; on images like digits."""
        network = SMALL[name](RUNNING)
        images = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
        variables = shapes(network, 8, channels=1)
        params, statistics = drawn(variables["params"]), filled(variables["batch_stats"], 0.5)
        leaves, tree = jax.tree.flatten(variables["masks"])
        flat = traverse_util.flatten_dict(variables["params"])
        for path, sizes in traverse_util.flatten_dict(variables["masks"]).items():
            assert sum(leaf.shape[0] for leaf in sizes) == flat[*path[:-1], "kernel"].shape[-2]
        generator = np.random.default_rng(0)
        own = [(generator.random((3, *leaf.shape)) < 0.7).astype(np.float32) for leaf in leaves]

        @jax.jit
        def logits(params, **masks):
            return network.apply({"params": params, "batch_stats": statistics, **masks}, images)

        each = logits(params, masks=jax.tree.unflatten(tree, own))
        whole = logits(params)
        assert each.shape == (3, 5)
        assert np.abs(each - whole).max(axis=1).min() > 1e-2
        for image in range(3):
            # Statistics that are given leave images independent: the others in the batch do not matter.
            masks = jax.tree.unflatten(tree, [leaf[image] for leaf in own])
            close(each[image], logits(masked_params(params, masks))[image])
        close(logits(params, masks=jax.tree.unflatten(tree, [np.ones_like(leaf) for leaf in own])), whole)

    def test_training_on_colour_images(self, name):
        network = SMALL[name](BUILD)
        images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
        variables = shapes(network, 32)
        params, statistics = drawn(variables["params"]), filled(variables["batch_stats"], 0)

        @jax.jit
        def step(params, statistics):
            return network.apply(
                {"params": params, "batch_stats": statistics}, images, mutable=["batch_stats"]
            )

        logits, updated = step(params, statistics)
        assert logits.shape == (2, 5) and np.isfinite(logits).all()
        moved = [bool(np.any(leaf)) for leaf in jax.tree.leaves(updated["batch_stats"])]
        assert len(moved) == len(jax.tree.leaves(statistics)) and all(moved)


class TestParts:
    @pytest.mark.parametrize("stride", [1, 2])
    @pytest.mark.parametrize("size", [6, 7])
    def test_shifted_paths(self, size, stride):
        """With kernels that copy, and statistics that change nothing: every `stride`-th pixel and its neighbour."""
        paths = ShiftedPaths(4, RUNNING, stride)
        x = np.arange(2.0 * size * size * 2, dtype=np.float32).reshape(2, size, size, 2)
        copy = {"kernel": np.eye(2, dtype=np.float32)[None, None]}
        zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
        norm = {"scale": ones, "offset": zeros}
        statistics = {"mean": zeros, "variance": ones - operations.EPSILON}
        params = {"straight": copy, "shifted": copy, "norm": norm}
        y = jax.jit(paths.apply)({"params": params, "batch_stats": {"norm": statistics}}, x)
        wider = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])
        close(y[..., :2], x[:, ::stride, ::stride])
        close(y[..., 2:], wider[:, 1:, 1:][:, ::stride, ::stride])

    def test_masks_for_all_images(self):
        """Masks [C] are those rows for every image."""
        module = FourKernels(4, BUILD)
        x = jax.random.normal(jax.random.key(0), (2, 5, 5, 4))
        params = drawn(jax.eval_shape(module.init, jax.random.key(0), x)["params"])
        masks = {f"span_{span}": {"inputs": (np.arange(4) == span % 4,)} for span in (1, 3, 5, 9)}
        rows = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), masks)
        apply = jax.jit(lambda params, **masks: module.apply({"params": params, **masks}, x))
        y = apply(params, masks=masks)
        close(apply(params, masks=rows), y)
        close(apply(masked_params(params, masks)), y)

    @pytest.mark.parametrize("loops", [False, True])
    def test_spans_of_four_kernels(self, loops):
        """A single pixel reaches as far as each kernel spans, with gaps where it is dilated."""
        module = FourKernels(4, Build(loops=loops))
        x = jnp.zeros((1, 11, 11, 4)).at[0, 5, 5].set(1)
        params = filled(jax.eval_shape(module.init, jax.random.key(0), x)["params"], 1)
        y = np.asarray(module.apply({"params": params}, x))[0, 5]
        for share, reached in enumerate([[5], [4, 5, 6], [3, 5, 7], [1, 3, 5, 7, 9]]):
            np.testing.assert_array_equal(np.flatnonzero(y[:, share]), reached)

    @pytest.mark.parametrize("stride", [1, 2])
    def test_depthwise_convolution(self, stride):
        """Each channel alone, by the ordinary convolution."""
        generator = np.random.default_rng(0)
        x = generator.normal(size=(2, 5, 6, 3)).astype(np.float32)
        kernel = generator.normal(size=(5, 5, 1, 3)).astype(np.float32)

        @jax.jit
        def evaluate(x, kernel):
            alone = [
                operations.convolution(x[..., [channel]], kernel[..., [channel]], "NHWC", stride)
                for channel in range(3)
            ]
            return jnp.concatenate(alone, axis=-1), BUILD.depthwise_convolution(x, kernel, stride)

        expected, whole = evaluate(x, kernel)
        close(whole, expected)

    @pytest.mark.parametrize("stride", [1, 2])
    def test_dilation_in_either_form(self, stride):
        generator = np.random.default_rng(0)
        x = generator.normal(size=(2, 9, 8, 2)).astype(np.float32)
        kernel = generator.normal(size=(3, 3, 2, 4)).astype(np.float32)
        apart = np.zeros((7, 7, 2, 4), np.float32)
        apart[::3, ::3] = kernel

        @jax.jit
        def evaluate(x, kernel, apart):
            forms = [build.convolution(x, kernel, stride, dilation=3) for build in (BUILD, Build(loops=True))]
            return operations.convolution(x, apart, "NHWC", stride), *forms

        expected, *found = evaluate(x, kernel, apart)
        for form in found:
            close(form, expected)
