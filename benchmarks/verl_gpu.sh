#!/usr/bin/env bash
# A run of egm verl on the GPUs of one machine, in pieces: each call trains for SECONDS_A_CALL and goes on from the last
# checkpoint. 20 rollouts of 32 questions, 8 completions each, from a fine-tuned egm-tiny.
#   MODEL=runs/egm-tiny/model OUT=runs/verl-tiny GPUS=1 benchmarks/verl_gpu.sh
# Run it again until it says that nothing is left; then the model is exported to OUT/export. Most of a call is its start,
# so what a start can do without is left out; QUICK=0 starts as egm verl does, to compare with. CACHES=FOLDER keeps what
# kernels and engine learnt of this machine, where the home folder does not outlive a call.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
model=${MODEL:?the folder of a fine-tuned egm-tiny}
out=${OUT:?the run folder}
rollouts=${ROLLOUTS:-20}
latest=$out/checkpoints/latest_checkpointed_iteration.txt
export PYTHONPATH=$repo/src${PYTHONPATH:+:$PYTHONPATH}
egm=(python3 -m egm.cli)

quick=()
if [ "${QUICK:-1}" != 0 ]; then
  # Processes: each of these is an actor that imports torch before it does anything, and 256 completions want one of each.
  # verl's own numbers are 8, 8 and 8 (trainer/config/transfer_queue, rollout/rollout.yaml, reward/reward.yaml).
  quick+=(--verl transfer_queue.backend.SimpleStorage.num_data_storage_units=1)
  quick+=(--verl actor_rollout_ref.rollout.agent.num_workers=1 --verl reward.num_workers=1)
  # Nobody looks at Ray's dashboard here, which is a process with agents on each node (ray.init's include_dashboard).
  quick+=(--verl +ray_kwargs.ray_init.include_dashboard=false)
  # verl compiles what it computes entropies with at the first step (workers/engine/fsdp/transformer_impl.py), and
  # egm-tiny's vocabulary is small enough to do without.
  quick+=(--verl actor_rollout_ref.actor.fsdp_config.use_torch_compile=false)
  quick+=(--verl actor_rollout_ref.ref.fsdp_config.use_torch_compile=false)
  if [ "${ENGINE:-vllm}" = vllm ]; then
    # vLLM makes up the largest picture and video that fit and runs the vision tower over them, to know the memory that it
    # takes (config/multimodal.py): for egm-tiny that is little beside what rollout.gpu_memory leaves free.
    quick+=(--verl +actor_rollout_ref.rollout.engine_kwargs.vllm.skip_mm_profiling=true)
    export VLLM_NO_USAGE_STATS=1 # it would look through the processor for its report
  fi
  # Not here: CUDA graphs and compiled layers are off (rollout.cuda_graphs=false), the context is a prompt and an answer,
  # weights are not read by the engine but sent to it (load_format dummy), and nothing is validated, all by egm verl.
  # kv_cache_memory_bytes would not spare the pass over the longest batch (v1/worker/gpu_worker.py).
fi
# A start imports torch, verl and vLLM in ten processes: modules that nobody compiled are compiled in each of them.
unset PYTHONDONTWRITEBYTECODE
if [ -n "${CACHES:-}" ]; then
  # vLLM keeps what it found of a model's class, else asked of a process of its own (model_executor/models/registry.py),
  # and Triton and torch keep the kernels that they built.
  mkdir -p "$CACHES"
  caches=$(cd "$CACHES" && pwd)
  export VLLM_CACHE_ROOT=$caches/vllm TRITON_CACHE_DIR=$caches/triton TORCHINDUCTOR_CACHE_DIR=$caches/inductor
fi

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
began=$SECONDS
timeout --foreground --signal TERM "${SECONDS_A_CALL:-480}" "${egm[@]}" verl "$repo/recipes/egm-tiny-grpo.yaml" \
  --out "$out" --gpus "${GPUS:-1}" --rollouts "${ENGINE:-vllm}" "${how[@]}" \
  --set model.name="$model" --set model.freeze=[] --set data.scenes=2000 \
  --set rollout.candidates=1 --set rollout.branch=null --set rollout.engine=vllm-colocate --set rollout.max_prompt=512 \
  --set rollout.gpu_memory=0.4 --set rollout.cuda_graphs=false --set rollout.keep=4 \
  --set optim.steps="$rollouts" --set optim.prompts=32 --set optim.accumulation="${ACCUMULATION:-4}" \
  --set optim.scale=group --set optim.zero_spread=count --set optim.learning_rate=1.0e-5 --set optim.warmup_steps=0 \
  --set eval=null --set run.workers=0 --set run.compile=false --set run.save_every="${SAVE_EVERY:-2}" \
  "${quick[@]}" "$@" || echo "ended with $?: run it again to go on"
[ ! -f "$latest" ] || echo "checkpoint: rollout $(cat "$latest") of $rollouts"
echo "this call took $((SECONDS - began)) s"
