"""UMTS on your own images, listed in a CSV or Parquet file.

    python -m kd_jax.main --config=configs/umts_manifest.py --config.data.root=LIST.csv

Columns path, split (train, query, gallery), identity, and optionally camera, tracklet, frame.
The paper's sizes and schedule, from random weights or those of `network.pretrained`.
"""

from configs import base


def get_config(variant: str = ''):
    return base.umts_on('manifest', variant)
