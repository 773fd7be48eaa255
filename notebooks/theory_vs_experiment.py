# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Theory beside experiment: scores against trained cells
#
# In Colab, run `pip install jnas pandas` first. On two CPU cores all of this takes three to four minutes, most of it
# compilation. With the environment variable `JNAS_FAST=1` everything is smaller.
#
# Nothing is trained here. jnas comes with a table of cells of NAS-Bench-201 that were: each three times for five
# epochs, on 1,438 handwritten digits (8 x 8 pixels). Against it one can hold what theory says of the same cells at
# initialisation, and what search strategies make of them.

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import jnas
from jnas import spaces
from jnas.config.study import from_mapping
from jnas.estimators.compact_table import open_table
from jnas.proxies import PROXIES
from jnas.proxies.combination import oriented
from jnas.run.progress import Progress
from jnas.studies import run, statistics
from jnas.studies.base import COLOURS

FAST = os.environ.get("JNAS_FAST") == "1"
CELLS, SEARCHES, EVALUATIONS, RESAMPLES = (60, 100, 100, 50) if FAST else (300, 500, 300, 200)

# %% [markdown]
# ## The table
#
# Before any score: how well does the experiment agree with itself? Two trainings of the same cells, with other weights
# and another order of the images, rank the cells alike only so far: a score that agrees with accuracies as well as that
# would be as good as training once. Among the best tenth of the cells the seeds decide more than the cell does.

# %%
table = open_table("digits")
mean, last = table.mean(), table.accuracy[:, :, -1]
complete = np.isfinite(last).all(axis=1)
agreement = statistics.kendall(last[complete, 0], last[complete, 1])
spread = float(np.median(last[complete].std(axis=1, ddof=1)))
top = complete & (mean >= np.nanquantile(mean, 0.9))
at_the_top = statistics.kendall(last[top, 0], last[top, 1])
print(
    f"{len(mean):,} cells; two seeds agree by a Kendall tau of {agreement:.2f}, among the best tenth {at_the_top:.2f}"
)
print(f"standard deviation over seeds: {spread:.2f} percentage points (median of the cells)")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
for number, epoch in enumerate(table.epochs):
    ordered = np.sort(table.mean(int(epoch)))
    style = {"color": COLOURS[number], "linestyle": ("-", "--", "-.", ":")[number % 4]}
    left.plot(100 * np.arange(len(ordered)) / len(ordered), ordered, label=f"epoch {epoch}", **style)
left.set(xlabel="share of cells that are worse, %", ylabel="mean test accuracy, %")
left.legend(frameon=False)
right.scatter(last[:, 0], last[:, 1], s=8, color=COLOURS[0], alpha=0.4)
right.set(xlabel="test accuracy with the first seed, %", ylabel="with the second seed, %")
right.set_title(f"Kendall's tau {agreement:.2f}", fontsize=10)
plt.show()

# %% [markdown]
# ## Scores against accuracies
#
# Some cells of the table, scored in a small network (one cell in each of three stages) at initialisation. The number
# of parameters is among the scores: it needs no network at all. Cells that fail a score rank last.

# %%
space = spaces.get(table.space)
rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isfinite(mean)))[:CELLS]
names = ["naswot"] if FAST else ["naswot", "synflow", "ntk"]
settings = {"network": {"cells_per_stage": 1}, "ntk": {"batch": 16}}
quiet = Progress(quiet=True)
scores = jnas.score(
    table.space, table.architectures[rows], names, "digits", settings=settings, progress=quiet
)
values = {
    name: oriented(
        np.asarray(scores[name], float),
        list(scores.columns.get(f"{name}_status", ["ok"] * len(rows))),
        PROXIES[name].sign,
    )
    for name in (*names, "params")
}

# %%
units = {
    "naswot": "log-determinant",
    "synflow": "logarithm of the score",
    "ntk": "minus log10 of the condition number",
}
accuracy = mean[rows]
figure, grid = plt.subplots(
    1, len(values), figsize=(3.2 * len(values), 3.6), sharey=True, layout="constrained"
)
for number, (axes, (name, score)) in enumerate(zip(grid, values.items(), strict=True)):
    tau = statistics.kendall(score, accuracy)
    low, high = statistics.interval(statistics.kendall, score, accuracy, RESAMPLES)
    shown = np.isfinite(score)
    places = -np.log10(-score[shown]) if name == "ntk" else score[shown]
    axes.scatter(places, accuracy[shown], s=14, color=COLOURS[number], alpha=0.6)
    axes.set_title(f"{name}\ntau {tau:.2f} [{low:.2f}, {high:.2f}]", fontsize=10)
    axes.set_xlabel(units.get(name, "number of parameters"))
    axes.locator_params(axis="x", nbins=4)
grid[0].set_ylabel("mean test accuracy, %")
plt.show()

# %% [markdown]
# A tau over all cells is easy to have: many cells of the table are plainly bad, and everything sees that. What a
# search needs is an order among the good ones.

# %%
better = accuracy >= np.median(accuracy)
halves = {"all cells": slice(None), "better half": better}
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for number, (label, part) in enumerate(halves.items()):
    for place, score in enumerate(values.values()):
        y = place + 0.2 * (number - 0.5)
        bounds = statistics.interval(statistics.kendall, score[part], accuracy[part], RESAMPLES)
        axes.plot(bounds, [y, y], color=COLOURS[number])
        tau = statistics.kendall(score[part], accuracy[part])
        axes.plot(tau, y, "os"[number], color=COLOURS[number], label=None if place else label)
axes.axvline(0, color="black", linewidth=0.8)
axes.axvline(agreement, color="gray", linestyle=":", label="two seeds, all cells")
axes.set_yticks(range(len(values)), values)
axes.invert_yaxis()
axes.set(xlabel="Kendall's tau with the mean accuracy, 95% interval")
axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()


# %% [markdown]
# ## The rank study
#
# `jnas study` does this in one step and leaves a folder with a page: the networks that the scores were published with
# (five cells a stage), always beside parameters, FLOPs and convolutions, and with other settings of the scoring. Here
# from Python. The sentences are made of the numbers.


# %%
def do(**mapping):
    """Findings of a study, drawn."""
    with tempfile.TemporaryDirectory() as folder:
        findings, _ = run(from_mapping({"table": "digits", **mapping}), folder, quiet)
    for drawing in findings.figures:
        drawing.draw(plt.figure(figsize=drawing.size, layout="constrained"))
        plt.show()
        print(drawing.caption)
    print(*findings.paragraphs, sep="\n")
    return findings


# %%
proxies = "regions" if FAST else "naswot,swap,regions"
variants = "regions.inputs=1000" if FAST else "network.cells_per_stage=1 regions.inputs=1000"
ranks = do(
    kind="rank", rank={"proxies": proxies, "variants": variants, "cells": CELLS, "resamples": RESAMPLES}
)

# %% [markdown]
# Precision says which part of the best twentieth by score is among the best twentieth by accuracy: of 300 cells those
# are fifteen, and of 60 three. Regret is what one loses by taking the cell with the best score, in percentage points.

# %%
shown = ["variant", "score", "kendall", "kendall_low", "kendall_high", "precision", "regret", "failed"]
pd.DataFrame(ranks.rows, columns=ranks.columns)[shown].round(3)

# %% [markdown]
# ## The search study
#
# Strategies that train what they ask for: random search, aging evolution and local search, all seeds in one compiled
# program. An evaluation shows one training of the table, drawn among the three, as a search would see it. What counts
# is the mean of the cell that showed the best so far. A strategy that believes a lucky training is led astray, so
# the curves end below the best of the table.
#
# The table holds a part of the space, and nothing else can be asked for. Random search does not mind. The other two
# go from a cell to its neighbours, and where most of these are not in the table, they get stuck: what is seen here
# is worse than what they do on the whole space.

# %%
held = np.mean(table.rows(space.all()) >= 0)
print(
    f"{100 * held:.0f}% of the space's {space.size:,} architectures are in the table, or equivalent to one that is"
)
searches = do(kind="search", search={"seeds": SEARCHES, "evaluations": EVALUATIONS})

# %% [markdown]
# ## A score as a start
#
# How far does a score alone get? Random search among the scored cells, against looking at them in the order of a
# score. A line ends at all cells; what matters is how fast it rises.

# %%
random = np.array(
    [
        np.maximum.accumulate(accuracy[np.random.default_rng(seed).permutation(len(rows))])
        for seed in range(SEARCHES)
    ]
).mean(0)
figure, axes = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
asked = np.arange(1, len(rows) + 1)
axes.plot(asked, random, color="black", linewidth=2, label=f"random order, mean of {SEARCHES}")
for number, (name, score) in enumerate(values.items()):
    order = np.argsort(-score, kind="stable")
    reached = np.maximum.accumulate(accuracy[order])
    style = {"color": COLOURS[number], "linestyle": ("--", "-.", ":", (0, (5, 1)))[number % 4]}
    axes.plot(asked, reached, label=f"by {name}", **style)
axes.set(xscale="log", xlabel="cells trained (logarithmic)", ylabel="best mean accuracy so far, %")
axes.xaxis.set_major_formatter("{x:g}")
axes.set_ylim(bottom=min(random[0], np.quantile(accuracy, 0.5)))
axes.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# What this says, and what not. It is one space, one small data set with 359 test images, small networks and five
# epochs: a score that fails here may do well on CIFAR-10, and the other way round. Intervals come from drawing cells
# again, not from new weights. The order by score is one order, without an interval: read it as an example. What
# carries over is the question that every figure asks: is it better than counting parameters, and better than chance?
