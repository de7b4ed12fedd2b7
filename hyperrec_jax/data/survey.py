"""Survey: vocabularies, means and standard deviations of the training rows, and of them alone."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from hyperrec_jax.data.multivalued import cut_to_length
from hyperrec_jax.data.schema import NumericalField, TimeField, VectorField
from hyperrec_jax.data.source import Rows, Source
from hyperrec_jax.data.staging import Part, progress_bar
from hyperrec_jax.data.time_fields import with_ages
from hyperrec_jax.data.vocabulary import collector_of
from hyperrec_jax.errors import UserError
from hyperrec_jax.goals.metrics import auc


@dataclasses.dataclass(frozen=True)
class Survey:
    """What is known of the training rows.

    Attributes:
      vocabulary: The sorted values of each table, by the name of the field that it belongs to, in
        the order of `Schema.tables`.
      rare: Number of values of each table that come too rarely to be in its vocabulary.
      numerical: Numbers and their scale.
      vectors: Vectors and their scale.
      times: Columns of times and the newest of each.
    """

    vocabulary: dict[str, pa.Array]
    rare: dict[str, int]
    numerical: tuple[NumericalField, ...]
    vectors: tuple[VectorField, ...] = ()
    times: tuple[TimeField, ...] = ()


class _Moments:
    """Mean and standard deviation of a stream of columns (Chan, Golub and LeVeque, 1983)."""

    def __init__(self, width: int):
        self._count = 0
        self.mean = np.zeros(width)
        self._squares = np.zeros(width)

    def add(self, values: np.ndarray) -> None:
        """Adds rows: [row, number]."""
        count = self._count + len(values)
        mean = values.mean(0, dtype=np.float64)
        delta = mean - self.mean
        self._squares += np.square(values - mean).sum(0)
        self._squares += np.square(delta) * (self._count * len(values) / count)
        self.mean += delta * (len(values) / count)
        self._count = count

    def std(self) -> np.ndarray:
        """Standard deviation, 1 where all values are the same but for what float32 tells apart."""
        std = np.sqrt(self._squares / max(self._count, 1))
        return np.where(std > np.finfo(np.float32).eps * np.abs(self.mean), std, 1.0)


def survey_of(source: Source, parts: Sequence[Part]) -> Survey:
    train = next(part for part in parts if part.name == "train")
    tables = [name for name in source.categorical if name not in source.shares]
    tables += [column.name for column in source.multivalued if column.shares is None]
    vocabularies = {name: collector_of(source.id_rule(name)) for name in tables}
    moments = _Moments(len(source.numerical))
    of_vectors = _Moments(sum(column.width for column in source.vectors))
    log1p = np.array([column.log1p for column in source.numerical], bool)
    counts: dict[str, int] = {}
    times = _newest_times(source, train)
    newest = [field.newest for field in times]
    with progress_bar("surveying the training rows", len(train)) as progress:
        for rows, splits in train.chunks():
            for name, chosen in splits.items():
                counts[name] = counts.get(name, 0) + int(chosen.sum())
            keep = splits["train"]
            if keep.any():
                for table, values in _values_of_tables(source, rows, pa.array(keep)):
                    vocabularies[table].add(values)
                moments.add(apply_log1p(with_ages(rows.numerical[keep], newest), log1p))
                if rows.vectors is not None:
                    of_vectors.add(rows.vectors[keep])
            progress.update(len(keep))
    _require_rows(source, counts, train.wanted)
    std = moments.std()
    found = {name: each.found() for name, each in vocabularies.items()}
    return Survey(
        vocabulary={name: values for name, (values, _) in found.items()},
        rare={name: rare for name, (_, rare) in found.items()},
        numerical=tuple(
            NumericalField(
                column.name,
                column.log1p,
                float(moments.mean[i]) if column.standardise else 0.0,
                float(std[i]) if column.standardise else 1.0,
                column.missing,
            )
            for i, column in enumerate(source.numerical)
        ),
        vectors=_scaled_vectors(source, of_vectors),
        times=times,
    )


def _newest_times(source: Source, train: Part) -> tuple[TimeField, ...]:
    """The newest time of the training rows in each column of times."""
    if not source.time_columns:
        return ()
    first = len(source.numerical) - len(source.time_columns)
    newest = np.full(len(source.time_columns), -np.inf)
    for rows, splits in train.chunks():
        times = rows.numerical[splits["train"], first:]
        newest = np.maximum(newest, times.max(axis=0, initial=-np.inf))
    if not np.isfinite(newest).all():
        return ()  # no training row, which is refused when all rows were counted
    return tuple(map(TimeField, source.time_columns, newest.astype(np.int64).tolist()))


def _require_rows(source: Source, counts: Mapping[str, int], wanted: Collection[str]) -> None:
    """Refuses a split without rows.

    Args:
      source: Where the rows come from.
      counts: Rows of the training part by the split that they go to.
      wanted: The splits that must get some.
    """
    if not counts["train"]:
        raise UserError(
            f"{source.name}: no training rows are left beside the rows set aside; "
            "use a smaller validation fraction, or more data"
        )
    for name in wanted:
        if not counts[name]:
            raise UserError(
                f"{source.name}: the {name} split gets no row by its time; choose another date, "
                "duration or share"
            )


def _values_of_tables(source: Source, rows: Rows, keep: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """The values of each field of ids in the rows to keep, and the table that they belong to."""
    for name, values in zip(source.categorical, rows.categorical, strict=True):
        yield source.shares.get(name, name), values.filter(keep)
    for column, lists in zip(source.multivalued, rows.multivalued, strict=True):
        yield column.shares or column.name, cut_to_length(lists.filter(keep), column)[0]


def _scaled_vectors(source: Source, moments: _Moments) -> tuple[VectorField, ...]:
    fields, start, std = [], 0, moments.std()
    for column in source.vectors:
        place = slice(start, start + column.width)
        scale = (tuple(moments.mean[place].tolist()), tuple(std[place].tolist()))
        mean, deviation = scale if column.standardise else ((), ())
        fields.append(VectorField(column.name, column.width, mean, deviation, column.separator))
        start = place.stop
    return tuple(fields)


def apply_log1p(values: np.ndarray, log1p: np.ndarray) -> np.ndarray:
    """`log(1 + x)` of the chosen columns; the sources refuse values of -1 and below."""
    return np.log1p(values, out=values.astype(np.float64), where=log1p) if log1p.any() else values


def best_auc(parts: Sequence[Part]) -> tuple[float, ...]:
    """AUC of the true probabilities on the test split, where they are known."""
    test = [part for part in parts if part.name == "test"]
    chunks = [(rows.labels, rows.true_probability) for part in test for rows, _ in part.chunks()]
    if not chunks or chunks[0][1] is None:
        return ()
    labels, probabilities = (np.concatenate(column) for column in zip(*chunks, strict=True))
    return tuple(float(auc(labels[:, i], probabilities[:, i])) for i in range(labels.shape[1]))
