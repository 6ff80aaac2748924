#!/usr/bin/env bash
# G2APS-ReID: Stage 1, then Stage 2.
#   FASTREID_DATASETS names the folder of the datasets, PYTHON_BIN the interpreter; further arguments go to
#   the check of Stage 2 and both trainings, e.g.  bash run_G2APS_ReID.sh --num-gpus 2 SOLVER.IMS_PER_BATCH 64
#   --resume goes on after an interruption, wherever it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source go/lib.sh
train_both_stages configs/G2APS_ReID/base_stage1.yml configs/G2APS_ReID/base_stage2.yml "$@"
