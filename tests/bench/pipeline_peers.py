#!/usr/bin/env python3
"""The whole pipeline beside the loop that people write today, in interleaved runs.

    pip install -e '.[bench]'
    python tests/bench/pipeline_peers.py --source vtest.avi --model yolox_nano.onnx --json

The loop: OpenCV reads, the picture is letterboxed as in YOLOX's demo, ONNX Runtime runs
with its default options, ``cv2.dnn.NMSBoxes`` suppresses, supervision's ByteTrack follows
and its LineZone counts at the line across the middle. edgecount: ``edgecount bench``'s
pipeline, which does all that and more (zone, place, metrics). Both take every frame of
the same clip on the same cores; turns alternate, and ratios are of neighbouring turns.
"""

import argparse
import json
import statistics
import time
import warnings
from typing import Any, Dict, Iterator, List, Tuple

import cv2
import numpy as np
import onnxruntime
import supervision as sv

from edgecount.toolchain.bench import PipelineTurns

PERSON = 0


class TodaysLoop:
    """onnxruntime + supervision, one thread, as in many tutorials. YOLOX layout."""

    def __init__(self, source: str, model: str, width: int, height: int) -> None:
        self._capture_path = source
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._size = tuple(self._session.get_inputs()[0].shape[2:])
        self._grids, self._strides = self._grid()
        self._tracker = sv.ByteTrack()
        self._line = sv.LineZone(sv.Point(0, height // 2), sv.Point(width, height // 2))
        self._frames = self._endless()

    def turn(self, seconds: float) -> float:
        """Frames per second over one turn."""
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            self._one(next(self._frames))
            count += 1
        return count / (time.perf_counter() - began)

    def _one(self, image: "np.ndarray[Any, Any]") -> None:
        blob, ratio = self._letterbox(image)
        output = self._session.run(None, {self._input: blob})[0][0]
        boxes, scores = self._decode(output, ratio)
        detections = sv.Detections(
            xyxy=boxes, confidence=scores, class_id=np.zeros(len(scores), int)
        )
        self._line.trigger(self._tracker.update_with_detections(detections))

    def _letterbox(self, image: "np.ndarray[Any, Any]") -> Tuple["np.ndarray[Any, Any]", float]:
        padded = np.full((*self._size, 3), 114, np.uint8)
        ratio = min(self._size[0] / image.shape[0], self._size[1] / image.shape[1])
        resized = cv2.resize(image, (int(image.shape[1] * ratio), int(image.shape[0] * ratio)))
        padded[: resized.shape[0], : resized.shape[1]] = resized
        return np.ascontiguousarray(padded.transpose(2, 0, 1)[None], np.float32), ratio

    def _decode(
        self, output: "np.ndarray[Any, Any]", ratio: float
    ) -> Tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        centers = (output[:, :2] + self._grids) * self._strides
        sizes = np.exp(output[:, 2:4]) * self._strides
        scores = output[:, 4] * output[:, 5 + PERSON]
        keep = scores > 0.1
        corners = np.concatenate([centers - sizes / 2, sizes], axis=1)[keep] / ratio
        picked = cv2.dnn.NMSBoxes(corners.tolist(), scores[keep].tolist(), 0.1, 0.6)
        chosen = corners[np.asarray(picked, int).reshape(-1)]
        chosen = np.concatenate([chosen[:, :2], chosen[:, :2] + chosen[:, 2:]], axis=1)
        return chosen.reshape(-1, 4), scores[keep][np.asarray(picked, int).reshape(-1)]

    def _grid(self) -> Tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
        grids, strides = [], []
        for stride in (8, 16, 32):
            rows, columns = self._size[0] // stride, self._size[1] // stride
            x, y = np.meshgrid(np.arange(columns), np.arange(rows))
            grids.append(np.stack([x, y], 2).reshape(-1, 2))
            strides.append(np.full((rows * columns, 1), stride))
        return np.concatenate(grids), np.concatenate(strides)

    def _endless(self) -> Iterator["np.ndarray[Any, Any]"]:
        while True:
            capture = cv2.VideoCapture(self._capture_path)
            ok, image = capture.read()
            while ok:
                yield image
                ok, image = capture.read()


def compare(source: str, model: str, seconds: float, turns: int) -> Dict[str, Any]:
    """Frames per second of both, and the ratio of each pair of turns."""
    capture = cv2.VideoCapture(source)
    width, height = (int(capture.get(p)) for p in (3, 4))
    peer = TodaysLoop(source, model, width, height)
    ours = PipelineTurns(source, model)
    threads = cv2.getNumThreads()
    peer.turn(1.0), ours.turn(1.0)  # warm-up
    pairs: List[Tuple[float, float]] = []
    for turn in range(turns):
        # Each with its own number of OpenCV threads, and each first in every other pair.
        order = [True, False] if turn % 2 else [False, True]
        rates: Dict[bool, float] = {}
        for is_ours in order:
            cv2.setNumThreads(1 if is_ours else threads)
            rates[is_ours] = ours.turn(seconds) if is_ours else peer.turn(seconds)
        pairs.append((rates[True], rates[False]))
    return {
        "edgecount_fps": round(statistics.median(a for a, _ in pairs), 2),
        "supervision_loop_fps": round(statistics.median(b for _, b in pairs), 2),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "ratios": [round(a / b, 3) for a, b in pairs],
        "versions": {
            "onnxruntime": onnxruntime.__version__,
            "supervision": sv.__version__,
            "opencv": cv2.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True)
    parser.add_argument("--model", required=True, help="a YOLOX model with static input")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    result = compare(given.source, given.model, given.seconds, given.turns)
    if given.json:
        print(json.dumps(result, indent=2))
        return
    print(
        f"edgecount {result['edgecount_fps']} FPS, onnxruntime + supervision "
        f"{result['supervision_loop_fps']} FPS: {result['ratio']}×"
    )


if __name__ == "__main__":
    main()
