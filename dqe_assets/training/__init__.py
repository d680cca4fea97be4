"""Trains subsets at a fixed scale, as DataComp does (Gadre et al. 2023): the same compute, only the data differ.

``training:`` in data/dqe.yaml lists runs: subsets, scale, seeds, captions. Each is a partition of the set
``TRAINING_RUNS``, with a key such as ``best-small-0``; ``settings.training.planned`` has all of them, in order. Two
stages:

- ``training_data/<data>``: a subset with its captions as WebDataset shards, made once for all runs that share it.
  ``Run.data`` is its name. On disk: ``data/training_data/<data>/00000000.tar ... manifest.json``.
- ``training_run[run]``: a row for each checkpoint, in the schema ``TRAINING_RUN`` of ``tables.py``. On disk:

      data/training/<run>/run.json                 the whole configuration, package versions, digest of the data
      data/training/<run>/<run>.json               the model's configuration, in open_clip's form
      data/training/<run>/checkpoints/epoch_1.pt   ... epoch_5.pt, in open_clip_train's form: epoch, name, state_dict,
                                                   optimizer
      data/training/<run>/log.jsonl                loss, learning rate and rate, as training went

  What is there while a run is going may be of an unfinished one: a row of the table names a checkpoint that is whole.

A checkpoint is loaded as any other model of open_clip: ``OpenClipSettings(architecture=row["architecture"],
weights=row["path"])``, both paths from the data folder.
"""

SAMPLES_PER_SHARD = 10_000
