#!/usr/bin/env bash
# All that wants a GPU, each step under its own limit: tests, report, benches, compute-sanitizer.
#   tests/gpu/everything.sh OUT vtest.avi [clip.h264]
# OUT/steps.txt says how each step ended; logs and JSON lie beside it. A step that ended is not
# repeated, so a run that was cut off goes on.
#   LIMIT=3600                   seconds in all
#   ONLY="pipeline report"       names of the steps to run; all where empty
#   EDGECOUNT_LABELLED=FOLDER    a few labelled pictures (YOLO), for the step "report"
set -u
cd "$(dirname "$0")/../.."
out=${1:?folder for the results} clip=${2:?vtest.avi} h264=${3:-}
limit=${LIMIT:-3600}
mkdir -p "$out/done"
export EDGECOUNT_VTEST=$clip EDGECOUNT_H264=$h264 PYTHONUNBUFFERED=1
python=${PYTHON:-python3}

step() { # NAME SECONDS COMMAND…
  local name=$1 most=$2 began=$SECONDS left=$((limit - SECONDS)) code
  shift 2
  [[ -n ${ONLY:-} && " $ONLY " != *" $name "* ]] && return
  [ -e "$out/done/$name" ] && return
  if [ "$left" -lt 20 ]; then echo "$name: no time left"; return; fi
  timeout -k 5 "$((most < left ? most : left))" "$@" >"$out/$name.log" 2>&1
  code=$?
  echo "$name: exit $code, $((SECONDS - began)) s" | tee -a "$out/steps.txt"
  [ $code -ne 124 ] && touch "$out/done/$name"
}

gpu_tests=("$python" -m pytest -p no:cacheprovider -rA -q -m gpu)
for name in kernels tracker driver nms_plugin recovery tensorrt decoding; do
  step "$name" 240 "${gpu_tests[@]}" "tests/gpu/test_$name.py" -k "not measured" &
done
wait
step pipeline 300 "${gpu_tests[@]}" tests/gpu/test_pipeline.py
step measured 100 "${gpu_tests[@]}" tests/gpu/test_tensorrt.py -k measured
if [ -n "${EDGECOUNT_LABELLED:-}" ]; then
  step report 300 "$python" -m edgecount report --model head-n --data "$EDGECOUNT_LABELLED" --backend cuda --out "$out/report"
fi

bench=tests/bench
step time_nms 120 "$python" $bench/gpu_kernels.py --only nms --out "$out/nms"
step time_tracker 120 "$python" $bench/gpu_tracker.py --out "$out/tracker"
step time_preprocess 90 "$python" $bench/gpu_kernels.py --only preprocess --out "$out/preprocess"
step host 60 "$python" $bench/gpu_pipeline.py --only host --precision fp16 --clip "$clip" --out "$out/host"
step fp16 200 "$python" $bench/gpu_pipeline.py --only overlap cameras --precision fp16 --clip "$clip" --out "$out/fp16"
step memory 120 "$python" $bench/gpu_pipeline.py --only memory --precision fp16 --clip "$clip" --out "$out/memory"
if [ -n "$h264" ]; then
  step nvdec 90 "$python" $bench/gpu_pipeline.py --only nvdec --precision fp16 --clip "$clip" --h264 "$h264" --out "$out/nvdec"
  step service 300 "$python" $bench/gpu_service.py "$h264" --out "$out/service"
fi
step fp32 150 "$python" $bench/gpu_pipeline.py --only layouts overlap --precision fp32 --clip "$clip" --out "$out/fp32"

for tool in memcheck racecheck synccheck; do
  step "kernels_$tool" 200 compute-sanitizer --error-exitcode 9 --tool $tool "$python" -m pytest -p no:cacheprovider -q -m gpu -k sanitizer tests/gpu/test_kernels.py &
  step "tracker_$tool" 200 compute-sanitizer --error-exitcode 9 --tool $tool "$python" -m pytest -p no:cacheprovider -q -m gpu -k sanitizer tests/gpu/test_tracker.py &
done
wait
grep -h "^FAILED\|^ERROR\|SUMMARY" "$out"/*.log
missing=
for name in ${ONLY:-}; do
  [ -e "$out/$name.log" ] || { echo "$name: did not run, or there is no such step"; missing=1; }
done
[ -z "$missing" ] && ! grep -q "exit [^0]" "$out/steps.txt"
