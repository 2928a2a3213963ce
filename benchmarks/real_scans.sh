#!/usr/bin/env bash
# Trains a model on each phantom and one on the sarcomas, paints into the real scans of ../shared/data, and checks what came of them:
# everything in docs/results/real-scans.md. Run again, it goes on where it stopped.
#   benchmarks/real_scans.sh [OUT]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/runs/real-scans}
bin=$root/.venv/bin
scans=$root/../shared/data
export OMP_NUM_THREADS=1

train() { # STAGE MODEL DATA [OPTION ...]
    local stage=$1 model=$2 data=$3
    shift 3
    "$bin/promptlesion" train "$stage" --data "$data" --preset demo --cache "$out/cache" --out "$out/$model/$stage" "$@"
}
paint() { # NAME MODEL DATASET LESIONS [OPTION ...]
    local name=$1 model=$2 data=$scans/$3 lesions=$root/examples/$4
    shift 4
    "$bin/promptlesion" synthesize --data "$data" --lesions "$lesions" --model "$out/$model/diffusion" --preset demo --seed 1 \
        --set synthesis.num_steps=20 --out "$out/$name" "$@"
    "$bin/python" "$root/benchmarks/real_scans.py" --data "$data" --lesions "$lesions" --cohort "$out/$name" --out "$out/$name.json"
}

"$bin/promptlesion" prepare phantom --kind ccta --cases 36 --workers 2 --out "$out/ccta"
"$bin/promptlesion" prepare phantom --kind abdomen --cases 40 --workers 2 --out "$out/abdomen-40"
"$bin/promptlesion" prepare phantom --kind abdomen --cases 120 --workers 2 --out "$out/abdomen-120"
long=(--set diffusion.ema_decay=0.998 --set)
sarcomas=(--lesions "$root/examples/sarcoma.toml")
train autoencoder plaque "$out/ccta"
train diffusion plaque "$out/ccta" --autoencoder "$out/plaque/autoencoder" "${long[@]}" diffusion.num_steps=2500
train autoencoder tumour "$out/abdomen-40"
train diffusion tumour "$out/abdomen-120" --autoencoder "$out/tumour/autoencoder" "${long[@]}" diffusion.num_steps=6000
train autoencoder sarcoma-model "$scans/Dataset101_Sarcoma" "${sarcomas[@]}"
train diffusion sarcoma-model "$scans/Dataset101_Sarcoma" "${sarcomas[@]}" --autoencoder "$out/sarcoma-model/autoencoder" \
    "${long[@]}" diffusion.num_steps=4000

paint vessel plaque Dataset104_CTAVessel vessel.toml --count calcified_plaque=8 --count non_calcified_plaque=8
paint liver tumour Dataset103_AbdomenOrgans abdomen.toml --count liver_tumor=8
paint kidney tumour Dataset103_AbdomenOrgans abdomen.toml --count kidney_tumor=4
paint sarcoma sarcoma-model Dataset101_Sarcoma sarcoma.toml --count sarcoma=12
