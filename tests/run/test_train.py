import json
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import small_digits
from interrupting import Interrupting
from msgspec.structs import replace

import jnas
from jnas import cli
from jnas.config.train import TrainConfig, from_mapping
from jnas.data import stream
from jnas.errors import InputError, RunError
from jnas.estimators.settings import Recipe
from jnas.run import export, train
from jnas.run.progress import Progress
from jnas.store.folder import FORMAT
from jnas.store.records import read_records

# Few weights, so that it compiles fast; two dropped paths and a pool.
LIGHT = (
    "Genotype(normal=[('dil_conv_3x3', 0), ('skip_connect', 1)], normal_concat=[2], "
    "reduce=[('max_pool_3x3', 0), ('skip_connect', 1)], reduce_concat=[2])"
)
CELL = "|nor_conv_1x1~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
CONFIG = TrainConfig(
    arch=LIGHT, channels=4, cells_per_stage=1, checkpoint_seconds=0,
    recipe=Recipe(epochs=2, batch=64, auxiliary=0, drop_path=0.2, cutout=2, average=0.9),
)  # fmt: skip
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of 150 images of digits: three epochs in seconds."""
    return small_digits.write(tmp_path_factory.mktemp("data") / "small.npz", 150, 70)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, small):
    """A finished training and its folder."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return out, train.run(replace(CONFIG, data=small), out, QUIET)


def curves(path):
    return [(e.round, e.objective, e.value) for e in read_records(path / "records.sqlite")]


def last_state(path):
    return jax.tree.map(np.asarray, export._last_state(path))


def test_what_a_training_leaves(trained):
    out, result = trained
    assert json.loads((out / "result.json").read_text()) == result
    assert set(result["curves"]) == {"train_loss", "train_accuracy", "test_accuracy"}
    assert all(len(values) == 2 for values in result["curves"].values())
    assert result["parameters"] > 0 and result["test_accuracy"] == result["curves"]["test_accuracy"][-1]
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    assert "images/s" in (out / "log.txt").read_text()


def test_the_report_shows_the_curves(trained, capsys):
    out, _ = trained
    assert cli.main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 1 and "Curves" in page and "src=" not in page and "<link" not in page


def test_going_on_from_any_step_ends_the_same(trained, small, tmp_path):
    out, result = trained
    # Interrupted after three of four steps, in the middle of an epoch.
    with pytest.raises(KeyboardInterrupt):
        train.run(replace(CONFIG, data=small), tmp_path / "run", Interrupting("training", 3))
    assert not (tmp_path / "run" / "result.json").exists()
    again = train.run(replace(CONFIG, data=small), tmp_path / "run", QUIET)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    assert curves(tmp_path / "run") == curves(out)
    jax.tree.map(np.testing.assert_array_equal, last_state(tmp_path / "run"), last_state(out))


def test_kill_9(trained, small, tmp_path):
    out, result = trained
    config = tmp_path / "config.yaml"
    shutil.copy(out / "config.yaml", config)
    command = [sys.executable, "-m", "jnas", "train", str(config), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    # Once a state is stored.
    while not list((tmp_path / "run" / "checkpoints").glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    again = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    jax.tree.map(np.testing.assert_array_equal, last_state(tmp_path / "run"), last_state(out))


def test_exported_and_loaded_in_a_fresh_process(trained, small, tmp_path):
    out, _ = trained
    weights = export.export(out, tmp_path / "exported")
    images = np.load(small)["x_test"][:5]
    loaded = jnas.load(weights)
    here = np.asarray(loaded.apply(images))
    assert here.shape == (5, 10) and loaded.architecture == LIGHT
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np, jnas\n"
        "from jax import export\n"
        "images = np.load(sys.argv[2])\n"
        "logits = np.asarray(jnas.load(sys.argv[1]).apply(images))\n"
        "program = export.deserialize(bytearray(open(sys.argv[1] + '/network.stablehlo', 'rb').read()))\n"
        "np.savez(sys.argv[3], logits=logits, program=program.call(images.astype(np.float32)))\n"
    )
    arguments = [str(tmp_path / name) for name in ("exported", "images.npy", "out.npz")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    there = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(there["logits"], here)
    # The program is for any number of images, and fused otherwise.
    np.testing.assert_allclose(there["program"], here, rtol=1e-4, atol=1e-5)


def test_images_of_another_size_do_not_fit_a_loaded_network(trained, tmp_path):
    loaded = jnas.load(export.export(trained[0], tmp_path / "exported"))
    for shape in ((2, 8, 8, 3), (2, 32, 32, 1), (8, 8, 1)):
        with pytest.raises(InputError, match=r"do not fit: .* was trained on images Nx8x8x1"):
            loaded.apply(np.zeros(shape, np.float32))


@pytest.mark.parametrize("harm", ["truncated", "foreign", "other weights", "missing"])
def test_what_is_no_network(harm, trained, tmp_path):
    import safetensors.numpy

    weights = export.export(trained[0], tmp_path / "exported")
    content = weights.read_bytes()
    if harm == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif harm == "foreign":
        weights.write_bytes(safetensors.numpy.save({"a": np.zeros(3)}))
    elif harm == "other weights":
        # A genotype of as long a name with other weights.
        weights.write_bytes(content.replace(b"dil_conv_3x3", b"dil_conv_5x5"))
    else:
        weights.unlink()
    with pytest.raises(InputError, match=r"network\.safetensors") as error:
        jnas.load(weights.parent)
    assert "\n" not in str(error.value)


def test_a_search_is_no_training(tmp_path):
    result = {
        "kind": "search",
        "format": FORMAT,
        "space": "darts",
        "architecture": LIGHT,
        "rounds": [],
        "scores": {},
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(InputError, match="holds a search, not a training"):
        export.export(tmp_path, tmp_path / "out")
    # Its architecture can be trained.
    config = replace(CONFIG, arch=str(tmp_path), space="nasbench201")
    assert train.architecture_and_space(config) == (LIGHT, "darts")


def test_a_cell_of_nasbench201_in_half_precision(small, tmp_path):
    recipe = replace(CONFIG.recipe, precision="bfloat16", epochs=1, average=0.0, nesterov=True, clip=0.0)
    config = replace(CONFIG, arch=CELL, space="nasbench201", data=small, recipe=recipe)
    result = train.run(config, tmp_path / "run", QUIET)
    assert np.isfinite(result["curves"]["train_loss"]).all()
    state = last_state(tmp_path / "run")
    assert {leaf.dtype for leaf in jax.tree.leaves(state["params"])} == {np.dtype("float32")}


def test_a_loss_that_is_not_finite_stops_with_a_line(small, tmp_path):
    recipe = replace(CONFIG.recipe, learning_rate=1e30, epochs=5, clip=0.0)
    with pytest.raises(RunError, match=r"not finite at step .*: lower recipe\.learning_rate"):
        train.run(replace(CONFIG, data=small, recipe=recipe), tmp_path / "run", QUIET)


def test_a_state_that_is_truncated_gives_way_to_the_one_before(trained, small, tmp_path):
    out, result = trained
    shutil.copytree(out, tmp_path / "run")
    steps = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert len(steps) == 2
    for file in (tmp_path / "run" / "checkpoints" / str(steps[-1])).rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    again = train.run(replace(CONFIG, data=small), tmp_path / "run", QUIET)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
    for file in (tmp_path / "run" / "checkpoints").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(RunError, match=r"no state in .* can be read"):
        train.run(replace(CONFIG, data=small), tmp_path / "run", QUIET)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"arch": ""}, "no architecture"),
        ({"arch": "Genotype(normal=[])"}, "must have the fields"),
        ({"arch": LIGHT.replace("dil_conv_3x3", "dil_conv_9x9")}, "unknown operation 'dil_conv_9x9'"),
        ({"space": "nasbench201"}, "not a NAS-Bench-201 architecture"),
        ({"space": "nasbench"}, "unknown search space"),
        ({"recipe": {"batch": 200}}, "recipe.batch 200 does not fit"),
        ({"recipe": {"auxiliary": 0.4}}, "auxiliary head does not fit images of 8x8"),
        ({"recipe": {"batchs": 2}}, "batchs"),
        ({"stream": 32}, "needs folders train/CLASS/IMAGE"),
    ],
)
def test_wrong_configurations(changes, fault, small, tmp_path):
    mapping = {
        "arch": LIGHT, "data": small, "channels": 4, "cells_per_stage": 1,
        **changes, "recipe": {"batch": 64, "auxiliary": 0, **changes.get("recipe", {})},
    }  # fmt: skip
    with pytest.raises(InputError, match=fault) as error:
        train.run(from_mapping(mapping), tmp_path / "run", QUIET)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["channels", "classes"])
def test_states_of_a_network_for_other_data(change, trained, small, tmp_path):
    """The file that the configuration names holds other data than when the states were stored."""
    own, arrays = tmp_path / "small.npz", dict(np.load(small))
    np.savez(own, **arrays)
    config = replace(CONFIG, data=str(own), recipe=replace(CONFIG.recipe, epochs=1))
    train.run(config, tmp_path / "run", QUIET)
    (tmp_path / "run" / "result.json").unlink()
    if change == "channels":
        arrays |= {name: np.repeat(arrays[name], 3, axis=-1) for name in ("x_train", "x_test")}
    else:
        arrays |= {name: arrays[name] % 7 for name in ("y_train", "y_test")}
    np.savez(own, **arrays)
    with pytest.raises(RunError, match=r"no state in .* can be read, or they are of another network"):
        train.run(config, tmp_path / "run", QUIET)


def test_a_disk_that_is_really_full(small, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        config = tmp_path / "config.yaml"
        config.write_text(
            f'arch: "{LIGHT}"\ndata: {small}\nchannels: 16\ncells_per_stage: 1\ncheckpoint_seconds: 0\n'
            "recipe: {epochs: 2, batch: 64, auxiliary: 0}\n"
        )
        command = [sys.executable, "-m", "jnas", "train", str(config), "--out", str(place / "run")]
        done = subprocess.run(command, capture_output=True, text=True)
        # What threads that were writing say may stand before it on the line.
        complaints = [line for line in done.stderr.splitlines() if "jnas: " in line]
        assert done.returncode == 1 and len(complaints) == 1, done.stderr
        assert re.search("jnas: failed: cannot .*: make room there, then run .* again", complaints[0])
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_another_configuration_in_the_same_folder(trained, small):
    out, _ = trained
    with pytest.raises(InputError, match="channels: 4 -> 6"):
        train.run(replace(CONFIG, data=small, channels=6), out, QUIET)


def test_batches_from_memory_go_on_at_any_step(small):
    from jnas import data

    own = stream.of_dataset(data.load(small))
    batches = own.train(jax.random.key(3), 40, 0, slice(None))
    whole = [next(batches) for _ in range(8)]
    later = own.train(jax.random.key(3), 40, 5, slice(None))
    for x, y in whole[5:]:
        again = next(later)
        assert np.array_equal(again[0], x) and np.array_equal(again[1], y)
    # Three batches an epoch, without repetition.
    seen = np.concatenate([x.reshape(40, -1) for x, _ in whole[:3]])
    assert len(np.unique(seen, axis=0)) == len(seen)


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 255, (20 + number, 30, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / label / f"{number}.png")
    return tmp_path


def test_images_are_read_from_disk_as_they_are_needed(folder):
    own = stream.of_folder(folder, 16, threads=2)
    assert (own.image, own.classes, own.images, own.tests) == ((16, 16, 3), 2, 12, 6)
    batches = own.train(jax.random.key(1), 5, 0, slice(None))
    whole = [next(batches) for _ in range(5)]
    assert all(x.shape == (5, 16, 16, 3) and x.dtype == np.uint8 and y.dtype == np.int32 for x, y in whole)
    assert not np.array_equal(whole[0][0], whole[2][0])
    for (x, y), again in zip(whole[3:], own.train(jax.random.key(1), 5, 3, slice(None)), strict=False):
        assert np.array_equal(again[0], x) and np.array_equal(again[1], y)
    tests = list(own.test(4, slice(None)))
    assert np.concatenate([y for _, y in tests]).tolist() == [0, 0, 0, 1, 1, 1, -1, -1]


def test_an_image_that_cannot_be_read_is_named(folder, tmp_path):
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    config = replace(CONFIG, data=str(folder), stream=16, recipe=replace(CONFIG.recipe, batch=12, epochs=1))
    with pytest.raises((InputError, RunError), match=r"0\.png"):
        train.run(config, tmp_path / "run", QUIET)
