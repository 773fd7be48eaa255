"""Ranking of trained architectures by training-free scores, compared with counting parameters or convolutions.

The study takes every proxy, parameters, FLOPs and convolutions, and the combinations of TE-NAS and AZ-NAS whose members
are among the proxies. It measures Kendall's tau, Spearman's rho, the precision among the best and the regret of taking
the best score, each with a bootstrap interval. Variants repeat it with other settings of the scoring, for the proxies
that these change.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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


class Row(NamedTuple):
    """One score under one variant of the settings: statistics with their 95 % intervals.

    precision: among the best.
    regret: of taking the best score, in percentage points.
    failed: architectures without a score.
    """

    variant: str
    score: str
    kendall: float
    kendall_low: float
    kendall_high: float
    spearman: float
    spearman_low: float
    spearman_high: float
    precision: float
    precision_low: float
    precision_high: float
    regret: float
    regret_low: float
    regret_high: float
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
    settings, space = config.rank, spaces.get(table.space)
    places = some_rows(table, settings.cells, config.seed)
    accuracy = table.mean()[places]
    texts = [space.to_string(architecture) for architecture in table.architectures[places]]
    proxies = dict.fromkeys([*(name.strip() for name in settings.proxies.split(",") if name.strip()), *SIZES])
    if unknown := [name for name in proxies if name not in PROXIES]:
        raise unknown_name("proxy", unknown[0], PROXIES)
    rows: list[Row] = []
    plain: dict[str, np.ndarray] = {}
    for label, options in variants(settings.variants).items():
        pairs = [("space", table.space), ("data", config.data), ("seed", str(config.seed)), *options]
        scoring = read.from_options(ScoreConfig, pairs)
        asked = tuple(name for name in proxies if label == PLAIN or is_changed(PROXIES[name], options))
        progress.say(f"scoring {len(texts):,} architectures: {label}")
        scores = _oriented(score.run(scoring, texts, asked, None, "local", progress), asked) if asked else {}
        plain = plain or scores
        combined = {
            name: combine({member: scores.get(member, plain[member]) for member in members})
            for name, (combine, members) in COMBINATIONS.items()
            if set(members) <= set(proxies) and set(members) & set(asked)
        }
        rows += _rows(label, scores | combined, accuracy, settings.top, settings.resamples)
    return Findings(
        title=f"Training-free scores of {len(texts):,} trained architectures",
        question=f"Do scores at initialisation rank {table.space} on {table.data} as training does, and better than "
        "counting parameters?",
        columns=Row._fields,
        rows=rows,
        figures=[_figure(rows)],
        paragraphs=_paragraphs(rows, len(texts), settings.top),
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
) -> list[Row]:
    """Rows of one variant, the highest tau first."""
    functions = {
        "kendall": statistics.kendall,
        "spearman": statistics.spearman,
        "precision": lambda s, a: statistics.precision_at_top(s, a, top),
        "regret": statistics.regret,
    }
    rows = []
    for name, values in scores.items():
        measured: list[Any] = []
        for function in functions.values():
            measured += statistics.with_interval(function, values, accuracy, resamples)
        rows.append(Row._make([variant, name, *measured, int(np.isinf(values).sum())]))
    return sorted(rows, key=_tau, reverse=True)


def _tau(row: Row) -> float:
    """Kendall's tau to sort by; nan last."""
    return float(np.nan_to_num(row.kendall, nan=-2.0))


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
                    (left, (row.kendall, row.kendall_low, row.kendall_high)),
                    (right, (row.precision, row.precision_low, row.precision_high)),
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


def _paragraphs(rows: Sequence[Row], count: int, top: float) -> list[str]:
    plain = [row for row in rows if row.variant == PLAIN]
    counted = max((row for row in plain if row.score in SIZES), key=_tau)
    scored = [row for row in plain if row.score not in SIZES]
    sentences = [
        f"Of the sizes, {counted.score} ranks the {count:,} architectures best: tau {counted.kendall:.3f} "
        f"[{counted.kendall_low:.3f}, {counted.kendall_high:.3f}]."
    ]
    if scored:
        best = scored[0]
        better = [row.score for row in scored if row.kendall_low > counted.kendall_high]
        worse = [row.score for row in scored if row.kendall_high < counted.kendall_low]
        sentences.append(
            f"The best score is {best.score}: tau {best.kendall:.3f} [{best.kendall_low:.3f}, "
            f"{best.kendall_high:.3f}], precision among the best {100 * top:g} % {best.precision:.2f}, and choosing by "
            f"it costs {best.regret:.2f} percentage points."
        )
        sentences.append(
            f"Surely better than {counted.score} (intervals apart): {', '.join(better) or 'none'}; surely worse: "
            f"{', '.join(worse) or 'none'}."
        )
    # Variants against the settings as configured.
    before = {row.score: row for row in plain}
    varied = [row for row in rows if row.variant != PLAIN]
    moved = [
        f"{row.score} with {row.variant} ({before[row.score].kendall:.3f} to {row.kendall:.3f})"
        for row in varied
        if row.kendall_low > before[row.score].kendall_high
        or row.kendall_high < before[row.score].kendall_low
    ]
    if varied:
        sentences.append(f"Settings that surely change a tau: {'; '.join(moved) or 'none of those tried'}.")
    return [" ".join(sentences)]
