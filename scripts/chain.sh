# What ade20.sh, coco.sh and sdi.sh share: they set NAME, source this file, fill the arrays COMMON (flags of all
# commands) and TRAIN (flags of training), and call train_twice, sample_runs and measure.
#
# Interrupted, the same command continues. DRY_RUN=1 only says what training would take.
: "${NAME:?chain.sh is sourced by ade20.sh, coco.sh and sdi.sh}"

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-$([ -x "$ROOT/.venv/bin/python" ] && echo "$ROOT/.venv/bin/python" || echo python3)}
OUTPUT=${OUTPUT:-OUTPUT}
RESULTS=${RESULTS:-RESULTS/$NAME}
DRY_RUN=${DRY_RUN:-0}

PROCESSES=${PROCESSES:-1} # for mpiexec
CONDITIONING=${CONDITIONING:-isla_bg}
USE_FP16=${USE_FP16:-True}
TRAIN_STEPS=${TRAIN_STEPS:-300000}
FINETUNE_STEPS=${FINETUNE_STEPS:-50000}
SAVE_INTERVAL=${SAVE_INTERVAL:-10000}
SCALE=${SCALE:-1.5}
if [ -n "${NUM_CHANNELS:-}" ]; then # heads of 64 channels, or of all where the network is narrower
    NUM_HEAD_CHANNELS=${NUM_HEAD_CHANNELS:-$((NUM_CHANNELS < 64 ? NUM_CHANNELS : 64))}
fi

launch() {
    if [ "$PROCESSES" -gt 1 ]; then mpiexec -n "$PROCESSES" "$PYTHON" "$@"; else "$PYTHON" "$@"; fi
}

# Adds to TRAIN the flags of those variables that are set: where IMAGE_SIZE is 64, --image_size 64
override() {
    local variable
    for variable; do
        [ -z "${!variable:-}" ] || TRAIN+=("--${variable,,}" "${!variable}")
    done
}

# train NAME STEPS FLAGS...: to the end; a training that was stopped before by SIGTERM, no failure, ends the chain too
train() {
    local name=$1 steps=$2 step
    export OPENAI_LOGDIR=$OUTPUT/$name
    set -- "$ROOT/scripts/image_train.py" "${COMMON[@]}" "${TRAIN[@]}" --max_steps "$steps" "${@:3}"
    if [ "$DRY_RUN" != 0 ]; then
        launch "$@" --dry_run
        exit 0
    fi
    launch "$@"
    step=$(find "$OPENAI_LOGDIR" -maxdepth 1 -name 'state[0-9]*.pt' |
        sed 's/.*state0*\([0-9]*\)\.pt$/\1/' | sort -n | tail -n 1)
    if [ "${step:-0}" -lt "$steps" ]; then
        echo "$OPENAI_LOGDIR: stopped at step ${step:-0} of $steps; the same command continues" >&2
        exit 1
    fi
}

# Training, then fine-tuning for classifier-free guidance
train_twice() {
    train "$NAME" "$TRAIN_STEPS" --lr 1e-4
    train "$NAME-FINETUNE" "$FINETUNE_STEPS" --lr 2e-5 --drop_rate 0.2 --resume_checkpoint "$OUTPUT/$NAME/model.pt"
}

# NUM_RUNS times the same layouts with other noise, as LPIPS between runs needs
sample_runs() {
    launch "$ROOT/scripts/image_sample.py" "${COMMON[@]}" --batch_size "$SAMPLE_BATCH_SIZE" \
        --num_samples "$NUM_SAMPLES" --num_runs "$NUM_RUNS" --s "$SCALE" \
        --model_path "$OUTPUT/$NAME-FINETUNE/ema_0.9999_best.pt" --results_path "$RESULTS"
    FIRST=$RESULTS/run0
    [ "$NUM_RUNS" -gt 1 ] || FIRST=$RESULTS
}

# measure GENERATED FLAGS...: FID of GENERATED, LPIPS (with FLAGS) between the runs. Each of the two ends with its
# number, or with one line on the weights that it lacks.
measure() {
    local status=0
    launch "$ROOT/evaluations/test_with_FID.py" "$FIRST/images" "$1" || status=1
    launch "$ROOT/evaluations/lpips.py" "$RESULTS" "${@:2}" || status=1
    exit $status
}
