#!/usr/bin/env bash
# Trains and measures everything in docs/results/generator.md. Run again, it goes on where it stopped.
#   benchmarks/generator.sh [OUT]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/runs/generator}
bin=$root/.venv/bin
config=(--preset demo --config "$root/benchmarks/five.toml")
data=(--data "$out/five" --cache "$out/cache")

"$bin/promptlesion" prepare phantom --kind five --cases 120 --seed 0 --workers 2 --out "$out/five"
"$bin/promptlesion" train autoencoder "${data[@]}" "${config[@]}" --out "$out/autoencoder"
"$bin/python" "$root/benchmarks/unscaled.py" "$out/autoencoder" "$out/autoencoder-unscaled"

train() { # NAME AUTOENCODER [OPTION ...]
    local name=$1 autoencoder=$2
    shift 2
    "$bin/promptlesion" train diffusion "${data[@]}" "${config[@]}" --autoencoder "$out/$autoencoder" --out "$out/$name" "$@"
}
train transformer autoencoder
train one-hot autoencoder --set diffusion.prompt_encoder=one-hot
train none autoencoder --set diffusion.prompt_encoder=none
train noise autoencoder --set diffusion.prediction=noise
train plain-mean autoencoder --set diffusion.lesion_weight=1
train exact-blank autoencoder --set diffusion.blank_margin_voxels=0
train trace-at-T autoencoder --set diffusion.rescale_betas=false
train 700-steps autoencoder --set diffusion.num_steps=700
train 8000-steps autoencoder --set diffusion.num_steps=8000
train unscaled autoencoder-unscaled
train difftumor autoencoder --method difftumor
"$bin/promptlesion" train diffusion "${data[@]}" "${config[@]}" --method med-ddpm --out "$out/med-ddpm"

measure() { # COMMAND MODEL,MODEL,... [OPTION ...]
    local command=$1 models=()
    for name in ${2//,/ }; do models+=(--model "$name=$out/$name"); done
    shift 2
    "$bin/python" "$root/benchmarks/generator.py" "$command" "${data[@]}" "${config[@]}" "${models[@]}" --out "$out/tables" "$@"
}
measure ablation transformer,8000-steps,700-steps,noise,plain-mean,exact-blank,trace-at-T,unscaled,one-hot,none,difftumor,med-ddpm --count 15
measure samplers 8000-steps --count 8
measure prompts none,one-hot,transformer,8000-steps,difftumor,med-ddpm --count 5
measure surroundings 8000-steps --count 6
measure gallery 8000-steps,one-hot,none,difftumor,med-ddpm
