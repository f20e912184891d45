#!/usr/bin/env bash
# Surface defects from boxes to numbers: train, fine-tune for guidance, five pictures per layout, FID, LPIPS.
#
#     DATA_DIR=./data/mine scripts/sdi.sh
#
# configs/sdi_128.json holds the recipe: grey pictures, whole and squeezed to 128, never mirrored, since products have
# an orientation. A few grey textures need less than COCO's 171 classes: 128 channels, a quarter of the weights. Where
# defects are small for their picture (30 of 640 pixels become 6 of 128), CROP_POLICY=object trains on squares around
# them in the picture's own resolution. What a machine decides is a variable, and so is every name after `override`
# below. In small, on a CPU:
#
#     IMAGE_SIZE=32 NUM_CHANNELS=32 BATCH_SIZE=4 TRAIN_STEPS=10 FINETUNE_STEPS=10 NUM_SAMPLES=4 \
#         DATA_DIR=... scripts/sdi.sh
#
# Interrupted, the same command continues. DRY_RUN=1 only says what training would take.
set -euo pipefail

IMAGE_SIZE=${IMAGE_SIZE:-128}
NAME=${NAME:-SDI-STAY-$IMAGE_SIZE}
DATA_DIR=${DATA_DIR:-./data/sdi}
NUM_SAMPLES=${NUM_SAMPLES:-0} # per run; 0: one per layout
NUM_RUNS=${NUM_RUNS:-5}
SAMPLE_BATCH_SIZE=${SAMPLE_BATCH_SIZE:-16}
source "$(dirname "$0")/chain.sh" # the other variables

BATCH_SIZE=${BATCH_SIZE:-$((32 / PROCESSES))} # of each process

COMMON=(--data_dir "$DATA_DIR" --use_fp16 "$USE_FP16")
TRAIN=(--config "$ROOT/scripts/configs/sdi_128.json")
override IMAGE_SIZE NUM_CHANNELS NUM_HEAD_CHANNELS NUM_RES_BLOCKS CHANNEL_MULT CONDITIONING \
    BATCH_SIZE MICROBATCH USE_CHECKPOINT SAVE_INTERVAL IMAGE_CHANNELS CROP_POLICY BACKGROUND_RATE

train_twice
sample_runs
measure "$RESULTS" --image_size "${LPIPS_SIZE:-$IMAGE_SIZE}" # all runs together; LPIPS at the pictures' own size
