"""Factorized Distillation on CUHK03, labeled, 767/700 (arXiv 1811.08073), as reconstructed.

    python -m kd_jax.main --config=configs/factorized_cuhk03.py --config.data.root=DIR

Six partial ResNet-50s of 224×224 pixels, 120 epochs each, then the student of whole images, 120
epochs; `:holistic` adds a teacher of the whole image, --config.stacked=True trains all teachers at
once. From random weights, or add --config.network.pretrained=resnet50.safetensors (README). Of the
paper's results none is known to us; the student without teachers, to compare with, is
experiments.factorized_ablation --rows=Baseline.
"""

from configs import base_factorized


def get_config(variant: str = ''):
    return base_factorized.on('cuhk03', variant)
