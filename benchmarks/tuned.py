"""Choose settings of strategies on the table of digits: those of `jnas.strategies.settings.tuned`.

    python benchmarks/tuned.py [--strategies aging,tpe] [--seeds 100] [--evaluations 150]

For each strategy a few settings, the published ones first. The best has the highest accuracy of the incumbent, the mean
over trainings, averaged over seeds and over the evaluations 50, 100 and 150: early and late count alike. Other settings
than the published take their place only where they are better by two standard errors of the paired difference. No other
table has a say.
"""

import argparse
from functools import partial

import jax
import numpy as np

from jnas import spaces
from jnas.config.entrants import entrants
from jnas.estimators.compact_table import open_table
from jnas.estimators.tabular import on_space, tabular
from jnas.run.search import within
from jnas.studies.searching import incumbents, searches

STEPS = (50, 100, 150)
# The published settings of each strategy, then others.
GRID = {
    "aging": (
        "population=100 tournament=25", "population=30 tournament=10", "population=20 tournament=5",
        "population=10 tournament=3",
    ),
    "local": ("initial=10", "initial=1", "initial=20", "initial=10 improvement=best"),
    "reinforce": ("learning_rate=0.01", "learning_rate=0.1", "learning_rate=0.2"),
    "q_learning": ("", "rate=0.05", "rate=0.2"),
    "bandit": ("exploration=1", "exploration=0.3", "exploration=0.1", "rule=epsilon_greedy"),
    "tree_search": ("exploration=1", "exploration=0.3", "exploration=0.1"),
    "hill_climbing": ("steps=5", "steps=1", "steps=1 batch=4", "steps=2"),
    "tpe": ("", "share=0.2", "samples=64", "share=0.2 samples=64"),
    "policy_gradient": ("", "learning_rate=0.0035", "learning_rate=0.01 batch=10"),
    "lanas": ("", "exploration=0.3", "initial=10 retrain=10"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strategies", default=",".join(GRID), help="names of the grid")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--evaluations", type=int, default=150)
    arguments = parser.parse_args()
    table = open_table("digits")
    estimator, worth = tabular(table), on_space(table, table.mean())
    space = within(spaces.get(table.space), estimator)
    keys = jax.random.split(jax.random.key(0), arguments.seeds)
    steps = [step for step in STEPS if step <= arguments.evaluations]
    print("| strategy | " + " | ".join(f"@{step}" for step in steps) + " | mean | above the published |  |")
    print("|---" * (len(steps) + 4) + "|")
    for name in arguments.strategies.split(","):
        means, lines = [], []
        for text, _, settings in entrants([f"{name} {each}".strip() for each in GRID[name]]):
            make = partial(settings.make, space, estimator.objectives)
            out = searches(space, make, estimator, keys, arguments.evaluations)
            reached = incumbents(out.told, worth[out.numbers], out.share)[:, np.array(steps) - 1]
            means.append(reached.mean(axis=1))
            gain = means[-1] - means[0]
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            lines.append((text, reached.mean(axis=0), gain.mean(), error))
        able = [place for place, (*_, gain, error) in enumerate(lines) if not place or gain > 2 * error]
        best = max(able, key=lambda place: means[place].mean())
        for place, (text, reached, gain, error) in enumerate(lines):
            cells = " | ".join(f"{value:.2f}" for value in reached)
            mark = "chosen" if place == best else ""
            print(
                f"| {text} | {cells} | {reached.mean():.3f} | {gain:+.3f} ± {error:.3f} | {mark} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
