"""The label-only attack: its copies, its reading of answers, and what every attack must pass."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, kstest
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from divulge import Evidence, InputError, Unavailable, audit, metrics
from divulge.attacks.answers import Answers, share_right
from divulge.attacks.draws import normals, stream, uniforms
from divulge.attacks.label_only import LabelOnly
from divulge.attacks.perturbations import Images, Noise, Perturbation, Tabular, moments
from divulge.folds import halves
from divulge.hashes import array_hashes
from divulge.roc import exact


def regions(inputs):
    """A model of three classes, by the sum of its inputs."""
    return np.digitize(np.asarray(inputs).reshape(len(inputs), -1).sum(axis=1), [-0.5, 0.5])


def evidence_of(n=120, d=5, seed=0, **fields):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    labels = np.where(rng.random(n) < 0.3, rng.integers(0, 3, n), regions(x))
    return Evidence(rng.permutation(n) < n // 2, labels=labels, features=x, **fields)


def scores_of(attack, evidence, seed=5):
    return np.asarray(attack(evidence, np.random.default_rng(seed)))


def jitter(inputs, rng):
    """A user's own perturbation."""
    return inputs + rng.normal(scale=0.3, size=inputs.shape)


def table(n=600, seed=0):
    """Two numbers, two binary columns (one of -1 and 4), a category, a one-hot category whose base has no column."""
    rng = np.random.default_rng(seed)
    hot = np.eye(4)[rng.choice(4, n, p=[0.5, 0.3, 0.1, 0.1])][:, 1:]
    columns = [rng.normal(size=n), 100 * rng.normal(size=n), rng.random(n) < 0.2, np.where(rng.random(n) < 0.5, -1, 4)]
    return np.column_stack([*columns, rng.choice([3, 7, 11], n, p=[0.7, 0.2, 0.1]), hot]).astype(float)


TABULAR = Tabular(binary=(2, 3), categorical=(4, (5, 6, 7)))
PERTURBATIONS = {
    "noise": Noise(),
    "noise, scale": Noise(scale=0.7),
    "tabular": TABULAR,
    "images": Images((2, 4), shift=1, flip=True, sigma=0.1),
    "rotated": Images((2, 2, 2), rotate=20.0),
}
ROW_WISE = ["noise, scale"]  # what needs nothing of the other records


# ------------------------------------------------------------------------------------------------ every attack's


def leaky(seed=0, n=600, shared=False):
    """Nearest neighbours on labels of which a part is noise; `shared`: no record is a member of the training set."""
    x, y = make_classification(3 * n, 20, n_informative=10, flip_y=0.2, random_state=seed)
    model = KNeighborsClassifier(1).fit(x[:n], y[:n])
    rows = np.arange(n, 3 * n) if shared else np.arange(2 * n)
    member = np.random.default_rng(seed).permutation(2 * n) < n if shared else rows < n
    return model, Evidence(member, labels=y[rows], features=x[rows])


def test_direction_labels_alone_tell_members_and_better_than_the_gap_attack():
    model, evidence = leaky()
    share = scores_of(LabelOnly(model.predict), evidence)
    gap = scores_of(LabelOnly(model.predict, queries=1), evidence)
    assert roc_auc_score(evidence.member, gap) > 0.55
    assert roc_auc_score(evidence.member, share) > roc_auc_score(evidence.member, gap) + 0.03


def test_direction_on_a_forest():
    x, y = make_classification(1600, 60, n_informative=20, n_classes=3, flip_y=0.1, random_state=1)
    model = RandomForestClassifier(50, random_state=0).fit(x[:800], y[:800])
    evidence = Evidence(np.arange(1600) < 800, labels=y, features=x)
    share = scores_of(LabelOnly(model.predict, queries=10), evidence)
    assert roc_auc_score(evidence.member, share) > roc_auc_score(evidence.member, model.predict(x) == y) + 0.02


def test_null_random_membership_raises_few_alarms():
    seeds, error, alarms = 100, 0.05, 0
    model, evidence = leaky(n=150, shared=True)
    share = scores_of(LabelOnly(model.predict, queries=6), evidence)
    for seed in range(seeds):
        dealt = replace(evidence, member=np.random.default_rng(seed).permutation(evidence.member))
        alarms += metrics.auc(exact(share, dealt.member, halves(dealt, seed)), error).low > 0.5
    assert binomtest(alarms, seeds, error / 2, alternative="greater").pvalue > 0.01, alarms


@pytest.mark.parametrize("perturb", [*PERTURBATIONS.values(), jitter], ids=[*PERTURBATIONS, "own"])
def test_row_permutation_permutes_the_scores(perturb):
    x = table()
    evidence = Evidence(np.arange(600) < 300, labels=regions(x[:, [0, 2]]), features=np.tile(x[:300], (2, 1)))
    attack = LabelOnly(lambda inputs: regions(inputs[:, [0, 2]]), perturb, queries=5, batch=64)
    order = np.random.default_rng(3).permutation(600)
    assert np.array_equal(scores_of(attack, evidence.take(order)), scores_of(attack, evidence)[order])
    assert len(set(scores_of(attack, evidence).tolist())) > 2


@pytest.mark.parametrize("name", ROW_WISE)
def test_take_slice_then_score_is_score_then_slice(name):
    evidence = evidence_of()
    rows = np.random.default_rng(3).permutation(120)[:40]
    attack = LabelOnly(regions, PERTURBATIONS[name])
    assert np.array_equal(scores_of(attack, evidence.take(rows)), scores_of(attack, evidence)[rows])


def test_take_after_prepare_is_prepare_then_take():
    """As the pipeline has it: asked once, of all records."""
    evidence, attack = evidence_of(), LabelOnly(regions)
    prepared = replace(evidence, signals=attack.prepare(evidence, np.random.default_rng(5)))
    rows = np.random.default_rng(3).permutation(120)[:40]
    assert np.array_equal(scores_of(attack, prepared.take(rows)), scores_of(attack, evidence)[rows])


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_copies_of_a_row_do_not_depend_on_the_rows_beside_it(name):
    x = table(64)
    copy = PERTURBATIONS[name].over(x, np.arange(64))
    keys = array_hashes(x, 1)
    rows = np.random.default_rng(0).permutation(64)[:9]
    assert np.array_equal(copy(x, keys, 3)[rows], copy(x[rows], keys[rows], 3))
    assert not np.array_equal(copy(x, keys, 3), copy(x, keys, 2))


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_the_size_of_a_batch_changes_nothing(name, batch):
    x = table(60)
    evidence = Evidence(np.arange(60) < 30, labels=regions(x[:, :1]), features=x)
    seen = []

    def predict(inputs):
        seen.append(len(inputs))
        return regions(inputs[:, :1])

    attack = LabelOnly(predict, PERTURBATIONS[name], queries=4)
    whole = scores_of(attack, evidence)
    seen.clear()
    assert np.array_equal(scores_of(replace(attack, batch=batch), evidence), whole)
    assert max(seen) <= batch and sum(seen) == 4 * 60


# --------------------------------------------------------------------------------------------------- naive twins


@pytest.mark.parametrize("perturb", PERTURBATIONS.values(), ids=PERTURBATIONS)
def test_the_share_equals_a_loop_over_rows_and_queries(perturb):
    x = table(50)
    evidence = Evidence(np.arange(50) < 25, labels=regions(x[:, :2]), features=x)
    keys = array_hashes(x, int(np.random.default_rng(5).integers(2**63)))
    copy = perturb.over(x, np.arange(50))
    expected = []
    for row in range(50):
        asked = [x[row]] + [copy(x[row : row + 1], keys[row : row + 1], number)[0] for number in range(6)]
        expected.append(np.mean([regions(one[None, :2])[0] == evidence.labels[row] for one in asked]))
    found = scores_of(LabelOnly(lambda inputs: regions(inputs[:, :2]), perturb, queries=7), evidence)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_precomputed_predictions_give_what_live_queries_give():
    evidence, answers = evidence_of(), []

    def predict(inputs):
        answers.append(np.full(120, -9.0))
        answers[-1][order] = regions(inputs)
        return regions(inputs)

    order = np.argsort(array_hashes(evidence.features, int(np.random.default_rng(5).integers(2**63))))
    live = scores_of(LabelOnly(predict), evidence)
    given = replace(evidence, signals={"label_only": share_right(np.column_stack(answers), evidence.labels)})
    assert np.array_equal(scores_of(LabelOnly(), given), live)
    assert LabelOnly(predict).prepare(given, np.random.default_rng(0)) == {}


def test_equal_records_are_asked_about_once_and_each_is_held_against_its_own_label():
    x = np.repeat(np.random.default_rng(0).normal(size=(10, 5)), 3, axis=0)
    evidence = Evidence(np.arange(30) < 15, labels=np.arange(30) % 3, features=x)
    asked = []

    def predict(inputs):
        asked.append(len(inputs))
        return regions(inputs)

    scores = scores_of(LabelOnly(predict, queries=9), evidence).reshape(10, 3)
    assert asked == [10] * 9
    np.testing.assert_allclose(scores.sum(axis=1), 1)  # the three labels share out every answer


def test_one_query_is_the_gap_attack():
    evidence = evidence_of()
    found = scores_of(LabelOnly(regions, queries=1), evidence)
    assert np.array_equal(found, regions(evidence.features) == evidence.labels)


# ------------------------------------------------------------------------------------------------- perturbations


def test_draws_are_uniform_and_normal_and_unrelated_between_rows_columns_and_streams():
    keys = np.arange(2000, dtype=np.uint64)
    u, z = uniforms(keys, 101), normals(keys, 101)
    assert u.shape == z.shape == (2000, 101) and u.dtype == z.dtype == np.float32
    assert u.min() >= 0 and u.max() < 1
    assert kstest(u.ravel(), "uniform").pvalue > 0.01 and kstest(z.ravel(), "norm").pvalue > 0.01
    together = np.corrcoef(np.vstack([z[:, :4].T, normals(stream(keys, 1), 4).T, [*z[1:, 0].tolist(), 0]]))
    assert np.abs(together - np.eye(9)).max() < 0.1
    assert np.array_equal(normals(keys, 10), normals(keys[::-1], 10)[::-1])
    assert uniforms(keys[:0], 4).shape == (0, 4) and uniforms(keys, 0).shape == (2000, 0)


def test_moments_are_numpys_over_finite_values():
    x = np.random.default_rng(0).normal(3, [1, 50, 0], size=(500, 3))
    x[[3, 9], 1] = np.nan, np.inf
    rest = x[np.isfinite(x).all(axis=1)]
    found = moments(x, np.random.default_rng(1).permutation(500))
    np.testing.assert_allclose(found.deviation(), [x[:, 0].std(), rest[:, 1].std(), 0], atol=1e-12)
    np.testing.assert_allclose(found.pooled(), np.concatenate([x[:, 0], rest[:, 1], x[:, 2]]).std())


def test_noise_has_the_scale_that_was_asked_for():
    x = np.random.default_rng(0).normal(size=(4000, 3)) * [1, 100, 0]
    x[5, 0] = np.nan
    copy = Noise(sigmas=(0.1, 0.5)).over(x, np.arange(4000))
    for number, sigma in ((0, 0.1), (1, 0.5), (2, 0.1)):
        change = copy(x, array_hashes(x), number) - x
        np.testing.assert_allclose(np.nanstd(change, axis=0), sigma * np.nanstd(x, axis=0), rtol=0.05)
        assert np.isnan(change).sum() == 1
    fixed = Noise(sigmas=(1.0,), scale=(2.0, 0.0, 3.0)).over(x, np.arange(4000))(x, array_hashes(x), 0) - x
    np.testing.assert_allclose(np.nanstd(fixed, axis=0), [2, 0, 3], rtol=0.05)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_copies_keep_the_dtype_and_leave_the_records_alone(name, dtype):
    x = np.random.default_rng(0).integers(0, 2, (40, 8)).astype(dtype)
    before = x.copy()
    copy = PERTURBATIONS[name](x, np.random.default_rng(0))
    assert copy.dtype == dtype and copy.shape == x.shape and np.array_equal(x, before)
    assert not np.shares_memory(copy, x)
    assert PERTURBATIONS[name](x.astype(int), np.random.default_rng(0)).dtype == np.float32


def test_binary_columns_stay_binary_and_flip_as_often_as_asked():
    x = table(8000)
    x[0, 3] = np.nan
    copy = replace(TABULAR, chances=(0.1, 0.0)).over(x, np.arange(8000))
    changed, same = (copy(x, array_hashes(x), number) for number in (0, 1))
    assert set(changed[:, 2].tolist()) == {0.0, 1.0} and set(changed[1:, 3].tolist()) == {-1.0, 4.0}
    for column in (2, 3):
        assert abs(np.mean(changed[1:, column] != x[1:, column]) - 0.1) < 0.015
    assert np.isnan(changed[0, 3]) and np.array_equal(same[:, 2:], x[:, 2:], equal_nan=True)
    assert (same[:, :2] != x[:, :2]).all()


def test_categories_are_drawn_as_often_as_the_records_hold_them_and_one_hot_stays_one_hot():
    x = table(8000)
    changed = replace(TABULAR, chances=(1.0,)).over(x, np.arange(8000))(x, array_hashes(x), 0)
    assert set(changed[:, 4].tolist()) == {3.0, 7.0, 11.0} and (changed[:, 5:].sum(axis=1) <= 1).all()
    np.testing.assert_allclose(changed[:, 4:].mean(axis=0), x[:, 4:].mean(axis=0), rtol=0.1)
    moved = replace(TABULAR, chances=(0.2,)).over(x, np.arange(8000))(x, array_hashes(x), 0)
    np.testing.assert_allclose(moved[:, 4:].mean(axis=0), x[:, 4:].mean(axis=0), rtol=0.06)
    share = np.square(np.unique(x[:, 5:], axis=0, return_counts=True)[1] / 8000).sum()  # drawn and the same
    assert abs((moved[:, 5:] != x[:, 5:]).any(axis=1).mean() - 0.2 * (1 - share)) < 0.02
    assert abs(np.corrcoef(moved[:, 4] != x[:, 4], (moved[:, 5:] != x[:, 5:]).any(axis=1))[0, 1]) < 0.05


def test_tabular_without_named_columns_is_noise():
    x = table()
    assert np.array_equal(
        Tabular().over(x, np.arange(600))(x, array_hashes(x), 1), Noise().over(x, np.arange(600))(x, array_hashes(x), 1)
    )


def naive_shift(image, down, right):
    height, width = image.shape
    moved = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            moved[y, x] = image[min(max(y - down, 0), height - 1), min(max(x - right, 0), width - 1)]
    return moved


def test_images_are_shifted_by_whole_pixels_over_their_edges():
    image = np.random.default_rng(0).normal(size=(4, 6))
    every = {naive_shift(image, down, right).tobytes() for down in range(-2, 3) for right in range(-2, 3)}
    moved = Images((4, 6), shift=2, sigma=0)(np.tile(image, (2000, 1, 1)), np.random.default_rng(0))
    found, number = np.unique([one.tobytes() for one in moved], return_counts=True)
    assert set(found) == every and number.min() > 40


def test_half_of_the_images_are_mirrored():
    image = np.random.default_rng(0).normal(size=(4, 6))
    moved = Images((4, 6), flip=True, sigma=0)(np.tile(image, (1000, 1, 1)), np.random.default_rng(0))
    mirrored = (moved == image[:, ::-1]).all(axis=(1, 2))
    assert ((moved == image).all(axis=(1, 2)) ^ mirrored).all() and 400 < mirrored.sum() < 600


def test_images_are_turned_as_scipy_turns_them():
    """By up to a right angle: by exactly one, in the limit; by others as ndimage does, away from the edges."""
    from scipy.ndimage import affine_transform, gaussian_filter

    image = gaussian_filter(np.random.default_rng(0).normal(size=(21, 21)), 2)
    turned = Images((21, 21), rotate=30, sigma=0)
    for angle in (-30.0, -7.0, 0.0, 12.0):
        draws = np.array([[0.5, 0.5, 0.9, (angle / 30 + 1) / 2]])
        found = turned._moved(image.reshape(1, -1, 1), draws, 21, 21).reshape(21, 21)
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        matrix = np.array([[c, -s], [s, c]])
        offset = 10 - matrix @ [10, 10]
        expected = affine_transform(image, matrix, offset, order=1, mode="nearest")
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_channels_move_together_wherever_their_axis_is():
    first = np.random.default_rng(0).normal(size=(30, 3, 5, 7))
    last = np.ascontiguousarray(first.transpose(0, 2, 3, 1))
    for move in ({"shift": 2}, {"rotate": 15.0}, {"shift": 1, "flip": True}):
        rng = (np.random.default_rng(1), np.random.default_rng(1))
        moved = Images((3, 5, 7), sigma=0, **move)(first, rng[0])
        assert np.array_equal(Images((5, 7, 3), sigma=0, **move)(last, rng[1]).transpose(0, 3, 1, 2), moved)
        assert not np.array_equal(moved, first)


def test_noise_on_images_is_in_units_of_all_pixels():
    x = np.random.default_rng(0).normal(5, 3, size=(400, 48))
    change = Images((4, 4, 3), sigma=0.2)(x, np.random.default_rng(0)) - x
    assert abs(change.std() / (0.2 * x.std()) - 1) < 0.02


def test_a_perturbation_of_the_users_own_class_is_row_wise_too():
    class Negated(Perturbation):
        def over(self, features, order):
            return lambda rows, keys, number: -rows

    evidence = evidence_of()
    found = scores_of(LabelOnly(regions, Negated(), queries=2), evidence)
    right = [regions(sign * evidence.features) == evidence.labels for sign in (1, -1)]
    assert np.array_equal(found, np.mean(right, axis=0))


# ------------------------------------------------------------------------------------------------ what is asked


def test_inputs_have_the_models_shape_and_perturb_sees_it_too():
    evidence, shapes = evidence_of(d=12), []

    def predict(inputs):
        shapes.append(inputs.shape)
        return regions(inputs)

    def perturb(inputs, rng):
        shapes.append(inputs.shape)
        return jitter(inputs, rng)

    scores_of(LabelOnly(predict, perturb, queries=2, batch=100, shape=(1, 3, 4)), evidence)
    assert shapes == [(100, 1, 3, 4)] * 3 + [(20, 1, 3, 4)] * 3


def test_a_perturb_function_is_called_once_a_query_and_may_write_into_what_it_gets():
    evidence, calls = evidence_of(), []

    def negate(inputs, rng):
        calls.append(len(inputs))
        inputs *= -1
        return inputs

    found = scores_of(LabelOnly(regions, negate, queries=3), evidence)
    right = [regions(sign * evidence.features) == evidence.labels for sign in (1, -1, -1)]
    np.testing.assert_allclose(found, np.mean(right, axis=0))
    assert calls == [120, 120]


def test_what_predict_and_perturb_raise_is_not_touched():
    def broken(*_):
        raise KeyError("theirs")

    for attack in (LabelOnly(broken), LabelOnly(regions, broken)):
        with pytest.raises(KeyError, match="theirs"):
            scores_of(attack, evidence_of())


def test_whole_number_features_reach_the_model_as_float():
    x = np.random.default_rng(0).integers(0, 255, (60, 4)).astype(np.uint8)
    evidence = Evidence(np.arange(60) < 30, labels=np.arange(60) % 2, features=x)
    kinds = []
    scores_of(LabelOnly(lambda inputs: kinds.append(inputs.dtype) or np.zeros(len(inputs), int)), evidence)
    assert set(kinds) == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("attack", "fields", "reason"),
    [
        (LabelOnly(), {}, "a model to ask"),
        (LabelOnly(regions), {"features": None}, "needs features"),
        (LabelOnly(regions), {"labels": None}, "class labels"),
        (LabelOnly(regions), {"labels": np.linspace(0, 1, 120)}, "class labels"),
        (LabelOnly(regions), {"labels": np.arange(120), "outputs": np.zeros(120)}, "class labels"),
    ],
)
def test_evidence_that_it_cannot_work_on_is_said(attack, fields, reason):
    evidence = replace(evidence_of(), **fields)
    with pytest.raises(Unavailable, match=reason):
        scores_of(attack, evidence)
    with pytest.raises(Unavailable, match=reason):
        attack.prepare(evidence, np.random.default_rng(0))


def test_its_name_and_its_provenance_are_text_without_places_in_memory():
    model = KNeighborsClassifier()
    attack = LabelOnly(model.predict, jitter, shape=(1, 5))
    expected = "LabelOnly(predict=KNeighborsClassifier.predict, perturb=jitter, queries=20, batch=4096, shape=(1, 5))"
    assert repr(attack) == expected and str(attack) == "label_only"
    assert eval(repr(LabelOnly())) == LabelOnly() and attack.needs == ("label_only",)
    assert pickle.loads(pickle.dumps(LabelOnly(regions, TABULAR))) == LabelOnly(regions, TABULAR)


# ------------------------------------------------------------------------------------------------ reading answers

NAMES = ("no", "maybe", "yes")


@pytest.mark.parametrize(
    ("fields", "write"),
    [
        ({}, lambda code: code.astype(np.int8)),
        ({}, lambda code: code.astype(np.float32)),
        ({}, lambda code: code[:, None]),
        ({}, lambda code: code.tolist()),
        ({}, lambda code: code.astype(str)),
        ({}, lambda code: np.eye(3)[code]),
        ({}, lambda code: np.eye(5, dtype=np.float32)[code] - 2),
        ({"outputs": np.zeros((120, 3)), "kind": "logits"}, lambda code: 9 * np.eye(3)[code]),
        ({"classes": NAMES}, lambda code: np.array(NAMES)[code]),
        ({"classes": NAMES}, lambda code: np.array(NAMES, object)[code]),
        ({"classes": NAMES}, lambda code: code),
        ({"classes": ("5", "-3", "8")}, lambda code: np.array([5, -3, 8])[code]),
        ({"classes": ("5", "-3", "8")}, lambda code: np.array([5.0, -3.0, 8.0])[code]),
        ({"classes": ("5", "-3", "8")}, lambda code: code),
        ({"classes": ("1", "2", "3")}, lambda code: code + 1),
        ({"classes": ("1", "2", "3")}, lambda code: code),
        ({"classes": ("2", "0", "1")}, lambda code: np.array(["2", "0", "1"])[code]),
        ({"classes": ("2", "0", "1")}, lambda code: np.eye(3)[code]),
    ],
)
@pytest.mark.parametrize("batch", [1, 4096])
def test_labels_may_be_written_in_many_ways(fields, write, batch):
    expected = scores_of(LabelOnly(regions), evidence_of())
    attack = LabelOnly(lambda inputs: write(regions(inputs)), batch=batch)
    assert np.array_equal(scores_of(attack, evidence_of(**fields)), expected)


@pytest.mark.parametrize(
    ("fields", "write"),
    [
        ({}, lambda s: (s > 0).astype(int)),
        ({}, lambda s: s > 0),
        ({}, lambda s: (s > 0).astype(float)),
        ({}, lambda s: 1 / (1 + np.exp(-s))),
        ({}, lambda s: s),
        ({}, lambda s: np.sign(s).astype(int)),
        ({}, lambda s: s[:, None]),
        ({}, lambda s: np.column_stack([-s, s])),
        ({}, lambda s: (s > 0).astype(int).astype(str)),
        ({"classes": ("-1", "1")}, lambda s: np.sign(s)),
        ({"classes": ("-1", "1")}, lambda s: s),
        ({"classes": ("-1", "1")}, lambda s: 1 / (1 + np.exp(-s))),
        ({"classes": ("1", "2")}, lambda s: 1 + (s > 0)),
        ({"classes": ("1", "2")}, lambda s: s > 0),
        ({"classes": ("bad", "good")}, lambda s: np.where(s > 0, "good", "bad")),
        ({"outputs": np.zeros(120), "kind": "logits"}, lambda s: s),
    ],
)
@pytest.mark.parametrize("batch", [1, 4096])
def test_two_classes_may_be_labels_probabilities_or_logits(fields, write, batch):
    """A batch of one holds only logits in 0..1 or only one label at times: all batches settle it together."""
    evidence = evidence_of(**fields)
    evidence = replace(evidence, labels=np.minimum(evidence.labels, 1))

    def score(inputs):
        return inputs.sum(axis=1) + 0.5

    expected = scores_of(LabelOnly(lambda x: np.minimum(regions(x), 1)), evidence)
    assert np.array_equal(scores_of(LabelOnly(lambda x: write(score(x)), batch=batch), evidence), expected)


@pytest.mark.parametrize("write", [lambda s: s > 0, lambda s: s, lambda s: 1 / (1 + np.exp(-s)), lambda s: 1 * (s > 0)])
@pytest.mark.parametrize("batch", [1, 4096])
def test_several_labels_a_record_count_one_by_one(write, batch):
    x = np.random.default_rng(0).normal(size=(80, 4))
    labels = (x + np.random.default_rng(1).normal(size=x.shape)) > 0
    evidence = Evidence(np.arange(80) < 40, labels=labels, features=x)
    attack = LabelOnly(write, Noise(scale=1.0), queries=5, batch=batch)
    keys = array_hashes(x, int(np.random.default_rng(5).integers(2**63)))
    copy = Noise(scale=1.0).over(x, np.arange(80))
    asked = np.stack([x, *(copy(x, keys, number) for number in range(4))], axis=1) > 0
    expected = (asked == labels[:, None]).mean(axis=(1, 2))
    np.testing.assert_allclose(scores_of(attack, evidence), expected)
    np.testing.assert_allclose(share_right(asked, labels), expected)


def test_no_answer_is_left_out_and_no_answer_at_all_is_no_score():
    evidence = evidence_of()
    order = np.argsort(array_hashes(evidence.features, int(np.random.default_rng(5).integers(2**63))))
    silent = np.zeros(120, bool)
    silent[order[:7]] = True
    calls = []

    def predict(inputs):
        calls.append(0)
        answer = regions(inputs).astype(float)
        answer[: 7 if len(calls) > 1 else 9] = np.nan
        return answer

    def texts(inputs):
        answer = predict(inputs)
        return np.where(np.isnan(answer), "", np.nan_to_num(answer).astype(int).astype(str))

    def scores(inputs):
        answer = predict(inputs)
        hot = np.eye(3)[np.nan_to_num(answer).astype(int)]
        hot[np.isnan(answer), 1] = np.nan
        return hot

    expected = scores_of(LabelOnly(predict), evidence)
    assert np.array_equal(np.isnan(expected), silent)
    for other in (texts, scores):
        calls.clear()
        assert np.array_equal(scores_of(LabelOnly(other), evidence), expected, equal_nan=True)
    full = scores_of(LabelOnly(regions), evidence)
    assert np.array_equal(expected[order[9:]], full[order[9:]])


def test_no_answer_is_neither_of_two_classes():
    answers = Answers(Evidence(np.arange(4) < 2, labels=np.array([0, 0, 1, 1])))
    for logits in ([0.4, np.nan, np.nan, 3.0], [-2.0, -0.5, np.nan, -1.0], [1.0, np.nan, np.nan, 2.0]):
        answers.count(answers.numbers(logits, 4), np.arange(4))  # the last alone could be labels 1 and 2
    assert np.array_equal(answers.shares(), [1 / 3, 1, np.nan, 2 / 3], equal_nan=True)


BAD_ANSWERS = {
    "too few": (lambda x: regions(x)[1:], {}, "DV004"),
    "one": (lambda x: np.float64(1), {}, "DV002"),
    "columns": (lambda x: np.zeros((len(x), 2)), {}, "DV075"),
    "columns known": (lambda x: np.zeros((len(x), 4)), {"classes": NAMES}, "DV075"),
    "axes": (lambda x: np.zeros((len(x), 3, 3)), {}, "DV075"),
    "text of two axes": (lambda x: np.full((len(x), 3), "no"), {"classes": NAMES}, "DV075"),
    "objects": (lambda x: [object()] * len(x), {}, "DV002"),
    "fractions": (lambda x: x[:, 0], {}, "DV021"),
    "counted from 1": (lambda x: 1 + regions(x), {"classes": NAMES}, "DV021"),
    "below 0": (lambda x: regions(x) - 1, {}, "DV021"),
    "unknown text": (lambda x: np.array(["no", "si", "yes"])[regions(x)], {"classes": NAMES}, "DV024"),
    "text without names": (lambda x: np.array(["no", "si", "yes"])[regions(x)], {}, "DV024"),
    "either": (regions, {"classes": ("2", "0", "1")}, "DV022"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
@pytest.mark.parametrize("batch", [7, 4096])
def test_answers_that_are_none_are_refused(name, batch):
    predict, fields, code = BAD_ANSWERS[name]
    with pytest.raises(InputError) as raised:
        scores_of(LabelOnly(predict, batch=batch), evidence_of(**fields))
    assert raised.value.code == code and len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("labels", "predict", "code"),
    [
        (np.arange(40) % 2, lambda x: 1 + (x[:, 0] > 0), "DV021"),
        (np.eye(4, dtype=bool)[np.arange(40) % 4], lambda x: x[:, :3], "DV075"),
        (np.eye(4, dtype=bool)[np.arange(40) % 4], lambda x: x[:, 0], "DV075"),
        (np.eye(4, dtype=bool)[np.arange(40) % 4], lambda x: 2 + (x > 0), "DV021"),
        (np.eye(4, dtype=bool)[np.arange(40) % 4], lambda x: np.full(x.shape, "a"), "DV075"),
    ],
    ids=["1 and 2", "columns", "no columns", "2 and 3", "text"],
)
def test_answers_that_do_not_fit_two_or_several_labels_are_refused(labels, predict, code):
    evidence = Evidence(np.arange(40) < 20, labels=labels, features=np.random.default_rng(0).normal(size=(40, 4)))
    with pytest.raises(InputError) as raised:
        scores_of(LabelOnly(predict, batch=3), evidence)
    assert raised.value.code == code


def test_answers_of_two_kinds_are_refused():
    answers = Answers(evidence_of())
    answers.count(answers.numbers(np.zeros(2, int), 2), np.array([0, 1]))
    with pytest.raises(InputError, match="DV003"):
        answers.numbers(["0", "1"], 2)


# ---------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "make",
    [
        lambda: LabelOnly(3),
        lambda: LabelOnly(regions, None),
        lambda: LabelOnly(regions, "noise"),
        lambda: LabelOnly(queries=0),
        lambda: LabelOnly(queries=2.5),
        lambda: LabelOnly(batch=0),
        lambda: LabelOnly(shape=28),
        lambda: LabelOnly(shape=(1, -28)),
        lambda: Noise(sigmas=()),
        lambda: Noise(sigmas=0.1),
        lambda: Noise(sigmas=(0.1, -1)),
        lambda: Noise(sigmas=(np.inf,)),
        lambda: Noise(scale=-1.0),
        lambda: Noise(scale=(1.0, np.nan)),
        lambda: Noise(scale=(1.0, 2.0))(np.zeros((4, 3)), np.random.default_rng(0)),
        lambda: Tabular(chances=(1.1,)),
        lambda: Tabular(binary=(-1,)),
        lambda: Tabular(binary=3),
        lambda: Tabular(binary=("a",)),
        lambda: Tabular(binary=(1,), categorical=((0, 1),)),
        lambda: Tabular(categorical=([0, 1],)),
        lambda: Tabular(binary=(3,))(np.zeros((4, 3)), np.random.default_rng(0)),
        lambda: Tabular(binary=(0,))(np.arange(4.0)[:, None], np.random.default_rng(0)),
        lambda: Images((28,)),
        lambda: Images((0, 28)),
        lambda: Images(28),
        lambda: Images((2, 2), shift=-1),
        lambda: Images((2, 2), shift=0.5),
        lambda: Images((2, 2), rotate=np.nan),
        lambda: Images((2, 2), sigma=-1.0),
        lambda: Images((2, 2))(np.zeros((4, 5)), np.random.default_rng(0)),
    ],
)
def test_settings_that_cannot_be_used_are_refused(make):
    with pytest.raises(InputError) as raised:
        make()
    assert raised.value.code == "DV056" and len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "attack",
    [LabelOnly(regions, shape=(2, 2)), LabelOnly(regions, lambda inputs, rng: inputs[:, :2])],
    ids=["shape", "perturb"],
)
def test_shapes_that_do_not_fit_the_features_are_refused(attack):
    with pytest.raises(InputError, match="DV003"):
        scores_of(attack, evidence_of())


# -------------------------------------------------------------------------------------------------- share_right


@pytest.mark.parametrize("make", [lambda x: x, lambda x: x.astype(float), lambda x: np.array(["a", "b", "c"])[x]])
def test_share_right_equals_a_loop(make):
    rng = np.random.default_rng(0)
    predictions, labels = make(rng.integers(0, 3, (70, 9))), make(rng.integers(0, 3, 70))
    expected = [sum(one == label for one in row) / 9 for row, label in zip(predictions, labels, strict=True)]
    assert np.array_equal(share_right(predictions, labels), expected)
    assert np.array_equal(share_right(predictions.tolist(), labels.tolist()), expected)


def test_share_right_leaves_missing_predictions_out():
    predictions = np.array([[1, np.nan, 0, 1], [np.nan] * 4, [0, 0, np.nan, np.nan]])
    assert np.array_equal(share_right(predictions, [1, 1, 1]), [2 / 3, np.nan, 0], equal_nan=True)
    texts = np.array([["x", "", "y"], ["", "", ""]])
    assert np.array_equal(share_right(texts, ["x", "y"]), [1 / 2, np.nan], equal_nan=True)


def test_share_right_of_scores():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(70, 9, 4)), rng.integers(0, 4, 70)
    scores[3, 2, 1] = scores[5, :, 0] = np.nan
    expected = np.full((70, 9), np.nan)
    for row in range(70):
        for query in range(9):
            if not np.isnan(scores[row, query]).any():
                expected[row, query] = scores[row, query].argmax() == labels[row]
    expected[5, 0] = 0  # nanmean of nothing warns
    expected = np.nanmean(expected, axis=1)
    expected[5] = np.nan
    assert np.array_equal(share_right(scores, labels), expected, equal_nan=True)


@pytest.mark.parametrize("several", [False, True], ids=["binary", "multi-label"])
def test_share_right_of_probabilities_and_logits(several):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(70, 9, 3) if several else (70, 9))
    labels = rng.integers(0, 2, (70, 3) if several else 70)
    right = (logits > 0) == labels[:, None]
    for given in (logits, 1 / (1 + np.exp(-logits))):
        np.testing.assert_allclose(share_right(given, labels), right.reshape(70, -1).mean(axis=1))


@pytest.mark.parametrize(
    ("predictions", "labels", "code"),
    [
        (np.zeros(4), np.zeros(4), "DV003"),
        (np.zeros((4, 0)), np.zeros(4), "DV003"),
        (np.zeros((4, 2)), np.zeros((4, 2)), "DV003"),
        (np.zeros((4, 2)), 0, "DV002"),
        (np.zeros((4, 2)), np.zeros(5), "DV004"),
        (np.zeros((4, 2, 3)), np.zeros((4, 2)), "DV004"),
        (np.zeros((4, 2)), np.array(["a"] * 4), "DV020"),
        (np.full((4, 2), "a"), np.zeros(4), "DV020"),
        (np.full((4, 2, 3), "a"), np.zeros(4, int), "DV020"),
        (np.full((4, 2), 0.3), np.arange(4), "DV020"),
        (np.zeros((4, 2, 3)), np.full((4, 3), 2), "DV020"),
        (np.zeros((4, 2, 3)), np.arange(4), "DV021"),
        (np.zeros((4, 2, 3)), np.array(list("abca")), "DV021"),
        (np.array([[0, -1], [1, 1]]), np.array([0, 1]), "DV021"),
        ([[1, 2], [1]], [0, 1], "DV002"),
    ],
)
def test_share_right_refuses_what_does_not_fit(predictions, labels, code):
    with pytest.raises(InputError) as raised:
        share_right(predictions, labels)
    assert raised.value.code == code


# ------------------------------------------------------------------------------- predictions that mean another thing


def test_probabilities_of_two_classes_are_not_two_queries():
    p = np.random.default_rng(0).random(50)
    with pytest.raises(InputError, match=r"DV003 .*sum to 1.*predictions\[:, None, :\]"):
        share_right(np.c_[1 - p, p], np.arange(50) % 2)


def test_predictions_numbered_from_one_are_refused():
    labels = np.arange(100) % 10
    with pytest.raises(InputError, match=r"DV021 predictions are 1\.\.10 and labels 0\.\.9"):
        share_right(np.c_[labels + 1, labels + 1], labels)
    assert share_right(np.c_[labels, labels], labels).min() == 1


def test_numbers_that_are_no_classes_are_refused():
    with pytest.raises(InputError, match=r"DV020 labels are .*expected classes"):
        share_right(np.zeros((3, 2)), [0.5, 1.25, 2.0])


def test_two_label_only_attacks_may_run_side_by_side():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    evidence = Evidence(np.arange(60) < 30, labels=(x[:, 0] > 0).astype(int), features=x)
    near, far = (LabelOnly(lambda x: (x[:, 0] > 0).astype(int), Noise((s,)), name=f"noise {s}") for s in (0.01, 3.0))
    report = audit(evidence, attacks=[near, far], controls=())
    assert [row["attack"] for row in report.rows("attacks")] == ["noise 0.01", "noise 3.0"]
    scores = [np.asarray(attack(evidence, rng)) for attack in (near, far)]
    assert scores[0].mean() > scores[1].mean()
