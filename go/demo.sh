#!/usr/bin/env bash
# SD-ReID in minutes, on real image files that it renders itself: environment, data, Stage 1, Stage 2,
# evaluation of both, a table and a report. Safe to interrupt and to run again: it goes on where it was.
#   PYTHON_BIN=… uses that interpreter and installs nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source go/lib.sh
ensure_environment

# More threads than free cores are many times slower: half of them are left to data loading and to others.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((($(nproc) + 1) / 2))}"

data=datasets/demo
logs=logs/demo
mkdir -p "$logs"
seconds=()
set -E
trap 'say "Stopped. What an earlier version left in $data and $logs cannot be gone on with: remove both, and run again"' ERR

# Run the command and remember how long it took under the name in front of it.
timed() {
  local name=$1 start
  shift
  start=$(date +%s.%N)
  "$@"
  seconds+=(--seconds "$name=$(date +%s.%N | awk -v start="$start" '{ printf "%.1f", $1 - start }')")
}

# Evaluate a stage's checkpoint into the folder that is named, with further KEY VALUE pairs.
evaluate() {
  local stage=$1 folder=$2
  shift 2
  "$PYTHON_BIN" tools/train_net.py --config-file "configs/demo/base_stage$stage.yml" --eval-only \
    MODEL.WEIGHTS "$logs/stage$stage/model_best.pth" OUTPUT_DIR "$logs/$folder" "$@"
}

evaluate_all() {
  evaluate 1 evaluation1
  evaluate 1 evaluation1_flips TEST.FLIP.ENABLED True
  evaluate 2 evaluation2
}

say "1/5 Data: rendered people in CARGO's layout, seen by drones and by ground cameras ($data)"
timed data "$PYTHON_BIN" tools/make_synthetic_benchmark.py --benchmark CARGO --root "$data" \
  --train-ids 250 --test-ids 100 --images-per-camera 2 --size 96x48

say "2/5 Stage 1: a small ViT learns a person feature, and identity and view conditions"
timed stage1 "$PYTHON_BIN" tools/train_net.py --config-file configs/demo/base_stage1.yml --resume

say "3/5 Stage 2: a small UNet learns to generate that feature under a view condition; the ViT is frozen"
timed stage2 "$PYTHON_BIN" tools/train_net.py --config-file configs/demo/base_stage2.yml --resume

say "4/5 Evaluation: persons who were not in training, across views; Stage 1 also with its mirror images"
timed evaluation evaluate_all

say "5/5 Results (percent)"
"$PYTHON_BIN" tools/compare_runs.py --run "stage1=$logs/evaluation1" --run "flips=$logs/evaluation1_flips" \
  --run "stage2=$logs/evaluation2" \
  "${seconds[@]}" --output "$logs/summary.json"
"$PYTHON_BIN" tools/visualize.py --model "$logs/stage2" --compare "$logs/stage1" --output "$logs/report"

cat <<END

What was made:
  $data/CARGO/contact_sheet.png   the people, as drones and ground cameras see them
  $logs/stage1, $logs/stage2      checkpoints, log.txt, metrics.json, TensorBoard events
  $logs/evaluation2/results.*     all metrics, with the configuration and the checkpoint's hash
  $logs/report/report.html        rank lists of both stages, curves, cameras, views: open it in a browser
  $logs/summary.json              the table above, and the seconds that each step took this time
END
