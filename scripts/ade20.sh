#!/usr/bin/env bash
# ADE20K from label maps to numbers: train, fine-tune for guidance, sample several runs, FID, LPIPS.
#
#     DATA_DIR=./data/ADEChallengeData2016 scripts/ade20.sh
#
# The commands are SDM's, flag for flag; what a machine decides is a variable. In small, on a CPU:
#
#     IMAGE_SIZE=64 NUM_CHANNELS=32 TRAIN_STEPS=10 FINETUNE_STEPS=10 NUM_SAMPLES=4 NUM_RUNS=2 DATA_DIR=... scripts/ade20.sh
#
# Interrupted, the same command continues. CONDITIONING=spade is SDM itself (scripts/ade20k.sh).
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-$([ -x "$ROOT/.venv/bin/python" ] && echo "$ROOT/.venv/bin/python" || echo python3)}
DATA_DIR=${DATA_DIR:-./data/ade20k}
CONDITIONING=${CONDITIONING:-isla_bg}
NAME=${NAME:-ADE20K-STAY}
OUTPUT=${OUTPUT:-OUTPUT}
RESULTS=${RESULTS:-RESULTS/$NAME}

PROCESSES=${PROCESSES:-1} # for mpiexec; more than one is refused so far
IMAGE_SIZE=${IMAGE_SIZE:-256}
NUM_CHANNELS=${NUM_CHANNELS:-256}
NUM_HEAD_CHANNELS=${NUM_HEAD_CHANNELS:-$((NUM_CHANNELS < 64 ? NUM_CHANNELS : 64))}
BATCH_SIZE=${BATCH_SIZE:-4}
USE_FP16=${USE_FP16:-True}
TRAIN_STEPS=${TRAIN_STEPS:-300000}
FINETUNE_STEPS=${FINETUNE_STEPS:-50000}
SAVE_INTERVAL=${SAVE_INTERVAL:-10000}
SCALE=${SCALE:-1.5}
NUM_SAMPLES=${NUM_SAMPLES:-2000}
NUM_RUNS=${NUM_RUNS:-10}
SAMPLE_BATCH_SIZE=${SAMPLE_BATCH_SIZE:-2}

launch() {
    if [ "$PROCESSES" -gt 1 ]; then mpiexec -n "$PROCESSES" "$PYTHON" "$@"; else "$PYTHON" "$@"; fi
}

DATA=(--data_dir "$DATA_DIR" --dataset_mode ade20k)
MODEL=(--attention_resolutions 32,16,8 --diffusion_steps 1000 --image_size "$IMAGE_SIZE" --learn_sigma True
    --noise_schedule linear --num_channels "$NUM_CHANNELS" --num_head_channels "$NUM_HEAD_CHANNELS"
    --num_res_blocks 2 --resblock_updown True --use_fp16 "$USE_FP16" --use_scale_shift_norm True
    --num_classes 151 --class_cond True --no_instance True --conditioning "$CONDITIONING")
TRAIN=(--batch_size "$BATCH_SIZE" --use_checkpoint True --save_interval "$SAVE_INTERVAL")

# Training
export OPENAI_LOGDIR=$OUTPUT/$NAME
launch "$ROOT/scripts/image_train.py" "${DATA[@]}" "${MODEL[@]}" "${TRAIN[@]}" --lr 1e-4 --max_steps "$TRAIN_STEPS"

# Fine-tuning for classifier-free guidance
export OPENAI_LOGDIR=$OUTPUT/$NAME-FINETUNE
launch "$ROOT/scripts/image_train.py" "${DATA[@]}" "${MODEL[@]}" "${TRAIN[@]}" --lr 2e-5 --drop_rate 0.2 \
    --resume_checkpoint "$OUTPUT/$NAME/model.pt" --max_steps "$FINETUNE_STEPS"

# Sampling: NUM_RUNS times the same label maps with other noise, as LPIPS between runs needs
launch "$ROOT/scripts/image_sample.py" "${DATA[@]}" "${MODEL[@]}" --batch_size "$SAMPLE_BATCH_SIZE" \
    --num_samples "$NUM_SAMPLES" --num_runs "$NUM_RUNS" --s "$SCALE" \
    --model_path "$OUTPUT/$NAME-FINETUNE/ema_0.9999_best.pt" --results_path "$RESULTS"

# Measuring: each script ends with its number, or with one line on the weights that it lacks
FIRST=$RESULTS/run0
[ "$NUM_RUNS" -gt 1 ] || FIRST=$RESULTS
status=0
"$PYTHON" "$ROOT/evaluations/test_with_FID.py" "$FIRST/images" "$FIRST/samples" || status=1
"$PYTHON" "$ROOT/evaluations/lpips.py" "$RESULTS" || status=1
exit $status
