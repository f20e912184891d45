#!/usr/bin/env bash
# The chain of scripts/ade20.sh with SDM's own conditioning, SPADE, instead of boxes; the same variables.
CONDITIONING=spade NAME=${NAME:-ADE20K-SDM-256CH} exec "$(dirname "$0")/ade20.sh"
