#!/usr/bin/env bash
# COCO-Stuff from boxes to numbers: train, fine-tune for guidance, five pictures per layout, FID, LPIPS.
#
#     IMAGE_SIZE=256 DATA_DIR=./data/coco scripts/coco.sh
#
# configs/coco_128.json and coco_256.json hold the recipe. The network is SDM's, at both sizes as wide as that of the
# published LayoutDiffusion (256 channels, attention at 32, 16 and 8), whose batches of 64 and 32 it has too, in pieces
# that spare memory (MICROBATCH). What a machine decides is a variable, and so is every name after `override` below. In
# small, on a CPU:
#
#     IMAGE_SIZE=32 NUM_CHANNELS=32 BATCH_SIZE=4 TRAIN_STEPS=10 FINETUNE_STEPS=10 NUM_SAMPLES=4 \
#         DATA_DIR=... scripts/coco.sh
#
# The literature takes the pictures of the 2017 stuff segmentation challenge (ID_LIST=ids_{split}.txt, of ids_train.txt and
# ids_val.txt) and compares the 3,097 for validation with five samples of each layout.
#
# Interrupted, the same command continues. DRY_RUN=1 only says what training would take.
set -euo pipefail

IMAGE_SIZE=${IMAGE_SIZE:-128}
NAME=${NAME:-COCO-STAY-$IMAGE_SIZE}
DATA_DIR=${DATA_DIR:-./data/coco}
NUM_SAMPLES=${NUM_SAMPLES:-0} # per run; 0: one per layout
NUM_RUNS=${NUM_RUNS:-5}
SAMPLE_BATCH_SIZE=${SAMPLE_BATCH_SIZE:-16}
source "$(dirname "$0")/chain.sh" # the other variables

if [ "$IMAGE_SIZE" -lt 256 ]; then PRESET=128 TOTAL=64; else PRESET=256 TOTAL=32; fi
BATCH_SIZE=${BATCH_SIZE:-$((TOTAL / PROCESSES))} # of each process

COMMON=(--data_dir "$DATA_DIR" --use_fp16 "$USE_FP16")
[ -z "${ID_LIST:-}" ] || COMMON+=(--id_list "$ID_LIST")
TRAIN=(--config "$ROOT/scripts/configs/coco_$PRESET.json")
override IMAGE_SIZE NUM_CHANNELS NUM_HEAD_CHANNELS NUM_RES_BLOCKS CHANNEL_MULT CONDITIONING \
    BATCH_SIZE MICROBATCH USE_CHECKPOINT SAVE_INTERVAL

train_twice
sample_runs
measure "$RESULTS" --image_size "${LPIPS_SIZE:-$IMAGE_SIZE}" # all runs together; LPIPS at the pictures' own size
