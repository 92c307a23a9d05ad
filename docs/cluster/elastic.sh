#!/bin/bash
# froster train on 1 to 4 machines that come and go. Run the same on each of them:
# HEAD=host-of-one-of-them bash elastic.sh. When one is lost or joins, all processes start again
# from the last checkpoint, with as many as there are.
set -euo pipefail

# A store of its own for each start: in torch 2.13 what lost machines left in a shared one misleads
# those that start again.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

HEAD=${HEAD:?name of the machine where the others meet}
DATA=${DATA:-/data/videos.csv} # where all machines see the same files, OUT too
OUT=${OUT:-/data/runs/first}

torchrun --nnodes 1:4 --nproc-per-node 8 --max-restarts 10 \
    --rdzv-id froster --rdzv-backend c10d --rdzv-endpoint "$HEAD:29500" \
    -m froster train --data "$DATA" --out "$OUT" --resume --checkpoint-minutes 5 --workers 7
