"""A drawing of a pool as SVG: clusters as boxes, accelerators coloured by kind, links with their bandwidths."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape
from math import ceil, cos, pi, sin

from mars_onnx.pool.clusters import clusterings
from mars_onnx.pool.topology import Link, Pool

Point = tuple[float, float]
#: What links are alike in.
Kind = tuple[float, float, bool]

_FILLS = ("#cfe3f7", "#d5efcf", "#fbe3bd", "#ecd6f2", "#f7d2d2", "#d3eeee")
_STROKES = ("#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280", "#5f6b7a", "#8a6d00", "#00838f")
_WIDTH, _HEIGHT = 92, 34
_GAP_X, _GAP_Y = 26, 54
_MARGIN = 30
_BOX_GAP = 70
#: Up to so many links of a cluster, each has its label; beyond, the legend alone says what they are.
_LABELLED = 8
#: Up to so many accelerators are one cluster unless hosts part them.
_ONE_BOX = 8


def rate(bytes_per_s: float) -> str:
    """A bandwidth as a person writes it: ``1.25 GB/s``."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if bytes_per_s >= size:
            return f"{bytes_per_s / size:.4g} {prefix}B/s"
    return f"{bytes_per_s:.4g} B/s"


def _time(seconds: float) -> str:
    for size, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "u")):
        if seconds >= size:
            return f"{seconds / size:.4g} {prefix}s"
    return f"{seconds * 1e9:.4g} ns"


@dataclass
class _Box:
    """A cluster and the hosts and switches that only it uses."""

    ranks: tuple[int, ...]
    hubs: list[int]
    places: dict[int, Point] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0


def draw(pool: Pool) -> str:
    """The drawing of a pool, as the text of an SVG file."""
    return _Drawing(pool).text()


class _Drawing:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.title = f"{pool.name}: {pool.title}"
        self.kinds: list[Kind] = []
        for link in pool.links:
            if _kind(link) not in self.kinds:
                self.kinds.append(_kind(link))
        self.boxes = [_Box(ranks, []) for ranks in _clusters(pool)]
        self.box_of = {rank: number for number, box in enumerate(self.boxes) for rank in box.ranks}
        self.shared: list[int] = []
        self._sort_hubs()
        for box in self.boxes:
            self._arrange(box)
        self.at: dict[int, Point] = {}
        self.corners: list[Point] = []
        self.width = self.height = 0.0
        self._place()
        self.lines: list[str] = []
        self.labels: list[str] = []

    def _sort_hubs(self) -> None:
        """A host or switch belongs to a box if all accelerators next to it do."""
        for hub in range(self.pool.size, len(self.pool.node_ids)):
            near = {self.box_of[other] for other in self.pool.graph[hub] if other < self.pool.size}
            if len(near) == 1:
                self.boxes[next(iter(near))].hubs.append(hub)
            else:
                self.shared.append(hub)

    def _arrange(self, box: _Box) -> None:
        """Hubs in the middle row with accelerators above and below, or accelerators round a circle, or in a row."""
        count = len(box.ranks)
        if box.hubs:
            upper = box.ranks[: ceil(count / 2)] if count > 3 else box.ranks
            rows = [upper, tuple(box.hubs), box.ranks[len(upper) :]]
            broad = max(len(row) for row in rows)
            for line, row in enumerate(rows):
                self._row(box, row, broad, line)
        elif count > 2:
            radius = max(80.0, count * (_WIDTH + 16) / (2 * pi))
            turn = pi / 4 if count == 4 else pi / 2
            for place, rank in enumerate(box.ranks):
                angle = 2 * pi * place / count - turn - (pi / 2 if count == 4 else 0)
                box.places[rank] = (radius * 1.15 * cos(angle), radius * sin(angle))
        else:
            for place, rank in enumerate(box.ranks):
                box.places[rank] = (place * (_WIDTH + 90.0), 0.0)
        left = min(x for x, _ in box.places.values()) - _WIDTH / 2 - 22
        top = min(y for _, y in box.places.values()) - _HEIGHT / 2 - 22
        box.places = {node: (x - left, y - top) for node, (x, y) in box.places.items()}
        box.width = max(x for x, _ in box.places.values()) + _WIDTH / 2 + 22
        box.height = max(y for _, y in box.places.values()) + _HEIGHT / 2 + 22

    def _row(self, box: _Box, row: tuple[int, ...], broad: int, line: int) -> None:
        indent = (broad - len(row)) / 2
        for place, node in enumerate(row):
            box.places[node] = ((place + indent) * (_WIDTH + _GAP_X), line * (_HEIGHT + _GAP_Y))

    def _place(self) -> None:
        """Boxes in one row, or two with the shared hosts and switches between."""
        count = len(self.boxes)
        columns = count if count <= 3 else ceil(count / 2)
        rows = [self.boxes[start : start + columns] for start in range(0, count, columns)]
        broad = max(sum(box.width for box in row) + _BOX_GAP * (len(row) - 1) for row in rows)
        broad = max(broad, len(self.shared) * (_WIDTH + _GAP_X), 10.5 * len(self.title))
        top = float(_MARGIN + 40)
        for number, row in enumerate(rows):
            if self.shared and number == len(rows) - 1:
                top = self._hub_row(top, broad)
            left = _MARGIN + (broad - sum(box.width for box in row) - _BOX_GAP * (len(row) - 1)) / 2
            for box in row:
                self.corners.append((left, top))
                self.at.update({node: (left + x, top + y) for node, (x, y) in box.places.items()})
                left += box.width + _BOX_GAP
            top += max(box.height for box in row) + (0 if number == len(rows) - 1 else 50)
        self.width, self.height = broad + 2 * _MARGIN, top + _MARGIN

    def _hub_row(self, top: float, broad: float) -> float:
        middle = top + (70 if len(self.boxes) > 3 else 20)
        # The one with the most links in the middle, the others to its right and left by turns.
        step = min(240.0, broad / len(self.shared))
        for place, hub in enumerate(sorted(self.shared, key=lambda hub: (-len(self.pool.graph[hub]), hub))):
            side = (place + 1) // 2 * (1 if place % 2 else -1)
            self.at[hub] = (_MARGIN + broad / 2 + step * side, middle)
        return middle + 120

    def text(self) -> str:
        """The whole file."""
        self._links()
        legend = self._legend()
        nodes = [self._node(node) for node in range(len(self.pool.node_ids))]
        frames = [
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="10" class="box"/>'
            for (x, y), box in zip(self.corners, self.boxes, strict=True)
        ]
        title = f'<text x="{_MARGIN}" y="34" class="title">{escape(self.title)}</text>'
        width = self.width
        size = f'width="{width:.0f}" height="{self.height:.0f}"'
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {self.height:.0f}" {size}>',
                _STYLE,
                f'<rect {size} fill="white"/>',
                title,
                *frames,
                *self.lines,
                *nodes,
                *self.labels,
                *legend,
                "</svg>",
                "",
            ]
        )

    def _links(self) -> None:
        """One line per link; links of one kind between a box and something outside it are one line together."""
        bundles: Counter[tuple[int, int, Kind]] = Counter()
        single: list[Link] = []
        for link in self.pool.links:
            box, hub = self._crossing(link)
            if box is not None and hub is not None:
                bundles[box, hub, _kind(link)] += 1
            else:
                single.append(link)
        labelled = len(single) <= _LABELLED
        for link in single:
            start, end = self.at[link.ends[0]], self.at[link.ends[1]]
            self._line(start, end, _kind(link), "", 0.5 if labelled else None)
        used: Counter[tuple[int, int]] = Counter()
        for (box, hub, kind), count in bundles.items():
            used[box, hub] += 1
            shift = 26.0 * (used[box, hub] - 1)
            x, y = self.corners[box]
            hub_x, hub_y = self.at[hub]
            edge = y if hub_y < y else y + self.boxes[box].height
            start = (min(max(hub_x, x + 14), x + self.boxes[box].width - 14) + shift, edge)
            if len(self.boxes) > 1:
                start = (x + self.boxes[box].width / 2 + shift, edge)
            self._line(start, (hub_x + shift, hub_y), kind, f"{count} x " if count > 1 else "", 0.3, 3.0)

    def _crossing(self, link: Link) -> tuple[int | None, int | None]:
        """Box and outer end of a link to a host or switch outside the box, if it is such a link."""
        for inner, hub in (link.ends, link.ends[::-1]):
            home = next((number for number, box in enumerate(self.boxes) if inner in box.places), None)
            if hub in self.shared and home is not None:
                return home, hub
        return None, None

    def _line(
        self, start: Point, end: Point, kind: Kind, many: str, label_at: float | None, broad: float = 1.6
    ) -> None:
        stroke = _STROKES[self.kinds.index(kind) % len(_STROKES)]
        dash = "" if kind[2] else ' stroke-dasharray="7 4"'
        (x1, y1), (x2, y2) = start, end
        self.lines.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" '
            f'stroke-width="{broad}"{dash}/>'
        )
        if label_at is not None:
            x, y = x1 + (x2 - x1) * label_at, y1 + (y2 - y1) * label_at
            text = f"{many}{rate(kind[0])}"
            self.labels.append(
                f'<rect x="{x - 3.6 * len(text):.1f}" y="{y - 8:.1f}" width="{7.2 * len(text):.1f}" height="16" '
                f'fill="white" fill-opacity="0.92"/><text x="{x:.1f}" y="{y + 4:.1f}" class="label">{text}</text>'
            )

    def _node(self, node: int) -> str:
        x, y = self.at[node]
        ends = " ".join(
            mark for mark, end in (("in", self.pool.inputs_at), ("out", self.pool.outputs_at)) if end == node
        )
        if node < self.pool.size:
            each = self.pool.accelerators[node]
            fill, radius, below = self._fill(each.kind), 6, each.kind + (f" ({ends})" if ends else "")
        else:
            host = node < self.pool.size + len(self.pool.hosts)
            fill, radius = ("#e2e2e2", 2) if host else ("#fdfdfd", 17)
            below = ("host" if host else "switch") + (f" ({ends})" if ends else "")
        name = self.pool.node_ids[node]
        name = name if len(name) <= 13 else name[:12] + "…"
        return (
            f'<rect x="{x - _WIDTH / 2:.1f}" y="{y - _HEIGHT / 2:.1f}" width="{_WIDTH}" height="{_HEIGHT}" '
            f'rx="{radius}" fill="{fill}" class="node"/>'
            f'<text x="{x:.1f}" y="{y - 1:.1f}" class="name">{escape(name)}</text>'
            f'<text x="{x:.1f}" y="{y + 12:.1f}" class="kind">{escape(below)}</text>'
        )

    def _fill(self, kind: str) -> str:
        kinds = sorted({each.kind for each in self.pool.accelerators})
        return _FILLS[kinds.index(kind) % len(_FILLS)]

    def _legend(self) -> list[str]:
        """What the colours of links mean, below the drawing."""
        made: list[str] = []
        counts = Counter(map(_kind, self.pool.links))
        for number, kind in enumerate(self.kinds):
            y = self.height + 22 * number
            stroke = _STROKES[number % len(_STROKES)]
            dash = "" if kind[2] else ' stroke-dasharray="7 4"'
            plural = "s" if counts[kind] > 1 else ""
            duplex = "full" if kind[2] else "half"
            text = f"{rate(kind[0])}, {_time(kind[1])}, {duplex} duplex: {counts[kind]} link{plural}"
            made.append(
                f'<line x1="{_MARGIN}" y1="{y:.0f}" x2="{_MARGIN + 36}" y2="{y:.0f}" stroke="{stroke}" '
                f'stroke-width="3"{dash}/>'
                f'<text x="{_MARGIN + 46}" y="{y + 5:.0f}" class="legend">{text}</text>'
            )
        self.height += 22 * len(self.kinds) + 8
        return made


_STYLE = """<style>
text { font-family: sans-serif; text-anchor: middle; fill: #1a202c }
.title { font-size: 17px; font-weight: bold; text-anchor: start }
.legend { font-size: 13px; text-anchor: start }
.name { font-size: 12px; font-weight: bold }
.kind { font-size: 10px; fill: #4a5568 }
.label { font-size: 12px }
.box { fill: #f7fafc; stroke: #a0aec0; stroke-width: 1.2 }
.node { stroke: #2d3748; stroke-width: 1.2 }
</style>"""


def _kind(link: Link) -> Kind:
    return link.bandwidth_bytes_per_s, link.latency_s, link.full_duplex


def _clusters(pool: Pool) -> tuple[tuple[int, ...], ...]:
    """What gets a box: groups that only hosts connect, else the finest clusters of a pool that is not small."""
    groups = pool.groups()
    if len(groups) > 1 or pool.size <= _ONE_BOX:
        return groups
    found = clusterings(pool, range(pool.size))
    return found[0] if found else groups
