#!/usr/bin/env bash
# What docs/results/experiment.md tells: seven methods, three seeds, on the five-type phantom and on real sarcomas.
#     benchmarks/experiment.sh [FOLDER] [SHARED_DATA]
set -euo pipefail
out=${1:-runs/experiment}
shared=${2:-../shared/data}
.venv/bin/promptlesion prepare phantom --kind five --cases 100 --seed 0 --workers 2 --out "$out/data/five"
.venv/bin/promptlesion experiment --data "$out/data/five" --config benchmarks/experiment-five.toml \
    --real-fractions 0.25 --lesions-per-type 40 --seeds 3 --workers 2 --out "$out/five"
if [ -d "$shared/Dataset101_Sarcoma" ]; then
    .venv/bin/promptlesion experiment --data "$shared/Dataset101_Sarcoma" --lesions examples/sarcoma.toml \
        --config benchmarks/experiment-sarcoma.toml --seeds 3 --real-fractions 0.5,1 --workers 2 --out "$out/sarcoma"
fi
