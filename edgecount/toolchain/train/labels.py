"""Heads that nobody labelled: found by agreement, then learned or left out of the loss.

A data set in which some heads lack a label teaches that those are background. Two remedies:
the head region of a person (as a COCO detector sees it) without a label is ignored, and during
training the averaged network labels the set anew, under changes that a true head survives:
mirrored, grey, with swapped channels, and enlarged.
"""

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount.toolchain.train.dataset import EMPTY, IGNORE, PictureSet
from edgecount.toolchain.train.recipe import LabelSpec
from edgecount.toolchain.train.validate import Candidates, batches, candidates, predict, suppress
from edgecount.toolchain.train.yolox import YoloxNano

ENLARGED = 1.54  # second scale at which the network must see a head; 640 for a cache of 416
PERSON_SCORE = 0.4  # of a person whose head must be somewhere
PERSON_HINT = 0.1  # of a person whose head may be there
HEAD_PART = 0.4  # upper part of a person in which a head must be

People = List[npt.NDArray[np.float32]]


def add_boxes(
    data: PictureSet, picture: int, boxes: npt.NDArray[np.float32], kinds: npt.NDArray[np.int64]
) -> int:
    """Put boxes into the free slots of a picture, in place; how many found room."""
    free = (data.classes[picture] == EMPTY).nonzero()[:, 0][: len(boxes)]
    count = len(free)
    data.boxes[picture, free] = torch.from_numpy(boxes[:count]).to(data.boxes)
    data.classes[picture, free] = torch.from_numpy(kinds[:count]).to(data.classes)
    return count


def find_people(data: PictureSet, teacher: YoloxNano, batch: int = 64) -> People:
    """What a COCO detector takes for people, picture by picture: (n, 5) x1, y1, x2, y2, score."""
    people = []
    for _, images in batches(data, data.size, batch):
        with torch.no_grad():
            boxes, scores = teacher.people(images)
        for raw in candidates(boxes, scores[..., None], PERSON_HINT):
            found = suppress(raw, 0.5)
            people.append(np.concatenate((found.boxes, found.scores[:, None]), 1))
    return people


def ignore_people(data: PictureSet, people: People) -> int:
    """Ignore the head region of every person in whose upper part no head is labelled.

    Returns:
        Number of regions.
    """
    total = 0
    for picture, found in enumerate(people):
        sure = found[found[:, 4] >= PERSON_SCORE, :4]
        labelled = data.boxes[picture][data.classes[picture] >= 0].cpu().numpy()
        regions = headless(sure, labelled)
        total += add_boxes(data, picture, regions, np.full(len(regions), IGNORE, np.int64))
    return total


def headless(
    people: npt.NDArray[np.float32], heads: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Upper parts (n, 4) of those people (m, 4) that hold the centre of no head (k, 4)."""
    return upper_parts(people)[~_holds(people, heads).any(1)]


def upper_parts(people: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Where the heads of people (m, 4) must be, (m, 4)."""
    width, height = people[:, 2] - people[:, 0], people[:, 3] - people[:, 1]
    low = people[:, :2] - np.stack((0.1 * width, 0.1 * height), 1)
    high = np.stack((people[:, 2] + 0.1 * width, people[:, 1] + HEAD_PART * height), 1)
    return np.concatenate((low, high), 1).astype(np.float32)


def _holds(
    people: npt.NDArray[np.float32], heads: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """(m, k): the upper part of person m holds the centre of head k."""
    parts = upper_parts(people)
    middle = (heads[:, :2] + heads[:, 2:]) / 2
    inside = (middle[None] > parts[:, None, :2]) & (middle[None] < parts[:, None, 2:])
    result: npt.NDArray[np.bool_] = np.logical_and.reduce(inside, axis=-1)
    return result


@dataclass(frozen=True)
class Round:
    """What a round of labelling found.

    Attributes:
        added: Heads added.
        ignored: Regions ignored.
        look_alikes: (n,) pictures and (n, 4) boxes that the network takes for heads where no
            person is: logos, hands, lamps.
    """

    added: int
    ignored: int
    look_alikes: Tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def relabel(
    model: nn.Module,
    data: PictureSet,
    original: Tensor,
    spec: LabelSpec,
    people: Optional[People] = None,
    batch: int = 32,
) -> Round:
    """Label the set anew, in place; earlier rounds are forgotten.

    Most of what a network finds beside the labels is no head. Where a person detector's opinion
    is at hand, only what lies in the upper part of a person can be one; the rest are look-alikes.

    Args:
        model: A detector in evaluation mode: the averaged network, or a finished one.
        data: The training set.
        original: (N, M) its classes before the first round.
        spec: Scores from which a region is added or ignored.
        people: As ``find_people`` returns; None where there is no person detector.
        batch: Pictures at a time.
    """
    data.classes.copy_(original)
    added = ignored = 0
    pictures: List[int] = []
    spots: List[npt.NDArray[np.float32]] = []
    for start, images in batches(data, data.size, batch):
        for picture, found in enumerate(_agreed(model, images, spec.ignore_above), start):
            known = data.boxes[picture][data.classes[picture] >= 0].cpu().numpy()
            new = unmatched(found.boxes, known)
            boxes, scores, kinds = found.boxes[new], found.scores[new], found.classes[new]
            kinds = np.where(scores >= spec.add_above, kinds, IGNORE)
            if people is not None:
                likely = np.asarray(_holds(people[picture][:, :4], boxes).any(axis=0))
                spots.extend(boxes[~likely])
                pictures.extend([picture] * int((~likely).sum()))
                boxes, kinds = boxes[likely], kinds[likely]
            count = add_boxes(data, picture, boxes, kinds)
            added += int((kinds[:count] >= 0).sum())
            ignored += int((kinds[:count] == IGNORE).sum())
    look_alikes = np.array(pictures, np.int64), np.array(spots, np.float32).reshape(-1, 4)
    return Round(added, ignored, look_alikes)


def unmatched(
    found: npt.NDArray[np.float32], known: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Which boxes (n, 4) share less than a fifth of the smaller box with every known one (k, 4)."""
    low = np.maximum(found[:, None, :2], known[None, :, :2])
    high = np.minimum(found[:, None, 2:], known[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    size_found = (found[:, 2:] - found[:, :2]).prod(-1)
    size_known = (known[:, 2:] - known[:, :2]).prod(-1)
    smaller = np.minimum(size_found[:, None], size_known[None])
    result: npt.NDArray[np.bool_] = ~(common > 0.2 * np.maximum(smaller, 1e-6)).any(1)
    return result


def _agreed(model: nn.Module, images: Tensor, lowest: float) -> List[Candidates]:
    """Per picture, what the network sees at two scales under all changes, scores averaged."""
    size = images.shape[-1]
    larger = round(size * ENLARGED / 32) * 32
    big = F.interpolate(images, size=(larger, larger), mode="bilinear")
    found = [_consensus(model, images, lowest)]
    found.append(_consensus(model, big, lowest, size / larger))
    merged = []
    for parts in zip(*found):
        every = Candidates(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.classes for p in parts]),
        )
        merged.append(suppress(every, 0.4))
    return merged


def _consensus(
    model: nn.Module, images: Tensor, lowest: float, scale: float = 1.0
) -> List[Candidates]:
    grey = images.mean(1, keepdim=True).expand_as(images)
    views = [images, grey, images[:, (1, 2, 0)]]
    pairs = [predict(model, view) for view in views]
    mirrored_boxes, mirrored_scores = predict(model, images.flip(-1))
    order = _mirror_order(images.shape[-1], images.device)
    x1, y1, x2, y2 = mirrored_boxes[:, order].unbind(-1)
    width = images.shape[-1]
    pairs.append((torch.stack((width - x2, y1, width - x1, y2), -1), mirrored_scores[:, order]))
    boxes = torch.stack([b for b, _ in pairs]).mean(0)
    scores = torch.stack([s for _, s in pairs]).mean(0)
    return candidates(boxes * scale, scores, lowest)


def _mirror_order(size: int, device: torch.device) -> Tensor:
    """For each cell, the index of the cell at the mirrored place."""
    order, first = [], 0
    for stride in (8, 16, 32):
        side = size // stride
        index = torch.arange(side * side, device=device).view(side, side).flip(1) + first
        order.append(index.flatten())
        first += side * side
    return torch.cat(order)
