"""A training batch, made on the device from the pictures in memory."""

from typing import Tuple

import torch
from torch import Tensor

from edgecount.toolchain.train import colour, geometry
from edgecount.toolchain.train.dataset import PictureSet
from edgecount.toolchain.train.recipe import AugmentSpec


def make_batch(
    data: PictureSet, spec: AugmentSpec, batch: int, size: int, most: int, calm: Tensor
) -> Tuple[Tensor, Tensor, Tensor]:
    """Draw a batch.

    Args:
        data: Source pictures with boxes.
        spec: Chances and ranges.
        batch: Number of pictures B.
        size: Their side in pixels, a multiple of 32.
        most: Boxes kept per picture, G.
        calm: () float on the device, 1 in the last part of a run.

    Returns:
        Pictures (B, 3, size, size) BGR 0..255 (float16 on a GPU, else float32),
        boxes (B, G, 4) x1, y1, x2, y2 in pixels,
        classes (B, G) int64 (a class, ``IGNORE`` or ``EMPTY``).
    """
    tiles = geometry.draw_tiles(data, spec, batch, size, calm)
    patches, heads = geometry.draw_patches(data, spec, batch, size, calm)
    choice = torch.randint(3, heads.shape, device=heads.device)
    power = geometry.constant((1.0, 2.0, 6.0), heads.device)[choice]
    power = torch.where(heads >= 0, 2.5, power)
    tapered = (heads < 0) & (torch.rand_like(power) < 0.4)
    taper = torch.where(tapered, 0.4 + 0.5 * torch.rand_like(power), 0.0)
    slot = geometry.which_slot(tiles, patches, power, taper, size)
    images = geometry.render(data, geometry.join(tiles, patches), slot)
    if images.is_cuda:
        images = images.half()  # half the memory traffic; the network reads 8 bits of it anyway
    images = colour.augment_colour(images, slot, patches.rect, heads, spec, calm)
    boxes, classes = geometry.gather_boxes(data, tiles, patches, heads, size, most)
    return images, boxes, classes
