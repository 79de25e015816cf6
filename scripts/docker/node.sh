#!/usr/bin/env bash
# Starts the processes of one machine, in a container or without, and ends them all when one fails. Two machines with
# eight GPUs each, of which the first is 10.0.0.1, and both see /shared; on the first with NODE=0, on the second with
# NODE=1:
#
#   docker run --rm --network host --gpus all --ipc host -v /shared:/shared -e NODE -e NODES=2 -e PER_NODE=8 \
#          -e MASTER_ADDR=10.0.0.1 mdm node.sh --config_path configs/models/cc12m_64x64.yaml \
#          --file-list /shared/train.tsv --output-dir /shared/runs/64 --device cuda --precision bf16
#
# With --network host the processes reach each other at the machines' own addresses; the port of rank 0 and those of
# the collectives are open to whoever reaches them, so use a private network. `docker stop` saves a checkpoint first
# (give it time: --stop-timeout 300). Tried here with both machines on one, on CPUs; not yet with two.
set -uo pipefail
: "${NODE:?the number of this machine, from 0}" "${NODES:?how many machines}" "${PER_NODE:?processes on each}"
: "${MASTER_ADDR:?the address of machine 0}"
export MASTER_ADDR MASTER_PORT="${MASTER_PORT:-29500}"

pids=()
for ((i = 0; i < PER_NODE; i++)); do
  RANK=$((NODE * PER_NODE + i)) WORLD_SIZE=$((NODES * PER_NODE)) LOCAL_RANK=$i LOCAL_WORLD_SIZE=$PER_NODE \
    train_parallel "$@" &
  pids+=($!)
done
signalled=no
trap 'signalled=yes; kill -TERM "${pids[@]}" 2>/dev/null' TERM INT USR1

# Those that are stopped by a signal save and all end alike, with 75; what fails ends the others.
status=0
for ((left = PER_NODE; left > 0; )); do
  signalled=no
  wait -n
  ended=$?
  if [[ "$signalled" == yes ]]; then continue; fi  # the wait was interrupted: no process has ended
  if ((ended == 127)); then break; fi              # none is left
  left=$((left - 1))
  if ((ended != 0 && status == 0)); then
    status=$ended
    if ((ended != 75)); then kill -TERM "${pids[@]}" 2>/dev/null; fi
  fi
done
exit "$status"
