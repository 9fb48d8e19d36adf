#!/usr/bin/env python3
"""Draws the SVG files of the AILinux brand into svg/; render.sh makes PNG files of them.

Everything is strokes and circles, letters included, so that no font is needed. The net of nodes is drawn by chance, but
by the same chance every time.
"""

import math
import random
from pathlib import Path

NIGHT, DUSK, INDIGO = "#070b1c", "#0e1638", "#1c1f55"
CYAN, MINT, LAVENDER, AMBER, SNOW = "#3fd0ff", "#5ef2c0", "#8f9bff", "#ffb454", "#eef3ff"

EDGE = f"""<linearGradient id="edge" gradientUnits="userSpaceOnUse" x1="40" y1="220" x2="220" y2="40">
  <stop offset="0" stop-color="{MINT}"/><stop offset=".55" stop-color="{CYAN}"/>
  <stop offset="1" stop-color="{LAVENDER}"/>
</linearGradient>"""

# The letter A as three nodes and a spark, 256 x 256.
MARK = f"""<g fill="none" stroke-linecap="round" stroke-linejoin="round">
  <path d="M52 208 128 48 204 208" stroke="url(#edge)" stroke-width="22"/>
  <path d="M86 142H170" stroke="url(#edge)" stroke-width="16"/>
  <g fill="{NIGHT}" stroke="url(#edge)" stroke-width="10">
    <circle cx="128" cy="48" r="17"/><circle cx="52" cy="208" r="17"/><circle cx="204" cy="208" r="17"/>
  </g>
  <circle cx="128" cy="142" r="15" fill="{AMBER}" stroke="{NIGHT}" stroke-width="7"/>
</g>"""

# Letters on a baseline at 100, capitals 100 high: strokes, width, colour.
LETTERS = [
    ("M0 100 38 0 76 100M15 64H61", 100, CYAN),
    ("M0 0V100", 30, CYAN),
    ("M0 0V100H54", 76, SNOW),
    ("M0 34V100M0 6V7", 26, SNOW),
    ("M0 100V34M0 62C0 26 56 26 56 62V100", 82, SNOW),
    ("M0 34V70C0 108 56 108 56 70V34M56 34V100", 82, SNOW),
    ("M0 34 56 100M56 34 0 100", 60, SNOW),
]


def word():
    x, strokes = 0, []
    for path, width, colour in LETTERS:
        strokes.append(f'<path transform="translate({x} 0)" stroke="{colour}" d="{path}"/>')
        x += width
    group = '<g fill="none" stroke-width="9" stroke-linecap="round" stroke-linejoin="round">'
    return group + "".join(strokes) + "</g>", x


def lockup(centre_x, centre_y, scale):
    """Mark and word side by side."""
    letters, width = word()
    mark, gap = 0.62, 34
    total = 256 * mark * 0.78 + gap + width
    return (
        f'<g transform="translate({centre_x - total * scale / 2:.1f} {centre_y}) scale({scale})">'
        f'<g transform="translate({-256 * mark * 0.11:.1f} {-128 * mark:.1f}) scale({mark})">{MARK}</g>'
        f'<g transform="translate({256 * mark * 0.78 + gap:.1f} -48)">{letters}</g></g>'
    )


def sky(width, height, seed, count, quiet):
    """A night with a net of nodes that thickens towards the light; none within `quiet` (shares of the picture)."""
    chance = random.Random(seed)
    definitions = f"""<linearGradient id="night" x1="0" y1="0" x2="0.35" y2="1">
  <stop offset="0" stop-color="{NIGHT}"/><stop offset=".5" stop-color="{DUSK}"/><stop offset="1" stop-color="{INDIGO}"/>
</linearGradient>
<radialGradient id="dawn" gradientUnits="userSpaceOnUse" cx="{width * 0.78:.0f}" cy="{height * 1.02:.0f}" r="{width * 0.62:.0f}">
  <stop offset="0" stop-color="{CYAN}" stop-opacity=".42"/><stop offset=".45" stop-color="#6a5cff" stop-opacity=".2"/>
  <stop offset="1" stop-color="#6a5cff" stop-opacity="0"/>
</radialGradient>
<radialGradient id="mint" gradientUnits="userSpaceOnUse" cx="{width * 0.1:.0f}" cy="{height * 0.08:.0f}" r="{width * 0.45:.0f}">
  <stop offset="0" stop-color="{MINT}" stop-opacity=".16"/><stop offset="1" stop-color="{MINT}" stop-opacity="0"/>
</radialGradient>"""
    body = [f'<rect width="{width}" height="{height}" fill="url(#{name})"/>' for name in ("night", "mint", "dawn")]

    def distance(one, other):
        return math.hypot((one[0] - other[0]) * width, (one[1] - other[1]) * height)

    def is_quiet(x, y):
        left, top, right, bottom = quiet
        return left <= x <= right and top <= y <= bottom

    nodes = []
    while len(nodes) < count:
        node = chance.uniform(-0.02, 1.02), chance.uniform(0, 1.02)
        wanted = node[0] * 0.55 + node[1] * 0.75 - 0.35
        if not is_quiet(*node) and chance.random() < wanted and all(distance(node, n) > width * 0.045 for n in nodes):
            nodes.append(node)
    edges = set()
    for index, node in enumerate(nodes):
        others = sorted((other for other in range(len(nodes)) if other != index), key=lambda o: distance(nodes[o], node))
        for other in others[:3]:
            middle = [(a + b) / 2 for a, b in zip(node, nodes[other])]
            if distance(node, nodes[other]) < width * 0.16 and not is_quiet(*middle):
                edges.add((min(index, other), max(index, other)))

    def light(x, y):
        return max(0.0, min(1.0, x * 0.5 + y * 0.7 - 0.35))

    size = width / 1920
    body.append(f'<g stroke="#8fd8ff" stroke-width="{1.4 * size:.2f}" stroke-linecap="round">')
    for one, other in sorted(edges):
        (a, b), (c, d) = nodes[one], nodes[other]
        opacity = 0.08 + 0.34 * light((a + c) / 2, (b + d) / 2)
        points = f"M{a * width:.1f} {b * height:.1f} {c * width:.1f} {d * height:.1f}"
        body.append(f'<path d="{points}" opacity="{opacity:.2f}"/>')
    body.append("</g>")
    for index, (x, y) in enumerate(nodes):
        opacity, radius = 0.25 + 0.6 * light(x, y), chance.uniform(2.2, 5.2) * size
        colour = AMBER if index % 11 == 5 else MINT if index % 4 == 1 else "#bfe8ff"
        for factor, share in ((3.2, 0.12), (1, 1)):
            body.append(
                f'<circle cx="{x * width:.1f}" cy="{y * height:.1f}" r="{radius * factor:.1f}" '
                f'fill="{colour}" opacity="{opacity * share:.2f}"/>'
            )
    return "\n".join(body), definitions


def write(name, width, height, body, definitions=""):
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        f"<defs>\n{EDGE}\n{definitions}\n</defs>\n{body}\n</svg>\n"
    )
    (Path(__file__).parent / "svg" / f"{name}.svg").write_text(text)


def scene(name, width, height, seed, count, quiet, lockup_at=None):
    body, definitions = sky(width, height, seed, count, quiet)
    write(name, width, height, body + ("\n" + lockup(*lockup_at) if lockup_at else ""), definitions)


def main():
    write("mark", 256, 256, MARK)
    write("logo", 640, 200, lockup(320, 100, 1.0))
    scene("wallpaper", 1920, 1080, 7, 64, (-1, 0.3, 0.55, 0.72), (650, 560, 1.0))  # whole also on screens of 4:3
    scene("grub", 1920, 1080, 7, 64, (0.2, 0, 0.8, 0.9), (960, 200, 1.0))
    scene("isolinux", 640, 480, 11, 26, (0.12, 0, 0.88, 0.8), (320, 80, 0.5))


if __name__ == "__main__":
    main()
