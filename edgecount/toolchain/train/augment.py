"""A training batch, made on the device from the pictures in memory."""

from dataclasses import dataclass
from typing import Tuple

import torch
from torch import Tensor

from edgecount.toolchain.train import colour, geometry
from edgecount.toolchain.train.dataset import PictureSet
from edgecount.toolchain.train.recipe import AugmentSpec


@dataclass(frozen=True)
class Batch:
    """B pictures to learn from.

    Attributes:
        images: (B, 3, size, size) BGR 0..255, float16 on a GPU, else float32.
        boxes: (B, G, 4) x1, y1, x2, y2 in pixels.
        classes: (B, G) int64, a class, ``IGNORE`` or ``EMPTY``.
        negatives: (B, P, 4) places that were painted or are known look-alikes: surely no head,
            unless ``boxes`` says so. Empty where unused.
    """

    images: Tensor
    boxes: Tensor
    classes: Tensor
    negatives: Tensor


def make_batch(
    data: PictureSet, spec: AugmentSpec, batch: int, size: int, most: int, calm: Tensor
) -> Batch:
    """Draw a batch.

    Args:
        data: Source pictures with boxes.
        spec: Chances and ranges.
        batch: Number of pictures B.
        size: Their side in pixels, a multiple of 32.
        most: Boxes kept per picture, G.
        calm: () float on the device, 1 in the last part of a run.
    """
    device = data.atlas.device
    plain = torch.rand(batch, device=device) < spec.plain * (1 - 0.5 * calm)
    tiles = geometry.draw_tiles(data, spec, batch, size, calm)
    patches = geometry.draw_patches(data, spec, plain, size, calm)
    painted = (patches.heads < 0) & (torch.rand(patches.heads.shape, device=device) < 0.5)
    slots = geometry.join(tiles, patches.slots)
    slot = geometry.which_slot(tiles, patches.slots, *_outlines(patches.heads), size)
    images = geometry.render(data, slots, slot)
    if images.is_cuda:
        images = images.half()  # half the memory traffic; the network reads 8 bits of it anyway
    images = colour.paint_ground(images, slot, plain)
    rects = patches.slots.rect
    if spec.pastes:
        images = colour.paint_patches(images, slot, rects, painted)
    images = colour.change_colour(images, spec.colour, calm)
    images = colour.degrade(images, spec.degrade, calm)
    boxes, classes = geometry.gather_boxes(data, tiles, patches, plain, size, most)
    negatives = rects * (painted | patches.known)[..., None]
    return Batch(images, boxes, classes, negatives)


def _outlines(heads: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Power, taper and base (B, P) of the patches' outlines: ellipses, boxes, cones."""
    choice = torch.randint(3, heads.shape, device=heads.device)
    power = geometry.constant((1.0, 2.0, 6.0), heads.device)[choice]
    power = torch.where(heads >= 0, 2.5, power)
    tapered = (heads < 0) & (torch.rand_like(power) < 0.4)
    taper = torch.where(tapered, 0.4 + 0.5 * torch.rand_like(power), 0.0)
    standing = tapered & (torch.rand_like(power) < 0.5)
    return power, taper, torch.where(standing, 0.5 + 0.4 * torch.rand_like(power), 2.0)
