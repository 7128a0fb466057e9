"""The baseline on your own images, listed in a CSV or Parquet file.

    python -m kd_jax.main --config=configs/supervised_manifest.py --config.data.root=LIST.csv

Columns path, split (train, query, gallery), identity, and optionally camera, tracklet, frame.
Without cameras nothing is left out of the gallery. ResNet-50 at 256×128.
"""

from configs import base


def get_config(variant: str = ''):
    return base.supervised_on('manifest', variant)
