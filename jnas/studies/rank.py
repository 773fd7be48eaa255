"""Training-free scores against trained accuracies: do they rank architectures, and better than counting does?

Every proxy, always beside parameters, FLOPs and convolutions, and the combinations of TE-NAS and AZ-NAS where their
members are there: Kendall's tau, Spearman's rho, precision among the best, the regret of taking the best score, each
with a bootstrap interval. Variants repeat it with other settings of the scoring, for the proxies that these change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jnas import spaces
from jnas.config import read
from jnas.config.score import ScoreConfig
from jnas.config.study import StudyConfig
from jnas.errors import InputError, unknown_name
from jnas.estimators.compact_table import Table
from jnas.proxies import PROXIES
from jnas.proxies.base import KERNEL, NETWORK, REGIONS, SIZE, Proxy
from jnas.proxies.combination import log_rank_sum, oriented, rank_sum
from jnas.report.plots import INK
from jnas.run import score
from jnas.run.progress import Progress
from jnas.studies import statistics
from jnas.studies.base import COLOURS, Figure, Findings, some_rows

SIZES = tuple(name for name, proxy in PROXIES.items() if proxy.subject == SIZE)
STATISTICS = ("kendall", "spearman", "precision", "regret")
COLUMNS = (
    "variant", "score",
    *(f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")), "failed",
)  # fmt: skip
# What papers combine, and how.
COMBINATIONS = {
    "TE-NAS: rank sum of ntk, regions": (rank_sum, ("ntk", "regions")),
    "AZ-NAS: log rank sum of its components": (
        log_rank_sum,
        ("az_expressivity", "az_progressivity", "az_trainability", "flops"),
    ),
}
PLAIN = "as configured"
# Which section of the settings says how a subject is built.
SUBJECTS = {"network": NETWORK, "ntk": KERNEL, "regions": REGIONS}


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Score what the table holds, and compare. Raises `InputError` for what is unknown."""
    settings, space = config.rank, spaces.get(table.space)
    places = some_rows(table, settings.cells, config.seed)
    accuracy, texts = table.mean()[places], [space.to_string(own) for own in table.architectures[places]]
    proxies = dict.fromkeys([*(name.strip() for name in settings.proxies.split(",") if name.strip()), *SIZES])
    if unknown := [name for name in proxies if name not in PROXIES]:
        raise unknown_name("proxy", unknown[0], PROXIES)
    rows: list[tuple[Any, ...]] = []
    plain: dict[str, np.ndarray] = {}
    for label, options in variants(settings.variants).items():
        pairs = [("space", table.space), ("data", config.data), ("seed", str(config.seed)), *options]
        own = read.from_options(ScoreConfig, pairs)
        asked = tuple(name for name in proxies if label == PLAIN or is_changed(PROXIES[name], options))
        progress.say(f"scoring {len(texts):,} architectures: {label}")
        scores = _oriented(score.run(own, texts, asked, None, "local", progress), asked) if asked else {}
        plain = plain or scores
        combined = {
            name: combine({member: scores.get(member, plain[member]) for member in members})
            for name, (combine, members) in COMBINATIONS.items()
            if set(members) <= set(proxies) and set(members) & set(asked)
        }
        rows += _rows(label, scores | combined, accuracy, settings.top, settings.resamples)
    return Findings(
        title=f"What training-free scores say of {len(texts):,} trained architectures",
        question=f"Do scores at initialisation rank {table.space} on {table.data} as training does, and better than "
        "counting parameters?",
        columns=COLUMNS,
        rows=rows,
        figures=[_figure(rows)],
        paragraphs=_paragraphs(rows, len(texts), settings.top),
    )


def variants(text: str) -> dict[str, list[tuple[str, str]]]:
    """`"a.b=1 c.d=2; e.f=3"` to settings by label, the plain ones first. Raises `InputError`."""
    found: dict[str, list[tuple[str, str]]] = {PLAIN: []}
    for part in (part.strip() for part in text.split(";") if part.strip()):
        pairs = [entry.partition("=") for entry in part.split()]
        if not all(equals and key and value for key, equals, value in pairs):
            raise InputError(f"rank.variants has '{part}': write key=value, such as network.batch=16")
        found[part] = [(key, value) for key, _, value in pairs]
        read.from_options(ScoreConfig, found[part], "rank.variants")
    return found


def is_changed(proxy: Proxy, options: Sequence[tuple[str, str]]) -> bool:
    """Whether settings change what a proxy measures; sizes are compared once."""
    if proxy.subject == SIZE:
        return False
    for key, _ in options:
        section = key.partition(".")[0]
        # The regions' network has the initialisation of the kernel's.
        if SUBJECTS.get(section, proxy.subject) == proxy.subject or (
            key == "ntk.initialisation" and proxy.subject == REGIONS
        ):
            return True
    return False


def _oriented(scores: score.Scores, proxies: Sequence[str]) -> dict[str, np.ndarray]:
    return {
        name: oriented(
            np.asarray(scores[name], np.float64),
            list(scores.columns.get(f"{name}_status", ["ok"] * len(scores[name]))),
            PROXIES[name].sign,
        )
        for name in proxies
    }


def _rows(
    variant: str, scores: Mapping[str, np.ndarray], accuracy: np.ndarray, top: float, resamples: int
) -> list[tuple[Any, ...]]:
    functions = {
        "kendall": statistics.kendall,
        "spearman": statistics.spearman,
        "precision": lambda s, a: statistics.precision_at_top(s, a, top),
        "regret": statistics.regret,
    }
    rows = []
    for name, values in scores.items():
        measured: list[float] = []
        for function in functions.values():
            measured += statistics.with_interval(function, values, accuracy, resamples)
        rows.append((variant, name, *measured, int(np.isinf(values).sum())))
    return sorted(rows, key=lambda row: -np.nan_to_num(row[2], nan=-2.0))


def _figure(rows: Sequence[tuple[Any, ...]]) -> Figure:
    names = list(dict.fromkeys(row[1] for row in rows))
    labels = list(dict.fromkeys(row[0] for row in rows))

    # From below, a gap between scores.
    lines = [
        [row for label in labels[::-1] for row in rows if row[:2] == (label, name)] for name in names[::-1]
    ]
    starts = np.cumsum([0, *(len(own) + 1 for own in lines)])

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for start, own in zip(starts, lines, strict=False):
            for y, row in enumerate(own, start):
                number = labels.index(row[0])
                colour = INK if row[1] in SIZES else COLOURS[number % len(COLOURS)]
                for axes, first in ((left, 2), (right, 8)):
                    value, low, high = row[first : first + 3]
                    axes.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.7)
                    axes.plot([value], [y], marker="o^svDP"[number % 6], color=colour, markersize=5)
        middles = [start + (len(own) - 1) / 2 for start, own in zip(starts, lines, strict=False)]
        left.set_yticks(middles, names[::-1])
        left.set_ylim(-1, starts[-1] - 1)
        left.axvline(0, color=INK, linewidth=0.8)
        left.set_xlabel("Kendall's tau with trained accuracy")
        right.set_xlabel("precision among the best")
        right.set_xlim(-0.02, 1.02)
        if len(labels) > 1:
            handles = [
                left.plot([], [], marker="o^svDP"[n % 6], color=COLOURS[n % len(COLOURS)], label=label)[0]
                for n, label in enumerate(labels)
            ]
            figure.legend(
                handles=handles, loc="outside upper center", ncols=min(3, len(labels)), frameon=False
            )

    size = (10.6, 1.4 + 0.17 * float(starts[-1]))
    caption = "Bars are 95 % bootstrap intervals over architectures; sizes, which need no network, are dark."
    return Figure("rank", caption, draw, size)


def _paragraphs(rows: Sequence[tuple[Any, ...]], count: int, top: float) -> list[str]:
    plain = [row for row in rows if row[0] == PLAIN]
    counted = max((row for row in plain if row[1] in SIZES), key=lambda row: np.nan_to_num(row[2], nan=-2))
    scored = [row for row in plain if row[1] not in SIZES]
    sentences = [
        f"Of what merely counts, {counted[1]} ranks the {count:,} architectures best: tau {counted[2]:.3f} "
        f"[{counted[3]:.3f}, {counted[4]:.3f}]."
    ]
    if scored:
        best = scored[0]
        better = [row[1] for row in scored if row[3] > counted[4]]
        worse = [row[1] for row in scored if row[4] < counted[3]]
        sentences.append(
            f"The best score is {best[1]}: tau {best[2]:.3f} [{best[3]:.3f}, {best[4]:.3f}], precision among the best "
            f"{100 * top:g} % {best[8]:.2f}, and choosing by it costs {best[11]:.2f} percentage points."
        )
        sentences.append(
            f"Surely better than {counted[1]} (intervals apart): {', '.join(better) or 'none'}; surely worse: "
            f"{', '.join(worse) or 'none'}."
        )
    moved = []
    for row in rows:
        if row[0] != PLAIN:
            before = next(other for other in plain if other[1] == row[1])
            if row[3] > before[4] or row[4] < before[3]:
                moved.append(f"{row[1]} with {row[0]} ({before[2]:.3f} to {row[2]:.3f})")
    if any(row[0] != PLAIN for row in rows):
        sentences.append(f"Settings that surely change a tau: {'; '.join(moved) or 'none of those tried'}.")
    return [" ".join(sentences)]
