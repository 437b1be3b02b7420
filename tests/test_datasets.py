"""The packaged data and the loaders."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from cmstats import datasets
from cmstats.datasets import loaders

DATA = Path(str(resources.files("cmstats.datasets").joinpath("data")))


@pytest.fixture(scope="module")
def emoji():
    return datasets.load_emoji()


@pytest.fixture(scope="module")
def stored():
    with np.load(DATA / "emoji.npz", allow_pickle=False) as npz:
        return {key: npz[key] for key in npz.files}


def test_emoji_counts(emoji):
    assert len(emoji.names) == len(emoji.keywords) == len(emoji.texts) == 1870
    assert len(set(emoji.characters.tolist())) == 1870
    assert len(np.unique(emoji.group)) == 9
    assert len(np.unique(emoji.subgroup)) == 99


def test_emoji_holds_no_skin_tone_variant(emoji):
    assert not any("\U0001f3fb" <= c <= "\U0001f3ff" for e in emoji.characters for c in e)


def test_emoji_features_are_finite_float32(emoji):
    for features, width in ((emoji.image, 400), (emoji.text, 384)):
        assert features.shape == (1870, width)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()
    np.testing.assert_allclose(np.linalg.norm(emoji.text, axis=1), 1, atol=1e-3)


def test_emoji_is_stored_as_float16_without_objects(stored):
    assert stored["image"].dtype == stored["text"].dtype == np.float16
    assert not any(array.dtype.hasobject for array in stored.values())


def test_emoji_return_X_y_gives_all_rows(emoji):
    image, text = datasets.load_emoji(return_X_y=True)
    np.testing.assert_array_equal(image, emoji.image)
    np.testing.assert_array_equal(text, emoji.text)


def test_emoji_split_is_a_partition_with_the_same_share_of_every_subgroup(emoji):
    assert (len(emoji.train), len(emoji.test)) == (1402, 468)
    np.testing.assert_array_equal(np.sort(np.r_[emoji.train, emoji.test]), np.arange(1870))
    for subgroup in np.unique(emoji.subgroup):
        of_subgroup = emoji.subgroup == subgroup
        expected = of_subgroup.sum() * 468 / 1870
        assert abs(of_subgroup[emoji.test].sum() - expected) < 1  # a systematic sample


def test_emoji_data_fits_in_4_megabytes():
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 4e6


def test_emoji_licences_lie_beside_it():
    licences = {path.name for path in (DATA / "LICENSES").iterdir()}
    assert licences == {"OFL-1.1.txt", "Apache-2.0.txt", "Unicode-DFS-2016.txt"}


def test_encode_text_reproduces_the_stored_text_features(emoji):
    np.testing.assert_allclose(emoji.encode_text(emoji.texts), emoji.text, rtol=0, atol=5e-4)


def test_encode_text_does_not_depend_on_the_other_texts(emoji):
    together = emoji.encode_text(["red fruit", "a sad cat"])
    np.testing.assert_allclose(together[1:], emoji.encode_text(["a sad cat"]), atol=1e-7)


def test_encode_text_ignores_case_and_accents(emoji):
    a, b = emoji.encode_text(["PIÑATA", "pinata"])
    np.testing.assert_array_equal(a, b)


def test_encode_text_gives_zeros_for_unknown_terms_and_no_rows_for_no_texts(emoji):
    assert not emoji.encode_text(["", "ⴰⴱⴳⴷ"]).any()
    assert emoji.encode_text([]).shape == (0, 384)


def test_encode_text_refuses_a_bare_string(emoji):
    with pytest.raises(TypeError, match="list of texts"):
        emoji.encode_text("red fruit")


@pytest.mark.parametrize("kind", ["word", "char"])
def test_vocabulary_and_idf_come_from_the_training_texts_alone(emoji, stored, kind):
    fitted: TfidfVectorizer = loaders.text_vectorizers()[kind == "char"]
    fitted.fit([emoji.texts[i] for i in emoji.train])
    np.testing.assert_array_equal(fitted.get_feature_names_out(), stored[f"{kind}_vocabulary"])
    np.testing.assert_allclose(fitted.idf_, stored[f"{kind}_idf"], rtol=1e-6)


def test_image_features_are_principal_components_of_the_training_items(emoji):
    train = emoji.image[emoji.train].astype(np.float64)
    # Centred and uncorrelated on the training items, which a fit on all items would not give.
    scale = train.std(0)
    assert np.abs(train.mean(0) / scale).max() < 1e-3
    correlations = np.corrcoef(train, rowvar=False) - np.eye(train.shape[1])
    assert np.abs(correlations).max() < 1e-3
    held_out = emoji.image[emoji.test].astype(np.float64)
    assert np.abs(held_out.mean(0) / scale).max() > 1e-2


def test_text_features_lie_on_the_axes_of_the_training_texts(emoji, stored):
    lengths = stored["train_lengths"].astype(np.float64)[:, None]
    T = emoji.text[emoji.train] * lengths
    # Orthogonal on the training texts, with the eigenvalues of their Gram matrix.
    gram = T.T @ T / np.sqrt(np.outer(stored["eigenvalues"], stored["eigenvalues"]))
    np.testing.assert_allclose(gram, np.eye(384), atol=1e-3)


def test_group_names_are_not_in_the_texts(emoji):
    assert not any("smileys" in text.lower() for text in emoji.texts)


def test_related_pictures_and_texts_are_correlated(emoji):
    """Least squares from text to image ranks the right one of 468 far above chance (234.5)."""
    X, y = emoji.text[emoji.train], emoji.image[emoji.train]
    weights = np.linalg.solve(X.T @ X + np.eye(384), X.T @ (y - y.mean(0)))
    predicted = emoji.text[emoji.test] @ weights
    scores = predicted @ emoji.image[emoji.test].T
    ranks = 1 + (scores > np.diag(scores)[:, None]).sum(1)
    assert np.median(ranks) < 40


@pytest.mark.ordinary
def test_thumbnails(emoji):
    pytest.importorskip("PIL")
    pictures = emoji.thumbnails()
    assert pictures.shape == (1870, 64, 64, 3)
    assert pictures.dtype == np.uint8
    assert (pictures.reshape(1870, -1).min(1) < 255).all()  # none is blank
    index = emoji.names.tolist().index("red square")
    chosen = emoji.thumbnails(emoji.names == "red square")
    np.testing.assert_array_equal(chosen[0], pictures[index])
    red, green, blue = pictures[index, 32, 32].tolist()
    assert red > 180
    assert green < 100
    assert blue < 100
    assert emoji.thumbnails([]).shape == (0, 64, 64, 3)


def test_thumbnails_without_pillow_name_the_extra(emoji, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"cmstats\[report\]"):
        emoji.thumbnails([0])


def test_linnerud_is_exercise_against_physiology():
    data = datasets.load_linnerud()
    assert data.X.shape == data.y.shape == (20, 3)
    assert data.feature_names == ["Chins", "Situps", "Jumps"]
    assert data.target_names == ["Weight", "Waist", "Pulse"]


LOADERS = {
    "mmreg.npz": datasets.load_mmreg,
    "wikipedia_rasiwasia2010.npz": datasets.load_wikipedia,
    "mnist.npz": datasets.load_mnist_halves,
    "fashion_products_clip2000.npz": datasets.load_fashion,
}


@pytest.mark.parametrize(("name", "load"), LOADERS.items())
def test_a_missing_file_is_named_with_its_place_and_the_remedy(name, load, tmp_path, monkeypatch):
    for how in ("argument", "variable"):
        monkeypatch.setenv("CMSTATS_DATA", str(tmp_path) if how == "variable" else "")
        with pytest.raises(FileNotFoundError) as error:
            load(tmp_path if how == "argument" else None)
        assert all(word in str(error.value) for word in (name, str(tmp_path), "CMSTATS_DATA"))
    monkeypatch.delenv("CMSTATS_DATA")
    with pytest.raises(FileNotFoundError, match="no folder is known"):
        load()


def test_mnist_halves_are_left_and_right_columns(tmp_path):
    digits = np.arange(2 * 784, dtype=np.uint16).reshape(2, 784) % 256
    arrays = {f"X_{part}": digits.astype(np.uint8) for part in ("train", "test")}
    np.savez(tmp_path / "mnist.npz", y_train=[1, 2], y_test=[3, 4], **arrays)
    data = datasets.load_mnist_halves(tmp_path)
    assert data.left_train.shape == data.right_test.shape == (2, 392)
    assert data.left_train.dtype == np.float32
    both = np.concatenate(
        [data.left_train[0].reshape(28, 14), data.right_train[0].reshape(28, 14)], 1
    )
    np.testing.assert_allclose(both.ravel() * 255, digits[0], rtol=1e-6)
    assert data.labels_test.tolist() == [3, 4]


def test_fashion_split_is_a_partition(tmp_path):
    n = 2000
    np.savez(
        tmp_path / "fashion_products_clip2000.npz",
        image=np.zeros((n, 4)),
        id=np.array(["1"] * n),
        name=np.array(["a"] * n),
        attributes=np.array([["x"] * 8] * n),
        attribute_names=np.array(["g"] * 8),
    )
    data = datasets.load_fashion(tmp_path)
    assert (len(data.train), len(data.test)) == (1500, 500)
    np.testing.assert_array_equal(np.sort(np.r_[data.train, data.test]), np.arange(n))
    assert data.image.dtype == np.float32


def _load_or_skip(load):
    try:
        return load()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_wikipedia_shapes():
    data = _load_or_skip(datasets.load_wikipedia)
    assert data.image_train.shape == (2173, 128)
    assert data.text_test.shape == (693, 10)
    assert data.image_train.dtype == data.text_train.dtype == np.float32
    assert np.unique(data.labels_test).tolist() == list(range(1, 11))
    assert len(data.categories) == 10


def test_mmreg_shapes():
    data = _load_or_skip(datasets.load_mmreg)
    assert data.X.shape == (600, 3)
    assert data.y.shape == (600, 5)
    assert data.feature_names[0] == "Control"
    assert data.target_names[-1] == "Sex"


@pytest.mark.ordinary
def test_mnist_shapes():
    data = _load_or_skip(datasets.load_mnist_halves)
    assert data.left_train.shape == (60000, 392)
    assert data.right_test.shape == (10000, 392)
    assert data.left_train.max() == 1
