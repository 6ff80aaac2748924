#!/usr/bin/env bash
# The whole test suite. Makes .venv and installs into it on the first run; with PYTHON_BIN=… it uses that
# interpreter and installs nothing. Further arguments go to pytest, e.g.  bash go/test.sh tests/data -x
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source go/lib.sh
ensure_environment
# One thread a process: the tests' models are small, and two-process tests would otherwise fight for the cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Whole files in turn on each core, so that what a file prepares is prepared once; in the order of tests/conftest.py.
exec "$PYTHON_BIN" -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
