"""Where each pixel of a training picture comes from: mosaics, zoom, turns and pasted patches.

Everything is a tensor of fixed shape on one device, so that a CUDA graph can replay it.
A picture is covered by K slots: nine mosaic tiles (of which 1, 4 or 9 are in use), then patches
pasted over them. A slot reads one source picture through an affine map.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Tuple

import torch
from torch import Tensor

from edgecount.toolchain.train.dataset import EMPTY, IGNORE, PAD, PictureSet, mip_origins
from edgecount.toolchain.train.recipe import AugmentSpec

TILES = 9
VISIBLE = 0.6  # part of a box that must be inside its tile for the box to count
COVERED = 0.3  # part of a box that a patch may cover


@dataclass(frozen=True)
class Slots:
    """B pictures of K slots each; all tensors (B, K, …), coordinates in output pixels.

    Attributes:
        source: int64, index of the source picture.
        forward: (B, K, 2, 2) matrix from source to output.
        offset: (B, K, 4): source point p and output point q; out = forward · (src - p) + q.
        rect: (B, K, 4): x1, y1, x2, y2 that the slot covers; empty when unused.
    """

    source: Tensor
    forward: Tensor
    offset: Tensor
    rect: Tensor


@dataclass(frozen=True)
class Patches:
    """What is pasted over B pictures, P slots each.

    Attributes:
        slots: Where from and where to.
        heads: (B, P) int64, which of the source's boxes a patch shows; -1 for background.
        known: (B, P) bool, a known look-alike: no head, though it looks like one.
    """

    slots: Slots
    heads: Tensor
    known: Tensor


@functools.lru_cache(maxsize=64)
def constant(values: Tuple[Any, ...], device: torch.device) -> Tensor:
    """A tensor of (nested) tuples, made once: a graph in capture may not copy from the host."""
    return torch.tensor(values, device=device)


def log_uniform(low: Tensor, high: Tensor) -> Tensor:
    """Draw between two tensors of one shape, uniform in the logarithm."""
    return torch.exp(torch.log(low) + torch.rand_like(low) * (torch.log(high) - torch.log(low)))


def linear_map(zoom: Tensor, stretch: Tensor, angle: Tensor, flip: Tensor) -> Tensor:
    """(…, 2, 2) matrices: flip, scale by zoom·√stretch and zoom/√stretch, then turn."""
    sx, sy = zoom * stretch.sqrt() * flip, zoom / stretch.sqrt()
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack((cos * sx, -sin * sy, sin * sx, cos * sy), -1).unflatten(-1, (2, 2))


def invert(matrix: Tensor) -> Tensor:
    """Inverse of (…, 2, 2) matrices."""
    a, b, c, d = matrix.flatten(-2).unbind(-1)
    return torch.stack((d, -b, -c, a), -1).unflatten(-1, (2, 2)) / (a * d - b * c)[..., None, None]


def draw_tiles(data: PictureSet, spec: AugmentSpec, batch: int, size: int, calm: Tensor) -> Slots:
    """Mosaic tiles for ``batch`` pictures.

    Args:
        data: Sources.
        spec: Chances and ranges.
        batch: B.
        size: Side of the output in pixels.
        calm: () float, 1 near the end of a run: fewer mosaics and turns.
    """
    device = data.atlas.device
    chance = torch.rand(batch, device=device)
    one = spec.layout[0] + calm * (1 - spec.layout[0]) * 0.8
    two = one + (1 - one) * spec.layout[1] / max(1e-6, spec.layout[1] + spec.layout[2])
    grid = 1 + (chance > one).long() + (chance > two).long()
    edges_x, edges_y = _edges(grid, size), _edges(grid, size)
    rect = torch.stack(
        (
            edges_x[:, None, :-1].expand(-1, 3, -1),
            edges_y[:, :-1, None].expand(-1, -1, 3),
            edges_x[:, None, 1:].expand(-1, 3, -1),
            edges_y[:, 1:, None].expand(-1, -1, 3),
        ),
        -1,
    ).flatten(1, 2)
    source = torch.randint(len(data), (batch, TILES), device=device)
    ranges = constant((spec.scale_1, spec.scale_2, spec.scale_3), device)[grid - 1]
    ratio = size / data.size  # zooms are meant for an output of the cached size
    low, high = (ranges[:, None, i].expand(-1, TILES) for i in (0, 1))
    zoom = log_uniform(low, high) * ratio
    stretch_low, stretch_high = (torch.full_like(zoom, v) for v in spec.stretch)
    stretch = log_uniform(stretch_low, stretch_high)
    angle = _angles(zoom.shape, spec.tilt * (1 - calm), device)
    flip = torch.where(torch.rand_like(zoom) < 0.5, -1.0, 1.0)
    forward = linear_map(zoom, stretch, angle, flip)
    return Slots(source, forward, _place(data.extent[source], forward, rect), rect)


def _edges(grid: Tensor, size: int) -> Tensor:
    """(B, 4) rising tile borders for grids of 1, 2 or 3 tiles a side; unused tiles are empty."""
    u = torch.rand(len(grid), 2, device=grid.device)
    first = torch.where(grid == 3, 0.2 + 0.25 * u[:, 0], 0.3 + 0.4 * u[:, 0])
    first = torch.where(grid == 1, torch.ones_like(first), first)
    second = torch.where(grid == 3, 0.55 + 0.25 * u[:, 1], torch.ones_like(first))
    zero = torch.zeros_like(first)
    return torch.stack((zero, first, second, zero + 1), 1) * size


def _angles(shape: torch.Size, tilt: Tensor, device: torch.device) -> Tensor:
    """Mostly within ±12°, with chance ``tilt`` within ±45° or (a third of those) anywhere."""
    u, chance = torch.rand(shape, device=device) * 2 - 1, torch.rand(shape, device=device)
    widest = torch.where(chance < tilt, 45.0, 12.0)
    widest = torch.where(chance < tilt / 3, 180.0, widest)
    return u * widest * (math.pi / 180)


def _place(extent: Tensor, forward: Tensor, rect: Tensor) -> Tensor:
    """Points p (source) and q (output) so that each tile shows as much picture as it can."""
    half = extent / 2
    reach = (forward.abs() @ half[..., None])[..., 0] * 2  # size of the mapped picture's box
    tile = rect[..., 2:] - rect[..., :2]
    slack = tile - reach
    jitter = (torch.rand_like(slack) - 0.5) * slack
    middle = (rect[..., :2] + rect[..., 2:]) / 2
    return torch.cat((half, middle + jitter), -1)


def draw_patches(
    data: PictureSet, spec: AugmentSpec, plain: Tensor, size: int, calm: Tensor
) -> Patches:
    """Patches to paste: heads from other pictures, and pieces of background of the same shape.

    A head comes alone or with the shoulders below it: what tells it from a cone or a ball.

    Args:
        data: Sources.
        spec: Chances and ranges.
        plain: (B,) bool, pictures of bare ground: they get more patches.
        size: Side of the output in pixels.
        calm: () float, 1 near the end of a run: fewer patches.
    """
    batch = len(plain)
    device, shape = data.atlas.device, (batch, spec.pastes)
    source = torch.randint(len(data), shape, device=device)
    boxes, kinds = data.boxes[source], data.classes[source]
    valid = (kinds >= 0).float() * (boxes[..., 2] - boxes[..., 0] >= 14).float()
    pick = (torch.rand_like(valid) * valid + valid).argmax(-1)
    has_head = valid.gather(-1, pick[..., None])[..., 0] > 0
    head = boxes.gather(2, pick[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    is_head = has_head & (torch.rand(shape, device=device) < 0.4)
    known = ~is_head & (torch.rand(shape, device=device) < data.spot_chance)
    which = torch.randint(len(data.spots), shape, device=device)
    source = torch.where(known, data.spot_pictures[which], source)
    extent = data.extent[source]
    spot_size = (0.05 + 0.3 * torch.rand_like(extent)) * extent
    spot_from = torch.rand_like(extent) * (extent - spot_size)
    spot = torch.cat((spot_from, spot_from + spot_size), -1)
    touches = (intersection(spot[:, :, None], boxes) > 0) & (kinds != EMPTY)
    free = ~touches.any(-1) | known
    spot = torch.where(known[..., None], data.spots[which], spot)
    region = torch.where(is_head[..., None], head, spot)
    width = log_uniform(
        torch.full(shape, 9.0, device=device), torch.full(shape, 80.0, device=device)
    )
    zoom = width / (region[..., 2:] - region[..., :2]).mean(-1).clamp(min=1)
    body = is_head & (width < 50) & (torch.rand(shape, device=device) < spec.bodies)
    region = torch.where(body[..., None], with_shoulders(region), region)
    angle = _angles(zoom.shape, calm * 0 + 0.3, device)
    flip = torch.where(torch.rand_like(zoom) < 0.5, -1.0, 1.0)
    stretch = torch.exp((torch.rand_like(zoom) - 0.5) * 0.6)
    forward = linear_map(zoom, stretch, angle, flip)
    margin = torch.where((is_head & ~body) | known, 1.12, 1.0)[..., None]
    half = (region[..., 2:] - region[..., :2]) / 2 * margin
    reach = (forward.square() @ half.square()[..., None])[..., 0].sqrt()  # of the inscribed ellipse
    q = torch.rand(*shape, 2, device=device) * size
    chance = torch.where(plain[:, None], min(1.0, 1.6 * spec.paste), spec.paste * (1 - 0.7 * calm))
    used = (torch.rand(shape, device=device) < chance) & (is_head | free)
    rect = torch.cat((q - reach, q + reach), -1) * used[..., None]
    p = (region[..., :2] + region[..., 2:]) / 2
    slots = Slots(source, forward, torch.cat((p, q), -1), rect)
    return Patches(slots, torch.where(is_head, pick, -1), known)


def with_shoulders(heads: Tensor) -> Tensor:
    """Boxes of heads (…, 4) as boxes of a head and what is below it down to the chest."""
    width, height = heads[..., 2] - heads[..., 0], heads[..., 3] - heads[..., 1]
    return torch.stack(
        (
            heads[..., 0] - 0.7 * width,
            heads[..., 1] - 0.15 * height,
            heads[..., 2] + 0.7 * width,
            heads[..., 3] + 1.9 * height,
        ),
        -1,
    )


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Common area of boxes (…, 4) and (…, 4), broadcast."""
    side = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])
    return side.clamp(min=0).prod(-1)


def area(boxes: Tensor) -> Tensor:
    """Area of boxes (…, 4)."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def move_boxes(boxes: Tensor, forward: Tensor, offset: Tensor) -> Tensor:
    """Boxes (B, K, M, 4) through the maps (B, K, …): the box of the mapped inscribed ellipse.

    A head is round: turning the corners of its box would make the box grow by up to √2.
    """
    centre, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
    p, q = offset[:, :, None, :2], offset[:, :, None, 2:]
    centre = torch.einsum("bkij,bkmj->bkmi", forward, centre - p) + q
    half = torch.einsum("bkij,bkmj->bkmi", forward.square(), half.square()).sqrt()
    return torch.cat((centre - half, centre + half), -1)


def gather_boxes(
    data: PictureSet, tiles: Slots, patches: Patches, plain: Tensor, size: int, most: int
) -> Tuple[Tensor, Tensor]:
    """Boxes (B, most, 4) and classes (B, most) of the pictures that the slots make.

    Args:
        data: Sources.
        tiles: Mosaic tiles.
        patches: What is pasted over them.
        plain: (B,) bool, pictures whose tiles are painted over.
        size: Side of the output in pixels.
        most: Boxes kept per picture.
    """
    boxes = move_boxes(data.boxes[tiles.source], tiles.forward, tiles.offset)
    kinds = data.classes[tiles.source]
    clipped = clip(boxes, tiles.rect[:, :, None])
    seen = area(clipped) / area(boxes).clamp(min=1e-6)
    kinds = torch.where((seen < VISIBLE) & (kinds >= 0), IGNORE, kinds)
    kinds = torch.where((seen < 0.05) | plain[:, None, None], EMPTY, kinds)
    clipped, kinds = clipped.flatten(1, 2), kinds.flatten(1, 2)
    if patches.heads.shape[1]:
        clipped, kinds = _add_patches(data, patches, clipped, kinds, size)
    side = (clipped[..., 2:] - clipped[..., :2]).amin(-1)
    kinds = torch.where((side < 4) & (kinds >= 0), IGNORE, kinds)
    kinds = torch.where(side < 1, EMPTY, kinds)
    order = (kinds != EMPTY).int().argsort(stable=True, dim=1, descending=True)[:, :most]
    return clipped.gather(1, order[..., None].expand(-1, -1, 4)), kinds.gather(1, order)


def _add_patches(
    data: PictureSet, pasted: Patches, boxes: Tensor, kinds: Tensor, size: int
) -> Tuple[Tensor, Tensor]:
    """Ignore what patches cover, and add the heads that they show.

    Of other heads beside the one that a patch was cut for, too little may be seen: ignored.
    """
    patches, heads = pasted.slots, pasted.heads
    rects = patches.rect
    covered = intersection(boxes[:, :, None], rects[:, None]).amax(-1)
    kinds = torch.where((covered > COVERED * area(boxes)) & (kinds >= 0), IGNORE, kinds)
    index = heads.clamp(min=0)[..., None]
    every = move_boxes(data.boxes[patches.source], patches.forward, patches.offset)
    moved = every.gather(2, index[..., None].expand(-1, -1, 1, 4))[:, :, 0]
    frame = constant((0.0, 0.0, float(size), float(size)), moved.device)
    inside = clip(moved, frame)
    shown_kind = data.classes[patches.source].gather(2, index)[..., 0]
    used = (area(rects) > 0) & (heads >= 0)
    part = area(inside) / area(moved).clamp(min=1e-6)
    count = heads.shape[1]
    later = torch.ones(count, count, device=rects.device, dtype=torch.bool).triu(1)
    over = intersection(moved[:, :, None], rects[:, None]) * later
    hidden = over.amax(-1) > COVERED * area(moved)
    new = torch.where((part < VISIBLE) | hidden, IGNORE, shown_kind)
    new = torch.where(used & (part > 0.05), new, EMPTY)
    beside = clip(clip(every, rects[:, :, None]), frame)
    chosen = torch.arange(every.shape[2], device=rects.device) == index
    seen = area(beside) > 0.05 * area(every).clamp(min=1e-6)
    seen = seen & used[..., None] & ~chosen & (data.classes[patches.source] != EMPTY)
    other = torch.where(seen, IGNORE, EMPTY).flatten(1)
    return (
        torch.cat((inside, boxes, beside.flatten(1, 2)), 1),
        torch.cat((new, kinds, other), 1),
    )


def clip(boxes: Tensor, rect: Tensor) -> Tensor:
    """Boxes cut to rectangles, broadcast."""
    low = torch.maximum(boxes[..., :2], rect[..., :2])
    high = torch.minimum(boxes[..., 2:], rect[..., 2:])
    return torch.cat((low, torch.maximum(high, low)), -1)


def which_slot(
    tiles: Slots, patches: Slots, power: Tensor, taper: Tensor, base: Tensor, size: int
) -> Tensor:
    """(B, size, size) int64: the slot that each pixel shows. Patches are superellipses.

    Args:
        tiles: Mosaic tiles.
        patches: Patches; a later one lies over an earlier one.
        power: (B, P) exponent of a patch's outline: 1 a diamond, 2 an ellipse, 6 a rectangle.
        taper: (B, P) how much narrower a patch is at its top, 0..1: a cone.
        base: (B, P) height, -1 at the top to 1, below which a patch has its full width.
        size: Side of the output.
    """
    at = torch.arange(size, device=power.device) + 0.5
    borders_x, borders_y = tiles.rect[:, 0:2, 2], tiles.rect[:, 0:4:3, 3]
    column = (at[None, :, None] >= borders_x[:, None]).sum(-1)
    row = (at[None, :, None] >= borders_y[:, None]).sum(-1)
    slot = row[:, :, None] * 3 + column[:, None, :]
    for i in range(power.shape[1]):
        x1, y1, x2, y2 = patches.rect[:, i].unbind(-1)
        used = (x2 > x1)[:, None, None]
        dx, dy = _from_middle(at, x1, x2), _from_middle(at, y1, y2)
        width = 1 - taper[:, i, None] * (1 - dy.clamp(-1, 1)) / 2
        width = torch.where(dy > base[:, i, None], 1.0, width)
        dx = dx[:, None, :].abs() / width[:, :, None]
        p = power[:, i, None, None]
        inside = (dx**p + dy[:, :, None].abs() ** p < 1) & used
        slot = torch.where(inside, TILES + i, slot)
    return slot


def _from_middle(at: Tensor, low: Tensor, high: Tensor) -> Tensor:
    middle, half = (low + high) / 2, ((high - low) / 2).clamp(min=1e-3)
    return ((at[None] - middle[:, None]) / half[:, None]).clamp(-8, 8)


def join(tiles: Slots, patches: Slots) -> Slots:
    """One set of slots, patches after tiles."""
    pairs = zip(
        (tiles.source, tiles.forward, tiles.offset, tiles.rect),
        (patches.source, patches.forward, patches.offset, patches.rect),
    )
    return Slots(*(torch.cat(pair, 1) for pair in pairs))


def render(data: PictureSet, slots: Slots, slot: Tensor) -> Tensor:
    """Pictures (B, 3, size, size) float32 BGR, each pixel read bilinearly from its source."""
    size = slot.shape[1]
    inverse = invert(slots.forward)
    zoom_out = torch.linalg.vector_norm(inverse, dim=-2).amin(-1)
    blur = torch.rand_like(zoom_out) * 1.2 - 0.6
    level = (torch.log2(zoom_out) + blur).round().clamp(0, 2)
    table = torch.cat(
        (inverse.flatten(2), slots.offset, data.extent[slots.source], level[..., None]), -1
    )
    flat = slot.flatten(1)
    a, b, c, d, px, py, qx, qy, w, h, lv = (
        table[..., i].gather(1, flat) for i in range(table.shape[-1])
    )
    at = torch.arange(size, device=slot.device) + 0.5
    dx = at.repeat(size)[None] - qx
    dy = at.repeat_interleave(size)[None] - qy
    u, v = a * dx + b * dy + px, c * dx + d * dy + py
    outside = (u < 0) | (v < 0) | (u >= w) | (v >= h)
    pixels = _sample(data, slots.source.gather(1, flat), u, v, w, h, lv, outside)
    return pixels.view(-1, 3, size, size)


def _sample(
    data: PictureSet,
    source: Tensor,
    u: Tensor,
    v: Tensor,
    w: Tensor,
    h: Tensor,
    level: Tensor,
    outside: Tensor,
) -> Tensor:
    """(B, 3, P) pixels at source positions u, v (B, P), in full-size pixels, of a mip level."""
    shrink = torch.exp2(-level)
    u = torch.minimum(torch.clamp(u * shrink - 0.5, min=0), w * shrink - 1.001).clamp(min=0)
    v = torch.minimum(torch.clamp(v * shrink - 0.5, min=0), h * shrink - 1.001).clamp(min=0)
    x0, y0 = u.long(), v.long()
    fx, fy = u - x0, v - y0
    rows, columns = data.atlas.shape[1:]
    origins = tuple(y * columns + x for x, y in mip_origins(data.size))
    origin = constant(origins, u.device)[level.long()]
    base = source * (rows * columns) + origin + y0 * columns + x0
    flat = data.atlas.view(-1)
    taps = (
        (0, (1 - fx) * (1 - fy)),
        (1, fx * (1 - fy)),
        (columns, (1 - fx) * fy),
        (columns + 1, fx * fy),
    )
    planes = [torch.zeros_like(u) for _ in range(3)]
    for step, weight in taps:
        packed = flat[base + step]
        for i, plane in enumerate(planes):
            plane.addcmul_(((packed >> (8 * i)) & 255).float(), weight)
    out = torch.stack(planes, 1)
    return torch.where(outside[:, None], float(PAD), out)
