"""Training-free scores as an estimator: any proxies, of architectures or of supernets' gates.

Weights and images of subject s and repeat r come from the key alone,

    weights_r, images_r = split( fold_in( fold_in(key, stream_s), r ) ),

so that a search, its report and `jnas score` with one seed see the same kernels. A score does not depend on the other
proxies, on the batch, on its order, nor on the devices (bit for bit where these are alike).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jnas.data import Dataset
from jnas.errors import InputError, unknown_name
from jnas.estimators.own_networks import measurement_alone
from jnas.estimators.wraps import mean
from jnas.nets import networks, own
from jnas.nets.sizes import Macro
from jnas.parallel import Program, rows_at_once
from jnas.proxies import PROXIES, sign
from jnas.proxies.base import KERNEL, NETWORK, REGIONS, SIZE, Proxy, finished
from jnas.proxies.subjects import SUBJECTS, Subject, samples
from jnas.spaces.base import Space
from jnas.types import STATUSES, Candidates, Estimator, Key, Values

# Architectures in one call where nothing but sizes is asked for.
BATCH_OF_SIZES = 4096
Scores = list[tuple[float, str]]


def proxies(
    space: Space,
    names: Sequence[str],
    dataset: Dataset,
    settings: Any,
    *,
    apart: bool = False,
    memory_gb: float = 0.0,
) -> Estimator:
    """Estimator of architectures, and of gates where all names are of the kernel and the regions.

    Args:
      names: in `jnas.proxies.PROXIES`.
      settings: an object with the sections `network`, `ntk` and `regions`, such as a `ScoreConfig` or a
        `SearchConfig`.
      apart: repeats are objectives of their own, `ntk/0`, `ntk/1`; otherwise their mean is one, `ntk`.
      memory_gb: as for `jnas.parallel.Program`.

    A value is the proxy's by its sign, so that higher is better; `jnas.proxies.proxy_value` turns it back.
    Architectures of one canonical class are measured once; sizes are those of each. Raises `InputError` for unknown
    names, for more images than the data have and for images that do not fit the networks.
    """
    check(names, dataset, settings)
    wanted = {PROXIES[name].subject for name in names}
    if not own.is_own(space):
        kind = networks.kind_of(space)
        for subject, stages in ((KERNEL, kind.kernel_stages), (NETWORK, 3)):
            if subject in wanted:
                kind.check_images(dataset.x_train.shape[1:], stages)
    measures = []
    measurement = measurement_alone if own.is_own(space) else _measurement
    for name in (name for name in SUBJECTS if name in wanted):
        members = tuple(
            PROXIES[proxy] for proxy in PROXIES if proxy in names and PROXIES[proxy].subject == name
        )
        measures.append(measurement(space, SUBJECTS[name], members, dataset, settings, memory_gb))
    takes_gates = not own.is_own(space) and all(
        name in SUBJECTS and SUBJECTS[name].takes_gates for name in wanted
    )
    objectives: list[str] = []
    for name in names:
        subject = PROXIES[name].subject
        repeats = 0 if subject == SIZE else SUBJECTS[subject].repeats(settings)
        objectives += [f"{name}/{repeat}" for repeat in range(repeats)] or [name]

    sized = any(PROXIES[name].subject == SIZE for name in names)
    # Scores of each row measured so far, for one key: an equivalent architecture that comes later costs nothing.
    known: dict[bytes, dict[bytes, dict[str, tuple[float, str]]]] = {}

    def evaluate(key: Key, candidates: Candidates) -> Values:
        start = time.perf_counter()
        counted: dict[str, np.ndarray] = {}
        if candidates.gates is not None:
            rows = np.asarray(candidates.gates, np.float32)
        else:
            architectures = np.asarray(candidates.architectures, np.int32)
            if sized:
                counted = sizes(space, dataset, settings.network, architectures)
            rows = np.asarray(space.choices(space.canonical(architectures)), np.int32)
        # Measure each row that this key has not seen.
        data, texts = np.asarray(jax.random.key_data(key)).tobytes(), [row.tobytes() for row in rows]
        if data not in known:
            known.clear()
        scores = known.setdefault(data, {})
        places = {text: place for place, text in enumerate(texts) if text not in scores}
        columns: dict[str, Scores] = {}
        for measure in measures if places else []:
            columns |= measure(key, rows[list(places.values())])
        for place, text in enumerate(places):
            scores[text] = {objective: pairs[place] for objective, pairs in columns.items()}
        # Orient them: higher is better, a failure is the worst.
        values = np.full((len(rows), len(objectives)), -np.inf)
        statuses = np.zeros(values.shape, np.int8)
        for column, objective in enumerate(objectives):
            if objective in counted:
                values[:, column] = sign(objective) * counted[objective]
                continue
            for row, text in enumerate(texts):
                number, status = scores[text][objective]
                statuses[row, column] = STATUSES.index(status)
                if status == "ok":
                    values[row, column] = sign(objective) * number + 0.0
        return Values(values, statuses, np.full(len(rows), (time.perf_counter() - start) / max(len(rows), 1)))

    estimator = Estimator(
        tuple(objectives),
        evaluate,
        takes=("architectures", "gates") if takes_gates else ("architectures",),
        batch=(1 if own.is_own(space) else rows_at_once()) if measures else BATCH_OF_SIZES,
    )
    return estimator if apart else mean(estimator)


def check(names: Sequence[str], dataset: Dataset, settings: Any) -> None:
    """Raise `InputError` for proxies or sizes that cannot be scored, before anything is computed."""
    for name in names:
        if name not in PROXIES:
            raise unknown_name("proxy", name, PROXIES)
    if not names:
        raise InputError("no proxy given: name at least one, such as naswot (jnas list proxies)")
    images = len(dataset.x_train)
    for name, subject in SUBJECTS.items():
        members = [PROXIES[proxy] for proxy in names if PROXIES[proxy].subject == name]
        key, count = subject.size(settings, members) if members else ("", 0)
        if count > images:
            raise InputError(
                f"{key} does not fit: {count} images are needed, '{dataset.name}' has {images} for training; "
                f"lower {key}"
            )
        if members and name == REGIONS and settings.regions.crop > min(dataset.x_train.shape[1:3]):
            raise InputError(
                f"regions.crop {settings.regions.crop} does not fit into the images of '{dataset.name}'"
            )


def sizes(space: Space, dataset: Dataset, network: Any, architectures: np.ndarray) -> dict[str, np.ndarray]:
    """Parameters, multiply-adds and convolutions of the network that a `NetworkConfig` describes: int[B] each."""
    height, width, channels = dataset.x_train.shape[1:]
    macro = Macro(
        network.channels, network.cells_per_stage, image=(height, width, channels), classes=dataset.classes
    )
    return networks.sizes_of(space, macro, space.choices(architectures))._asdict()


def _measurement(
    space: Space,
    subject: Subject,
    members: tuple[Proxy, ...],
    dataset: Dataset,
    settings: Any,
    memory_gb: float,
) -> Callable[[Key, np.ndarray], dict[str, Scores]]:
    """A function of key and rows to the scores by objective, compiled once for architectures and once for gates."""
    init, measure = subject.functions(space, settings, members, dataset.classes)
    name = ", ".join(proxy.name for proxy in members)
    programs = {
        np.int32: Program(name, measure, memory_gb=memory_gb),
        np.float32: Program(name, measure, cpu_width=subject.width_of_gates, memory_gb=memory_gb),
    }
    drawn: dict[bytes, list[tuple[Any, np.ndarray]]] = {}

    def scores(key: Key, rows: np.ndarray) -> dict[str, Scores]:
        # Weights and images on the devices, with the labels, of each repeat; kept until the next key.
        data = np.asarray(jax.random.key_data(key)).tobytes()
        if data not in drawn:
            drawn.clear()
            repeats = []
            for weights, sample in samples(subject, key, dataset, settings, members):
                shared = programs[np.int32].place(init(weights, *sample.arrays))
                repeats.append((shared, sample.labels))
            drawn[data] = repeats
        # Scores of each repeat, on the host.
        columns: dict[str, Scores] = {}
        for repeat, (shared, labels) in enumerate(drawn[data]):
            outs = programs[rows.dtype.type](shared, rows)
            for proxy in members:
                columns[f"{proxy.name}/{repeat}"] = [finished(proxy, out, labels) for out in outs]
        return columns

    return scores
