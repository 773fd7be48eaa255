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
import matplotlib.pyplot as plt

from jnas import data, spaces
from jnas.data import transforms
from jnas.estimators.settings import NtkConfig, RegionsConfig
from jnas.nets import networks
from jnas.nets.sizes import Macro
from jnas.parallel import Program
from jnas.proxies import ntk, subjects

# %% [markdown]
# Sixteen cells of NAS-Bench-201. An architecture is six integers; its gates are what the network reads.

# %%
space, digits = spaces.get("nasbench201"), data.load("digits")
cells = space.sample(jax.random.key(0), 16)
gates = space.gates(cells)
print(space.to_string(cells[0]))

# %% [markdown]
# Two scores at initialisation: the condition number of the exact neural tangent kernel (lower is better) and the
# number of linear regions (higher is better). Each is one compiled program for all cells.

# %%
images = transforms.normalise(digits, digits.x_train[:16])
init, kernel = subjects.kernel(space.name, NtkConfig(normalisation="frozen"), digits.classes)
kernels = Program("kernel", kernel)(init(jax.random.key(1), images), gates)
kappa, status = ntk.condition_numbers(kernels)
crops = transforms.crops(jax.random.key(2), transforms.normalise(digits, digits.x_train), 1000)
init, count = subjects.linear_regions(space.name, RegionsConfig())
patterns = Program("regions", count)(init(jax.random.key(3), crops), gates)

# %% [markdown]
# Never without the baseline: how much of it does the number of parameters tell already?

# %%
params = networks.sizes_of(space, Macro(image=(8, 8, 1)), space.choices(cells)).params
figure, axes = plt.subplots(figsize=(5, 4))
points = axes.scatter(kappa, patterns, c=params / 1e6)
axes.set(xscale="log", xlabel="condition number of the NTK", ylabel="linear regions")
figure.colorbar(points, label="parameters (millions)")
plt.show()
