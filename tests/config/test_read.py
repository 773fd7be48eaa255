"""The reader of settings, on a schema of its own: layers, unions, errors of one line."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from jnas.config import read
from jnas.errors import InputError
from jnas.settings import Data, Member, Seed, Settings


class Kernel(Settings, frozen=True, kw_only=True):
    batch: Annotated[int, Meta(ge=2, description="images")] = 32
    repeats: Annotated[int, Meta(ge=1, description="repeats")] = 3
    logits: Annotated[Literal["sum", "full"], Meta(description="kernel")] = "sum"


class Aging(Member, frozen=True, kw_only=True, tag="aging"):
    population: Annotated[int, Meta(ge=1, description="members")] = 30
    kernel: Kernel = Kernel()


class Table(Member, frozen=True, kw_only=True, tag="table"):
    short = "path"
    path: Annotated[str, Meta(description="file")] = "digits"
    epoch: Annotated[int, Meta(ge=0, description="epoch")] = 0


class Training(Settings, frozen=True, kw_only=True):
    rate: Annotated[float, Meta(gt=0, lt=9, description="rate")] = 0.1
    decay: Annotated[float, Meta(ge=0, description="decay")] = 0.0
    augment: Annotated[bool, Meta(description="mirrored images")] = True


class Search(Settings, frozen=True, kw_only=True):
    seed: Seed = 0
    data: Data = "digits"
    protocol: Annotated[Literal["paper", "released"], Meta(description="protocol")] = "paper"
    method: Annotated[Aging | Table, Meta(description="method")] = Aging()
    other: Annotated[Aging | Table | None, Meta(description="another")] = None
    kernel: Kernel = Kernel()
    training: Annotated[Training | None, Meta(description="the training")] = None

    @staticmethod
    def implied(given):
        batch = 72 if given.get("protocol") == "released" else 32
        return [{"kernel": {"batch": batch}}, {"method": {"name": "aging", "population": batch}}]


def write(folder: Path, text: str) -> Path:
    path = folder / "search.yaml"
    path.write_text(text)
    return path


def of(**mapping) -> Search:
    return read.from_mapping(Search, mapping)


def test_flags_go_before_the_file_and_the_file_before_what_is_implied(tmp_path):
    path = write(tmp_path, "protocol: released\nseed: 1\nkernel: {repeats: 2}\n")
    config = read.from_file(Search, path)
    assert (config.seed, config.kernel.batch, config.kernel.repeats) == (1, 72, 2)
    config = read.from_file(Search, path, [("seed", "3"), ("kernel.batch", "8"), ("kernel.batch", "9")])
    assert (config.seed, config.kernel.batch, config.kernel.repeats) == (3, 9, 2)
    # Also where it is the command line that names the protocol.
    named = [("protocol", "released"), ("kernel.repeats", "2"), ("seed", "1")]
    assert read.from_options(Search, named) == read.from_file(Search, path)
    assert read.from_file(Search, write(tmp_path, "# nothing\n")) == of()


def test_a_flag_is_read_by_the_type_of_its_field():
    pairs = {"data": "10", "training.augment": "no", "training.rate": "1e-1", "kernel.logits": "full"}
    config = read.from_options(Search, [*pairs.items()])
    assert (config.data, config.training.augment, config.training.rate) == ("10", False, 0.1)


def test_numbers_that_yaml_1_1_reads_as_text(tmp_path):
    training = read.from_file(Search, write(tmp_path, "training: {rate: 1e-1, decay: 0}")).training
    assert training == Training(rate=0.1, decay=0.0) and isinstance(training.decay, float)


def test_a_union_has_the_keys_of_its_chosen_member():
    assert of(method="table").method == Table()
    assert of(method="table:cells.csv").method == Table(path="cells.csv")
    # A member that is not named is the default one, and takes what is implied for it.
    assert of(method={"kernel": {"batch": 4}}).method == Aging(population=32, kernel=Kernel(batch=4))
    assert of(method="aging").method.population == 32
    assert read.to_mapping(of(method="table"))["method"] == {"name": "table", "path": "digits", "epoch": 0}


def test_another_member_takes_the_place_of_the_one_below(tmp_path):
    path = write(tmp_path, "method: {name: aging, population: 5}")
    assert read.from_file(Search, path, [("method.population", "7")]).method.population == 7
    for pairs in (
        [("method", "table:x"), ("method.epoch", "2")],
        [("method.epoch", "2"), ("method", "table:x")],
    ):
        assert read.from_file(Search, path, pairs).method == Table(path="x", epoch=2)


def test_optional_sections(tmp_path):
    assert of().training is None and of(training={}).training == Training() and of(other=None).other is None
    path = write(tmp_path, "training: {rate: 2}\nother: table")
    assert read.from_file(Search, path).other == Table()
    config = read.from_file(Search, path, [("training", "none"), ("other", "none")])
    assert (config.training, config.other) == (None, None)


@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(1e-12, 8),
    method=st.sampled_from([Aging(population=3), Table(epoch=4)]),
    data=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1),
)
def test_settings_written_as_yaml_are_read_back(seed, rate, method, data):
    config = Search(seed=seed, training=Training(rate=rate), method=method, data=data)
    text = yaml.safe_dump(read.to_mapping(config), allow_unicode=True)
    again = read.from_mapping(Search, yaml.safe_load(text))
    assert again == config and read.digest(again) == read.digest(config)
    assert read.differences(again, config) == []


def test_differences():
    old = of(seed=1, method="table")
    assert read.differences(old, of(seed=2, method="table:x")) == [
        "seed: 1 -> 2",
        "method.path: 'digits' -> 'x'",
    ]
    assert read.differences(old, of(seed=1, method="aging")) == ["method: 'table' -> 'aging'"]
    assert read.differences(of(training={}), of()) == ["training: a mapping -> empty"]


def test_a_stored_run_is_read_by_todays_schema(tmp_path):
    path = write(tmp_path, "format: 2\nseed: 1\nenvironment: {versions: {jax: '1'}}\n")
    # Keys that are newer than the run take their defaults.
    assert read.stored_differences(path, of(seed=1)) == []
    assert read.stored_differences(path, of(seed=2)) == ["seed: 1 -> 2"]
    # The file of a run repeats the run.
    assert read.from_file(Search, path) == of(seed=1)
    with pytest.raises(InputError, match="another version of jnas: give another --out"):
        read.stored_differences(write(tmp_path, "seed: 1"), of())


def test_help_has_the_keys_of_the_chosen_members():
    rows = {key: (allowed, value) for key, allowed, value, text in read.options(of(seed=7)) if text}
    assert rows["seed"] == ("a whole number >= 0 and <= 4294967295", "7")
    assert rows["method"] == ("one of aging, table", "aging") and rows["method.population"][1] == "32"
    assert rows["other"] == ("one of aging, table, none", "none") and "other.path" not in rows
    assert rows["training"] == ("none, or a section of rate, decay, augment", "none")
    assert "training.rate" not in rows
    assert rows["method.kernel.logits"] == ("one of full, sum", '"sum"')
    rows = {key: (allowed, value) for key, allowed, value, _ in read.options(of(method="table", training={}))}
    assert "method.path" in rows and "method.population" not in rows and "kernel.batch" in rows
    assert rows["training.rate"] == ("a number > 0 and < 9", "0.1") and "training" not in rows


WRONG_FILES = {
    "unknown key, close": ("sed: 3", "unknown key 'sed': did you mean 'seed'"),
    "unknown key, not close": ("colour: blue", "unknown key 'colour': choose one of seed, data"),
    "right name, no section": ("logits: sum", "did you mean .*'kernel.logits'"),
    "unknown key in a section": ("kernel: {bach: 3}", "'kernel.bach': did you mean .*'kernel.batch'"),
    "key of another member": (
        "method: {name: table, population: 3}",
        "unknown key 'method.population': it is a key of aging",
    ),
    "no such member": (
        "method: tabel",
        "'method' is 'tabel': give one of aging, table; did you mean 'table'",
    ),
    "no such member, in full": ("method: {name: tabel}", "'method' is 'tabel': give one of aging, table"),
    "no name": ("other: {epoch: 3}", "'other' is a mapping: give one of aging, table, none"),
    "value for a member": ("method: 3", "'method' is 3: give one of aging, table"),
    "wrong value in a member": (
        "method: {name: table, epoch: -1}",
        "'method.epoch' is -1: give a whole number >= 0",
    ),
    "text for a number": ("seed: three", "'seed' is 'three': give a whole number"),
    "fraction for a whole number": ("seed: 1.5", "'seed' is 1.5"),
    "truth for a number": ("seed: true", "'seed' is true"),
    "number for truth": ("training: {augment: 1}", "give true or false"),
    "number for text": ("data: 10", "'data' is 10: give text"),
    "negative": ("seed: -1", "'seed' is -1: give a whole number >= 0"),
    "too large": ("seed: 4294967296", "<= 4294967295"),
    "zero where more is needed": ("training: {rate: 0}", "give a number > 0"),
    "nan": ("training: {rate: .nan}", "'training.rate' is 'nan': give a number > 0"),
    "infinite": ("training: {decay: .inf}", "'training.decay' is 'inf': give a number >= 0"),
    "no such choice": (
        "kernel: {logits: ful}",
        "'kernel.logits' is 'ful': give one of .*; did you mean 'full'",
    ),
    "nothing for a value": ("seed:", "'seed' is empty"),
    "list for a value": ("seed: [1, 2]", "'seed' is a list"),
    "value for a section": ("kernel: 3", "'kernel' is 3: give the keys of kernel below it, indented"),
    "list instead of a mapping": ("- seed", "holds a list"),
    "text instead of a mapping": ("seed", "holds 'seed'"),
    "a number for a key": ("1: 2", "unknown key '1'"),
    "not YAML": ("seed: 1\nkernel: {batch: 3\n", "line 3: not valid YAML"),
    "tab": ("kernel:\n\tbatch: 3\n", "line 2: not valid YAML"),
    "a key twice": ("seed: 1\nseed: 2\n", "line 2: not valid YAML .key 'seed' appears twice"),
    "impossible date": ("seed: 2024-13-45", "YAML cannot read"),
    "deep nesting": ("seed: " + "[" * 5000, "YAML cannot read"),
    "code": ("seed: !!python/object/apply:os.getcwd []", "line 1: not valid YAML"),
}


@pytest.mark.parametrize("text, message", WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrong_files(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        # The file's mistakes are not blamed on the command line.
        read.from_file(Search, path, [("protocol", "paper")])
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no configuration file"):
        read.from_file(Search, tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"cannot read .*directory"):
        read.from_file(Search, tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00seed")
    with pytest.raises(InputError, match="not UTF-8"):
        read.from_file(Search, binary)


WRONG_OPTIONS = {
    "unknown": (("sed", "1"), "unknown key '--sed': did you mean '--seed'"),
    "section": (("kernel", "1"), "'--kernel' is a section: set one of its keys, such as --kernel.batch"),
    "optional section": (("training", "1"), "'--training' is a section: .*such as --training.rate, or none"),
    "too deep": (("seed.x", "1"), "unknown key '--seed.x'"),
    "ill-typed": (("kernel.batch", "many"), "command line: 'kernel.batch' is 'many'"),
    "not YAML": (("kernel.batch", "{"), "'kernel.batch' is '{'"),
    "nothing": (("seed", ""), "'seed' is empty"),
    "no key": (("", "1"), "unknown key '--'"),
    "no key in a section": (("kernel..batch", "1"), "unknown key '--kernel..batch': did you mean"),
    "reserved": (("environment", "1"), "unknown key '--environment'"),
    "no short form": (("method", "aging:3"), "'method' is 'aging:3': give one of aging, table"),
}


@pytest.mark.parametrize("option, message", WRONG_OPTIONS.values(), ids=WRONG_OPTIONS)
def test_wrong_options(tmp_path, option, message):
    with pytest.raises(InputError, match=message):
        read.from_file(Search, write(tmp_path, "seed: 1"), [option])
