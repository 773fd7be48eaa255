# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Search strategies: which one, and by your own evaluations
#
# In Colab, run `pip install jnas` first. About 70 seconds of processor time on two cores.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

from jnas import spaces
from jnas.config.study import from_mapping
from jnas.estimators.compact_table import open_table
from jnas.run.progress import Progress
from jnas.strategies import STRATEGIES
from jnas.studies import search
from jnas.types import with_status

# In the tests everything is smaller.
FAST = os.environ.get("JNAS_FAST") == "1"
SEEDS, EVALUATIONS = (10, 20) if FAST else (500, 200)

# %% [markdown]
# Six strategies, 500 searches by each, on the table that comes with jnas: 1,500 cells trained on the digits. A search
# sees one training of a cell, and is judged by the mean of all trainings of the cell that it holds for the best. A name
# takes settings behind it.

# %%
strategies = "random, aging, local, local improvement=best at_maximum=next_best, nsga2, tpe"
strategies = "random, local" if FAST else strategies
config = from_mapping({"search": {"strategies": strategies, "seeds": SEEDS, "evaluations": EVALUATIONS}})
findings = search.run(config, open_table("digits"), Progress(quiet=True))
print(*findings.paragraphs, sep="\n\n")

# %%
picture = findings.figures[0]
picture.draw(plt.figure(figsize=picture.size, layout="constrained"))
plt.show()

# %% [markdown]
# Ask and tell: the evaluation is yours. Here it counts convolutions; `nan` would be a failure.

# %%
space = spaces.get("nasbench201")
strategy = STRATEGIES["local"]().make(space, ("accuracy",), budget=60)
ask, tell, state = jax.jit(strategy.ask), jax.jit(strategy.tell), strategy.init(jax.random.key(0))
for number in range(60):
    candidates, state = ask(jax.random.key(1 + number), state)
    values = np.array([[space.to_string(row).count("nor_conv")] for row in candidates.architectures], float)
    state, _ = tell(state, candidates, with_status(values, np.zeros(len(values))))
print(space.to_string(strategy.best(state)))
