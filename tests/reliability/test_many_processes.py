"""One, two and four processes, and two hosts, on gloo: the same data, equal models, no rank left behind."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest
import rank_work
import torch
from tiny_runs import OPTIONS, PROGRAM, arguments, children, finish, read_until, start
from worlds.options import DEMO

from fastreid.engine import launch

PAIRS = ("SOLVER.IMS_PER_BATCH", "32", "SOLVER.MAX_EPOCH", "1", "SOLVER.ITERS_PER_EPOCH", "3")


@pytest.fixture(scope="module")
def worlds(cargo, tmp_path_factory) -> dict[int, tuple]:
    """For 1, 2 and 4 processes: what each rank tells, and the OUTPUT_DIR."""
    told = {}
    for size in (1, 2, 4):
        folder = tmp_path_factory.mktemp(f"world{size}")
        pairs = [*OPTIONS, *PAIRS, "DATASETS.ROOT", str(cargo), "OUTPUT_DIR", str(folder / "run")]
        args = (str(DEMO[1]), pairs, str(folder))
        launch(rank_work.train_and_tell, size, args=args, device="cpu")
        ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(size)]
        told[size] = ranks, folder / "run"
    return told


def test_all_world_sizes_see_the_same_identities_in_each_global_batch(worlds):
    (alone,), _ = worlds[1]
    for ranks, _ in worlds.values():
        batches = zip(*(rank["batches"] for rank in ranks), strict=True)
        together = [list(chain.from_iterable(parts)) for parts in batches]
        assert together == alone["batches"]


def test_metrics_of_one_model_are_equal_on_all_world_sizes_and_ranks(worlds):
    (alone,), _ = worlds[1]
    for ranks, _ in worlds.values():
        for rank in ranks:
            for protocol, metrics in alone["results"].items():
                assert rank["results"][protocol] == pytest.approx(metrics, abs=1e-6)


def test_all_ranks_hold_the_same_model_after_training(worlds):
    for size in (2, 4):
        ranks, _ = worlds[size]
        first = ranks[0]["hashes"]
        assert {"heads.bottleneck.0.running_mean", "memory_bank.prototypes"} <= first.keys()
        assert all(rank["hashes"] == first for rank in ranks)


CHECKPOINTS = (*PAIRS, "SOLVER.CHECKPOINT_ITERS", "1")


def test_torchrun_starts_again_after_a_kill_and_trains_the_model_of_two_processes(worlds, cargo, tmp_path):
    options = ("--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0")
    torchrun = (sys.executable, "-m", "torch.distributed.run", *options, "--max-restarts", "1")
    run = subprocess.Popen(
        [*torchrun, str(PROGRAM), *arguments(1, cargo, tmp_path / "run", *CHECKPOINTS)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    read_until(run, "iter 2/")
    os.kill(random.choice(children(run)), signal.SIGKILL)
    assert "Resumed from" in finish(run)
    check_same_weights(tmp_path / "run", worlds[2][1])


def check_same_weights(run: Path, expected: Path) -> None:
    found, wanted = (
        torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (run, expected)
    )
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def everyone(process: subprocess.Popen) -> list[int]:
    """`process` and all that it, or one of them, has started."""
    found = [process.pid]
    for pid in found:
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, path.read_text().split())
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_sigterm_to_every_process_of_a_job_saves_after_an_iteration_and_leaves_none(cargo, tmp_path):
    """To the launcher, the ranks and their loader workers at once, as Slurm, systemd and containers do."""
    endless = ("SOLVER.ITERS_PER_EPOCH", "100000", "DATALOADER.NUM_WORKERS", "1")
    run = start(*arguments(1, cargo, tmp_path / "run", *PAIRS, *endless), "--num-gpus", "2")
    read_until(run, "iter 1/")
    job = everyone(run)
    assert len(job) >= 5
    for pid in job:
        os.kill(pid, signal.SIGTERM)
    output = finish(run, 143)
    assert "Traceback" not in output
    for _ in range(100):
        if not (left := [Path(f"/proc/{pid}/cmdline").read_text() for pid in job if is_running(pid)]):
            break
        time.sleep(0.1)
    assert not left
    done = int(re.search(r"Stopped after iteration (\d+); the same command with --resume", output)[1])
    saved = torch.load(tmp_path / "run/model_latest.pth", weights_only=True)
    assert saved["iteration"] == done


LOOPBACK = [(), ()], "127.0.0.1"


@contextmanager
def two_network_namespaces():
    """Two hosts joined by a cable: ``(prefixes of commands, address of the first)``.

    That takes root and iproute2's `ip`; without them this host stands for both.
    """
    names, links = [f"fastreid{os.getpid()}{side}" for side in "ab"], [f"fr{os.getpid()}{s}" for s in "ab"]
    commands = [f"netns add {name}" for name in names]
    commands += [f"link add {links[0]} netns {names[0]} type veth peer name {links[1]} netns {names[1]}"]
    for number, (name, link) in enumerate(zip(names, links, strict=True), start=1):
        commands += [f"-n {name} address add 10.77.0.{number}/24 dev {link}"]
        commands += [f"-n {name} link set {device} up" for device in (link, "lo")]
    prefixes = [
        ("ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={link}")
        for name, link in zip(names, links, strict=True)
    ]

    def ip(command: str) -> bool:
        return not subprocess.run(["ip", *command.split()], capture_output=True, check=False).returncode

    possible = os.geteuid() == 0 and shutil.which("ip")
    try:
        yield (prefixes, "10.77.0.1") if possible and all(map(ip, commands)) else LOOPBACK
    finally:
        for name in names if possible else ():
            ip(f"netns delete {name}")


def two_hosts(prefixes, address, *command) -> Callable[[int], subprocess.Popen]:
    """Return what starts the program on host 0 or 1 of two, or starts it again."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    machines = ("--num-machines", "2", "--dist-url", f"tcp://{address}:{port}", "--machine-rank")
    return lambda rank: start(*command, *machines, str(rank), prefix=prefixes[rank])


def lose(host: subprocess.Popen) -> None:
    host.send_signal(signal.SIGSTOP)  # it cannot tell what happens to its process
    for child in children(host):
        os.kill(child, signal.SIGKILL)
    host.send_signal(signal.SIGKILL)
    host.communicate()


def test_two_hosts_train_the_model_of_two_processes_though_one_is_lost_and_comes_back(
    worlds, cargo, tmp_path
):
    with two_network_namespaces() as hosts:
        line = arguments(1, cargo, tmp_path / "run", *CHECKPOINTS)
        start_host = two_hosts(*hosts, *line, "--max-restarts", "1")
        runs = [start_host(0), start_host(1)]
        read_until(runs[0], "iter 2/")
        lost = random.randrange(2)
        lose(runs[lost])
        runs[lost] = start_host(lost)
        for run in runs:
            finish(run)
    check_same_weights(tmp_path / "run", worlds[2][1])
    assert not (tmp_path / "run/earlier.1").exists(), lost


def test_a_host_that_is_lost_ends_the_other(cargo, tmp_path):
    endless = ("SOLVER.ITERS_PER_EPOCH", "100000")
    start_host = two_hosts(*LOOPBACK, *arguments(1, cargo, tmp_path / "run", *endless))
    first, second = start_host(0), start_host(1)
    read_until(first, "iter 2/")
    lose(first)
    output, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert "another process of the run has ended" in output.splitlines()[-1]
