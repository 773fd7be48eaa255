"""The files that NAS-Bench-201 and NATS-Bench are published as, read without trusting them.

Dong and Yang, "NAS-Bench-201", ICLR 2020, https://arxiv.org/abs/2001.00326; Dong, Liu, Musial and Gabrys,
"NATS-Bench", TPAMI 2021, https://arxiv.org/abs/2009.00437. Users get them by the links in
https://github.com/D-X-Y/NATS-Bench. Three forms hold the same:

    NATS-tss-v1_0-3ffb9-simple/       a folder: meta.pickle.pbz2, and a file 000000.pickle.pbz2 for each cell
    NATS-tss-v1_0-3ffb9.pickle.pbz2   all in one, compressed by bzip2
    NAS-Bench-201-v1_1-096897.pth     all in one, as PyTorch stores it, by zip or in its older form

They are pickles, which can run any code when they are loaded. Here a pickle may build containers, numbers and texts,
and nothing else: whatever else it names is refused. Of the folder one cell is in memory at a time; of the others, all.
"""

import bz2
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jnas import spaces
from jnas.errors import InputError
from jnas.estimators.compact_table import Table

WHERE = "get it by the links in https://github.com/D-X-Y/NATS-Bench"
# Data set: the split whose accuracy is that of test images.
SPLITS = {
    "cifar10": "ori-test",
    "cifar10-valid": "ori-test",
    "cifar100": "x-test",
    "ImageNet16-120": "x-test",
}
# By number of epochs: what NATS-Bench and NAS-Bench-201 call the recipe.
RECIPES = {12: ("12", "less"), 200: ("200", "full")}
# Of PyTorch's older form: three pickles about itself come first.
MAGIC, BEFORE = 0x1950A86A20F9469CFC6C, 3


class _Inert:
    """In the place of a NumPy data type, its name; in the place of a tensor, whose values nobody needs, nothing."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = str(name)

    def __setstate__(self, state: Any) -> None:
        pass


def _scalar(kind: _Inert, content: bytes = b"") -> float | int:
    if kind.name not in ("f8", "f4", "i8", "i4", "u1", "b1") or not isinstance(content, bytes):
        raise pickle.UnpicklingError(f"a number of type {kind.name} is not allowed")
    return np.frombuffer(content, kind.name)[0].item()


def _bytes(text: str, codec: str) -> bytes:
    """Bytes as protocol 2 writes them."""
    if not isinstance(text, str) or codec != "latin1":
        raise pickle.UnpicklingError(f"bytes by the codec {codec} are not allowed")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("builtins", "set"): set,
    ("builtins", "int"): int,
    ("builtins", "float"): float,
    ("builtins", "list"): list,
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _Inert,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("torch._utils", "_rebuild_tensor_v2"): _Inert,
    ("torch._utils", "_rebuild_parameter"): _Inert,
    ("torch", "FloatStorage"): _Inert,
    ("torch", "LongStorage"): _Inert,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Python 2's names, in which protocol 2 is written.
        module = {"__builtin__": "builtins"}.get(module, module)
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        return _Inert()


def _content(path: Path) -> Any:
    """The object in a pickle, in any of the three wrappings."""
    try:
        if path.suffix == ".pbz2":
            with bz2.open(path, "rb") as stream:
                return _Unpickler(stream).load()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
                with archive.open(name) as inner:
                    return _Unpickler(inner).load()
        with path.open("rb") as stream:
            first = _Unpickler(stream).load()
            # In PyTorch's older form the object is behind what the file says of itself.
            return [_Unpickler(stream).load() for _ in range(BEFORE)][-1] if first == MAGIC else first
    except FileNotFoundError:
        raise InputError(f"no table '{path}': {WHERE}") from None
    # A damaged pickle can raise nearly anything from the unpickler.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"'{path}' is damaged or none of the published files ({reason}): {WHERE}") from error


def _cells(path: Path) -> tuple[int, Iterator[dict[str, Any]]]:
    """The number of cells, and the results of each by recipe."""
    if path.is_dir():
        count = len(_content(path / "meta.pickle.pbz2")["meta_archs"])
        files = sorted(path.glob("[0-9]*.pickle.pbz2"))
        return count, (_content(file) for file in files)
    whole = _content(path)
    try:
        results = whole["arch2infos"]
        return len(whole["meta_archs"]), (results.pop(index) for index in sorted(results))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' is none of the published files ({type(error).__name__}): {WHERE}"
        ) from error


def read(path: str | Path, data: str, epochs: int, progress: Callable[[int, int], None]) -> Table:
    """The table of one data set and recipe in a published file or folder.

    data: one of `SPLITS`; epochs: one of `RECIPES`. progress: called with cells read, and cells that there are.
    Raises `InputError` for what is missing, damaged, malicious or unknown.
    """
    if data not in SPLITS:
        raise InputError(f"unknown data '{data}' of NAS-Bench-201: choose one of {', '.join(SPLITS)}")
    if epochs not in RECIPES:
        raise InputError(f"no recipe of {epochs} epochs: choose one of {', '.join(map(str, RECIPES))}")
    path, space = Path(path), spaces.get("nasbench201")
    count, cells = _cells(path)
    architectures, curves, seconds = [], [], []
    for number, cell in enumerate(cells):
        try:
            own = next(cell[name] for name in RECIPES[epochs] if name in cell)
            trials = [result for (name, _), result in sorted(own["all_results"].items()) if name == data]
            own_curves = [_curve(trial, SPLITS[data], epochs) for trial in trials]
            spent = [sum(trial["train_times"].values()) for trial in trials if trial["train_times"]]
            architectures.append(space.from_string(own["arch_str"]))
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration) as error:
            raise InputError(
                f"'{path}': cell {number} is not as published ({type(error).__name__}: {error}): {WHERE}"
            ) from error
        curves.append(own_curves)
        seconds.append(np.mean(spent) if spent else np.nan)
        progress(number + 1, count)
    known = sorted({epoch for trials_of in curves for curve in trials_of for epoch in curve})
    if not known:
        raise InputError(f"'{path}' has no accuracies of {data} after {epochs} epochs: choose other data")
    accuracy = np.full((len(curves), max(map(len, curves)), len(known)), np.nan, np.float32)
    for row, trials_of in enumerate(curves):
        for seed, measured in enumerate(trials_of):
            for epoch, value in measured.items():
                accuracy[row, seed, known.index(epoch)] = value
    return Table(
        space.name, data, np.stack(architectures), np.array(known, np.int32), accuracy,
        np.array(seconds, np.float32),
    )  # fmt: skip


def _curve(trial: dict[str, Any], split: str, epochs: int) -> dict[int, float]:
    """Accuracy by number of epochs; of long trainings every tenth, as the table is to stay small."""
    step = max(1, epochs // 20)
    curve = {}
    for name, value in trial["eval_acc1es"].items():
        own, _, epoch = name.partition("@")
        number = int(epoch) + 1
        if own == split and number % step == 0:
            curve[number] = float(value)
    return curve
