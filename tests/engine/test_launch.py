"""Several processes on gloo: they train one model, and the first failure ends all."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import toy_workers
from torch.distributed.elastic.agent.server import WorkerSpec
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from toy_training import ToyLoader

from fastreid.engine import agent, launch
from fastreid.engine.agent import TIMEOUT
from fastreid.modeling.losses.triplet import triplet
from fastreid.utils.errors import UserError, WorkerError

REPO = Path(__file__).resolve().parents[2]
SECONDS = 300  # until a process counts as hanging; on a busy machine the imports alone take many


def states_in(folder) -> list[dict[str, torch.Tensor]]:
    return [torch.load(path, weights_only=True) for path in sorted(folder.glob("rank*.pth"))]


def check_two_ranks(folder, reference: dict[str, torch.Tensor]) -> None:
    first, second = states_in(folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name, value in reference.items():
        if name.startswith(("hidden", "classifier")) or name == "neck.running_mean":
            torch.testing.assert_close(first[name], value)


def losses_in(folder) -> list[list[float]]:
    return json.loads((folder / "losses.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The folder of one process, which trains on whole batches."""
    folder = tmp_path_factory.mktemp("one")
    launch(toy_workers.train, 1, args=(str(folder),), device="cpu")
    return folder


@pytest.fixture(scope="module")
def reference(alone) -> dict[str, torch.Tensor]:
    """The model that it trains."""
    return states_in(alone)[0]


def test_two_runs_at_once_of_two_processes_each_train_the_model_of_one(tmp_path, alone, reference):
    """They log its losses, too: those of whole batches, not of the first process's halves."""

    def train(name: str) -> None:  # each at a port of its own, which nobody had to choose
        (tmp_path / name).mkdir()
        launch(toy_workers.train, 2, args=(str(tmp_path / name),), device="cpu")

    other = threading.Thread(target=train, args=("other",))
    other.start()
    train("one")
    other.join()
    for name in ("one", "other"):
        check_two_ranks(tmp_path / name, reference)
        for logged, expected in zip(losses_in(tmp_path / name), losses_in(alone), strict=True):
            assert logged == pytest.approx(expected, rel=1e-5)


def test_triplets_are_mined_within_each_rank_and_gradients_averaged(tmp_path):
    launch(toy_workers.mine, 2, args=(str(tmp_path),), device="cpu")
    first, second = states_in(tmp_path)
    batch = next(iter(ToyLoader()))
    halves = [{name: part[rows] for name, part in batch.items()} for rows in (slice(0, 4), slice(4, 8))]

    def step(parts: list[dict]) -> torch.Tensor:
        weight, bias = (first["start"][f"hidden.{name}"].requires_grad_() for name in ("weight", "bias"))
        losses = [triplet(torch.nn.functional.linear(p["images"], weight, bias), p["targets"]) for p in parts]
        (gradient,) = torch.autograd.grad(sum(losses) / len(parts), weight)
        return weight.detach() - 0.1 * gradient

    assert torch.equal(first["end"]["hidden.weight"], second["end"]["hidden.weight"])
    torch.testing.assert_close(first["end"]["hidden.weight"], step(halves))
    assert (first["end"]["hidden.weight"] - step([batch])).abs().max() > 1e-4


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("user error, the other busy", 2, "error: SOME.KEY is wrong: change it"),
        ("kill", 1, "process 1 of the run was killed by SIGKILL"),
    ],
)
def test_a_failure_on_one_machine_ends_the_other_and_is_told_there(how, code, said):
    program = (
        "import sys, toy_workers; from fastreid.engine import launch; from fastreid.utils import cli\n"
        "with cli.exit_cleanly():\n"
        "    launch(toy_workers.fail, 1, 2, int(sys.argv[1]), sys.argv[2], (sys.argv[3],), 'cpu')"
    )
    url = free_url()
    machines = [run_python("-c", program, str(rank), url, how) for rank in (0, 1)]
    for machine in machines:
        _, errors = machine.communicate(timeout=SECONDS)
        assert machine.returncode == code
        assert said in errors.splitlines()[-1]


def test_an_address_at_which_nobody_can_listen_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--dist-url {url}.* free port"):
            launch(print, 1, 2, 0, url, device="cpu")


def test_an_address_at_which_something_else_answers_is_named(monkeypatch):
    monkeypatch.setattr(agent, "STORE_TIMEOUT", timedelta(seconds=0.1))
    monkeypatch.setattr(agent, "GRACE_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{url} is no run of this program"):
            launch(print, 1, 2, 1, url, device="cpu")


def run_python(*arguments: str) -> subprocess.Popen:
    """A Python process that finds the package and the modules of this folder."""
    path = os.pathsep.join([str(REPO), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *arguments], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("how", "error", "said", "max_restarts"),
    [
        ("user error", UserError, "^SOME.KEY is wrong: change it$", 1),
        ("kill", WorkerError, "process 1 .*killed by SIGKILL", 0),
    ],
)
def test_the_first_failure_ends_all_processes_and_is_the_one_reported(how, error, said, max_restarts, capfd):
    """A mistake of the user would be made again, however often the run may be restarted."""
    with pytest.raises(error, match=said):
        launch(toy_workers.fail, 2, args=(how,), device="cpu", max_restarts=max_restarts)
    assert multiprocessing.active_children() == []
    assert "; restart " not in capfd.readouterr().err


@pytest.fixture
def watching(monkeypatch):
    """`watching(*failures)`: an agent that may restart twice and sees a start end so, again and again."""
    process = {"local_rank": 1, "pid": 0, "error_file": "/none"}

    def agent_of(code: int, message: object = "") -> agent.Agent:
        failure = ProcessFailure(exitcode=code, **process)
        failure.message = message
        seen = RunResult(WorkerState.FAILED, failures={1: failure})
        monkeypatch.setattr(LocalElasticAgent, "_monitor_workers", lambda *_: seen)
        watcher = agent.Agent(0, 2, WorkerSpec("", 1, None, entrypoint=print), DefaultLogsSpecs())
        watcher._worker_group = SimpleNamespace(store=dist.HashStore(), group_world_size=1)
        return watcher

    return agent_of


def test_a_stop_asked_for_when_a_process_has_just_died_ends_the_run_as_one(watching, capsys):
    """Before it could start again; not with the code of a failure, after which nobody would go on."""
    watcher = watching(-signal.SIGKILL)
    watcher._asked = signal.SIGTERM, 0.0
    watcher._monitor_workers(watcher._worker_group)
    assert (watcher.failure.code, watcher._remaining_restarts) == (143, 0)
    assert "process 1 of the run was killed by SIGKILL" in capsys.readouterr().err


def test_the_same_fault_after_a_restart_is_told_in_a_line(watching, capsys):
    told = {"message": "ValueError: bad", "extraInfo": {"py_callstack": "Traceback …\nValueError: bad\n"}}
    watcher = watching(1, told)
    for before in ("process 1 of the run failed:\nTraceback …\n", ""):
        watcher._monitor_workers(watcher._worker_group)
        said = capsys.readouterr().err
        assert said.startswith(f"{before}ValueError: bad; going on from the last checkpoint")


def test_the_death_of_a_process_by_a_signal_that_it_could_not_tell_is_told(watching):
    watcher = watching(-signal.SIGTERM)
    watcher._monitor_workers(watcher._worker_group)
    assert watcher.failure[:2] == (143, "stopped by SIGTERM")


def test_the_wait_for_another_machine_ends_at_once_on_a_signal():
    program = (
        "import sys; from fastreid.engine import launch; from fastreid.utils import cli\n"
        "with cli.exit_cleanly():\n"
        "    launch(print, 1, 2, int(sys.argv[1]), sys.argv[2], device='cpu')"
    )
    urls = free_url(), free_url()
    machines = [run_python("-c", program, str(rank), url) for rank, url in enumerate(urls)]
    assert machines[0].stderr.readline() == f"waiting at {urls[0]} for 1 more machines\n"
    assert machines[1].stderr.readline() == f"waiting for machine 0 at {urls[1]} (Connection refused)\n"
    time.sleep(1)
    for machine in machines:
        machine.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        assert machine.stderr.readline() == "stopped by SIGTERM: nothing to save\n"
        assert time.monotonic() - sent < 1
        assert machine.wait(timeout=SECONDS) == 143


def test_a_signal_to_the_parent_stops_all_processes_after_the_same_iteration(tmp_path):
    def stop_when_running() -> None:
        while not all((tmp_path / f"running{rank}").exists() for rank in (0, 1)):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_running, daemon=True).start()
    with pytest.raises(SystemExit) as stopped:
        launch(toy_workers.wait_for_signal, 2, args=(str(tmp_path),), device="cpu", max_restarts=1)
    assert stopped.value.code == 143
    assert (tmp_path / "saved0").read_text() == (tmp_path / "saved1").read_text()


def test_on_cuda_every_process_of_a_machine_has_its_own_device_from_the_start(monkeypatch):
    """So NCCL never has to guess which device is whose; two machines of two GPUs each."""
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", made.append)
    monkeypatch.setattr(
        dist, "init_process_group", lambda backend, **options: made.append((backend, options))
    )
    monkeypatch.setattr(dist, "rendezvous", lambda *_, **__: iter([("store", 3, 4)]))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    place = {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    for name, value in (place | {"MASTER_ADDR": "host", "MASTER_PORT": 1}).items():
        monkeypatch.setenv(name, str(value))
    launch(len, args=([],), device="auto")
    device, (backend, options) = made
    assert device == torch.device("cuda", 1)
    assert (backend, options.pop("device_id"), options.pop("timeout")) == ("nccl", device, TIMEOUT)
    assert options == {"store": "store", "rank": 3, "world_size": 4}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_gpus_per_machine": 0}, "at least 1"),
        ({"num_machines": 2, "machine_rank": 2}, "--machine-rank 2"),
        ({"num_machines": 2}, "--dist-url 'auto'.*tcp://HOST:PORT"),
        ({"num_machines": 2, "dist_url": "tcp://here:0"}, "--dist-url 'tcp://here:0'.*tcp://HOST:PORT"),
        ({"num_gpus_per_machine": 2, "device": "cuda:1"}, "MODEL.DEVICE 'cuda:1' is one GPU"),
    ],
)
def test_arguments_that_do_not_fit_are_explained(arguments, said):
    with pytest.raises(UserError, match=said):
        launch(print, **arguments)
