import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jnas.config import strict
from jnas.config.search import (
    PROTOCOLS,
    SearchConfig,
    describe_options,
    differences,
    digest,
    from_mapping,
    read_config,
    to_mapping,
)
from jnas.errors import InputError


def write(folder: Path, text: str) -> Path:
    path = folder / "search.yaml"
    path.write_text(text)
    return path


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert read_config(write(tmp_path, "# nothing\n")) == SearchConfig()


def test_the_command_line_goes_before_the_file(tmp_path):
    path = write(tmp_path, "seed: 1\nntk:\n  batch: 16\n  repeats: 2\n")
    config = read_config(
        path, [("seed", "3"), ("ntk.batch", "32"), ("data", "10"), ("training.augment", "no")]
    )
    assert (config.seed, config.ntk.batch, config.ntk.repeats) == (3, 32, 2)
    # Texts are taken as they are, other values as YAML reads them.
    assert config.data == "10"
    assert config.training.augment is False


def test_numbers_that_yaml_reads_as_text(tmp_path):
    config = read_config(write(tmp_path, "training: {learning_rate: 1e-1, weight_decay: 0}"))
    assert config.training.learning_rate == 0.1
    assert config.training.weight_decay == 0.0 and isinstance(config.training.weight_decay, float)


@pytest.mark.parametrize("space", PROTOCOLS)
@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_a_protocol_sets_what_is_not_written(tmp_path, space, protocol):
    own = PROTOCOLS[space][protocol]["ntk"]
    implied = {key: value for key, value in own.items() if key != "batch"}
    space = f"space: {space}\n"
    assert read_config(write(tmp_path, f"{space}protocol: {protocol}")).ntk.batch == own["batch"]
    path = write(tmp_path, f"{space}protocol: {protocol}\nntk: {{batch: 8}}\n")
    assert {key: getattr(read_config(path).ntk, key) for key in implied} == implied
    assert read_config(path).ntk.batch == 8
    contrary = [("ntk.fresh_weights", str(not implied["fresh_weights"]).lower())]
    config = read_config(path, contrary)
    assert config.ntk.fresh_weights is not implied["fresh_weights"]
    assert config.ntk.initialisation == implied["initialisation"]
    # Also where it is the command line that names the protocol.
    assert read_config(write(tmp_path, f"{space}ntk: {{batch: 8}}"), [("protocol", protocol)]) == read_config(
        write(tmp_path, f"{space}protocol: {protocol}\nntk: {{batch: 8}}")
    )


def test_the_file_of_a_run_repeats_the_run(tmp_path):
    config = from_mapping({"protocol": "released", "ntk": {"fresh_weights": True}, "seed": 7})
    text = yaml.safe_dump({**to_mapping(config), "environment": {"versions": {"jax": "1"}}})
    assert read_config(write(tmp_path, text)) == config


@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(1e-12, 1e6),
    logits=st.sampled_from(["sum", "trace", "full"]),
    data=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), min_size=1),
)
def test_yaml_round_trip(seed, rate, logits, data):
    config = from_mapping(
        {"seed": seed, "training": {"learning_rate": rate}, "ntk": {"logits": logits}, "data": data}
    )
    again = from_mapping(yaml.safe_load(yaml.safe_dump(to_mapping(config), allow_unicode=True)))
    assert again == config
    assert digest(again) == digest(config)
    assert differences(again, config) == []


def test_each_field_counts_in_the_digest_and_in_the_differences():
    for key, field, annotation in strict.leaves(SearchConfig):
        other = next(
            value
            for value in (*getattr(annotation, "__args__", ()), 4, 3, 0.5, 0.25, not field.default, "else")
            if value != field.default and (getattr(annotation, "__args__", ()) or type(value) is annotation)
        )
        mapping = strict.override(SearchConfig, {}, key, str(other).lower(), "test")
        changed = from_mapping(mapping)
        assert digest(changed) != digest(SearchConfig()), key
        assert any(line.startswith(f"{key}: ") for line in differences(SearchConfig(), changed)), key


def test_every_field_has_its_line_of_help():
    options = list(describe_options())
    assert len(options) == sum(1 for _ in strict.leaves(SearchConfig)) > 20
    assert all(all(part for part in option) for option in options)


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SearchConfig().seed = 1  # type: ignore[misc]


WRONG_FILES = {
    "unknown key, close": ("sed: 3", "'sed'.*did you mean 'seed'"),
    "unknown key, not close": ("colour: blue", "unknown key 'colour'.*choose one of space"),
    "right name, no section": ("batch: 3", "did you mean .*'ntk.batch'"),
    "unknown key in a section": ("ntk: {bach: 3}", "'ntk.bach'.*did you mean .*'ntk.batch'"),
    "text for a number": ("seed: three", "'seed' is 'three': give a whole number"),
    "fraction for a whole number": ("seed: 1.5", "'seed' is 1.5"),
    "truth for a number": ("seed: true", "'seed' is true"),
    "number for truth": ("training: {augment: 1}", "give true or false"),
    "number for text": ("data: 10", "'data' is 10: give text"),
    "negative": ("seed: -1", "'seed' is -1: give a whole number >= 0"),
    "too large": ("seed: 4294967296", "<= 4294967295"),
    "zero where more is needed": ("training: {learning_rate: 0}", "give a number > 0"),
    "nan": ("training: {learning_rate: .nan}", "give a number > 0"),
    "infinite": ("training: {weight_decay: .inf}", "give a number >= 0"),
    "no such choice": ("ntk: {normalisation: frozn}", "one of train, frozen; did you mean 'frozen'"),
    "no such protocol": ("protocol: papier", "one of paper, released"),
    "nothing for a value": ("seed:", "'seed' is empty"),
    "list for a value": ("seed: [1, 2]", "'seed' is a list"),
    "value for a section": ("ntk: 3", "'ntk' is 3: give the keys of ntk"),
    "list instead of a mapping": ("- seed", "holds a list"),
    "text instead of a mapping": ("seed", "holds 'seed'"),
    "not YAML": ("seed: 1\nntk: {batch: 3\n", "line 3: not valid YAML"),
    "tab": ("ntk:\n\tbatch: 3\n", "line 2: not valid YAML"),
    "a key twice": ("seed: 1\nseed: 2\n", "line 2: not valid YAML .key 'seed' appears twice"),
    "impossible date": ("seed: 2024-13-45", "YAML cannot read"),
    "deep nesting": ("seed: " + "[" * 5000, "YAML cannot read"),
    "code": ("seed: !!python/object/apply:os.getcwd []", "line 1: not valid YAML"),
}


@pytest.mark.parametrize("text, message", WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrong_files(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=f"(?i){message}") as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no configuration file"):
        read_config(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"cannot read .*directory"):
        read_config(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00seed")
    with pytest.raises(InputError, match="not UTF-8"):
        read_config(binary)


WRONG_OVERRIDES = {
    "unknown": (("sed", "1"), "unknown key '--sed': did you mean '--seed'"),
    "section": (("ntk", "1"), "'--ntk' is a section: set one of its keys, such as --ntk.batch"),
    "too deep": (("seed.x", "1"), "unknown key '--seed.x'"),
    "ill-typed": (("ntk.batch", "many"), "command line: 'ntk.batch' is 'many'"),
    "not YAML": (("ntk.batch", "{"), "'ntk.batch' is '{'"),
    "environment": (("environment", "1"), "unknown key '--environment'"),
}


@pytest.mark.parametrize("override, message", WRONG_OVERRIDES.values(), ids=WRONG_OVERRIDES)
def test_wrong_overrides(tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        read_config(write(tmp_path, "seed: 1"), [override])
