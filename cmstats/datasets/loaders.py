"""Loaders of the emoji set, of Linnerud's data, and of standard sets in the user's files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_linnerud as _sklearn_linnerud
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.utils import Bunch

__all__ = [
    "load_emoji",
    "load_fashion",
    "load_linnerud",
    "load_mmreg",
    "load_mnist_halves",
    "load_wikipedia",
]

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Strings = npt.NDArray[np.str_]
PathLike = str | os.PathLike[str]

_THUMBNAIL = 64  # pixels a side
_N_EMOJI = 1870  # the last row of the sheet is not full
_DATA_VARIABLE = "CMSTATS_DATA"


def text_vectorizers(
    word_vocabulary: Sequence[str] | None = None, char_vocabulary: Sequence[str] | None = None
) -> tuple[Any, Any]:
    """TF-IDF of words and of character n-grams inside words, each of unit length.

    The build script fits these vectorizers and the encoder applies them, so that their settings
    are written once.

    Parameters
    ----------
    word_vocabulary, char_vocabulary : sequence of str, optional
        The terms of a fitted set; by default they are learnt by `fit`.

    Returns
    -------
    word, char : TfidfVectorizer
    """
    word = TfidfVectorizer(
        sublinear_tf=True,
        strip_accents="unicode",
        token_pattern=r"\b\w+\b",  # with one-letter words, as in "A button (blood type)"
        vocabulary=word_vocabulary,
    )
    char = TfidfVectorizer(
        sublinear_tf=True,
        strip_accents="unicode",
        analyzer="char_wb",
        ngram_range=(3, 5),
        min_df=1 if char_vocabulary is not None else 2,  # a given vocabulary is already selected
        vocabulary=char_vocabulary,
    )
    return word, char


@dataclass(kw_only=True, eq=False, repr=False)
class TextEncoder:
    """Map texts to the text features of the emoji set.

    Latent semantic analysis (Deerwester et al. 1990): with Z the TF-IDF of the n training texts
    and ``Z Z' = V L V'``, the axes are ``Z' V L^-1/2`` and the coordinates of the training texts
    ``T = V L^1/2``. Hence the axes are ``Z' T L^-1`` and follow from the training texts and their
    coordinates, which the set contains anyway; the axes themselves would double its size.

    Parameters
    ----------
    word_vocabulary, char_vocabulary : array of str
        Terms, in the order of the columns.
    word_idf, char_idf : array of float32
        Inverse document frequencies of the terms.
    train_texts : list of n str
    train_features : array of shape (n, k)
        T with rows of unit length.
    train_lengths : array of shape (n,)
        The lengths of the rows of T.
    eigenvalues : array of shape (k,)
        The diagonal of L.
    """

    word_vocabulary: Strings
    word_idf: Float32
    char_vocabulary: Strings
    char_idf: Float32
    train_texts: list[str]
    train_features: npt.NDArray[np.floating[Any]]
    train_lengths: Float32
    eigenvalues: Float32

    @cached_property
    def _vectorizers(self) -> tuple[Any, Any]:
        """The fitted vectorizers of words and of character n-grams."""
        word, char = text_vectorizers(self.word_vocabulary.tolist(), self.char_vocabulary.tolist())
        word.idf_ = self.word_idf.astype(np.float64)
        char.idf_ = self.char_idf.astype(np.float64)
        return word, char

    @cached_property
    def _axes(self) -> list[npt.NDArray[np.float64]]:
        """The latent semantic axes of each vectorizer, ``Z' T L^-1``."""
        T = self.train_features.astype(np.float64) * self.train_lengths[:, None]
        return [v.transform(self.train_texts).T @ (T / self.eigenvalues) for v in self._vectorizers]

    def __call__(self, texts: Iterable[str]) -> Float32:
        """Encode texts: unit rows, or a row of zeros for a text with no known term.

        Parameters
        ----------
        texts : iterable of n str

        Returns
        -------
        array of shape (n, k), float32

        Raises
        ------
        TypeError
            If `texts` is one string instead of several.
        """
        if isinstance(texts, str):
            raise TypeError(f"encode_text takes a list of texts; got one str: use [{texts!r}].")
        texts = list(texts)
        features = np.zeros((len(texts), len(self.eigenvalues)))
        if not texts:  # scikit-learn raises for no texts
            return features.astype(np.float32)
        for vectorizer, axes in zip(self._vectorizers, self._axes, strict=True):
            features += vectorizer.transform(texts) @ axes
        lengths = np.linalg.norm(features, axis=1, keepdims=True)
        np.divide(features, lengths, out=features, where=lengths > 0)
        return features.astype(np.float32)


def _thumbnails(indices: npt.ArrayLike | None = None) -> npt.NDArray[np.uint8]:
    """Cut 64 px pictures of emoji out of the packaged sheet.

    Parameters
    ----------
    indices : array-like of int or bool, default=None
        Rows of the emoji set, or a mask of them; None gives all 1870.

    Returns
    -------
    array of shape (n, 64, 64, 3), uint8
        RGB, on white.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    IndexError
        If an index is outside the set.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "Thumbnails need Pillow; install it with `pip install cmstats[report]`."
        ) from error
    with (
        resources.files("cmstats.datasets").joinpath("data", "emoji_sheet.webp").open("rb") as file,
        Image.open(file) as sheet,
    ):
        pixels = np.asarray(sheet.convert("RGB"))
    rows, columns = pixels.shape[0] // _THUMBNAIL, pixels.shape[1] // _THUMBNAIL
    tiles = pixels.reshape(rows, _THUMBNAIL, columns, _THUMBNAIL, 3).swapaxes(1, 2)
    tiles = tiles.reshape(rows * columns, _THUMBNAIL, _THUMBNAIL, 3)[:_N_EMOJI]
    if indices is None:
        return tiles
    chosen = np.asarray(indices)
    # NumPy converts an empty list to floats.
    return np.asarray(tiles[chosen if chosen.size else chosen.astype(np.intp)])


@overload
def load_emoji(return_X_y: Literal[True]) -> tuple[Float32, Float32]: ...
@overload
def load_emoji(return_X_y: Literal[False] = ...) -> Bunch: ...
def load_emoji(return_X_y: bool = False) -> Bunch | tuple[Float32, Float32]:
    r"""Load the emoji set: 1870 pictures with their names and keywords.

    It contains every fully-qualified emoji of Unicode 15.0 without skin-tone variants. The image
    features are principal components of histograms of oriented gradients and of coarse colour of
    the 64 px glyph; the text features are TF-IDF of name and English keywords on latent semantic
    axes, each row of unit length. All components, axes and scales were fitted on the training
    items.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return ``(image, text)`` instead of the Bunch.

    Returns
    -------
    data : Bunch
        With n = 1870 items in the order of the Unicode list:

        image : array of shape (n, 400), float32
        text : array of shape (n, 384), float32
        names : array of n str, "red apple"
        keywords : array of n str, separated by " | " ("apple | fruit | red | red apple")
        texts : list of n str, name and keywords, from which `text` was computed
        characters : array of n str, the emoji itself
        group, subgroup : arrays of n str, 9 and 99 distinct ("Food & Drink", "food-fruit")
        train, test : arrays of int, the 1402 and 468 rows of the fixed split
        encode_text : callable, list of m str -> array of shape (m, 384), float32
            The text features of any text; it reproduces `text` from `texts`. A text with no term
            of the training texts becomes a row of zeros.
        thumbnails : callable, indices or mask or None -> array of shape (m, 64, 64, 3), uint8
            RGB pictures on white (needs Pillow: the extra ``report``).
        DESCR : str
    (image, text) : tuple, if `return_X_y`
        All 1870 rows of both.

    Notes
    -----
    With z the TF-IDF of a text, Z that of the training texts and :math:`ZZ' = V \Lambda V'`, the
    text features are

    .. math:: t = \Lambda^{-1/2} V' Z z, \qquad t / \|t\|

    for the 384 leading eigenvectors (latent semantic analysis).

    Perfect retrieval is impossible: some flags share one picture (Norway and Bouvet Island), and
    the only keyword of a country's flag is "flag". Names and groups are from Unicode's
    ``emoji-test.txt``, keywords from CLDR; the construction and the licences are described in
    ``cmstats/datasets/data/README.md``.

    References
    ----------
    Dalal, N. and Triggs, B. (2005). Histograms of oriented gradients for human detection. CVPR.
    Deerwester, S. et al. (1990). Indexing by latent semantic analysis. Journal of the American
    Society for Information Science 41.

    Examples
    --------
    >>> from cmstats.datasets import load_emoji
    >>> emoji = load_emoji()
    >>> emoji.image.shape, emoji.text.shape, len(emoji.train), len(emoji.test)
    ((1870, 400), (1870, 384), 1402, 468)
    >>> query = emoji.encode_text(["red fruit"])
    >>> [str(emoji.names[i]) for i in (emoji.text @ query[0]).argsort()[::-1][:2]]
    ['red apple', 'cherries']
    >>> X, y = load_emoji(return_X_y=True)
    >>> X.dtype
    dtype('float32')
    """
    folder = resources.files("cmstats.datasets").joinpath("data")
    with folder.joinpath("emoji.npz").open("rb") as file, np.load(file, allow_pickle=False) as npz:
        stored = {key: npz[key] for key in npz.files}
    image = stored["image"].astype(np.float32)
    text = stored["text"].astype(np.float32)
    if return_X_y:
        return image, text

    names, keywords = stored["names"], stored["keywords"]
    texts = [f"{n} {k}".strip() for n, k in zip(names.tolist(), keywords.tolist(), strict=True)]
    train, test = np.flatnonzero(~stored["test"]), np.flatnonzero(stored["test"])
    return Bunch(
        image=image,
        text=text,
        names=names,
        keywords=keywords,
        texts=texts,
        characters=stored["characters"],
        group=stored["group"],
        subgroup=stored["subgroup"],
        train=train,
        test=test,
        encode_text=TextEncoder(
            word_vocabulary=stored["word_vocabulary"],
            word_idf=stored["word_idf"],
            char_vocabulary=stored["char_vocabulary"],
            char_idf=stored["char_idf"],
            train_texts=[texts[i] for i in train],
            train_features=text[train],
            train_lengths=stored["train_lengths"],
            eigenvalues=stored["eigenvalues"],
        ),
        thumbnails=_thumbnails,
        DESCR=folder.joinpath("README.md").read_text(encoding="utf-8"),
    )


@overload
def load_linnerud(return_X_y: Literal[True]) -> tuple[Float64, Float64]: ...
@overload
def load_linnerud(return_X_y: Literal[False] = ...) -> Bunch: ...
def load_linnerud(return_X_y: bool = False) -> Bunch | tuple[Float64, Float64]:
    """Load Linnerud's physical exercise data, the textbook example of CCA.

    Parameters
    ----------
    return_X_y : bool, default=False
        Return the pair (X, y) alone.

    Returns
    -------
    data : Bunch
        With n = 20 men:

        X : array of shape (20, 3), float64: chin-ups, sit-ups and jumps (counts)
        y : array of shape (20, 3), float64: weight (pounds), waist (inches), pulse (beats a minute)
        feature_names, target_names : lists of 3 str
        DESCR : str
    (X, y) : tuple, if `return_X_y`

    References
    ----------
    Tenenhaus, M. (1998). La régression PLS: théorie et pratique. Technip. The same data are the
    example of SAS PROC CANCORR.

    Examples
    --------
    >>> from cmstats.datasets import load_linnerud
    >>> data = load_linnerud()
    >>> data.X.shape, data.y.shape, data.target_names
    ((20, 3), (20, 3), ['Weight', 'Waist', 'Pulse'])
    """
    data = _sklearn_linnerud()
    if return_X_y:
        return data.data, data.target
    return Bunch(
        X=data.data,
        y=data.target,
        feature_names=list(data.feature_names),
        target_names=list(data.target_names),
        DESCR=data.DESCR,
    )


def _read(name: str, data_home: PathLike | None) -> dict[str, npt.NDArray[Any]]:
    """All arrays of one .npz file of the data folder."""
    home = data_home if data_home is not None else os.environ.get(_DATA_VARIABLE)
    if not home:
        raise FileNotFoundError(
            f"{name} was not looked for, because no folder is known: pass data_home or set the "
            f"environment variable {_DATA_VARIABLE} to the folder that holds it."
        )
    path = Path(home).expanduser() / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} is not in {path.parent}: pass data_home or set the environment variable "
            f"{_DATA_VARIABLE} to the folder that holds it."
        )
    with np.load(path, allow_pickle=False) as npz:
        return {key: npz[key] for key in npz.files}


def load_mmreg(data_home: PathLike | None = None) -> Bunch:
    """Load mmreg: psychological against academic variables of 600 college freshmen.

    Parameters
    ----------
    data_home : path, default=None
        Folder that holds ``mmreg.npz``; None: the environment variable ``CMSTATS_DATA``.

    Returns
    -------
    data : Bunch
        X : array of shape (600, 3), float64: locus of control, self-concept, motivation
        y : array of shape (600, 5), float64: read, write, math, science (scores), sex (0, 1)
        feature_names, target_names : lists of str

        float64, since the published results have many digits.

    Raises
    ------
    FileNotFoundError
        If the file is not there.

    References
    ----------
    UCLA Statistical Consulting Group: Canonical correlation analysis, R data analysis examples.

    Examples
    --------
    >>> from cmstats.datasets import load_mmreg
    >>> load_mmreg("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: mmreg.npz is not in ...
    """
    stored = _read("mmreg.npz", data_home)
    X, y = stored["X"].astype(np.float64), stored["Y"].astype(np.float64)
    names = [str(name) for name in stored["names"]]
    return Bunch(X=X, y=y, feature_names=names[: X.shape[1]], target_names=names[X.shape[1] :])


def load_wikipedia(data_home: PathLike | None = None) -> Bunch:
    """Load the Wikipedia articles: SIFT words against LDA topics.

    Parameters
    ----------
    data_home : path, default=None
        Folder that holds ``wikipedia_rasiwasia2010.npz``; None: the environment variable
        ``CMSTATS_DATA``.

    Returns
    -------
    data : Bunch
        image_train : array of shape (2173, 128), float32: histograms of SIFT words
        text_train : array of shape (2173, 10), float32: topic proportions
        labels_train : array of 2173 int, 1 to 10
        image_test, text_test, labels_test : the same for the 693 test articles
        categories : list of 10 str; label i is ``categories[i - 1]``

    Raises
    ------
    FileNotFoundError
        If the file is not there.

    References
    ----------
    Rasiwasia, N. et al. (2010). A new approach to cross-modal multimedia retrieval. ACM
    Multimedia. For research use.

    Examples
    --------
    >>> from cmstats.datasets import load_wikipedia
    >>> load_wikipedia("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: wikipedia_rasiwasia2010.npz is not in ...
    """
    stored = _read("wikipedia_rasiwasia2010.npz", data_home)
    return Bunch(
        image_train=stored["I_tr"].astype(np.float32),
        text_train=stored["T_tr"].astype(np.float32),
        labels_train=stored["y_tr"].astype(np.int64),
        image_test=stored["I_te"].astype(np.float32),
        text_test=stored["T_te"].astype(np.float32),
        labels_test=stored["y_te"].astype(np.int64),
        categories=[str(category) for category in stored["categories"]],
    )


def load_mnist_halves(data_home: PathLike | None = None) -> Bunch:
    """Load the left and the right halves of the MNIST digits.

    Parameters
    ----------
    data_home : path, default=None
        Folder that holds ``mnist.npz``; None: the environment variable ``CMSTATS_DATA``.

    Returns
    -------
    data : Bunch
        left_train, right_train : arrays of shape (60000, 392), float32 in [0, 1]
            28 rows of 14 pixels, row by row.
        labels_train : array of 60000 int, 0 to 9
        left_test, right_test, labels_test : the same for the 10000 test digits

    Raises
    ------
    FileNotFoundError
        If the file is not there.

    References
    ----------
    LeCun, Y. et al. (1998). Gradient-based learning applied to document recognition. Proceedings
    of the IEEE 86. As two views: Andrew, G. et al. (2013). Deep canonical correlation analysis.
    ICML.

    Examples
    --------
    >>> from cmstats.datasets import load_mnist_halves
    >>> load_mnist_halves("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: mnist.npz is not in ...
    """
    stored = _read("mnist.npz", data_home)
    data = Bunch()
    for part in ("train", "test"):
        digits = stored[f"X_{part}"].reshape(-1, 28, 28)
        for side, columns in (("left", digits[:, :, :14]), ("right", digits[:, :, 14:])):
            data[f"{side}_{part}"] = columns.reshape(-1, 392).astype(np.float32) / np.float32(255)
        data[f"labels_{part}"] = stored[f"y_{part}"].astype(np.int64)
    return data


def load_fashion(data_home: PathLike | None = None) -> Bunch:
    """Load fashion products: CLIP features of the picture, and the product's name.

    Parameters
    ----------
    data_home : path, default=None
        Folder that holds ``fashion_products_clip2000.npz``; None: the environment variable
        ``CMSTATS_DATA``.

    Returns
    -------
    data : Bunch
        image : array of shape (2000, 512), float32: CLIP ViT-B/32, not normalised
        names : array of 2000 str; 516 of them occur more than once
        ids : array of 2000 str
        attributes : array of shape (2000, 8) of str
        attribute_names : list of 8 str
        train, test : arrays of int, the first 1500 and last 500 rows of a fixed shuffle

    Raises
    ------
    FileNotFoundError
        If the file is not there.

    References
    ----------
    Aggarwal, P. Fashion product images (small), Kaggle. Radford, A. et al. (2021). Learning
    transferable visual models from natural language supervision. ICML.

    Examples
    --------
    >>> from cmstats.datasets import load_fashion
    >>> load_fashion("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: fashion_products_clip2000.npz is not in ...
    """
    stored = _read("fashion_products_clip2000.npz", data_home)
    # The streams of RandomState never change (NEP 19), those of Generator may.
    order = np.random.RandomState(0).permutation(len(stored["image"]))
    return Bunch(
        image=stored["image"].astype(np.float32),
        names=stored["name"],
        ids=stored["id"],
        attributes=stored["attributes"],
        attribute_names=[str(name) for name in stored["attribute_names"]],
        train=np.sort(order[:1500]),
        test=np.sort(order[1500:]),
    )
