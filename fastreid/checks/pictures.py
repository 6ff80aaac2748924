"""Decoding every picture, to find those that a run would stumble over."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from fastreid.checks.datasets import EXAMPLES, CheckedData
from fastreid.config import CfgNode
from fastreid.data import read_image
from fastreid.structures import Finding
from fastreid.utils.errors import UserError

AT_ONCE = 32  # pictures that a thread takes in one go


def check_pictures(cfg: CfgNode, data: CheckedData, workers: int) -> list[Finding]:
    """Decode every picture of the datasets; a line for training and one for evaluation."""
    train = {sample.path for dataset in data.train for sample in dataset.train}
    tests = {sample.path for dataset in data.tests for sample in (*dataset.query, *dataset.gallery)}
    bad = unreadable_pictures(sorted(train | tests), workers)
    skip = cfg.DATALOADER.ON_BAD_IMAGE == "skip"
    findings = []
    for label, paths, may_skip in (("training pictures", train, True), ("test pictures", tests, False)):
        reasons = [f"{path} ({reason})" for path, reason in bad.items() if path in paths]
        if not reasons:
            findings.append(Finding("ok", label, f"all {len(paths):,} can be decoded"))
            continue
        more = ", …" if len(reasons) > EXAMPLES else ""
        found = f"{len(reasons):,} of {len(paths):,} cannot be decoded: {', '.join(reasons[:EXAMPLES])}{more}"
        fix = "restore the files" + (", or DATALOADER.ON_BAD_IMAGE skip" if may_skip and not skip else "")
        findings.append(Finding("warning" if may_skip and skip else "error", label, found, fix))
    return findings


def unreadable_pictures(paths: Sequence[str], workers: int = 4) -> dict[str, str]:
    """Decode the pictures completely, in `workers` threads, with a progress bar on a terminal.

    Returns:
        Path -> what is wrong, of those that cannot be decoded, in the order of `paths`.
    """
    parts = [paths[start : start + AT_ONCE] for start in range(0, len(paths), AT_ONCE)]
    bad: dict[str, str] = {}
    bar = tqdm(total=len(paths), desc="pictures", unit="picture", disable=not sys.stderr.isatty())
    with bar, ThreadPoolExecutor(workers) as pool:
        for part, found in zip(parts, pool.map(_unreadable, parts), strict=True):
            bad |= found
            bar.update(len(part))
    return bad


def _unreadable(paths: Sequence[str]) -> dict[str, str]:
    bad: dict[str, str] = {}
    for path in paths:
        try:
            read_image(path)
        except UserError as error:
            reason = str(error.__cause__ or "")
            if not os.path.isfile(path):
                reason = "missing"
            elif os.path.getsize(path) == 0:
                reason = "empty (0 bytes)"
            bad[path] = " ".join(reason.split()) or str(error)
    return bad
