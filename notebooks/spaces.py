# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A search space of your own, searched three ways, and drawn
#
# In Colab, run `pip install jnas` first. About a minute on two cores.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import jnas
from jnas.nets.candidates import OPERATIONS, convolution
from jnas.report.drawing import cell_edges, cell_text
from jnas.spaces import SPACES, Graph, Space, distinct

# %% [markdown]
# A space is its decisions and the cell that they describe. Here, four nodes, and on each edge one of three operations.

# %%
OPERATIONS["conv_5x5"] = convolution(5)
GRAPH = Graph(edges=((0, 1), (0, 2), (1, 2), (1, 3), (2, 3)), operations=("none", "skip_connect", "conv_5x5"))
MINE = SPACES["mine"] = Space("mine", (GRAPH,))
print(MINE.size, "architectures, of decisions", MINE.decisions)

# %% [markdown]
# Three strategies search it by one proxy. A compiled program scores every architecture.

# %%
network = {"channels": 4, "cells_per_stage": 1, "batch": 16}
estimator = {"name": "proxies", "proxies": "naswot", "network": network}
results = {
    strategy: jnas.search("mine", strategy, estimator, budget=12)
    for strategy in ("random", "evolution", "local")
}
for strategy, result in results.items():
    print(f"{strategy:<10} {result.architecture}")

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
for strategy, result in results.items():
    values = result.frame()
    axes.plot(np.maximum.accumulate(np.asarray(values["naswot"], float)), label=strategy)
axes.set(xlabel="evaluations", ylabel="best score so far")
axes.legend()
plt.show()

# %% [markdown]
# The best one, drawn.

# %%
best = results["evolution"].architecture
print(cell_text(cell_edges(MINE, best)[0], MINE.nodes))

# %% [markdown]
# Many published spaces are there. Uniform over decisions is not uniform over architectures: draws of a grammar over its
# productions favour short words.

# %%
grammar = SPACES["grammar"]
print(f"{distinct.count(grammar):,} distinct networks")
decisions = np.asarray(grammar.sample(jax.random.key(0), 2000))[:, 0]
words = np.asarray(distinct.sample(grammar, jax.random.key(0), 2000))[:, 0]
print("of the longest production:", (decisions == 2).mean(), "by decisions,", (words == 2).mean(), "by words")
