"""Colour, light and camera faults, on whole batches of (B, 3, H, W) BGR pictures, 0..255.

Helmets are yellow and white, heads are not: strong changes of hue, grey pictures, swapped and
inverted channels keep the detector from taking a colour for a head.
"""

import math
from typing import Union

import torch
from torch import Tensor
from torch.nn import functional as F

from edgecount.toolchain.train.geometry import TILES, constant

# BGR to Y, I, Q (NTSC) and back: hue is an angle in the I-Q plane, saturation its radius.
_TO_YIQ = ((0.114, 0.587, 0.299), (-0.322, -0.274, 0.596), (0.312, -0.523, 0.211))
_FROM_YIQ = ((1.0, -1.1037, 1.7006), (1.0, -0.2727, -0.6468), (1.0, 0.9562, 0.6214))
_LUMA_QUANT = 16.0  # typical step of a JPEG at medium quality


def pick(batch: int, chance: Union[float, Tensor], device: torch.device) -> Tensor:
    """(B, 1, 1, 1) bool, true with ``chance``."""
    return (torch.rand(batch, device=device) < chance)[:, None, None, None]


def paint_ground(images: Tensor, slot: Tensor, plain: Tensor) -> Tensor:
    """Grass, asphalt or any even ground in place of the tiles of some pictures.

    Args:
        images: (B, 3, H, W).
        slot: (B, H, W) which slot a pixel shows.
        plain: (B,) bool, which pictures.
    """
    batch, device, size = len(plain), images.device, images.shape[-1]
    grey = torch.rand(batch, 1, device=device) * 140 + 50
    tint = torch.rand(batch, 3, device=device) * 2 - 1
    tint = tint * torch.where(torch.rand(batch, 1, device=device) < 0.5, 10.0, 70.0)
    coarse = torch.randn(batch, 1, size // 16, size // 16, device=device) * 10
    fine = torch.randn(batch, 1, size, size, device=device, dtype=images.dtype)
    rough = torch.rand(batch, 1, 1, 1, device=device) * 18
    shade = F.interpolate(coarse, size=(size, size), mode="bilinear").to(images.dtype)
    ground = (grey + tint)[..., None, None].to(images.dtype) + shade + fine * rough.to(images.dtype)
    here = (plain[:, None, None] & (slot < TILES))[:, None]
    return torch.where(here, ground.clamp(0, 255), images)


def paint_patches(images: Tensor, slot: Tensor, rects: Tensor, painted: Tensor) -> Tensor:
    """Paint patches: cloths, cones, boxes, signs, with a spot or a stripe.

    Args:
        images: (B, 3, H, W).
        slot: (B, H, W) which slot a pixel shows.
        rects: (B, P, 4) rectangles of the patches.
        painted: (B, P) bool, which of them.
    """
    shape, device, size = painted.shape, images.device, images.shape[-1]

    def draw(*more: int) -> Tensor:
        return torch.rand(shape[0], *more, shape[1], device=device)

    helmet = draw(3) * 90 + 165  # green and red high, blue high or none
    helmet[:, 0] *= (draw() < 0.5).float()
    colour = torch.where(draw(1) < 0.5, helmet, draw(3) ** 0.7 * 255)
    keep = torch.where(painted, 0.3 * draw(), 1.0)
    slope = (draw(2) - 0.5) * 400
    middle = (rects[..., :2] + rects[..., 2:]).transpose(1, 2) / 2
    half = (rects[..., 2:] - rects[..., :2]).transpose(1, 2).clamp(min=4) / 2
    middle = middle + (draw(2) - 0.5) * 0.8 * half
    reach = half * (0.25 + 0.4 * draw(1)) * torch.where(draw(1) < 0.6, 1.0, 1e-2)
    reach = reach * torch.where(draw(2) < 0.25, 50.0, 1.0)  # a stripe across, or down
    table = torch.cat((colour, slope, keep[:, None], draw(3) * 255, middle, 1 / reach), 1)
    tiles = torch.zeros(shape[0], table.shape[1], TILES, device=device)
    tiles[:, 5] = 1  # tiles keep their pixels
    table = torch.cat((tiles, table), 2).to(images.dtype)
    index = slot.flatten(1)[:, None].expand(-1, table.shape[1], -1)
    values = table.gather(2, index).view(shape[0], -1, size, size)
    ramp = torch.linspace(-1, 1, size, device=device, dtype=images.dtype)
    shade = values[:, 3] * ramp[:, None] + values[:, 4] * ramp
    at = torch.arange(size, device=device, dtype=images.dtype)
    dx = ((at - values[:, 9]) * values[:, 11]).clamp(-2, 2)
    dy = ((at[:, None] - values[:, 10]) * values[:, 12]).clamp(-2, 2)
    spot = (dx * dx + dy * dy < 1)[:, None]
    paint = torch.where(spot, values[:, 6:9], values[:, :3])
    paint = (paint + shade[:, None].clamp(-60, 60)).clamp(0, 255)
    return torch.lerp(paint, images, values[:, 5:6])


def change_colour(images: Tensor, chance: float, calm: Tensor) -> Tensor:
    """Hue, saturation, grey, channel order, negative, brightness, contrast and gamma."""
    batch, device = images.shape[0], images.device
    matrix = _colour_matrix(batch, chance, calm, device)
    gain = torch.exp((torch.rand(batch, device=device) - 0.5) * (1.0 - 0.5 * calm))
    shift = (torch.rand(batch, device=device) - 0.5) * 60 * (1 - 0.5 * calm)
    matrix, shift = (matrix * gain[:, None, None]).to(images.dtype), shift.to(images.dtype)
    flat = torch.baddbmm(shift[:, None, None], matrix, images.flatten(2))
    images = flat.view_as(images).clamp(0, 255)
    negative = pick(batch, 0.03 * (1 - calm), device)
    images = torch.where(negative, 255 - images, images)
    gamma = torch.exp((torch.rand(batch, 1, 1, 1, device=device) - 0.5) * (1.0 - 0.5 * calm))
    return (images / 255).clamp(min=1e-3) ** gamma.to(images.dtype) * 255


def _colour_matrix(batch: int, chance: float, calm: Tensor, device: torch.device) -> Tensor:
    """(B, 3, 3) hue turn and saturation; strong with ``chance``, else slight."""
    strong = torch.rand(batch, device=device) < chance
    turn = (torch.rand(batch, device=device) * 2 - 1) * torch.where(strong, math.pi, 0.15)
    grey = torch.rand(batch, device=device) < 0.35 * chance
    saturation = torch.rand(batch, device=device) * 1.7
    saturation = torch.where(strong, saturation, 0.8 + 0.4 * torch.rand(batch, device=device))
    natural = torch.rand(batch, device=device) < 0.7 * calm
    turn, saturation = torch.where(natural, 0.0, turn), torch.where(natural, 1.0, saturation)
    saturation = torch.where(grey, 0.0, saturation)
    cos, sin = torch.cos(turn) * saturation, torch.sin(turn) * saturation
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rotate = torch.stack((one, zero, zero, zero, cos, -sin, zero, sin, cos), -1).view(-1, 3, 3)
    matrix = constant(_FROM_YIQ, device) @ rotate @ constant(_TO_YIQ, device)
    order = torch.rand(batch, 3, device=device).argsort(1)
    keep = torch.rand(batch, device=device) > 0.15 * chance * (1 - calm)
    order = torch.where(keep[:, None], torch.arange(3, device=device), order)
    return matrix.gather(1, order[..., None].expand(-1, -1, 3))


def degrade(images: Tensor, chance: float, calm: Tensor) -> Tensor:
    """Blur or sharpening, motion blur, low light, noise and JPEG blocks, each with ``chance``."""
    batch, device = images.shape[0], images.device
    odds = chance * (1 - 0.6 * calm)
    soft = F.avg_pool2d(F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), 3, 1, 1)
    amount = torch.rand(batch, 1, 1, 1, device=device) * 1.6 - 0.6  # below 0 it sharpens
    amount = torch.where(pick(batch, odds, device), amount, 0.0).to(images.dtype)
    images = images + amount * (soft - images)
    across = F.avg_pool2d(images, (1, 7), 1, (0, 3), count_include_pad=False)
    images = torch.where(pick(batch, odds / 4, device), across, images)
    dim = 0.2 + 0.5 * torch.rand(batch, 1, 1, 1, device=device)
    images = images * torch.where(pick(batch, odds / 3, device), dim, 1.0).to(images.dtype)
    sigma = torch.rand(batch, 1, 1, 1, device=device) ** 2 * 28
    sigma = torch.where(pick(batch, odds, device), sigma, 0.0)
    images = images + torch.randn_like(images) * sigma.to(images.dtype)
    images = torch.where(pick(batch, odds, device), jpeg_blocks(images), images)
    return images.clamp(0, 255)


def jpeg_blocks(images: Tensor) -> Tensor:
    """Round the 8×8 cosine transform of each channel to steps that rise with frequency."""
    batch, channels, height, width = images.shape
    device = images.device
    k = torch.arange(8, device=device, dtype=torch.float32)
    dct = torch.cos(math.pi / 8 * (k[None] + 0.5) * k[:, None]) * 0.5
    dct = torch.where(k[:, None] == 0, dct * 2**-0.5, dct).to(images.dtype)
    blocks = images.view(batch, channels, height // 8, 8, width // 8, 8)
    coded = torch.einsum("ui,bchiwj,vj->bchuwv", dct, blocks, dct)
    quality = torch.rand(batch, 1, 1, 1, 1, 1, device=device) * 2 + 0.3
    step = _LUMA_QUANT * quality * (1 + (k[:, None, None] + k[None, None, :]) / 3)
    step = step.to(images.dtype)
    coded = (coded / step).round() * step
    return torch.einsum("ui,bchuwv,vj->bchiwj", dct, coded, dct).reshape_as(images)
