# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # jnas in a minute: score cells without training them
#
# In Colab, run `pip install jnas` first.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jnas import data, spaces
from jnas.data import transforms
from jnas.nets import cost
from jnas.proxies import ntk, regions

# %% [markdown]
# Sixteen cells of NAS-Bench-201. An architecture is six integers; its gates are what the network reads.

# %%
space, digits = spaces.get("nasbench201"), data.load("digits")
cells = space.sample(jax.random.key(0), 16)
gates, count = space.gates(cells), jnp.int32(len(cells))
print(space.to_string(cells[0]))

# %% [markdown]
# Two scores at initialisation: the condition number of the exact neural tangent kernel (lower is better) and the
# number of linear regions (higher is better). Each is one compiled program for all cells.

# %%
images = transforms.normalise(digits, digits.x_train[:16])
kernels = ntk.kernels(jax.random.key(1), gates, count, images, classes=digits.classes, normalisation="frozen")
kappa, status = ntk.condition_numbers(kernels)
crops = transforms.crops(jax.random.key(2), transforms.normalise(digits, digits.x_train), 1000)
patterns = regions.counts(jax.random.key(3), gates, count, crops)

# %% [markdown]
# Never without the baseline: how much of it does the number of parameters tell already?

# %%
params = cost.params(np.asarray(cells), cost.Macro(image=(8, 8, 1)))
figure, axes = plt.subplots(figsize=(5, 4))
points = axes.scatter(kappa, patterns, c=params / 1e6)
axes.set(xscale="log", xlabel="condition number of the NTK", ylabel="linear regions")
figure.colorbar(points, label="parameters (millions)")
plt.show()
