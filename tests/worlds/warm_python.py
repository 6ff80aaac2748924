"""A `python` that starts in a tenth of a second: its libraries, though nothing of this package, are imported.

Every program is a process of its own, forked from a server that has imported the libraries.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory

LIBRARIES = ("torchvision.transforms.v2", "timm", "diffusers.models.unets", "matplotlib.figure", "scipy.io")
CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)])
    socket.send_fds(server, [request.encode()], [0, 1, 2])
    sys.exit(int(server.recv(4) or 1))
"""


@contextmanager
def warm_python() -> Iterator[Path]:
    """In the block there is the `python` of that path; it takes a file, or ``-`` for stdin, and arguments."""
    with TemporaryDirectory(prefix="python") as folder:
        python, address = Path(folder) / "python", f"{folder}/socket"
        python.write_text(CLIENT.format(python=sys.executable, address=address))
        python.chmod(0o755)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, __file__, address], env=environment, **pipes) as server:
            assert server.stdout.readline() == b"ready\n"
            yield python
            server.stdin.close()


def serve(address: str) -> None:
    """Run what clients ask for until stdin ends; returns a second time, in a program's process, to run it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for the programs
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while 0 not in select([0, listener], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                request, outputs, *_ = socket.recv_fds(connection, 1 << 20, 3)
                if os.fork() == 0:
                    wait_for_program(connection)
                    listener.close()
                    run(json.loads(request), outputs)
                    return
            for output in outputs:
                os.close(output)


def wait_for_program(connection: socket.socket) -> None:
    """Return in a new process; here, tell the client how that has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if program := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
        connection.send(str(code).encode())
        os._exit(0)


def run(request: tuple[list[str], str, dict[str, str]], outputs: list[int]) -> None:
    """Become what `python` with these arguments, in this folder and environment, would be."""
    arguments, folder, environment = request
    for number, output in enumerate(outputs):
        os.dup2(output, number)
        os.close(output)
    # those of the server may know how to seek, as these do not
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path[0:1] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    if arguments[0] == "-":
        exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, os.path.dirname(os.path.realpath(arguments[0])))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for library in LIBRARIES:
        import_module(library)
    serve(sys.argv[1])
