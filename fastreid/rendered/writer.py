"""Writing a benchmark: in parallel, resumable, the same bytes however many processes take part."""

import logging
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tqdm import tqdm

from fastreid.rendered.attributes import attribute_file
from fastreid.rendered.camera import Camera, at_night, sample_camera, set_apart
from fastreid.rendered.contact_sheet import CONTACT_SHEET, write_contact_sheet
from fastreid.rendered.layouts import (
    CAMERA,
    IMAGE,
    LAYOUTS,
    PERSON,
    BenchmarkSpec,
    Image,
    Plan,
    make_plan,
    parameters_of,
    random_stream,
)
from fastreid.rendered.manifest import claim_folder
from fastreid.rendered.person import Person, sample_person
from fastreid.rendered.renderer import render_jpeg
from fastreid.rendered.styles import sample_styled_person
from fastreid.utils.env import available_cores
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write

RENDERER_VERSION = 1  # part of the manifest: raise it when the same seed gives other pictures
JPEG_END = b"\xff\xd9"
logger = logging.getLogger(__name__)


def write_benchmark(
    name: str, root: str | os.PathLike, spec: BenchmarkSpec | None = None, workers: int | None = None
) -> Path:
    """Write benchmark `name` into ``root/name`` and return that folder.

    Files that are already there from an interrupted run are kept. `workers` processes render (0 and 1:
    this one; None: one for each processor). Raises `UserError` for an unknown name, for a folder that holds
    something else or other parameters, and when a file cannot be written.
    """
    plan = make_plan(name, spec or BenchmarkSpec())
    workers = available_cores() if workers is None else workers
    if workers < 0:
        raise UserError(f"--workers is {workers}", "give 0 or more")
    folder = Path(root) / name
    try:
        parameters = {**parameters_of(plan), "renderer": RENDERER_VERSION}
        with claim_folder(folder, parameters, len(plan.images)):
            _fill(plan, folder, workers)
    except OSError as error:
        raise UserError(f"cannot write {error.filename or folder}: {error.strerror or error}") from error
    return folder


def _fill(plan: Plan, folder: Path, workers: int) -> None:
    for parent in sorted({os.path.dirname(image.path) for image in plan.images}):
        (folder / parent).mkdir(parents=True, exist_ok=True)
        for leftover in (folder / parent).glob(".*.tmp"):
            leftover.unlink()
    missing = [image for image in plan.images if not _is_whole(folder / image.path)]
    there = len(plan.images) - len(missing)
    name, total = plan.layout.name, len(plan.images)
    logger.info("%s: %d images to write into %s, %d already there", name, len(missing), folder, there)
    start = time.perf_counter()
    quiet = not sys.stderr.isatty()
    with tqdm(total=total, initial=there, unit="image", desc=name, disable=quiet) as bar:
        for _ in _write_images(plan, missing, folder, workers):
            bar.update()
    _write_side_files(plan, folder)
    if missing or not (folder / CONTACT_SHEET).is_file():
        write_contact_sheet(plan, folder)
    seconds = time.perf_counter() - start
    logger.info("%s: done, %.1f s (%.0f images/s)", name, seconds, len(missing) / seconds)


def _is_whole(path: Path) -> bool:
    """Tell whether a complete JPEG file is there. A crash of the machine can leave a renamed file empty."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(JPEG_END), os.SEEK_END)
            return file.read() == JPEG_END
    except OSError:
        return False


def _write_images(plan: Plan, images: list[Image], folder: Path, workers: int) -> Iterator[None]:
    """Render and write `images`; yields once an image."""
    if workers <= 1 or len(images) < 2 * workers:
        for image in images:
            _write_image(plan, image, folder)
            yield
        return
    start_method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(start_method)
    processes, pipes = [], []
    try:
        for number in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            share = images[number::workers]
            process = context.Process(target=_work, args=(plan, share, folder, sender), daemon=True)
            process.start()
            sender.close()
            processes.append(process)
            pipes.append(receiver)
        yield from _listen(pipes)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _listen(pipes: list[Connection]) -> Iterator[None]:
    """Yields once a written image, until every worker has said that it is done."""
    busy = list(pipes)
    while busy:
        for pipe in wait(busy):
            try:
                message = pipe.recv()
            except EOFError:
                raise UserError(
                    "a rendering process was killed",
                    "run again to continue (fewer --workers need less memory)",
                ) from None
            if isinstance(message, OSError):
                raise message
            if isinstance(message, str):
                raise RuntimeError(f"a rendering process failed:\n{message}")
            if message is None:
                busy.remove(pipe)
            else:
                yield


def _work(plan: Plan, images: list[Image], folder: Path, pipe: Connection) -> None:
    """A worker process: sends True for each image, None at the end, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    try:
        for image in images:
            _write_image(plan, image, folder)
            pipe.send(True)
        pipe.send(None)
    except BrokenPipeError:
        return  # the parent is gone
    except OSError as error:
        pipe.send(error)
    except Exception:
        pipe.send(traceback.format_exc())


@lru_cache(maxsize=4096)
def _person(spec: BenchmarkSpec, benchmark: str, identity: int) -> Person:
    sample = sample_styled_person if spec.view_gap == "real" else sample_person
    return sample(random_stream(spec, LAYOUTS[benchmark], PERSON, identity))


@lru_cache(maxsize=256)
def _camera(spec: BenchmarkSpec, benchmark: str, number: int, night: bool) -> Camera:
    layout = LAYOUTS[benchmark]
    rng = random_stream(spec, layout, CAMERA, number)
    camera = sample_camera(rng, layout.view_of(number))
    if spec.view_gap == "real":
        camera = set_apart(camera, layout.elevations.get(number), rng)
    return at_night(camera) if night else camera


def _write_image(plan: Plan, image: Image, folder: Path) -> None:
    """Render one image and put it in place by a rename, so that no half file is ever seen.

    Without an fsync: a picture can be made again, and on a disk the wait for thousands of them would cost
    more than the rendering. `_is_whole` finds what a crash of the machine may have left.
    """
    sighting, name = image.sighting, plan.layout.name
    rng = random_stream(plan.spec, plan.layout, IMAGE, sighting.identity, sighting.camera, sighting.index)
    person = _person(plan.spec, name, sighting.identity)
    camera = _camera(plan.spec, name, sighting.camera, sighting.night)
    data = render_jpeg(person, camera, plan.spec.size, rng)
    path = folder / image.path
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _write_side_files(plan: Plan, folder: Path) -> None:
    """Protocol files and attributes."""
    for file_name, text in plan.protocol_files.items():
        with atomic_write(folder / file_name, "w") as file:
            file.write(text)
    if plan.layout.attribute_file:
        splits = {
            split: ([_person(plan.spec, plan.layout.name, i) for i in labels], list(labels.values()))
            for split, labels in plan.labels.items()
        }
        with atomic_write(folder / plan.layout.attribute_file) as file:
            file.write(attribute_file(splits))
