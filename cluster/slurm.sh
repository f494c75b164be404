#!/usr/bin/env bash
# A Ray cluster for the length of a Slurm job, and the training on it.
#
# Fill in: the #SBATCH lines (nodes, GPUs, CPUs, time, partition) and VENV, a virtual environment with the package that
# all nodes see. Runs and data lie on a shared file system. Never submitted by the authors of this file.
#
# Costs nothing to check: `bash -n cluster/slurm.sh`, `sbatch --test-only cluster/slurm.sh`, pytest
# tests/cluster/test_files.py (with stand-ins for Slurm's and Ray's commands).
#
#     sbatch cluster/slurm.sh --config market1501 data.root=/shared/Market-1501 run.root=/shared/runs \
#       scaling.num_workers=8 scaling.cpus_per_worker=7 data.stage_to=/tmp/data
#
# Before its time is up or it is pre-empted, Slurm sends SIGTERM; the run saves a checkpoint, the job goes back to the
# queue and continues from there. Ray asks for a token that only this job has; its dashboard listens on the first
# node's localhost: ssh -J LOGIN -L 8265:localhost:8265 FIRST_NODE.

#SBATCH --job-name=jgcl_ray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.log

set -euo pipefail

VENV=${VENV:-$HOME/jgcl_ray_venv}
PORT=${PORT:-6379}
export PATH=$VENV/bin:$PATH RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
export RAY_ADDRESS=$head:$PORT

on() { srun --nodes=1 --ntasks=1 --nodelist="$1" --export=ALL "${@:2}"; }

steps=()
on "$head" ray start --head --node-ip-address="$head" --port="$PORT" --dashboard-host=127.0.0.1 --block &
steps+=($!)
until ray status --address "$RAY_ADDRESS" > /dev/null 2>&1; do
  kill -0 "${steps[0]}" || { echo "Ray did not start on $head"; exit 1; }
  sleep 2
done
for node in "${nodes[@]:1}"; do
  on "$node" ray start --address="$RAY_ADDRESS" --block &
  steps+=($!)
done

# The batch script runs on the first node. A signal wakes `wait`, hence the second one.
python -m jgcl_ray.train scaling.wait_seconds=300 "$@" &
driver=$!
preempted=
trap 'preempted=yes; kill -TERM $driver || true' TERM
status=0
wait "$driver" || status=$?
if [ -n "$preempted" ]; then
  status=0
  wait "$driver" || status=$?
fi
trap - TERM

kill "${steps[@]}" 2> /dev/null || true
[ -z "$preempted" ] || scontrol requeue "$SLURM_JOB_ID"
exit "$status"
