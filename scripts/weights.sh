#!/usr/bin/env bash
# Weights on a borrowed GPU: notes rendered once, then one run of release.py for each shape, side by side:
#     bash scripts/weights.sh KIT OUT start     # returns after WAIT seconds while the runs go on, or when they are done
#     bash scripts/weights.sh KIT OUT wait      # waits for their end
# KIT holds whl/*.whl, *.sf3.xz, split.json and notes.tar (recorded notes in NSynth layout); OUT gets weights, curves and logs.
# SHAPES is a list of NAME=TOKENIZER|TRANSFORMER, both JSON, one a line. On a CPU a rehearsal is
#     DEVICE=cpu PRESET=tiny QUICK=--quick TOK=5 VAR=5 BATCH=16 VBATCH=16 WORKERS=2 bash scripts/weights.sh KIT OUT start
set -uo pipefail
kit=$(realpath "$1") out=$(realpath "$2") here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${DEVICE:=cuda}" "${PRESET:=small}" "${QUICK:=}" "${TOK:=400}" "${VAR:=250}" "${BATCH:=256}" "${VBATCH:=256}" "${WORKERS:=16}" "${WAIT:=560}" "${WORK:=/tmp/weights}" "${PYTHON:=python3}"
: "${SHAPES:={\}|{\}}" "${LR:=1e-3}" "${VLR:=1e-3}"
mkdir -p "$WORK/site" "$out"
export PYTHONPATH="$here:$WORK/site" MARS_CACHE="$WORK/cache" PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1
say() { echo "[$(( $(date +%s) - $(cat "$WORK/began") )) s] $*" | tee -a "$WORK/log.txt"; }
data() { for f in "$WORK"/*.sf3; do printf -- '--data\n%s\n' "$f"; done; for i in 1 2 3 4; do printf -- '--data\n%s\n' "$WORK/notes"; done; } # recorded notes count four times
release() { mapfile -t d < <(data); "$PYTHON" "$here/scripts/release.py" --preset "$PRESET" --device "$DEVICE" --split "$kit/split.json" --hold-out 0.05 "${d[@]}" $QUICK "$@"; }
lane() { # name, tokenizer, transformer
  release --out "$WORK/$1" --tokenizer "$2" --var "$3" --gan '{"weight": 0}' --spend "{\"tokenizer\": $TOK, \"var\": $VAR}" --measure 32 \
    --train-tokenizer "{\"batch_size\": $BATCH, \"steps\": 40000, \"lr\": $LR, \"warmup\": 150, \"ema\": 0.999, \"final_lr\": 0.02, \"log_every\": 50, \"save_every\": 0}" \
    --train-var "{\"batch_size\": $VBATCH, \"steps\": 40000, \"lr\": $VLR, \"warmup\": 150, \"ema\": 0.999, \"final_lr\": 0.02, \"log_every\": 50, \"save_every\": 0}" >"$WORK/$1.log" 2>&1
  say "$1 ended with $?"
  touch "$WORK/$1.end"
}
pack() { # what is there of each run, under the limits of what comes back
  for l in "$WORK"/*.log; do
    n=$(basename "$l" .log); [ -d "$WORK/$n" ] || continue
    [ -e "$WORK/$n/weights/var.safetensors" ] && cp "$WORK/$n/weights/tokenizer.safetensors" "$out/$n.tokenizer" && cp "$WORK/$n/weights/var.safetensors" "$out/$n.var"
    [ -e "$WORK/$n/weights/config.json" ] && cp "$WORK/$n/weights/config.json" "$WORK/$n.config.json"
    [ -e "$WORK/$n/metrics.jsonl" ] && cp "$WORK/$n/metrics.jsonl" "$WORK/$n.jsonl"
  done
  (cd "$WORK" && tar -czf "$out/logs.tar.gz" *.log *.txt *.jsonl *.config.json 2>/dev/null)
}
if [ "$3" = start ]; then
  date +%s >"$WORK/began"
  for w in "$kit"/whl/*.whl; do "$PYTHON" -m zipfile -e "$w" "$WORK/site"; done &
  for f in "$kit"/*.sf3.xz; do g=$WORK/$(basename "${f%.xz}"); [ -e "$g" ] || "$PYTHON" -c "import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], 'wb'))" "$f" "$g" & done
  [ -e "$WORK/notes" ] || tar -xf "$kit/notes.tar" -C "$WORK"
  wait; say "kit ready"
  OMP_NUM_THREADS=1 release --out "$WORK/render" --workers "$WORKERS" --render-only >"$WORK/render.log" 2>&1 || { cat "$WORK/render.log"; exit 1; }
  say "rendered: $(tail -n 1 "$WORK/render.log")"
  export -f lane release data say; export DEVICE PRESET QUICK TOK VAR BATCH VBATCH WORK PYTHON LR VLR kit here
  while IFS= read -r line; do
    [ -n "$line" ] || continue
    name=${line%%=*} both=${line#*=}; touch "$WORK/$name.log"
    setsid bash -c 'lane "$@"' lane "$name" "${both%%|*}" "${both#*|}" </dev/null >>"$WORK/log.txt" 2>&1 &
  done <<<"$SHAPES"
fi
names=$(cut -d= -f1 <<<"$SHAPES")
until=$(( $(cat "$WORK/began") + WAIT )); [ "$3" = start ] || until=$(( $(date +%s) + WAIT ))
while [ "$(date +%s)" -lt $until ]; do
  sleep 1; left=
  for n in $names; do
    [ -e "$WORK/$n.end" ] || left=1
    if [ -e "$WORK/$n/weights/var.safetensors" ] && [ ! -e "$out/$n.var" ]; then pack; fi # at once, in case the time ends meanwhile
  done
  [ -n "$left" ] || break
done
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,utilization.gpu,memory.used --format=csv,noheader
for n in $names; do echo "== $n"; grep -v Warning "$WORK/$n.log" | tail -n 45; tail -n 1 "$WORK/$n/metrics.jsonl" | cut -c 1-400; done
pack; say "$3 returns"
