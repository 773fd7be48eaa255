# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A thousand cells scored, a few trained: what the scores are worth
#
# In Colab, run `pip install jnas pandas` first. On two CPU cores all of this takes less than two minutes, more than
# half of it compilation. With the environment variable `JNAS_FAST=1` everything is smaller.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import kendalltau, spearmanr

import jnas
from jnas import data, spaces
from jnas.estimators.batch_training import accuracies
from jnas.estimators.predictor import predict
from jnas.proxies import PROXIES, combination

FAST = os.environ.get("JNAS_FAST") == "1"
CELLS, TRAINED, EPOCHS, STAGES, KNOWN = (64, 16, 1, 1, 8) if FAST else (1000, 48, 3, 3, 16)

# %% [markdown]
# ## Scores without training
#
# A small network of each of the cells at initialisation: 4 channels, one cell in each of three stages, 16 images of
# handwritten digits (8 x 8 pixels, embedded). All cells go through one compiled program. The size of the network
# (`params`, `flops`) comes with every table: it is the score to beat.

# %%
names = ["naswot", "swap"] if FAST else ["naswot", "swap", "az_expressivity", "snip", "grad_norm", "synflow"]
settings = {"network": {"channels": 4, "cells_per_stage": 1, "batch": 16}}
scores = jnas.score("nasbench201", f"random:{CELLS}", names, "digits", settings=settings)
scores.to_pandas().drop(columns=[f"{name}_status" for name in names])

# %% [markdown]
# A score of `-inf` or `nan` has a status that says so; such a cell ranks last. Cells without a path from input to
# output fail in this way, and they cannot be trained either: from here on they are left out, as they make every
# score look better than it is.

# %%
names += ["params", "flops"]
good = np.all(
    [scores[f"{name}_status"] == "ok" for name in names if f"{name}_status" in scores.columns], axis=0
)
cells = scores.architectures[good]
values = {name: combination.oriented(scores[name][good], None, PROXIES[name].sign) for name in names}
print(f"{good.sum()} of {len(good)} cells have all scores")

# %% [markdown]
# ## Training
#
# The first of these cells (they are in random order), each for a few epochs of SGD with Nesterov momentum, in one
# compiled program: the network is the one that was scored. What is measured is how fast a small network learns a
# small data set, not how good a cell is in the end; and with 359 test images an accuracy of 90% is uncertain by 1.6
# points on its own. All cells start from the same weights and see the same images.

# %%
space, digits = spaces.get("nasbench201"), data.load("digits")
choices = np.argmax(space.gates(cells[:TRAINED]), axis=-1)
accuracy = np.asarray(accuracies(
    jax.random.key(0), choices, digits, epochs=EPOCHS, batch=64, learning_rate=0.1, weight_decay=5e-4,
    channels=4, cells_per_stage=1, stages=STAGES,
))[:, 0]  # fmt: skip
print(
    f"{len(accuracy)} cells: {accuracy.min():.1f} to {accuracy.max():.1f}%, median {np.median(accuracy):.1f}%"
)


# %% [markdown]
# ## Does a score rank the cells as training does?
#
# Kendall's tau: 1 is the same order, 0 none. The interval of 95% comes from drawing the trained cells again with
# replacement: it says what another sample of cells would give, not what other weights would.


# %%
def tau_with_interval(score, accuracy, draws=300):
    """Kendall's tau and its 95% bootstrap interval."""
    generator = np.random.default_rng(0)
    samples = generator.integers(len(accuracy), size=(draws, len(accuracy)))
    taus = [kendalltau(score[sample], accuracy[sample]).statistic for sample in samples]
    return kendalltau(score, accuracy).statistic, *np.nanquantile(taus, [0.025, 0.975])


def scatter(axes, score, name):
    tau, low, high = tau_with_interval(score, accuracy)
    axes.scatter(score, accuracy, s=18, alpha=0.7)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(f"{name}\ntau {tau:.2f} [{low:.2f}, {high:.2f}]", fontsize=10)


figure, grid = plt.subplots(2, len(names) // 2, figsize=(11, 5.4), sharey=True, layout="constrained")
for axes, name in zip(grid.flat, names, strict=True):
    scatter(axes, values[name][:TRAINED], name)
for axes in grid[:, 0]:
    axes.set_ylabel("test accuracy, %")
plt.show()

# %% [markdown]
# ## Do the scores say anything that the size does not?
#
# Spearman's rank correlation between scores, over all cells that were scored.

# %%
correlation = spearmanr(np.stack(list(values.values()), axis=1)).statistic
figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
image = axes.imshow(correlation, vmin=-1, vmax=1, cmap="RdBu_r")
for row, column in np.ndindex(correlation.shape):
    shade = "white" if abs(correlation[row, column]) > 0.6 else "black"
    axes.text(column, row, f"{correlation[row, column]:.2f}", ha="center", va="center", size=8, color=shade)
axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
axes.set_yticks(range(len(names)), names)
figure.colorbar(image, label="Spearman's rho")
plt.show()

# %% [markdown]
# ## Several scores as one
#
# Sums of ranks need no training. They are made of the proxies alone, without the sizes.

# %%
proxies = {name: values[name] for name in names if name not in ("params", "flops")}
combined = {
    "rank sum": combination.rank_sum(proxies),
    "log rank sum": combination.log_rank_sum(proxies),
}
figure, grid = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for axes, (name, score) in zip(grid, combined.items(), strict=True):
    scatter(axes, score[:TRAINED], name)
grid[0].set_ylabel("test accuracy, %")
plt.show()

# %% [markdown]
# ## A combination learned from a few trained cells
#
# The predictor sees the accuracies of the first few trained cells, and all scores with the sizes. It starts from
# the log rank sum, and says how sure it is. What follows is about the other trained cells, which it has not seen.
# Its unit is a normal score among the trained cells: 0 is the median, 1 better than 84% of them.

# %%
known, unseen = np.arange(KNOWN), np.arange(KNOWN, TRAINED)
prediction = predict(values, known, accuracy[known])
figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
axes.errorbar(
    prediction.mean[unseen], accuracy[unseen], xerr=prediction.deviation[unseen], fmt="o", markersize=4, alpha=0.7,
    elinewidth=0.8,
)  # fmt: skip
axes.set(xlabel="prediction (normal score), one standard deviation", ylabel="test accuracy, %")
tau, low, high = tau_with_interval(prediction.mean[unseen], accuracy[unseen])
axes.set_title(f"{len(unseen)} unseen cells: tau {tau:.2f} [{low:.2f}, {high:.2f}]", fontsize=10)
plt.show()

# %% [markdown]
# The same unseen cells for everything that ranks them. Intervals that overlap much say that this experiment is too
# small to prefer one: train more cells, from several keys, before believing an order.

# %%
everything = {**values, **combined, "learned": prediction.mean}
rows = {name: tau_with_interval(score[unseen], accuracy[unseen]) for name, score in everything.items()}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for place, (tau, low, high) in enumerate(rows.values()):
    axes.plot([low, high], [place, place], color="tab:gray")
    axes.plot(tau, place, "o", color="tab:blue")
axes.axvline(0, color="black", linewidth=0.8)
axes.set_yticks(range(len(rows)), rows)
axes.invert_yaxis()
axes.set(xlabel="Kendall's tau with the accuracy, 95% interval")
plt.show()

# %% [markdown]
# The cells that the learned combination would train next, out of all that were scored.

# %%
best = [index for index in np.argsort(-prediction.mean) if index >= TRAINED][:5]
for index in best:
    print(
        f"{prediction.mean[index]:.2f} ± {prediction.deviation[index]:.2f}  {space.to_string(cells[index])}"
    )
