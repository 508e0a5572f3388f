#!/usr/bin/env bash
# egm grpo with its rollouts on another GPU: vLLM's server on GPU 1, the trainer on GPU 0, and weights over NCCL between
# them after each step. 20 steps of recipes/egm-tiny-grpo.yaml with 64 prompts, in pieces: each call trains for
# SECONDS_A_CALL and goes on from the last checkpoint. Ends with a table from the run's log.
#   OUT=runs/grpo-apart benchmarks/grpo_apart.sh
#   OUT=runs/grpo-together ENGINE=batched benchmarks/grpo_apart.sh   # the same steps in one process, to compare with
# Words behind it are settings over the recipe's: --set optim.prompts=128. PYTHON, VLLM: other programs than those found.
set -euo pipefail
repo=$(cd "$(dirname "$0")/.." && pwd)
out=${OUT:?the run folder}
engine=${ENGINE:-vllm-server}
port=${PORT:-8011}
steps=${STEPS:-20}
python=${PYTHON:-python3}
export PYTHONPATH=$repo/src${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$out"
model=${MODEL:-$out/start}
[ -d "$model" ] || "$python" -m egm.cli models export egm-tiny --out "$model" >&2

show() {
  [ ! -f "$out/log.jsonl" ] || "$python" - "$out/log.jsonl" "$engine" <<'TABLE'
import json, statistics, sys
lines = [line for line in map(json.loads, open(sys.argv[1])) if "reward" in line]
columns = {"reward": "reward", "accuracy": "accuracy", "tokens": "completions/mean_length", "s a step": "step_time"}
columns |= {"log-probabilities apart": "sampling/sampling_logp_difference/mean"} if "vllm" in sys.argv[2] else {}
print(sys.argv[2])
print("| step |", " | ".join(columns), "|\n" + "|---" * (len(columns) + 1) + "|")
for line in lines:
    cells = (f"{line[key]:.4f}" if key in line else "-" for key in columns.values())
    print("| {} |".format(line["step"]), " | ".join(cells), "|")
timed = [line["step_time"] for line in lines[2:] or lines]
print(f"median of the steps after the second: {statistics.median(timed):.2f} s")
TABLE
}

if [ -d "$out/model" ]; then
  show
  echo "nothing is left to do: $out/model"
  exit 0
fi

if [ "$engine" = vllm-server ]; then
  # dev mode has the routes for weights; log-probabilities are those of what was sampled from, as TRL asks for them
  VLLM_SERVER_DEV_MODE=1 CUDA_VISIBLE_DEVICES=${SERVER_GPU:-1} setsid ${VLLM:-vllm} serve "$model" --port "$port" \
    --max-model-len 1024 --gpu-memory-utilization 0.5 --logprobs-mode processed_logprobs --max-logprobs -1 \
    --weight-transfer-config '{"backend": "nccl"}' >"$out/server.txt" 2>&1 &
  server=$!
  trap 'kill -- -$server 2>/dev/null || true' EXIT
  began=$SECONDS
  until "$python" -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$port/health', timeout=5)" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || { tail -5 "$out/server.txt"; echo "vLLM ended before it answered"; exit 1; }
    [ $((SECONDS - began)) -lt 300 ] || { tail -5 "$out/server.txt"; echo "vLLM did not answer in 300 s"; exit 1; }
    sleep 2
  done
  echo "vLLM answered after $((SECONDS - began)) s"
fi

how=(--skip-preflight)
compgen -G "$out/checkpoints/checkpoint-*/trainer_state.json" >/dev/null && how=(--resume)
CUDA_VISIBLE_DEVICES=${TRAINER_GPU:-0} timeout --foreground --signal TERM "${SECONDS_A_CALL:-420}" \
  "$python" -m egm.cli grpo "$repo/recipes/egm-tiny-grpo.yaml" --out "$out" "${how[@]}" \
  --set model.name="$model" --set data.scenes=4000 \
  --set rollout.engine="$engine" --set rollout.url="http://127.0.0.1:$port" --set rollout.candidates=1 --set rollout.branch=null \
  --set optim.steps="$steps" --set optim.prompts=64 --set optim.accumulation=1 --set optim.learning_rate=1.0e-5 \
  --set optim.warmup_steps=2 --set eval=null --set run.workers=4 --set run.compile=false --set run.log_every=1 \
  --set run.save_every=5 "$@" || echo "ended with $?: run it again to go on"
show
