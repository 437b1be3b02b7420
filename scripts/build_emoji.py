"""Build the packaged emoji set: ``python scripts/build_emoji.py [--out DIR]``.

It needs the package itself, Pillow with Raqm text layout (which loads FriBiDi at run time, Debian:
``libfribidi0``) and the Debian packages ``fonts-noto-color-emoji`` (the glyphs), ``unicode-data``
(``emoji-test.txt``: the list, the names, the groups) and ``unicode-cldr-core`` (the English
keywords).

The result is deterministic: there are no random numbers, the order of the split is given by hashes,
and a rule fixes the signs. Block scales, principal axes, vocabulary, idf and latent semantic axes
are fitted on the training items only; the split is therefore made first, from the characters and
subgroups alone.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, features

from cmstats.datasets.loaders import TextEncoder, text_vectorizers

Floats = npt.NDArray[np.floating[Any]]

DATA = Path(__file__).parents[1] / "cmstats" / "datasets" / "data"
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
CLDR = Path("/usr/share/unicode/cldr/common")

FONT_SIZE = 109  # the one size of the font's bitmaps; any other is an error in FreeType
CANVAS = 136  # a glyph has 136 x 128 pixels
SIDE = 64
COLUMNS = 44  # of the sheet: 44 x 43 thumbnails is nearly square
N_TEST = 468
SHEET_QUALITY = 60  # keeps the sheet and the arrays together below 4 MB

# Chosen by 3-fold cross-validation on the training items (cmstats/datasets/data/README.md).
IMAGE_BLOCKS = ("hog8", "hog8_signed", "hog16_signed", "lab", "colours1", "colours2", "colours4")
IMAGE_DIMS = 400
TEXT_DIMS = 384


class Emoji(NamedTuple):
    """One emoji: its characters, its name, and the group and subgroup of the Unicode list."""

    characters: str
    name: str
    group: str
    subgroup: str


def read_list(path: Path = EMOJI_TEST) -> list[Emoji]:
    """Read the fully-qualified emoji without skin-tone variants, in the order of the list."""
    group = subgroup = ""
    emoji = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif match := re.match(r"([0-9A-F ]+); fully-qualified\s+# \S+ E[\d.]+ (.+)", line):
            points = [int(point, 16) for point in match[1].split()]
            if not any(0x1F3FB <= point <= 0x1F3FF for point in points):
                emoji.append(Emoji("".join(map(chr, points)), match[2].strip(), group, subgroup))
    return emoji


def read_keywords(emoji: Iterable[Emoji], root: Path = CLDR) -> list[str]:
    """English CLDR keywords of each emoji, separated by " | "; empty where CLDR has none yet."""
    keywords: dict[str, str] = {}
    for folder in ("annotations", "annotationsDerived"):
        for node in ElementTree.parse(root / folder / "en.xml").iter("annotation"):
            if node.get("type") != "tts":  # those are the names
                keywords.setdefault(node.get("cp", ""), (node.text or "").strip())
    # CLDR leaves the presentation selector U+FE0F out of its keys.
    return [keywords.get(e.characters.replace("\ufe0f", ""), "") for e in emoji]


def render(emoji: Iterable[Emoji], font: Path = FONT) -> npt.NDArray[np.uint8]:
    """Render (n, 64, 64, 4) RGBA thumbnails; a sequence that is not one glyph raises ValueError."""
    if not features.check("raqm"):
        raise RuntimeError("Pillow cannot lay out emoji sequences: install libfribidi0 (Raqm).")
    face = ImageFont.truetype(str(font), FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    thumbnails = []
    for e in emoji:
        if face.getlength(e.characters) > CANVAS:
            raise ValueError(f"The font has no single glyph for {e.name!r}.")
        canvas = Image.new("RGBA", (CANVAS, CANVAS), (255, 255, 255, 0))
        ImageDraw.Draw(canvas).text((0, 4), e.characters, font=face, embedded_color=True)
        thumbnails.append(np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return np.stack(thumbnails)


def split(emoji: list[Emoji], n_test: int = N_TEST) -> npt.NDArray[np.bool_]:
    """Mask of the held-out items: every n/n_test-th, by subgroup and within it by hash.

    A systematic sample in that order holds out the same share of every subgroup, and a hash of the
    characters, unlike the stream of a random generator, does not depend on a library's version.
    """
    order = sorted(
        range(len(emoji)),
        key=lambda i: (
            emoji[i].subgroup,
            hashlib.sha256(emoji[i].characters.encode()).hexdigest(),
        ),
    )
    chosen = (np.arange(n_test) + 0.5) * len(emoji) / n_test
    test = np.zeros(len(emoji), dtype=bool)
    test[np.asarray(order)[chosen.astype(int)]] = True
    return test


def hog(image: Floats, cell: int, *, signed: bool = False) -> Floats:
    """Histograms of oriented gradients of (n, s, s, c) images (Dalal and Triggs, CVPR 2005).

    The gradient is taken from the channel with the largest magnitude; votes are interpolated
    linearly between bins of 20 degrees and between cells; 2 x 2 cells form an L2-Hys block.
    `signed` distinguishes edges from dark to light from those from light to dark.
    """
    n, side = image.shape[:2]
    dy, dx = np.zeros_like(image), np.zeros_like(image)
    dy[:, 1:-1] = image[:, 2:] - image[:, :-2]
    dx[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    strongest = np.argmax(dx**2 + dy**2, axis=-1)[..., None]
    dy = np.take_along_axis(dy, strongest, -1)[..., 0]
    dx = np.take_along_axis(dx, strongest, -1)[..., 0]
    magnitude = np.hypot(dx, dy)
    bins = 18 if signed else 9
    angle = np.arctan2(dy, dx) * (9 / np.pi) % bins
    lower = np.floor(angle).astype(int)
    upper_share = angle - lower

    n_cells = side // cell
    centre = (np.arange(side) + 0.5) / cell - 0.5
    place = np.clip(1 - np.abs(centre[:, None] - np.arange(n_cells)), 0, 1)
    cells = np.empty((n, n_cells, n_cells, bins))
    for b in range(bins):
        vote = (lower % bins == b) * (1 - upper_share) + ((lower + 1) % bins == b) * upper_share
        cells[..., b] = np.einsum("nij,ia,jb->nab", magnitude * vote, place, place, optimize=True)

    windows = np.lib.stride_tricks.sliding_window_view(cells, (2, 2), axis=(1, 2))
    blocks = windows.reshape(n, (n_cells - 1) ** 2, -1)
    floor = 0.01 * (cell / 8) ** 2  # keeps empty blocks empty
    for clip in (0.2, np.inf):
        blocks = blocks / np.sqrt((blocks**2).sum(-1, keepdims=True) + floor)
        blocks = np.minimum(blocks, clip)
    return np.asarray(blocks.reshape(n, -1))


def to_lab(rgb: Floats) -> Floats:
    """CIE L*a*b* / 100 of sRGB values in [0, 1] (D65)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)], axis=-1)


def pool(maps: Floats, cells: int) -> Floats:
    """Means over a cells x cells grid of (n, s, s, c) maps, flattened."""
    n, side, _, c = maps.shape
    step = side // cells
    return np.asarray(maps.reshape(n, cells, step, cells, step, c).mean((2, 4)).reshape(n, -1))


def colour_histogram(lab: Floats, alpha: Floats, cells: int, bins: tuple[int, int, int]) -> Floats:
    """Square roots (Hellinger) of soft L*a*b* histograms of the opaque pixels on a grid."""
    ranges = ((0.0, 1.0), (-0.6, 0.7), (-0.7, 0.8))  # about the sRGB gamut
    memberships = []
    for channel, (low, high), count in zip(range(3), ranges, bins, strict=True):
        at = np.clip((lab[..., channel] - low) / (high - low), 0, 1) * (count - 1)
        memberships.append(np.clip(1 - np.abs(at[..., None] - np.arange(count)), 0, 1))
    histograms = []
    for start in range(0, len(lab), 100):  # the joint membership is large
        a, b, c = (m[start : start + 100] for m in memberships)
        joint = a[..., :, None, None] * b[..., None, :, None] * c[..., None, None, :]
        joint = joint.reshape(*joint.shape[:3], -1) * alpha[start : start + 100]
        histograms.append(np.sqrt(pool(joint, cells)))
    return np.concatenate(histograms)


def image_blocks(thumbnails: npt.NDArray[np.uint8]) -> dict[str, Floats]:
    """The blocks of image features of (n, 64, 64, 4) thumbnails, before any fitting."""
    rgb = thumbnails[..., :3] / np.float32(255)
    alpha = thumbnails[..., 3:] / np.float32(255)
    # Colours are composed on white; alpha adds the outline of glyphs that are themselves white.
    edges = np.concatenate([rgb * alpha + (1 - alpha), alpha], axis=-1)
    lab = to_lab(rgb)
    return {
        "hog8": hog(edges, 8),
        "hog8_signed": hog(edges, 8, signed=True),
        "hog16_signed": hog(edges, 16, signed=True),
        "lab": pool(np.concatenate([lab * alpha, alpha], axis=-1), 8),
        "colours1": colour_histogram(lab, alpha, 1, (4, 7, 7)),
        "colours2": colour_histogram(lab, alpha, 2, (3, 5, 5)),
        "colours4": colour_histogram(lab, alpha, 4, (3, 5, 5)),
    }


def leading_directions(gram: Floats, k: int) -> tuple[Floats, Floats]:
    """The k leading eigenvalues and eigenvectors, the largest entry of each vector positive."""
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:k], vectors[:, ::-1][:, :k]
    peak = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    return values, vectors * np.sign(peak)


def image_features(blocks: dict[str, Floats], train: npt.NDArray[np.bool_], k: int) -> Floats:
    """Principal components of the blocks, each block of unit variance on the training items."""
    scaled = []
    for name in IMAGE_BLOCKS:
        centred = blocks[name] - blocks[name][train].mean(0)
        scaled.append(centred / np.sqrt((centred[train] ** 2).sum(1).mean()))
    Z = np.concatenate(scaled, axis=1)
    values, vectors = leading_directions(Z[train] @ Z[train].T, k)
    return np.asarray(Z @ (Z[train].T @ (vectors / np.sqrt(values))))


def text_encoder(texts: list[str], k: int) -> TextEncoder:
    """Fit TF-IDF and its latent semantic axes on the training texts."""
    word, char = text_vectorizers()
    Z = np.hstack([v.fit_transform(texts).toarray() for v in (word, char)])
    values, vectors = leading_directions(Z @ Z.T, k)
    T = vectors * np.sqrt(values)
    lengths = np.linalg.norm(T, axis=1)
    return TextEncoder(
        word_vocabulary=word.get_feature_names_out().astype(np.str_),
        word_idf=word.idf_.astype(np.float32),
        char_vocabulary=char.get_feature_names_out().astype(np.str_),
        char_idf=char.idf_.astype(np.float32),
        train_texts=texts,
        # float16 as stored, so that the packaged set reproduces the held-out features exactly
        train_features=(T / lengths[:, None]).astype(np.float16),
        train_lengths=lengths.astype(np.float32),
        eigenvalues=values.astype(np.float32),
    )


def sheet(thumbnails: npt.NDArray[np.uint8]) -> Image.Image:
    """One image of all thumbnails on white, 44 per row; an alpha channel would double the file."""
    rows = -(-len(thumbnails) // COLUMNS)
    padded = np.zeros((rows * COLUMNS, SIDE, SIDE, 4), np.uint8)
    padded[: len(thumbnails)] = thumbnails
    tiles = padded.reshape(rows, COLUMNS, SIDE, SIDE, 4).swapaxes(1, 2)
    glyphs = Image.fromarray(np.ascontiguousarray(tiles).reshape(rows * SIDE, COLUMNS * SIDE, 4))
    page = Image.new("RGB", glyphs.size, "white")
    page.paste(glyphs, mask=glyphs.getchannel("A"))
    return page


def build(out: Path) -> None:
    """Write ``emoji.npz`` and ``emoji_sheet.webp`` into a folder."""
    emoji = read_list()
    keywords = read_keywords(emoji)
    thumbnails = render(emoji)
    test = split(emoji)
    texts = [f"{e.name} {k}".strip() for e, k in zip(emoji, keywords, strict=True)]
    encoder = text_encoder([texts[i] for i in np.flatnonzero(~test)], TEXT_DIMS)
    text = np.empty((len(emoji), TEXT_DIMS), np.float16)
    text[~test] = encoder.train_features
    text[test] = encoder([texts[i] for i in np.flatnonzero(test)])
    image = image_features(image_blocks(thumbnails), ~test, IMAGE_DIMS)

    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out / "emoji.npz",
        image=image.astype(np.float16),
        text=text,
        characters=np.array([e.characters for e in emoji]),
        names=np.array([e.name for e in emoji]),
        keywords=np.array(keywords),
        group=np.array([e.group for e in emoji]),
        subgroup=np.array([e.subgroup for e in emoji]),
        test=test,
        word_vocabulary=encoder.word_vocabulary,
        word_idf=encoder.word_idf,
        char_vocabulary=encoder.char_vocabulary,
        char_idf=encoder.char_idf,
        train_lengths=encoder.train_lengths,
        eigenvalues=encoder.eigenvalues,
    )
    sheet(thumbnails).save(out / "emoji_sheet.webp", quality=SHEET_QUALITY, method=6)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the packaged emoji set.")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write")
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
