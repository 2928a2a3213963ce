#!/usr/bin/env bash
# Trains and measures everything in docs/results/reconstruction.md. Run again, it goes on where it stopped.
#   benchmarks/reconstruction.sh SARCOMA_DATASET [OUT]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sarcoma=$1
out=${2:-$root/runs/reconstruction}
bin=$root/.venv/bin/promptlesion

"$bin" prepare phantom --kind ccta --no-noise --cases 36 --seed 0 --workers 2 --out "$out/ccta-clean"
clean=(--preset demo --config "$root/benchmarks/noise-free.toml" --cache "$out/cache")
"$bin" train autoencoder --data "$out/ccta-clean" "${clean[@]}" --out "$out/noise-free"
"$bin" evaluate reconstruction --data "$out/ccta-clean" --model "$out/noise-free" "${clean[@]}" \
    --out "$out/noise-free.json" --figure "$out/noise-free.png"

real=(--preset demo --config "$root/benchmarks/sarcoma-reconstruction.toml" --cache "$out/cache"
    --lesions "$root/benchmarks/sarcoma-raw.toml")
"$bin" train autoencoder --data "$sarcoma" "${real[@]}" --out "$out/adversarial"
"$bin" train autoencoder --data "$sarcoma" "${real[@]}" --out "$out/plain" \
    --set autoencoder.adversarial_weight=0 --set autoencoder.feature_matching_weight=0
"$bin" evaluate reconstruction --data "$sarcoma" "${real[@]}" --model "$out/adversarial" --model "$out/plain" \
    --out "$out/sarcoma.json" --figure "$out/sarcoma.png"

"$bin" prepare phantom --kind ccta --cases 36 --seed 0 --workers 2 --out "$out/ccta"
noisy=(--preset demo --config "$root/benchmarks/texture.toml" --cache "$out/cache")
"$bin" train autoencoder --data "$out/ccta" "${noisy[@]}" --out "$out/texture-adversarial"
"$bin" train autoencoder --data "$out/ccta" "${noisy[@]}" --out "$out/texture-plain" \
    --set autoencoder.adversarial_weight=0 --set autoencoder.feature_matching_weight=0
"$bin" evaluate reconstruction --data "$out/ccta" "${noisy[@]}" --model "$out/texture-adversarial" --model "$out/texture-plain" \
    --out "$out/texture.json" --figure "$out/texture.png"
