# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # One supernet, and which of its operations it would rather keep
#
# In Colab, run `pip install jnas` first. On two CPU cores all of this takes two to three minutes. With the environment
# variable `JNAS_FAST=1` everything is smaller, and too short to learn much.
#
# One-shot search trains one supernet and gives its weights to every candidate. Usually candidates are drawn blindly.
# Here the supernet learns, with its weights, the probability that each operation is dropped (Zhou et al., 2019), and
# candidates are drawn from these probabilities.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

from jnas import data
from jnas.data import stream
from jnas.estimators.compact_table import open_table
from jnas.estimators.inherited import inherited
from jnas.oneshot import supernets
from jnas.oneshot.settings import Posterior
from jnas.report import drawing
from jnas.run.supernet_training import Budget, hold_out
from jnas.studies import statistics
from jnas.studies.base import COLOURS, LINES
from jnas.types import Candidates

FAST = os.environ.get("JNAS_FAST") == "1"
WIDTH, EPOCHS, DRAWN, RECALIBRATE = (4, 3, 12, 128) if FAST else (8, 30, 60, 512)

# %% [markdown]
# ## The supernet
#
# The cell of NAS-Bench-201 with a gate on each of its operations, three stages of one cell. A fifth of the training
# images is held out: candidates are chosen on it. The test images are looked at once, at the end.

# %%
digits = data.load("digits")
split = hold_out(digits, seed=0, share=0.2)
supernet = supernets.SUPERNETS["nasbench201"](digits.x_train.shape[1:], digits.classes, WIDTH, 1)
space = supernet.space
print(f"{supernet.parameters:,} parameters, {len(supernet.groups)} gates: {supernet.groups[0]}, ...")

# %% [markdown]
# ## Training
#
# Each image sees gates of its own, drawn from the probabilities and relaxed, so that gradients reach these. All start
# at one half. The loss pays for keeping: its weight is a choice, and a larger one drops more. The probabilities learn
# ten times faster than the weights, as this training is short.

# %%
settings = Posterior(
    gates="group", drop_probability=0.5, weight_penalty=0.02, learning_rate=0.05, logits_rate=10.0
)
budget = Budget(EPOCHS, batch=64, augment=True)
method = settings.make(supernet, **budget.constants(split.dataset))
state, step = jax.jit(method.init)(jax.random.key(1)), jax.jit(method.step)
batches = stream.of_dataset(split.dataset).train(jax.random.key(0), budget.batch, 0, slice(None))
steps = budget.steps(split.dataset) // EPOCHS
losses, drops = [], [jax.nn.sigmoid(state.logits)]
for epoch in range(EPOCHS):
    total = 0.0
    for number in range(epoch * steps, (epoch + 1) * steps):
        state, info = step(state, jax.random.fold_in(jax.random.key(2), number), next(batches))
        total += float(info["cross_entropy"])
    losses.append(total / steps)
    drops.append(jax.nn.sigmoid(state.logits))
drops = np.array(drops)

# %% [markdown]
# One line is one operation on one edge. The colour and the dashes say which operation it is.

# %%
operations = space.operations[1:]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", width_ratios=(2, 3))
left.plot(range(1, EPOCHS + 1), losses, "o-", color="black", markersize=3)
left.set(xlabel="epoch", ylabel="cross-entropy of training images, nats")
for group, values in enumerate(drops.T):
    kind, first = group % len(operations), group < len(operations)
    label = operations[kind] if first else None
    right.plot(values, color=COLOURS[kind], linestyle=LINES[kind], label=label)
for axes in (left, right):
    axes.xaxis.get_major_locator().set_params(integer=True)
right.set(ylim=(0, 1), xlabel="epochs done", ylabel="probability of being dropped")
right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# The same probabilities at the end, by edge. A low number is an operation that the supernet would rather keep.

# %%
final = drops[-1].reshape(len(space.edges), len(operations))
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
image = axes.imshow(final, cmap="cividis", vmin=0, vmax=1, aspect="auto")
for edge, operation in np.ndindex(final.shape):
    shade = "white" if final[edge, operation] < 0.5 else "black"
    axes.text(operation, edge, f"{final[edge, operation]:.2f}", ha="center", va="center", color=shade)
axes.set_xticks(range(len(operations)), operations)
axes.set_yticks(range(len(final)), [f"{source} to {target}" for source, target in space.edges])
axes.set_ylabel("edge, from node to node")
figure.colorbar(image, label="probability of being dropped")
plt.show()

# %% [markdown]
# ## Candidates, and blind ones
#
# A candidate is a cell: at most one operation on each edge, drawn from the posterior under that condition. The blind
# ones are cells of the digits table, drawn uniformly, as many. Both inherit their weights from the supernet as it is.
# Only the statistics of normalisation are estimated anew for each, from training images.

# %%
table = open_table("digits")
trained = table.mean()
generator = np.random.default_rng(0)
rows = generator.choice(np.flatnonzero(np.isfinite(trained)), DRAWN, replace=False)
drawn = {
    "posterior": method.sample(state, jax.random.key(3), DRAWN),
    "blind": table.architectures[rows],
}


def accuracies(cells, images, labels):
    """Percent of images right with inherited weights, of cells [B, D]; 0 where outputs are not finite."""
    estimator = inherited(
        supernet, method.params(state), split.dataset, images, labels, recalibrate=RECALIBRATE, batch=DRAWN // 6
    )  # fmt: skip
    values = estimator.evaluate(jax.random.key(4), Candidates(cells)).value[:, 0]
    return np.where(np.isfinite(values), values, 0.0)


accuracy, parameters = {}, {}
for name, cells in drawn.items():
    accuracy[name] = accuracies(cells, split.images, split.labels)
    parameters[name] = supernet.parameters_of(cells)
    different = len(np.unique(cells, axis=0))
    print(
        f"{name}: {different} different cells of {DRAWN}, mean {accuracy[name].mean():.1f}%, best "
        f"{accuracy[name].max():.1f}%, {parameters[name].mean():,.0f} parameters on average"
    )

# %% [markdown]
# Candidates of the posterior may differ from blind ones in size, and small cells inherit more easily: hence the second
# figure.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
everything = np.concatenate(list(accuracy.values()))
bins = np.linspace(everything.min(), everything.max() + 0.1, 25)
for number, (name, mark) in enumerate((("blind", "o"), ("posterior", "^"))):
    colour = COLOURS[number]
    left.hist(accuracy[name], bins, color=colour, alpha=0.6, label=name, hatch=("", "///")[number])
    right.scatter(parameters[name] / 1e3, accuracy[name], s=28, marker=mark, color=colour, alpha=0.7)
left.set(xlabel="accuracy with inherited weights, %", ylabel="candidates")
right.set(xlabel="parameters, thousands", ylabel="accuracy with inherited weights, %")
figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
plt.show()

# %% [markdown]
# ## Do inherited weights rank cells as training does?
#
# The blind cells are in the table: what each reached when trained alone, with three seeds, is known. Those networks
# are not the supernet's (one stage, wider), so even perfect inheritance would not give a tau of 1.

# %%
blind, alone = accuracy["blind"], trained[rows]
tau = statistics.kendall(blind, alone)
low, high = statistics.interval(statistics.kendall, blind, alone, 300)
figure, axes = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
axes.scatter(blind, alone, s=28, color=COLOURS[0], alpha=0.7)
axes.set(xlabel="accuracy with inherited weights, %", ylabel="accuracy trained alone, %")
axes.set_title(f"Kendall's tau {tau:.2f} [{low:.2f}, {high:.2f}], {DRAWN} blind cells", fontsize=10)
plt.show()

# %% [markdown]
# And the other way round: what do the cells that the posterior likes reach when they are trained alone? Some of them
# are in the table.

# %%
liked = table.rows(np.unique(drawn["posterior"], axis=0))
liked = liked[liked >= 0]
if len(liked):
    print(f"{len(liked)} cells of the posterior trained alone: {np.nanmean(trained[liked]):.1f}% on average")
else:
    print("none of them is in the table")
print(f"{DRAWN} blind cells trained alone: {alone.mean():.1f}% on average")

# %% [markdown]
# ## The chosen cell
#
# The candidate of the posterior that is best on the held-out images. The test images are new to all of this. Of many
# candidates the best was partly lucky: expect the test accuracy to be lower than the one that it was chosen by.

# %%
best = {name: int(np.argmax(values)) for name, values in accuracy.items()}
for name, place in best.items():
    (test,) = accuracies(drawn[name][place][None], digits.x_test, digits.y_test)
    print(f"best of {name}: {accuracy[name][place]:.1f}% held out, {test:.1f}% of the test images")
chosen = drawn["posterior"][best["posterior"]]
row = table.rows(chosen[None])[0]
if row >= 0 and np.isfinite(trained[row]):
    share = 100 * np.mean(trained[np.isfinite(trained)] < trained[row])
    print(f"trained alone: {trained[row]:.1f}%, better than {share:.0f}% of the table")
else:
    print("the table does not hold the chosen cell")
text = space.to_string(chosen)
print(text, drawing.cell_text(drawing.cell_edges(space, text)[0], space.nodes), sep="\n")

# %% [markdown]
# What this says, and what not. There are 287 held-out and 359 test images: two candidates a point apart cannot be
# told apart. One supernet is one seed. That candidates of the posterior inherit better weights than blind ones is in
# part because the supernet trained what it kept: it is a statement about these weights, and only Kendall's tau
# says whether inherited accuracy tells a good cell. In a short training, light cells with skip connections are the
# first that work with inherited weights, and the last that one wants: tau may well be below zero.
# `jnas search configs/posterior_nasbench201.yaml` does all of this with records and a report, and trains the chosen
# cell beside random ones.
