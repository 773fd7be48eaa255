"""Paragraphs of the study of search, made of its numbers.

Letters: R searches, T evaluations of each.
"""

from collections.abc import Mapping

import numpy as np

from jnas.studies.search_figures import mean_and_error

# A difference with a smaller chance is called one.
LEVEL = 0.05


def differences(accuracy: Mapping[str, np.ndarray], baseline: str, best: float, evaluations: int) -> str:
    """Means at the end, and how far each strategy is from the baseline, with 95 % intervals of paired differences.

    accuracy: by title, float[R, T], of incumbents; best: of the table.
    """
    winner, *others = sorted(accuracy, key=lambda title: -accuracy[title][:, -1].mean())
    text = f"After {evaluations} evaluations {winner} is at {accuracy[winner][:, -1].mean():.2f} % "
    text += f"(of {best:.2f} % that the best architecture has)"
    text += "".join(f", {title} at {accuracy[title][:, -1].mean():.2f} %" for title in others)
    end = accuracy[baseline].mean(0)[-1]
    apart, alike = [], []
    for title in (winner, *others):
        if title == baseline:
            continue
        values = accuracy[title]
        difference, error = mean_and_error(values[:, -1] - accuracy[baseline][: len(values), -1])
        found = f"{title} by {difference:+.2f} ± {error:.2f}"
        if abs(difference) <= error:
            alike.append(found)
            continue
        means = values.mean(0)
        sooner = int(np.argmax(means >= end)) + 1
        reaches = bool(difference > 0 and means[-1] >= end)
        apart.append(found + f" (where that ends after {sooner} evaluations)" * reaches)
    sentences = [f"{text}."]
    if apart:
        sentences.append(f"From {baseline} differ, in percentage points, {', '.join(apart)}.")
    if alike:
        sentences.append(f"Within their 95 % intervals of it are {', '.join(alike)}.")
    return " ".join(sentences)


def tests(found: Mapping[str, tuple[float, float | None]], friedman: float, searches: int) -> str:
    """Mean ranks, and differences from the best strategy.

    found: by title, the best first, its mean rank and the p of its difference from the best, None for the best.
    """
    ranks = ", ".join(
        f"{title} {rank:.2f}" for title, (rank, _) in sorted(found.items(), key=lambda one: one[1][0])
    )
    sentences = [
        f"Mean ranks over {searches} searches with equal keys are {ranks}; they "
        f"{'differ by more than chance' if friedman < LEVEL else 'may differ by chance alone'} (Friedman, "
        f"{_chance(friedman)})."
    ]
    chances = {title: chance for title, (_, chance) in found.items() if chance is not None}
    surely = [title for title, chance in chances.items() if chance < LEVEL]
    unsure = [f"{title} ({_chance(chance)})" for title, chance in chances.items() if title not in surely]
    first = next(iter(found))
    name = first[0].upper() + first[1:]
    if surely:
        highest = _chance(max(chances[title] for title in surely), "at most")
        sentences.append(
            f"{name} differs significantly from {', '.join(surely)} (Wilcoxon's signed ranks with Holm's correction, "
            f"{'each ' * (len(surely) > 1)}{highest})."
        )
    if unsure:
        sentences.append(
            f"{'It' if surely else name} cannot be told from {', '.join(unsure)}: no significant difference."
        )
    return " ".join(sentences)


def _chance(chance: float, sign: str = "=") -> str:
    return "p < 0.001" if chance < 0.001 else f"p {sign} {chance:.2g}"
