"""Rows through one program: what is computed, how often it is traced and compiled, what memory does to it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnas import parallel
from jnas.parallel import Program

ROOT = Path(__file__).parents[1]
ROWS = np.arange(40, dtype=np.float32).reshape(20, 2)


def expected(rows):
    return [(float(row.sum() * 3), (row + 3).tolist()) for row in rows]


def values(outs):
    return [(float(total), moved.tolist()) for total, moved in outs]


def measure(shared, row):
    return jnp.sum(row) * shared, row + shared


@pytest.mark.parametrize("width", [1, 4, 5, 16])
@pytest.mark.parametrize("count", [1, 4, 7, 16, 20])
def test_each_row_has_its_value_whatever_the_width_and_the_count(width, count):
    program = Program("test", measure, cpu_width=width)
    assert values(program(np.float32(3), ROWS[:count])) == expected(ROWS[:count])


def test_programs_of_one_function_are_compiled_once():
    traced = []

    def twice(shared, row):
        traced.append(row)
        return shared * row

    counts = []
    for _ in range(2):
        assert Program("test", twice)(np.float32(2), np.arange(3, dtype=np.float32)) == [0, 2, 4]
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0


def test_a_program_is_traced_and_compiled_once(caplog):
    traced = []

    def watched(shared, row):
        traced.append(row)
        return measure(shared, row)

    program = Program("test", watched)
    with caplog.at_level("INFO", "jnas"):
        for count in (1, 5, 16, 20):
            assert values(program(np.float32(3), ROWS[:count])) == expected(ROWS[:count])
    assert len(traced) == 1
    assert sum("compiled test" in message for message in caplog.messages) == 1


def test_rows_that_only_fill_up_are_not_computed():
    seen = []

    def counted(shared, row):
        jax.debug.callback(lambda row: seen.append(int(row[0])), row)
        return row

    Program("test", counted)(np.float32(0), ROWS[:3])
    jax.effects_barrier()
    assert sorted(seen) == [0, 2, 4]


def test_rows_are_trees_and_shared_data_are_no_constants():
    program = Program("test", lambda shared, row: {"sum": shared["a"] + row["b"], "kind": row["c"]})
    rows = {"b": np.arange(3.0, dtype=np.float32), "c": np.arange(3, dtype=np.int32)}
    for number in (1.0, 2.0):
        outs = program(program.place({"a": jnp.float32(number)}), rows)
        assert [(float(out["sum"]), int(out["kind"])) for out in outs] == [(i + number, i) for i in range(3)]
    assert len(program._programs) == 1


class Machine:
    """Compiled programs of a machine whose memory holds `most` rows side by side, and not the row `giant`."""

    def __init__(self, monkeypatch, most=1000, giant=None, bytes_a_row=0):
        self.widths, self.calls, compiled = [], [], Program._compiled

        def patched(program, arguments, width):
            run = compiled(program, arguments, 1)
            self.widths.append(width)

            def call(shared, rows, counts):
                self.calls.append((width, int(counts[0])))
                if width > most or (giant is not None and giant in rows[: counts[0], 0]):
                    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
                return run(shared, rows, counts)

            analysis = SimpleNamespace(temp_size_in_bytes=bytes_a_row * width)
            return type(
                "Compiled", (), {"__call__": staticmethod(call), "memory_analysis": lambda _: analysis}
            )()

        monkeypatch.setattr(Program, "_compiled", patched)


def test_a_row_that_does_not_fit_costs_no_other(monkeypatch):
    machine = Machine(monkeypatch, giant=10)
    outs = Program("test", measure)(np.float32(3), ROWS[:9])
    assert outs[5] is None
    assert values(outs[:5] + outs[6:]) == expected(np.delete(ROWS[:9], 5, axis=0))
    assert len(machine.calls) < 9


def test_other_errors_are_raised(monkeypatch):
    def broken(program, arguments, width):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(Program, "_compiled", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        Program("test", measure)(np.float32(3), ROWS)


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize(("gigabytes", "width"), [(100, 256), (0.04, 32), (0.001, 1)])
def test_the_width_follows_from_memory(accelerator, monkeypatch, gigabytes, width):
    machine = Machine(monkeypatch, bytes_a_row=10**6)
    program = Program("test", measure, memory_gb=gigabytes)
    rows = np.repeat(ROWS, 13, axis=0)[:256]
    assert values(program(np.float32(3), rows)) == expected(rows)
    assert {call[0] for call in machine.calls} == {width}
    assert machine.widths[0] == parallel.FIRST_WIDTH


def test_few_rows_do_not_pay_for_many(accelerator, monkeypatch):
    machine = Machine(monkeypatch)
    program = Program("test", measure, memory_gb=1)
    program(np.float32(3), ROWS[:1])
    program(np.float32(3), ROWS[:9])
    assert machine.calls == [(1, 1), (8, 9)]


def test_the_width_is_halved_until_it_fits_and_stays_so(accelerator, monkeypatch):
    machine = Machine(monkeypatch, most=4)
    program = Program("test", measure, memory_gb=1)
    for _ in range(2):
        assert values(program(np.float32(3), ROWS[:9])) == expected(ROWS[:9])
    assert [width for width, _ in machine.calls] == [8, 4, 4]


PROGRAM = """
import json, jax, numpy as np, test_parallel as own
assert len(jax.devices()) == 3
program = own.Program("test", own.measure, rows=2)
print(json.dumps([own.values(program(np.float32(3), own.ROWS[:count])) for count in (1, 4, 5, 6, 20)]))
"""


def test_devices_share_the_rows():
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=3",
        },
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert json.loads(process.stdout) == [
        [[total, row] for total, row in expected(ROWS[:count])] for count in (1, 4, 5, 6, 20)
    ]


def test_each_core_becomes_a_device_unless_the_user_says_how_many():
    script = (
        "import jax, jnas.parallel as p; p.make_devices_of_cores(); "
        "print(jax.local_device_count(), len(p.devices_of_images()))"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    most = max(1, int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 4e9))
    plain = os.environ["XLA_FLAGS"].replace("--xla_force_host_platform_device_count=1", "")
    for flags, number, expected in [
        (plain, None, (min(cores, most), 1)),
        (plain, "3", (3, 1)),
        (f"{plain} --xla_force_host_platform_device_count=3", None, (3, 3)),
    ]:
        environment = {
            **os.environ,
            "XLA_FLAGS": flags,
            **({"JAX_NUM_CPU_DEVICES": number} if number else {}),
        }
        output = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert tuple(map(int, output.stdout.split())) == expected
