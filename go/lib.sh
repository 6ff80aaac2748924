# Shared by the scripts of this repository: sourced from its root folder, never run by itself.

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

# The first Python of at least 3.10 on the PATH.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  echo "error: no Python of version 3.10 or newer on the PATH; install one, or name it with PYTHON_BIN" >&2
  return 2
}

# Set PYTHON_BIN for commands that need nothing installed by us: as given, else .venv, else the PATH's Python.
choose_python() {
  if [[ -z "${PYTHON_BIN:-}" ]]; then
    if [[ -x .venv/bin/python ]]; then PYTHON_BIN=.venv/bin/python; else PYTHON_BIN=$(find_python); fi
  fi
}

# Set PYTHON_BIN to a Python with everything installed. One named by the caller is used as it is; else .venv is
# made or completed. The stamp is written last, so an interrupted installation is taken up again.
ensure_environment() {
  if [[ -n "${PYTHON_BIN:-}" ]]; then return; fi
  local stamp=.venv/installed base
  local wanted
  wanted=$(cat requirements.txt tests/requirements.txt fastreid/evaluation/rank_cylib/*.pyx fastreid/evaluation/rank_cylib/setup.py | cksum)
  PYTHON_BIN=.venv/bin/python
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then return; fi

  if ! "$PYTHON_BIN" -m pip --version >/dev/null 2>&1; then
    base=$(find_python)
    say "Making .venv with $base"
    if ! "$base" -m venv --clear .venv; then
      echo "error: $base cannot make a virtual environment; install its venv module (Debian: python3-venv)" >&2
      return 2
    fi
  fi
  say "Installing the requirements into .venv (once; PyTorch is large)"
  "$PYTHON_BIN" -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
  if build_extension; then printf '%s' "$wanted" >"$stamp"; fi
}

# The compiled rank evaluation is optional: without a compiler the Python one runs, and says so. It fails then,
# so that the next run tries again. The build ends well where it made nothing, too: the library has to be there.
build_extension() {
  local folder=fastreid/evaluation/rank_cylib log
  log=$(mktemp)
  rm -f "$folder"/rank_cy*.so
  (cd "$folder" && "${OLDPWD}/$PYTHON_BIN" setup.py build_ext --inplace) >"$log" 2>&1 || true
  if ! compgen -G "$folder/rank_cy*.so" >/dev/null; then
    echo "warning: the Cython extension did not build (log: $log); evaluation uses the slower Python version" >&2
    return 1
  fi
  rm -f "$log"
}

# Train Stage 1, then Stage 2 from its best checkpoint; each ends with its evaluation. Stage 2's files, data and
# memory are checked first: a mistake must not show after Stage 1. With --resume a finished stage is left as it is.
# Arguments: Stage-1 config, Stage-2 config, then what both commands get (options and KEY VALUE pairs).
train_both_stages() {
  local stage1=$1 stage2=$2 argument code=0
  shift 2
  for argument in "$@"; do
    if [[ $argument == OUTPUT_DIR || $argument == MODEL.WEIGHTS || $argument == MODEL.META_ARCHITECTURE ]]; then
      echo "error: $argument differs between the stages, and this script trains both: leave it out, or run" \
        "tools/train_net.py for each" >&2
      return 2
    fi
  done
  choose_python
  say "Before Stage 1, a check of Stage 2: $stage2"
  "$PYTHON_BIN" tools/check_setup.py --config-file "$stage2" --weights-later "$@" || code=$?
  if ((code == 2)); then
    echo "error: Stage 2 could not start after Stage 1, see above: no training was started" >&2
  fi
  if ((code)); then return "$code"; fi
  say "Stage 1: $stage1"
  "$PYTHON_BIN" tools/train_net.py --config-file "$stage1" "$@"
  say "Stage 2: $stage2"
  "$PYTHON_BIN" tools/train_net.py --config-file "$stage2" "$@"
}

# Chromium for the tests of the HTML pages, by apt where that is possible; there those tests may not skip.
ensure_chromium() {
  local log as_root=()
  if ! command -v chromium >/dev/null; then
    command -v apt-get >/dev/null || return 0
    if ((EUID != 0)); then
      sudo -n true 2>/dev/null || return 0
      as_root=(sudo -n)
    fi
    say "Installing Chromium for the tests of the HTML pages"
    log=$(mktemp)
    if ! { "${as_root[@]}" apt-get update -q && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get install -q -y --no-install-recommends chromium; } >"$log" 2>&1; then
      echo "error: apt could not install chromium (log: $log); the tests of the HTML pages will fail" >&2
    fi
  fi
  export FASTREID_NEED_BROWSER=1
}
