"""Ranking of trained architectures by training-free scores, compared with counting parameters or convolutions.

The study takes every proxy, parameters, FLOPs and convolutions, and the combinations of TE-NAS and AZ-NAS whose members
are among the proxies. It measures Kendall's tau, Spearman's rho, the precision among the best and the regret of taking
the best score, each with a bootstrap interval. Variants repeat it with other settings of the scoring, for the proxies
that these change.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

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
from jnas.settings import names_in
from jnas.studies.base import COLOURS, Figure, Findings, some_cells, spread
from jnas.studies.statistics import Ranking, ranking

SIZES = tuple(name for name, proxy in PROXIES.items() if proxy.subject == SIZE)


class Row(NamedTuple):
    """One score under one variant of the settings. failed: architectures without a score."""

    variant: str
    score: str
    ranking: Ranking
    failed: int


# Combinations of the literature: the function, and the proxies that it takes.
COMBINATIONS = {
    "TE-NAS: rank sum of ntk, regions": (rank_sum, ("ntk", "regions")),
    "AZ-NAS: log rank sum of its components": (
        log_rank_sum,
        ("az_expressivity", "az_progressivity", "az_trainability", "flops"),
    ),
}
PLAIN = "as configured"
# The subject that each section of the settings builds.
SUBJECTS = {"network": NETWORK, "ntk": KERNEL, "regions": REGIONS}


def run(config: StudyConfig, table: Table, progress: Progress) -> Findings:
    """Score the table's architectures and compare. Raises `InputError` for an unknown proxy or setting."""
    settings, cells = config.rank, some_cells(table, config.rank.cells, config.seed)
    proxies = dict.fromkeys([*names_in(settings.proxies), *SIZES])
    if unknown := [name for name in proxies if name not in PROXIES]:
        raise unknown_name("proxy", unknown[0], PROXIES)
    rows: list[Row] = []
    plain: dict[str, np.ndarray] = {}
    for label, options in variants(settings.variants).items():
        pairs = [("space", table.space), ("data", config.data), ("seed", str(config.seed)), *options]
        scoring = read.from_options(ScoreConfig, pairs)
        asked = tuple(name for name in proxies if label == PLAIN or is_changed(PROXIES[name], options))
        progress.say(f"scoring {len(cells.names):,} architectures: {label}")
        scores: dict[str, np.ndarray] = {}
        if asked:
            result = score.run(scoring, cells.names, asked, None, "local", progress)
            for name in asked:
                statuses = list(result.columns.get(f"{name}_status", ["ok"] * len(cells.names)))
                scores[name] = oriented(np.asarray(result[name], np.float64), statuses, PROXIES[name].sign)
        plain = plain or scores
        combined = {
            name: combine({member: scores.get(member, plain[member]) for member in members})
            for name, (combine, members) in COMBINATIONS.items()
            if set(members) <= set(proxies) and set(members) & set(asked)
        }
        measured = [
            Row(
                label, name, ranking(values, cells.accuracy, settings.resamples, settings.top),
                int(np.isinf(values).sum()),
            )
            for name, values in (scores | combined).items()
        ]  # fmt: skip
        rows += sorted(measured, key=_tau, reverse=True)
    columns, flat = spread(rows)
    return Findings(
        title=f"Training-free scores of {len(cells.names):,} trained architectures",
        question=f"Do scores at initialisation rank {table.space} on {table.data} as training does, and better than "
        "counting parameters?",
        columns=columns,
        rows=flat,
        figures=[_figure(rows)],
        paragraphs=[_paragraph(rows, len(cells.names), settings.top)],
    )


def variants(text: str) -> dict[str, list[tuple[str, str]]]:
    """Read `"a.b=1 c.d=2; e.f=3"` as settings by label, the plain ones first. Raises `InputError`."""
    options: dict[str, list[tuple[str, str]]] = {PLAIN: []}
    for part in (part.strip() for part in text.split(";") if part.strip()):
        pairs = [entry.partition("=") for entry in part.split()]
        if not all(equals and key and value for key, equals, value in pairs):
            raise InputError(f"rank.variants has '{part}': write key=value, such as network.batch=16")
        options[part] = [(key, value) for key, _, value in pairs]
        read.from_options(ScoreConfig, options[part], "rank.variants")
    return options


def is_changed(proxy: Proxy, options: Sequence[tuple[str, str]]) -> bool:
    """True where settings change the measurements of a proxy; sizes are compared once."""
    if proxy.subject == SIZE:
        return False
    # The regions' network has the initialisation of the kernel's.
    return any(
        SUBJECTS.get(key.partition(".")[0], proxy.subject) == proxy.subject
        or (key == "ntk.initialisation" and proxy.subject == REGIONS)
        for key, _ in options
    )


def _tau(row: Row) -> float:
    """Kendall's tau to sort by; nan last."""
    return float(np.nan_to_num(row.ranking.kendall.value, nan=-2.0))


def _figure(rows: Sequence[Row]) -> Figure:
    names = list(dict.fromkeys(row.score for row in rows))
    labels = list(dict.fromkeys(row.variant for row in rows))

    # From below, a gap between scores.
    groups = [
        [row for label in labels[::-1] for row in rows if (row.variant, row.score) == (label, name)]
        for name in names[::-1]
    ]
    starts = np.cumsum([0, *(len(group) + 1 for group in groups)])

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        for start, group in zip(starts, groups, strict=False):
            for y, row in enumerate(group, start):
                number = labels.index(row.variant)
                colour = INK if row.score in SIZES else COLOURS[number % len(COLOURS)]
                for axes, (value, low, high) in (
                    (left, row.ranking.kendall),
                    (right, row.ranking.precision),
                ):
                    axes.plot([low, high], [y, y], color=colour, linewidth=2, alpha=0.7)
                    axes.plot([value], [y], marker="o^svDP"[number % 6], color=colour, markersize=5)
        middles = [start + (len(group) - 1) / 2 for start, group in zip(starts, groups, strict=False)]
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


def _paragraph(rows: Sequence[Row], count: int, top: float) -> str:
    plain = [row for row in rows if row.variant == PLAIN]
    size = max((row for row in plain if row.score in SIZES), key=_tau)
    scored = [row for row in plain if row.score not in SIZES]
    counted = size.ranking.kendall
    sentences = [f"Of the sizes, {size.score} ranks the {count:,} architectures best: tau {counted}."]
    if scored:
        best = scored[0].ranking
        better = [row.score for row in scored if row.ranking.kendall.low > counted.high]
        worse = [row.score for row in scored if row.ranking.kendall.high < counted.low]
        sentences += [
            f"The best score is {scored[0].score}: tau {best.kendall}, precision among the best {100 * top:g} % "
            f"{best.precision.value:.2f}, and choosing by it costs {best.regret.value:.2f} percentage points.",
            f"Surely better than {size.score} (intervals apart): {', '.join(better) or 'none'}; surely worse: "
            f"{', '.join(worse) or 'none'}.",
        ]
    # Variants against the settings as configured.
    before = {row.score: row.ranking.kendall for row in plain}
    varied = [row for row in rows if row.variant != PLAIN]
    moved = [
        f"{row.score} with {row.variant} ({before[row.score].value:.3f} to {row.ranking.kendall.value:.3f})"
        for row in varied
        if row.ranking.kendall.differs(before[row.score])
    ]
    if varied:
        sentences.append(f"Settings that surely change a tau: {'; '.join(moved) or 'none of those tried'}.")
    return " ".join(sentences)
