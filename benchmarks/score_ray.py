"""A worker of a Ray cluster dies in the middle of a scoring: are all rows there, and the same?

    python benchmarks/score_ray.py [--nodes 3] [--architectures 600] [--kills 1] [--proxies naswot,swap]

Runs `jnas score` on this machine, then with `--executor ray` on a cluster of so many node processes that it
starts here. As the rows are stored, one of its workers after another is killed with SIGKILL, evenly spread over
the work. A retried chunk is one that a dead worker still owed. Exit status 1 where the tables differ.
"""

import argparse
import contextlib
import io
import os
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
# A small network, so that chunks are many and short.
SIZES = ["--network.channels", "4", "--network.cells_per_stage", "1", "--network.batch", "16"]


def score(options: argparse.Namespace, out: Path, executor: str) -> float:
    """`jnas score` in this process; the seconds it took."""
    from jnas import cli

    began, said = time.monotonic(), io.StringIO()
    arguments = ["score", "--proxies", options.proxies, "--archs", f"random:{options.architectures}"]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = cli.main([*arguments, *SIZES, "--executor", executor, "--out", str(out)])
    if status != 0:
        raise SystemExit(f"jnas score --executor {executor} ended with status {status}:\n{said.getvalue()}")
    return time.monotonic() - began


def rows(out: Path) -> int:
    """How many values are stored."""
    try:
        with contextlib.closing(sqlite3.connect(f"{out.as_uri()}.journal?mode=ro", uri=True)) as db:
            return db.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def workers() -> list[int]:
    """Process ids of the Ray workers that this process has started, directly or not."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            number = int(entry.name)
            parents[number] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            names[number] = (entry / "cmdline").read_bytes()
    own = {os.getpid()}
    for _ in range(4):
        own |= {number for number, parent in parents.items() if parent in own}
    return sorted(n for n in own if names.get(n, b"").startswith(b"ray::_Worker"))


def kill_workers(out: Path, total: int, kills: int, done: list[int], finished: threading.Event) -> None:
    """After each further (kills + 1)-th part of `total` values kill a worker; `done` gets the counts stored."""
    while len(done) < kills and not finished.wait(0.01):
        stored = rows(out)
        if stored >= total * (len(done) + 1) / (kills + 1) and (found := workers()):
            os.kill(found[len(done) % len(found)], signal.SIGKILL)
            done.append(stored)


def count_losses(ray) -> list[BaseException]:
    """Every answer that a dead worker owed, as they are asked for."""
    lost: list[BaseException] = []
    get = ray.get

    def counting(*arguments, **options):
        try:
            return get(*arguments, **options)
        except ray.exceptions.RayActorError as error:
            lost.append(error)
            raise

    ray.get = counting
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--architectures", type=int, default=600)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--proxies", default="naswot,swap")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        # Nodes inherit these: workers find jnas, and in the user's cache, that they turn on, what was compiled here.
        os.environ["PYTHONPATH"] = str(ROOT)
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)
        os.environ["XDG_CACHE_HOME"] = str(base / "cache")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        local, out = base / "local.csv", base / "ray.csv"

        import ray
        from ray.cluster_utils import Cluster

        # Before JAX has threads, as Ray forks.
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            for _ in range(options.nodes - 1):
                cluster.add_node(**NODE)
            ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
            seconds = score(options, local, "local")
            expected, total = local.read_bytes(), rows(local)
            lost, kills, finished = count_losses(ray), [], threading.Event()
            thread = threading.Thread(target=kill_workers, args=(out, total, options.kills, kills, finished))
            thread.start()
            try:
                ray_seconds = score(options, out, "ray")
            finally:
                finished.set()
                thread.join()
        finally:
            ray.shutdown()
            cluster.shutdown()
        equal = out.read_bytes() == expected
        table = Table("executor", "seconds", "rows", "workers killed", "retried chunks", "equal to local")
        count = [str(content.count(b"\n") - 1) for content in (expected, out.read_bytes())]
        table.add_row("local", f"{seconds:.1f}", count[0], "", "", "")
        killed = (
            f"{len(kills)} (at {', '.join(f'{stored / total:.0%}' for stored in kills)})" if kills else "0"
        )
        table.add_row(
            f"ray, {options.nodes} nodes", f"{ray_seconds:.1f}", count[1], killed, str(len(lost)),
            "yes" if equal else "NO",
        )  # fmt: skip
        console.print(table)
    return int(not equal)


if __name__ == "__main__":
    sys.exit(main())
