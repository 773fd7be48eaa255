"""Search strategies on a table: accuracy of the incumbent after some evaluations, over many seeds at once.

    python benchmarks/strategies.py --table nb201_cifar10.csv.gz --signal valid_acc_12ep --worth test_acc \
        --strategies random "aging population=10 tournament=3" --seeds 500 --evaluations 500

A strategy is a name with its settings behind it. An evaluation shows the signal; the worth of the architecture that
showed the best is printed as mean ± standard deviation over seeds. Signal and worth are columns of a CSV; of jnas's own
tables the signal is an epoch, 0 for the last, and the worth the mean over trainings. Seconds are those after
compilation.

    python benchmarks/strategies.py --overhead 1000 --strategies tpe gaussian_process forest

tells each strategy so many random architectures and prints what a round of one ask and one tell then takes, in
milliseconds, after compilation.
"""

import argparse
import time
from functools import partial

import jax
import numpy as np

from jnas import spaces
from jnas.config.entrants import entrants
from jnas.errors import InputError
from jnas.estimators.compact_table import Table, from_csv, open_table
from jnas.estimators.tabular import on_space, tabular
from jnas.run.search import within
from jnas.spaces import Space
from jnas.studies.searching import incumbents, searches
from jnas.types import Estimator, StrategySettings, Values, compiled

STEPS = (20, 50, 100, 150, 200, 500)
# Rounds that are timed; the longest counts too.
ROUNDS = 11


def opened(path: str, signal: str, worth: str) -> tuple[Table, Estimator, np.ndarray]:
    """(table, estimator that shows the signal, worth float32[size])."""
    table = open_table(path)
    if not path.endswith((".csv", ".csv.gz")):
        return table, tabular(table, epoch=int(signal or 0)), on_space(table, table.mean())
    shown, judged = (from_csv(path, table.space, column) for column in (signal or "test_acc", worth))
    return shown, tabular(shown), on_space(judged, judged.mean())


def overhead(space: Space, settings: StrategySettings, told: int) -> tuple[int, np.ndarray]:
    """Candidates of a round, and milliseconds of ask and tell float64[ROUNDS, 2] behind `told` random evaluations."""
    rounds = ROUNDS + 1
    asked = getattr(settings, "batch", 1)
    strategy = compiled(settings.make(space, ("accuracy",), told + rounds * asked))
    state, times = strategy.init(jax.random.key(0)), []

    def values(rows: np.ndarray) -> Values:
        worth = np.sin(np.asarray(rows) * np.arange(1, 1 + rows.shape[1])).sum(axis=1, keepdims=True)
        return Values(worth, np.zeros(worth.shape, np.int8), np.zeros(len(worth)))

    # In rounds of its own size, as a strategy may know no other, but with architectures of ours.
    first, state = strategy.ask(jax.random.key(0), state)
    rows = np.asarray(space.sample(jax.random.key(1), told))
    for start in range(0, told - len(first.architectures) + 1, len(first.architectures)):
        chosen = first._replace(architectures=rows[start : start + len(first.architectures)])
        state, _ = strategy.tell(state, chosen, values(chosen.architectures))
    for number in range(rounds):
        start = time.perf_counter()
        first, state = jax.block_until_ready(strategy.ask(jax.random.key(number), state))
        between = time.perf_counter()
        state = jax.block_until_ready(strategy.tell(state, first, values(first.architectures)))[0]
        times.append((between - start, time.perf_counter() - between))
    return len(first.architectures), 1000 * np.array(times[1:])


def print_overheads(texts: list[str], space: Space, told: int) -> None:
    print(f"| strategy | candidates | ask | tell | slowest round, ms, {told} evaluations told |")
    print("|---" * 5 + "|")
    for text, _, settings in entrants(texts):
        asked, times = overhead(space, settings, told)
        ask, tell = np.median(times, axis=0)
        print(f"| {text} | {asked} | {ask:.1f} | {tell:.1f} | {times.sum(axis=1).max():.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", default="digits", help="digits, FILE.npz or FILE.csv")
    parser.add_argument("--signal", default="", help="column or epoch that an evaluation shows")
    parser.add_argument("--worth", default="test_acc", help="column by which an incumbent is judged")
    parser.add_argument("--strategies", nargs="+", default=["random", "aging", "local"])
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--evaluations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overhead", type=int, default=0, help="time rounds behind so many evaluations")
    arguments = parser.parse_args()
    if arguments.overhead:
        return print_overheads(
            arguments.strategies, spaces.get(open_table(arguments.table).space), arguments.overhead
        )

    table, estimator, worth = opened(arguments.table, arguments.signal, arguments.worth)
    whole = spaces.get(table.space)
    # A table of the whole space restricts nothing.
    space = whole if np.isfinite(worth).all() else within(whole, estimator)
    keys = jax.random.split(jax.random.key(arguments.seed), arguments.seeds)
    steps = [step for step in STEPS if step <= arguments.evaluations]
    print("| strategy | " + " | ".join(f"@{step}" for step in steps) + " | distinct | seconds |")
    print("|---" * (len(steps) + 3) + "|")
    for text, _, settings in entrants(arguments.strategies):
        make = partial(settings.make, space, estimator.objectives)
        if not make(arguments.evaluations).jittable:
            raise InputError(f"strategy {text} does not run many searches at once: choose another")
        found = searches(space, make, estimator, keys, arguments.evaluations)
        reached = incumbents(found.told, worth[found.numbers], found.share)
        cells = [
            f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in reached[:, np.array(steps) - 1].T
        ]
        distinct = np.mean([len(np.unique(row)) for row in found.numbers])
        print(f"| {text} | {' | '.join(cells)} | {distinct:.0f} | {found.running:.1f} |", flush=True)


if __name__ == "__main__":
    main()
