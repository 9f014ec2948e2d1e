"""A chart as SVG, whose colours come from the page: so it follows dark mode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from lab.page import Markup, element, join

LEFT, RIGHT, TOP, BOTTOM = 54, 14, 30, 40  # pixels around the area of the data
Point = tuple[float, float]


@dataclass(frozen=True)
class Chart:
    """An area for data between `x` and `y`, the least and the greatest value of each axis."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 360
    height: int = 260

    def at(self, x: float, y: float) -> Point:
        """The place of a point in pixels."""
        share = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        inner = self.width - LEFT - RIGHT, self.height - TOP - BOTTOM
        return round(LEFT + share[0] * inner[0], 1), round(TOP + (1 - share[1]) * inner[1], 1)

    def line(self, points: Sequence[Point], class_: str) -> Markup:
        """A line through the points, with a mark at a single one, which has no line."""
        places = [self.at(*point) for point in points]
        if len(places) == 1:
            return element("circle", cx=places[0][0], cy=places[0][1], r=4, class_=f"{class_} dot")
        path = Markup(" ".join(f"{x},{y}" for x, y in places))
        return element("polyline", points=path, class_=f"{class_} line")

    def hint(self, point: Point, text: str) -> Markup:
        """A place that shows a text under the pointer."""
        x, y = self.at(*point)
        return element("circle", element("title", text), cx=x, cy=y, r=7, class_="hint")

    def bar(self, left: float, right: float, top: float, class_: str, text: str = "") -> Markup:
        """A bar from the bottom of the area, with a text under the pointer."""
        (x0, y0), (x1, y1) = self.at(left, self.y[0]), self.at(right, top)
        title = element("title", text) if text else Markup()
        size = {"width": round(max(x1 - x0 - 1, 1), 1), "height": round(y0 - y1, 1)}
        return element("rect", title, x=x0, y=y1, class_=class_, **size)

    def drawn(
        self,
        *content: Markup,
        labels: tuple[str, str],
        formats: tuple[Callable[[float], str], Callable[[float], str]],
        legend: Sequence[tuple[str, str]] = (),
        whole: bool = False,
    ) -> Markup:
        """The chart with its axes, described by `labels`. `legend` has names and classes of lines;
        `whole` asks for whole numbers on the x axis."""
        bottom = self.height - BOTTOM
        parts = []
        for value in ticks(*self.y):
            y = self.at(self.x[0], value)[1]
            parts.append(element("line", x1=LEFT, x2=self.width - RIGHT, y1=y, y2=y, class_="grid"))
            parts.append(text(formats[1](value), LEFT - 6, y + 4, "end"))
        for value in ticks(*self.x, whole=whole):
            x = self.at(value, self.y[0])[0]
            parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
            parts.append(text(formats[0](value), x, bottom + 17, "middle"))
        axis = {"x1": LEFT, "x2": self.width - RIGHT, "y1": bottom, "y2": bottom}
        parts += [*content, element("line", class_="axis", **axis)]
        parts.append(text(labels[0], (LEFT + self.width - RIGHT) / 2, self.height - 6, "middle"))
        left = 4
        for name, class_ in legend:
            parts.append(_sample(left, class_))
            parts.append(text(name, left + 23, 16))
            left += 36 + 7 * len(name)
        return svg(self.width, self.height, f"{labels[1]} by {labels[0]}", *parts)


def _sample(left: int, class_: str) -> Markup:
    """The sample beside a name in the legend."""
    if "dot" in class_:
        return element("circle", cx=left + 9, cy=12, r=4, class_=class_)
    return element("line", x1=left, x2=left + 18, y1=12, y2=12, class_=class_)


def ticks(least: float, greatest: float, whole: bool = False) -> list[float]:
    values = MaxNLocator(5, integer=whole, min_n_ticks=1 if whole else 2).tick_values(
        least, greatest
    )
    slack = 1e-9 * (greatest - least)
    return [float(v) for v in values if least - slack <= v <= greatest + slack]


def around(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis that shows all values."""
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        half = abs(low) / 2 or 0.5
        return low - half, high + half
    return low, high + 0.04 * (high - low)


def text(content: str, x: float, y: float, anchor: str = "start", **attributes: object) -> Markup:
    place = {"x": round(x, 1), "y": round(y, 1), "text_anchor": anchor}
    return element("text", content, **place, **attributes)


def svg(width: int, height: int, label: str, *content: Markup, class_: str = "chart") -> Markup:
    size = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    return element("svg", join(*content), role="img", aria_label=label, class_=class_, **size)
