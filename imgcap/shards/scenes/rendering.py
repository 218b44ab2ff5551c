"""Drawing the picture of a scene with Pillow: where its objects lie, and how they look.

Lengths are in pixels of the finished picture; x runs right and y down.
"""

import colorsys
import math
import random
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from PIL import Image, ImageDraw

from imgcap.shards.scenes.scene import Group, Scene

DRAWING = 1  # raise it when a change moves a pixel: pictures of another drawing are not taken for this one's
SIDE = 112  # pixels, square
OVERSAMPLING = 3  # objects are drawn so many times larger, then averaged: smooth edges
RADII = {"small": (8.4, 8.9), "large": (12.5, 13.1)}
REACH = 1.22  # a shape's circumscribed circle at most, in radii
ROUND = 1.12  # a circle's, so that its area sets it apart from a square
MARGIN, GAP, TRENCH = 3.0, 3.0, 5.0  # to the border, between objects, between a group and the dividing line
HUES = {"red": 0, "orange": 26, "yellow": 56, "green": 125, "blue": 218, "purple": 285}
VALUES = {"red": 0.88, "orange": 0.98, "yellow": 0.97, "green": 0.70, "blue": 0.90, "purple": 0.80}
OFF_LEVEL = 6.0  # how far a group's middle may lie from the other's level
OUTLINE = 1.3  # pixels
TONES = {"light": 1.0, "dark": 0.58, "outline": 0.3}  # shares of the colour's value
NOISE = 4.0  # standard deviation, of 255

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Placed:
    """An object of a scene, placed on the picture."""

    centre: Point
    radius: float
    turn: float  # radians
    group: Group


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB picture of SIDE by SIDE pixels; equal scenes give equal pixels."""
    rng = scene.random("drawing")
    canvas = _background(rng).resize((SIDE * OVERSAMPLING,) * 2, Image.Resampling.BILINEAR)
    inks = {group: _ink(rng, group.colour) for group in scene.groups}
    for placed in place(scene):
        _draw(canvas, placed, inks[placed.group], rng)
    pixels = np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.float32)
    noise = np.random.RandomState(rng.getrandbits(32)).standard_normal(pixels.shape[:2])[..., None] * NOISE
    return Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8))


def place(scene: Scene) -> list[Placed]:
    """Place the objects of a scene: no two touch, and two groups lie on either side of a line, on one level."""
    rng = scene.random("places")
    if scene.relation is None:
        return _clustered(rng, scene.groups[0], (0, 0, SIDE, SIDE), level=None)
    line = SIDE / 2 + rng.uniform(-3, 3)
    level = SIDE / 2 + rng.uniform(-8, 8)  # both groups' middle along the line: only one relation shall hold
    near, far = (0, 0, line - TRENCH, SIDE), (line + TRENCH, 0, SIDE, SIDE)  # as for "left of"
    placed = [*_clustered(rng, scene.groups[0], near, level), *_clustered(rng, scene.groups[1], far, level)]
    if scene.relation == "above":  # the same, mirrored at the diagonal
        placed = [Placed(one.centre[::-1], one.radius, one.turn, one.group) for one in placed]
    return placed


def _clustered(rng: random.Random, group: Group, box: Box, level: float | None) -> list[Placed]:
    """Drop a group's objects around a common middle and let them push each other apart, within the box.

    They are dropped anew until they keep apart, and until their mean y is at the level, where there is one.
    """
    radius = rng.uniform(*RADII[group.size])
    reach = radius * REACH
    left, top, right, bottom = (edge + way * (MARGIN + reach) for edge, way in zip(box, (1, 1, -1, -1), strict=True))
    spread = 1.5 * reach * (group.count - 1) + 3
    while True:
        x, y = rng.uniform(left, right), rng.uniform(top, bottom) if level is None else level
        dropped = [(x + rng.uniform(-spread, spread), y + rng.uniform(-spread, spread)) for _ in range(group.count)]
        centres = _pushed_apart(dropped, 2 * reach + GAP, (left, top, right, bottom))
        if centres and (level is None or abs(sum(y for _, y in centres) / len(centres) - level) <= OFF_LEVEL):
            return [Placed(at, radius * rng.uniform(0.97, 1.03), rng.uniform(-0.17, 0.17), group) for at in centres]


def _pushed_apart(centres: list[Point], distance: float, box: Box) -> list[Point] | None:
    """Move points that are too near to each other apart, step by step; None where that finds no end."""
    moved = [_within(box, centre) for centre in centres]
    for _ in range(30):
        near = [pair for pair in combinations(range(len(moved)), 2) if math.dist(*(moved[i] for i in pair)) < distance]
        if not near:
            return moved
        for i, j in near:
            (x, y), (u, v) = moved[i], moved[j]
            apart = math.dist((x, y), (u, v))
            push = (distance - apart) / 2 / max(apart, 1e-6) + 0.02
            step = ((u - x) * push, (v - y) * push)
            moved[i], moved[j] = _within(box, (x - step[0], y - step[1])), _within(box, (u + step[0], v + step[1]))
    return None


def _within(box: Box, point: Point) -> Point:
    return min(max(point[0], box[0]), box[2]), min(max(point[1], box[1]), box[3])


def _background(rng: random.Random) -> Image.Image:
    """Draw a pale ground: plain, shaded from side to side, or clouded; a few pixels, to be enlarged."""
    shade, tint = rng.uniform(185, 238), [rng.uniform(-8, 8) for _ in range(3)]
    cells = {"plain": (1, 1), "shaded": (2, 2), "clouded": (9, 9)}[rng.choice(("plain", "shaded", "clouded"))]
    pixels = [
        tuple(round(min(max(shade + lift + channel, 0), 255)) for channel in tint)
        for lift in (rng.uniform(-16, 16) for _ in range(cells[0] * cells[1]))
    ]
    ground = Image.new("RGB", cells)
    ground.putdata(pixels)
    return ground


def _ink(rng: random.Random, colour: str) -> np.ndarray:
    """The tones of a colour, uint8 of shape (3, 3): light, dark, outline."""
    hue = (HUES[colour] + rng.uniform(-4, 4)) % 360 / 360
    saturation, value = rng.uniform(0.80, 0.95), VALUES[colour] + rng.uniform(-0.04, 0.02)
    tones = [colorsys.hsv_to_rgb(hue, saturation, value * share) for share in TONES.values()]
    return np.round(np.array(tones) * 255).astype(np.uint8)


def _draw(canvas: Image.Image, placed: Placed, ink: np.ndarray, rng: random.Random) -> None:
    """Paste an object on the picture: its outline, then its inside in its texture."""
    half = math.ceil(placed.radius * REACH * OVERSAMPLING) + 2
    x, y = (coordinate * OVERSAMPLING for coordinate in placed.centre)
    corner = (round(x) - half, round(y) - half)
    outer = _mask(placed.group.shape, placed.radius * OVERSAMPLING, placed.turn, half)
    inner = _mask(placed.group.shape, (placed.radius - OUTLINE) * OVERSAMPLING, placed.turn, half)
    canvas.paste(tuple(ink[2].tolist()), corner, outer)
    canvas.paste(_texture(placed.group.texture, ink, half, placed.turn, rng), corner, inner)


def _mask(shape: str, radius: float, turn: float, half: int) -> Image.Image:
    """Draw the inside of a shape as 255 on a square of side 2 * half."""
    mask = Image.new("L", (2 * half, 2 * half))
    pen = ImageDraw.Draw(mask)
    if shape == "circle":
        radius *= ROUND
        pen.ellipse((half - radius, half - radius, half + radius, half + radius), fill=255)
    else:
        cosine, sine = math.cos(turn), math.sin(turn)
        corners = [(radius * x, radius * y) for x, y in _CORNERS[shape]]
        pen.polygon([(half + x * cosine - y * sine, half + x * sine + y * cosine) for x, y in corners], fill=255)
    return mask


def _texture(texture: str, ink: np.ndarray, half: int, turn: float, rng: random.Random) -> Image.Image:
    """Draw a square of a texture, solid, striped or dotted, in the light and the dark tone of the ink."""
    y, x = np.mgrid[-half:half, -half:half] / OVERSAMPLING
    angle = turn + math.pi / 4
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    shift = rng.uniform(-0.1, 0.1)  # small: a dot or a stripe lies near the middle, so that small objects show it
    if texture == "striped":
        dark = np.abs((u / 4.6 + shift + 0.5) % 1 - 0.5) < 0.22
    elif texture == "dotted":
        dark = np.hypot((u / 4.4 + shift + 0.5) % 1 - 0.5, (v / 4.4 + shift + 0.5) % 1 - 0.5) < 0.31
    else:
        dark = np.zeros(x.shape, dtype=bool)
    return Image.fromarray(ink[dark.astype(np.uint8)])


def _ring(points: int, radii: tuple[float, ...]) -> list[Point]:
    """The corners of a polygon on a circle, from the top on; the radii alternate."""
    angled = [(radii[i % len(radii)], 2 * math.pi * i / points) for i in range(points)]
    return [(radius * math.sin(angle), -radius * math.cos(angle)) for radius, angle in angled]


_ARM, _WIDTH = 1.14, 0.32
_CORNERS: dict[str, list[Point]] = {
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": _ring(3, (REACH,)),
    "star": _ring(10, (REACH, 0.45)),
    "cross": [
        (-_WIDTH, -_ARM), (_WIDTH, -_ARM), (_WIDTH, -_WIDTH), (_ARM, -_WIDTH), (_ARM, _WIDTH), (_WIDTH, _WIDTH),
        (_WIDTH, _ARM), (-_WIDTH, _ARM), (-_WIDTH, _WIDTH), (-_ARM, _WIDTH), (-_ARM, -_WIDTH), (-_WIDTH, -_WIDTH),
    ],
}  # fmt: skip
