"""Raw columns of any source -> store: staging, survey, encoding.

Three streaming passes, memory bounded by a few chunks of rows and the vocabularies:

  stage   The source is parsed and checked once, into Arrow files of its raw values.
  survey  Vocabularies, means and standard deviations of the training rows, and of them alone:
          a value that only validation or test rows have gets the out-of-vocabulary id 0.
  encode  Values -> ids and standardised numbers, written as a store.

Finished stages are reused when the command is run again after an interruption.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from hyperrec_jax.data.encode import encode_parts
from hyperrec_jax.data.files import explain_write_errors
from hyperrec_jax.data.schema import CategoricalField, MultivaluedField, Schema
from hyperrec_jax.data.source import Source
from hyperrec_jax.data.staging import STAGING_VERSION, Part, open_staging, split_up, stage
from hyperrec_jax.data.store import Store
from hyperrec_jax.data.store_writer import StoreWriter, refuse_foreign_folder
from hyperrec_jax.data.survey import Survey, best_auc, survey_of
from hyperrec_jax.errors import UserError


def prepare_store(source: Source, output: Path, validation_fraction: float = 0.1) -> Store:
    """Makes a store of a source, reusing what an interrupted run finished.

    Args:
      source: The rows.
      output: Folder of the store; a store that is there is replaced, or kept if it is of this
        very source.
      validation_fraction: Share of the training groups that becomes the validation split where
        the source has none of its own, in [0, 1); a source that is split by time may say how much
        of the rows before its test split that is.

    Raises:
      UserError: The input is unusable, or `output` cannot be written.
    """
    set_aside = {
        split: fraction
        for split, fraction in (
            ("validation", validation_fraction),
            ("test", source.test_fraction),
        )
        if split not in source.splits
    }
    if not 0 <= validation_fraction < 1 or not sum(set_aside.values()) < 1:
        raise UserError(
            f"validation fraction {validation_fraction}: must be at least 0 and leave rows to train"
        )
    refuse_foreign_folder(output)
    provenance = _provenance(source, validation_fraction)
    if (output / "schema.json").exists():
        try:
            store = Store.open(output)
        except UserError:
            pass  # of an older version or damaged: made again below
        else:
            if store.provenance == provenance:
                return store
    staging = output.with_name(output.name + ".staging")
    with explain_write_errors(output), open_staging(staging, provenance):
        parts = [
            Part(name, stage(source, name, read, staging), len(source.categorical))
            for name, read in source.splits.items()
        ]
        parts = [
            split_up(part, source, set_aside) if part.name == "train" else part for part in parts
        ]
        survey = survey_of(source, parts)
        schema = Schema(
            source=source.name,
            categorical=tuple(_categorical(source, name, survey) for name in source.categorical),
            numerical=survey.numerical,
            tasks=source.tasks,
            group=source.group,
            best_auc=best_auc(parts),
            goals=source.goals,
            label_dtype=_label_dtype(source, parts),
            weight=source.weight,
            multivalued=tuple(
                MultivaluedField(
                    **dataclasses.asdict(column), **_ids(source, column.name, column.shares, survey)
                )
                for column in source.multivalued
            ),
            vectors=survey.vectors,
            times=survey.times,
        )
        vocabulary = list(survey.vocabulary.values())
        with StoreWriter(output, schema, vocabulary, provenance) as writer:
            encode_parts(parts, schema, vocabulary, writer)
        shutil.rmtree(staging)
    pa.default_memory_pool().release_unused()  # chunks of rows, which nobody needs any more
    return Store.open(output)


def _categorical(source: Source, name: str, survey: Survey) -> CategoricalField:
    shares = source.shares.get(name)
    return CategoricalField(name, shares=shares, **_ids(source, name, shares, survey))


def _ids(source: Source, name: str, shares: str | None, survey: Survey) -> dict[str, Any]:
    """What the schema says of the ids of a field, its own or those of the field that it shares."""
    owner = shares or name
    rule = source.id_rule(owner)
    values = len(survey.vocabulary[owner]) if rule.hash_buckets is None else rule.hash_buckets
    return {
        "size": values + 1,
        "hashed": rule.hash_buckets is not None,
        "min_count": rule.min_count,
        "rare": 0 if shares else survey.rare[owner],
    }


def _provenance(source: Source, validation_fraction: float) -> str:
    description: list[Any] = [
        STAGING_VERSION,
        source.name,
        source.identity,
        source.categorical,
        [_known(dataclasses.astuple(column)) for column in source.numerical],
        source.tasks,
        source.group,
        [dataclasses.asdict(goal) for goal in source.goals],
        source.weight,
        sorted(source.splits),
        validation_fraction,
        *([dataclasses.astuple(source.time_split)] if source.time_split else []),
        *([] if "test" in source.splits else [source.test_fraction]),
    ]
    if source.shares or source.multivalued or source.vectors:
        description.append(dict(source.shares))
        description += [dataclasses.asdict(column) for column in source.multivalued]
        description += [dataclasses.asdict(column) for column in source.vectors]
    if source.id_rules:
        rules = {name: dataclasses.asdict(rule) for name, rule in source.id_rules.items()}
        description.append({"ids": rules})
    if source.time_columns:
        description.append({"time": source.time_columns})
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _label_dtype(source: Source, parts: Sequence[Part]) -> Literal["uint8", "float32"]:
    """The type of the stored labels: small where all are 0 or 1."""
    binary = all(goal.binary for goal in source.goals)
    return "uint8" if binary and not any(part.has_gaps() for part in parts) else "float32"
