#!/usr/bin/env bash
# A run of egm verl on the GPUs of one machine, in pieces: each call trains for SECONDS_A_CALL and goes on from the last
# checkpoint. 20 rollouts of 32 questions, 8 completions each, from a fine-tuned egm-tiny.
#   MODEL=runs/egm-tiny/model OUT=runs/verl-tiny GPUS=1 benchmarks/verl_gpu.sh
# Run it again until it says that nothing is left; then the model is exported to OUT/export.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
model=${MODEL:?the folder of a fine-tuned egm-tiny}
out=${OUT:?the run folder}
rollouts=${ROLLOUTS:-20}
latest=$out/checkpoints/latest_checkpointed_iteration.txt
export PYTHONPATH=$repo/src${PYTHONPATH:+:$PYTHONPATH}
egm=(python3 -m egm.cli)

if [ -f "$latest" ] && [ "$(cat "$latest")" -ge "$rollouts" ]; then
  [ -d "$out/export" ] || "${egm[@]}" models export "$out"
  echo "nothing is left to do: $out/export"
  exit 0
fi
if [ -f "$latest" ]; then
  how=(--resume)
else
  how=()
  [ -n "${PREFLIGHT:-}" ] || how=(--skip-preflight)
fi
timeout --foreground --signal TERM "${SECONDS_A_CALL:-480}" "${egm[@]}" verl "$repo/recipes/egm-tiny-grpo.yaml" \
  --out "$out" --gpus "${GPUS:-1}" --rollouts "${ENGINE:-vllm}" "${how[@]}" \
  --set model.name="$model" --set model.freeze=[] --set data.scenes=2000 \
  --set rollout.candidates=1 --set rollout.branch=null --set rollout.engine=vllm-colocate --set rollout.max_prompt=512 \
  --set rollout.gpu_memory=0.4 --set rollout.cuda_graphs=false --set rollout.keep=4 \
  --set optim.steps="$rollouts" --set optim.prompts=32 --set optim.accumulation="${ACCUMULATION:-32}" \
  --set optim.scale=group --set optim.zero_spread=count --set optim.learning_rate=1.0e-5 --set optim.warmup_steps=0 \
  --set eval=null --set run.workers=0 --set run.compile=false --set run.save_every="${SAVE_EVERY:-2}" \
  "$@" || echo "ended with $?: run it again to go on"
[ ! -f "$latest" ] || echo "checkpoint: rollout $(cat "$latest") of $rollouts"
