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

NAME=${NAME:-ADE20K-STAY}
DATA_DIR=${DATA_DIR:-./data/ade20k}
IMAGE_SIZE=${IMAGE_SIZE:-256}
NUM_CHANNELS=${NUM_CHANNELS:-256}
BATCH_SIZE=${BATCH_SIZE:-4}
NUM_SAMPLES=${NUM_SAMPLES:-2000}
NUM_RUNS=${NUM_RUNS:-10}
SAMPLE_BATCH_SIZE=${SAMPLE_BATCH_SIZE:-2}
source "$(dirname "$0")/chain.sh" # the other variables

COMMON=(--data_dir "$DATA_DIR" --dataset_mode ade20k
    --attention_resolutions 32,16,8 --diffusion_steps 1000 --image_size "$IMAGE_SIZE" --learn_sigma True
    --noise_schedule linear --num_channels "$NUM_CHANNELS" --num_head_channels "$NUM_HEAD_CHANNELS"
    --num_res_blocks 2 --resblock_updown True --use_fp16 "$USE_FP16" --use_scale_shift_norm True
    --num_classes 151 --class_cond True --no_instance True --conditioning "$CONDITIONING")
TRAIN=(--batch_size "$BATCH_SIZE" --use_checkpoint True --save_interval "$SAVE_INTERVAL")

train_twice
sample_runs
measure "$FIRST/samples" # SDM's protocol: one picture per label map
