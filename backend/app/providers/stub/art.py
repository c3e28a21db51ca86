"""The image of the stub provider: a banana in front of the sun, above hills that carry the prompt's words."""

import math
import re
import unicodedata
from bisect import bisect
from hashlib import sha256
from io import BytesIO
from itertools import groupby

from PIL import Image, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

# The characters in Pillow's embedded font, and spellings for letters that Unicode does not decompose.
GLYPHS = {*map(chr, range(0x20, 0x7F)), *"©«°±·»“”…", "\u2018", "\u2019"}
SPELLINGS = {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE"}
SPELLINGS |= dict(zip("øØłŁđĐðı„\u2010\u2013\u2014\u2212\u00d7", "oOlLdDdi“----x", strict=True))
CONSIDERED, LEADING, TILE = 4_000, 1.2, 0.98  # characters; of the size of the letters, twice


def draw_png(prompt: str, *, width: int, height: int, model: str = "") -> bytes:
    """A PNG of exactly width x height pixels (64 to 2,048 a side), drawn from the prompt alone: its words on
    it, its colours from its SHA-256, and in small letters whose image it is, which can be a model's. The same bytes for
    the same arguments, every time, in every process.

    Any text can be drawn. Accents that the font lacks are dropped (é becomes e), a character that it lacks (猫, 🍌)
    becomes a small tile with a pattern of its own, and words that do not fit end in "…".
    """
    palette, layout = Palette(prompt), Layout(prompt, width, height)
    canvas = _sky(palette, width, height)
    for draw in (_draw_sun, _draw_hills, draw_banana, draw_words):
        draw(canvas, palette, layout)
    draw_label(canvas, palette, layout, model)
    encoded = BytesIO()
    canvas.save(encoded, "PNG", compress_level=4)
    return encoded.getvalue()


class Palette:
    """The numbers and colours of an image: they look random, and are a function of the prompt.
    `text` and `label`, on the two colours of `ground` and all between, have a contrast of at least 4.5 to 1.
    """

    def __init__(self, prompt: str) -> None:
        self._digest = sha256(prompt.encode("utf-8", "surrogatepass")).digest()
        self._deep = self.between("hue", 235, 345)
        self._span = math.copysign(self.between("span", 60, 80), self.between("direction", -1, 1))
        self.text, self.label = self.colour(1, 0.99, 0.01), self.colour(1, 0.84, 0.08)
        self.tiles = (255, 214, 64), self.text, self.colour(1, 0.76, 0.15), self.colour(0.5, 0.60, 0.19)
        tops = (self.colour(0.05 + 0.37 * far, 0.34 + 0.15 * far, 0.13 + 0.02 * far) for far in range(3))
        feet = (self.colour(0.35 * far, 0.21 + 0.17 * far, 0.08 + 0.04 * far) for far in range(3))
        self.ground, *self.hills = zip(tops, feet, strict=True)

    def between(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * int.from_bytes(sha256(self._digest + name.encode()).digest()[:6]) / 2**48

    def colour(self, place: float, lightness: float, chroma: float) -> Colour:
        """OKLCH (https://bottosson.github.io/posts/oklab/) as sRGB, paler where a screen cannot show it. Its
        place, 0 to 1, is the one among the hues, which are neighbours, and never the banana's.
        """
        hue = math.radians(self._deep + self._span * place)
        a, b = chroma * math.cos(hue), chroma * math.sin(hue)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
        green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
        blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
        if min(red, green, blue) < 0 or max(red, green, blue) > 1:
            return self.colour(place, lightness, chroma * 0.95)
        red, green, blue = (max(0, 269 * math.pow(light, 1 / 2.4) - 14) for light in (red, green, blue))
        return round(red), round(green), round(blue)


def _sky(palette: Palette, width: int, height: int) -> Image.Image:
    """A mesh of 25 knots of colour, deep above and bright below, blended so widely that no knot is seen."""
    knots, slant = Image.new("RGB", (5, 5)), palette.between("slant", -0.3, 0.3)
    for column, row in ((n % 5, n // 5) for n in range(25)):
        place = row / 5 + slant * (column / 2 - 1) + palette.between(f"knot {column} {row}", -0.08, 0.28)
        place = min(1, max(0, place))
        knots.putpixel((column, row), palette.colour(place, 0.40 + 0.50 * place, 0.17 - 0.09 * place**3))
    blended = knots.resize((96, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(8))
    return blended.resize((width, height), Image.Resampling.BICUBIC)


def paint(on: Image.Image, outline: list[Point], colours: tuple[Colour, Colour], opacity: int = 255) -> None:
    """Fill an outline, smooth-edged, with a colour that changes from its top to its bottom."""
    xs, ys = zip(*outline, strict=True)
    left, upper = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    size = min(on.width, math.ceil(max(xs))) - left, min(on.height, math.ceil(max(ys))) - upper
    if min(size) <= 0:
        return
    # The larger an outline, the fewer steps along its edges are enough: the mask stays below 17 MB.
    fine = min(4, max(2, 3072 // max(size)))
    mask = Image.new("L", (size[0] * fine, size[1] * fine))
    ImageDraw.Draw(mask).polygon([((x - left) * fine, (y - upper) * fine) for x, y in outline], fill=opacity)
    mask = mask.reduce(fine)
    ends = Image.frombytes("RGB", (1, 2), bytes((*colours[0], *colours[1])))
    on.paste(ends.resize(size, Image.Resampling.BILINEAR, box=(0, 0.5, 1, 1.5)), (left, upper), mask)


def curve(at: Point, radius: float, start: float = 0, end: float = 360, *, power: float = 1) -> list[Point]:
    """An arc between two angles in degrees: of a circle, at power 3 of a star, at 0.35 of a soft square."""
    steps = min(180, 24 + round(radius))
    turns = [math.radians(start + (end - start) * n / steps) for n in range(steps + 1)]
    xs, ys = ([math.copysign(abs(f(turn)) ** power, f(turn)) for turn in turns] for f in (math.cos, math.sin))
    return [(at[0] + radius * x, at[1] + radius * y) for x, y in zip(xs, ys, strict=True)]


class Layout:
    """The words in the lower part of an image, the sun above them, or beside them if the image is wide."""

    def __init__(self, prompt: str, width: int, height: int) -> None:
        unit, wide = min(width, height), width > 1.35 * height
        self.margin, self.label = round(unit * 0.06), round(unit * 0.024) * min(1, unit // 420)
        space = width * (0.5 if wide else 1) - 2 * self.margin, height * (0.66 if wide else 0.38) - self.margin
        sizes = (
            max(8, round(unit * 0.032)),
            max(12, round(unit * 0.14 * min(2.5, max(0.82, width / height / 2.4)))),
        )
        self.lines, self.size = _fitted(_words(prompt), space, *sizes)
        self.top = height - self.margin - round(len(self.lines) * self.size * LEADING + self.label * 2.2)
        self.sun = (width * 0.75, height * 0.47) if wide else (width / 2, self.top * 0.47)
        self.reach = min(height * 0.46, width * 0.25) if wide else min(width, self.top) * 0.5
        self.slope = max(0, height * 0.86 - self.top) if wide else 0


def _draw_sun(canvas: Image.Image, palette: Palette, layout: Layout) -> None:
    (x, y), reach = layout.sun, layout.reach
    white, halo = palette.colour(1, 0.97, 0.04), palette.colour(0.7, 0.75, 0.14)
    for radius in (1.62, 1.27, 0.95):
        paint(canvas, curve((x, y), reach * radius), (halo, halo), opacity=51)
    paint(canvas, curve((x, y), reach * 0.68), (white, palette.colour(1, 0.80, 0.15)))
    for n in range(9):
        turn = math.radians(-200 + 220 * (n + palette.between(f"turn {n}", 0.1, 0.9)) / 9)
        far, size = reach * palette.between(f"far {n}", 0.95, 1.5), reach * (0.035 if n % 4 - 1 else 0.085)
        star = x + far * math.cos(turn), y + far * math.sin(turn)
        if size < star[0] < canvas.width - size and size < star[1]:
            paint(canvas, curve(star, size, power=3), (white, white))


def _draw_hills(canvas: Image.Image, palette: Palette, layout: Layout) -> None:
    """Two distant hills, and the ground, which lies behind every word."""
    for far in (2, 1, 0):
        draw_hill(canvas, palette, layout, far)


def draw_hill(canvas: Image.Image, palette: Palette, layout: Layout, far: int, *, opacity: int = 255) -> None:
    """One of the hills, 2 for the most distant, 0 for the ground."""
    width, height = canvas.size
    waves, phase = palette.between(f"waves {far}", 0.7, 1.3), palette.between(f"phase {far}", 0, 1)
    ridge: list[Point] = [(width, height), (0, height)]
    for across in (n / 120 for n in range(121)):
        wave = 0.5 + 0.5 * math.sin(math.tau * (waves * across + phase))
        lift = min(width, height) * (0.055 * far + (0.05 + 0.02 * far) * wave) + layout.size * 0.45
        fall = layout.slope * (0.5 - 0.5 * math.cos(math.pi * min(1, max(0, (across - 0.5) / 0.3))))
        ridge.append((width * across, layout.top + fall - lift))
    paint(canvas, ridge, [palette.ground, *palette.hills][far], opacity)


def draw_banana(canvas: Image.Image, palette: Palette, layout: Layout) -> None:
    side = math.copysign(1, palette.between("side", -1, 1))
    tilt = math.radians(palette.between("tilt", -32, 4)) * side

    def strip(start: float, end: float, across: Point, *, drop: float = 0, taper: float = 0) -> list[Point]:
        """From tip (0) to stem (1), between two lines along it: -1 is the inner, 1 the outer edge."""
        outline: list[Point] = []
        for n, edge in [(n, -1) for n in range(81)] + [(n, 1) for n in range(80, -1, -1)]:
            along, thick = start + (end - start) * n / 80, edge * math.sin(math.pi * n / 80) ** taper
            belly = math.sin(math.pi * min(1, max(0, along))) ** (0.74 + 0.5 * along)
            girth = 0.045 + 0.255 * belly + 0.3 * max(0, along - 1)
            far = 1 + girth * (sum(across) + (across[1] - across[0]) * thick) / 2
            turn = math.radians(-72 + 144 * along)
            x, y = side * far * math.sin(turn), far * math.cos(turn) - 0.66
            x, y = x * math.cos(tilt) - y * math.sin(tilt), x * math.sin(tilt) + y * math.cos(tilt) + drop
            outline.append((layout.sun[0] + x * layout.reach * 0.66, layout.sun[1] + y * layout.reach * 0.66))
        return outline

    paint(canvas, strip(0, 1.1, (-1, 1), drop=0.07), (palette.ground[1], palette.ground[1]), opacity=51)
    paint(canvas, strip(0, 1, (-1, 1)), ((255, 232, 96), (255, 204, 44)))
    paint(canvas, strip(0, 1, (0.2, 1)), ((250, 192, 38), (238, 154, 18)))
    paint(canvas, strip(0.2, 0.74, (-0.64, -0.4), taper=0.5), ((255, 246, 196), (255, 240, 170)))
    paint(canvas, strip(0.985, 1.1, (-1, 1)), ((122, 116, 40), (206, 184, 60)))
    paint(canvas, strip(1.085, 1.1, (-1, 1)), ((92, 74, 36), (92, 74, 36)))
    paint(canvas, strip(-0.03, 0.02, (-1, 1)), ((104, 72, 36), (66, 44, 20)))


def _words(prompt: str) -> list[str]:
    """What a line may break between, with the space after it: words in the font's letters, other characters singly."""
    text = ""
    for character in " ".join(prompt[:CONSIDERED].split()):
        parts = "".join(SPELLINGS.get(part, part) for part in unicodedata.normalize("NFKD", character))
        formless = unicodedata.category(character) in {"Cc", "Cf", "Cs", "Mn", "Mc", "Me"}
        text += "".join(c for c in parts if c in GLYPHS) or ("" if formless else character)
    return re.findall(f"[{re.escape(''.join(sorted(GLYPHS - {' '})))}]+ ?|. ?", " ".join(text.split()))


def _fitted(words: list[str], space: Point, low: int, high: int) -> tuple[list[str], int]:
    """Even lines of the words, at the largest size at which all fit, or as many as fit at the smallest size."""
    low += bisect(range(low + 1, high + 1), 0, key=lambda size: not _wrapped(words, size, space)[1])
    lines, whole = _wrapped(words, low, space)
    even = (_wrapped(words, low, (space[0] * share / 20, space[1])) for share in range(8, 20 if whole else 8))
    return next((narrow for narrow, kept in even if kept and len(narrow) == len(lines)), lines), low


def _wrapped(words: list[str], size: int, space: Point) -> tuple[list[str], bool]:
    """Lines of the words that fit, and whether all words fit unbroken."""
    font, width = ImageFont.load_default(size), space[0]
    extent = {c: font.getlength(c) if c in GLYPHS else TILE * size for c in {*"".join(words), "…"}}
    lines, left, whole = [""], width, True
    for word in words:
        if sum(extent[c] for c in word.rstrip()) > left:
            lines, left = [*lines, ""], width
        for c in word:
            if extent[c] > left and c != " ":
                lines, left, whole = [*lines, ""], width, False
            lines[-1] += c
            left -= extent[c]
    lines, rows = [line.rstrip() for line in lines if line.strip()], max(1, int(space[1] / (size * LEADING)))
    if len(lines) <= rows:
        return lines, whole
    while sum(extent[c] for c in lines[rows - 1] + "…") > width:
        lines[rows - 1] = lines[rows - 1][:-1]
    return [*lines[: rows - 1], lines[rows - 1].rstrip() + "…"], False


def draw_words(canvas: Image.Image, palette: Palette, layout: Layout) -> None:
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(layout.size)
    for number, line in enumerate(layout.lines):
        x, y = float(layout.margin), layout.top + (number * LEADING + 0.9) * layout.size
        for drawable, run in groupby(line, key=GLYPHS.__contains__):
            text = "".join(run)
            if drawable:
                draw.text((x, y), text, palette.text, font, anchor="ls", stroke_width=layout.size // 12 / 5)
            for n, character in enumerate("" if drawable else text):
                _draw_tile(canvas, palette, character, (x + n * layout.size * TILE, y), layout.size * 0.9)
            x += font.getlength(text) if drawable else len(text) * layout.size * TILE


def draw_label(canvas: Image.Image, palette: Palette, layout: Layout, model: str) -> None:
    """In small letters, that it is a test picture, and of which model."""
    if layout.label:
        place, font = (layout.margin, canvas.height - layout.margin), ImageFont.load_default(layout.label)
        ImageDraw.Draw(canvas).text(
            place, f"{model or 'NanoBanana'}  ·  test picture", palette.label, font, anchor="ls"
        )


def _draw_tile(canvas: Image.Image, palette: Palette, character: str, corner: Point, side: float) -> None:
    ground, ink, *_ = sorted(palette.tiles, key=lambda tile: palette.between(f"{character}{tile}", 0, 1))
    middle = corner[0] + side / 2, corner[1] - side * 0.4
    turn = 90 * int(palette.between("turn" + character, 0, 4))
    near, *_, far = curve(middle, side * 0.626, turn + 45, turn + 225)
    motifs = (
        curve(middle, side * 0.32, turn, turn + 180 * round(palette.between("sweep" + character, 1, 2))),
        curve(middle, side * 0.44, power=3),
        [near, *curve(near, side * 0.8, turn + 180, turn + 270)],
        [*curve(near, side * 0.88, turn + 180, turn + 270), *curve(far, side * 0.88, turn, turn + 90)],
    )
    paint(canvas, curve(middle, side / 2, power=0.35), (ground, ground))
    paint(canvas, motifs[int(palette.between("motif" + character, 0, len(motifs)))], (ink, ink))
