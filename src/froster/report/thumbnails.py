"""What a search has found, as pictures: the middle frame of each best segment."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageOps
from PIL.ImageFont import FreeTypeFont, truetype

from froster.errors import UsageError, VideoError
from froster.inference.lanes import clock
from froster.inference.search import Hit
from froster.utils.address import as_path
from froster.utils.files import atomic_file
from froster.utils.text import printable
from froster.video.reader import Video

WIDTH, HEIGHT, MARGIN, LINE = 320, 200, 12, 20
COLUMNS = 4


def span(hit: Hit) -> str:
    return f"{clock(hit.start, hit.entry.ends[-1])} – {clock(hit.end, hit.entry.ends[-1])}"


def check_target(path: Path) -> None:
    """Raises UsageError on what is neither a picture to write nor a folder."""
    if path.suffix and path.suffix.lower() not in (".png", ".jpg"):
        raise UsageError(f"--thumbnails takes a .png, a .jpg or a folder, not {path.name!r}")


def thumbnails(hits: Sequence[Hit], root: Path, path: Path, title: str) -> None:
    """One sheet where `path` ends in .png or .jpg, else a picture a hit in the folder `path`."""
    pictures = [thumbnail(hit, root) for hit in hits]
    if path.suffix:
        page = sheet(hits, pictures, title)
        with atomic_file(path) as part:
            page.save(part, format="PNG" if path.suffix.lower() == ".png" else "JPEG")
        return
    for number, (hit, picture) in enumerate(zip(hits, pictures, strict=True), 1):
        moment = clock(hit.best[0], hit.entry.ends[-1]).replace(":", ".")
        # A name takes 255 bytes at most, also the longer one that it has until it is whole.
        name = printable(as_path(hit.entry.path).stem).encode()[:200].decode(errors="ignore")
        with atomic_file(path / f"{number:02d} {name} {moment}.jpg") as part:
            (picture or missing()).save(part, format="JPEG")


def thumbnail(hit: Hit, root: Path) -> Image.Image | None:
    """None where the video is gone or can no longer be read."""
    try:
        with Video(hit.path(root)) as video:
            frame = video.read([video.index_at(sum(hit.best) / 2 - hit.entry.starts[0])])[0]
    except VideoError:
        return None
    picture = Image.fromarray(frame.numpy())
    return ImageOps.contain(picture, (WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def missing() -> Image.Image:
    picture = Image.new("RGB", (WIDTH, HEIGHT), "#dddddd")
    ImageDraw.Draw(picture).text((MARGIN, MARGIN), "cannot be read any more", "#555555", _font(14))
    return picture


def sheet(hits: Sequence[Hit], pictures: Sequence[Image.Image | None], title: str) -> Image.Image:
    columns = max(1, min(COLUMNS, len(hits)))
    rows = -(-len(hits) // columns)
    across, down, top = WIDTH + MARGIN, HEIGHT + 2 * (LINE + MARGIN), MARGIN + 32
    page = Image.new("RGB", (columns * across + MARGIN, top + rows * down), "white")
    draw = ImageDraw.Draw(page)
    title = _fit(draw, title, page.width - 2 * MARGIN, _font(18))
    draw.text((MARGIN, MARGIN), title, "black", _font(18))
    for number, (hit, picture) in enumerate(zip(hits, pictures, strict=True)):
        x, y = MARGIN + number % columns * across, top + number // columns * down
        shown = picture or missing()
        page.paste(shown, (x + (WIDTH - shown.width) // 2, y + (HEIGHT - shown.height) // 2))
        about = f"{number + 1}.  {hit.score:.3f}   {span(hit)}"
        draw.text((x, y + HEIGHT + 4), about, "black", _font(14))
        name = _fit(draw, hit.entry.path, WIDTH, _font(12), keep_end=True)
        draw.text((x, y + HEIGHT + 4 + LINE), name, "#555555", _font(12))
    return page


def _fit(
    draw: ImageDraw.ImageDraw, text: str, width: int, font: FreeTypeFont, keep_end: bool = False
) -> str:
    """As much of the text as fits."""
    shown = text = printable(text)
    while draw.textlength(shown, font) > width and len(text) > 1:
        text = text[1:] if keep_end else text[:-1]
        shown = f"…{text}" if keep_end else f"{text}…"
    return shown


def _font(size: int) -> FreeTypeFont:
    return truetype(str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
