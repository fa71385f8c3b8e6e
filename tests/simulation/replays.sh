#!/usr/bin/env bash
# The same seed gives the same run byte for byte, alone and among others, and a run that finds something ends with 1.
set -euo pipefail
simulate=$1
for seed in 3 46 562 6125; do
  first=$("$simulate" --seed "$seed" | sha256sum)
  second=$("$simulate" --seed "$seed" | sha256sum)
  [ "$first" = "$second" ] || { echo "seed $seed differs from itself"; exit 1; }
done
# What is counted does not depend on how many work at it.
count() { "$simulate" --runs 2000 --jobs "$1" --coverage | grep -v 'switches a second'; }
[ "$(count 1)" = "$(count 3)" ] || { echo "two runs of the same seeds count differently"; exit 1; }
