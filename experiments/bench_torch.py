"""The torch side of `bench_train_step`: the same network, weights, objective and optimizer."""

import copy
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments.turns import Contender
from kd_jax.networks import Network, pretrained
from kd_jax.trees import Tree

try:
    import torch
    from torch.nn import functional

    from experiments import torch_networks
except ImportError:
    torch = None


def contenders(
    ours: Network,
    variables: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    objective: dict,
    optimizer: dict,
) -> tuple[list[Contender], np.ndarray | None]:
    """Training and inference in torch, on a GPU compiled too, and the embedding; [] without torch.

    The embedding is of our variables, to be compared with our own.
    """
    if torch is None:
        return [], None
    device = 'cpu' if jax.default_backend() == 'cpu' else 'cuda'
    if device == 'cuda' and not torch.cuda.is_available():
        raise ValueError('this torch has no GPU, but JAX has one: install a torch with CUDA')
    torch.backends.cudnn.benchmark = True
    network = torch_networks.like(ours)
    torch_networks.load(network, pretrained.tensors(ours, variables))
    network = network.to(device, memory_format=torch.channels_last)
    images = torch.from_numpy(images).permute(0, 3, 1, 2)
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(labels).long().to(device)
    half = ours.dtype == 'bfloat16'
    embedding = _embedded(copy.deepcopy(network), images, half)().float().cpu().numpy()
    found = []
    for compiled in (False, True) if device == 'cuda' else (False,):
        name = 'torch.compile' if compiled else 'torch'
        make = torch.compile if compiled else lambda made: made
        twin = partial(copy.deepcopy, network)
        before = torch.cuda.memory_allocated() if device == 'cuda' else 0
        step = _trained(make(twin()), images, labels, half, objective, optimizer)
        found.append(_contender(f'{name} training', step, before))
        before = torch.cuda.memory_allocated() if device == 'cuda' else 0
        step = _embedded(make(twin()), images, half)
        found.append(_contender(f'{name} inference', step, before))
    return found, embedding


def _trained(network: Any, images, labels, half: bool, objective: dict, optimizer: dict):
    """One step as ours: identity loss with smoothing, batch-hard triplet, Adam with L2."""
    network.train()
    adam = torch.optim.Adam(
        network.parameters(),
        optimizer['learning_rate'],
        weight_decay=optimizer['weight_decay'],
        fused=images.is_cuda,
    )

    def step():
        adam.zero_grad(set_to_none=True)
        with _precision(images, half):
            embedding, logits = network(images)
            embedding, logits = embedding.float(), logits.float()
            smoothing = objective['label_smoothing']
            loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
            loss = loss + _batch_hard_triplet(embedding, labels, objective['margin'])
        loss.backward()
        adam.step()
        return loss.item()

    return step


def _batch_hard_triplet(embedding, labels, margin):
    distances = torch.cdist(embedding, embedding)
    same = labels[:, None] == labels[None]
    hardest_positive = distances.masked_fill(~same, -1).amax(1)
    hardest_negative = distances.masked_fill(same, 1e9).amin(1)
    return functional.relu(margin + hardest_positive - hardest_negative).mean()


def _embedded(network: Any, images, half: bool):
    network.eval()

    def step():
        with torch.inference_mode(), _precision(images, half):
            embedding = network(images)[0]
        embedding[0, 0].item()  # waits for it
        return embedding

    return step


def _precision(images, half: bool):
    return torch.autocast(images.device.type, torch.bfloat16, enabled=half)


def _contender(name: str, step, before: int) -> Contender:
    """Timed from the first call, in which torch compiles; its memory above `before` in a second."""
    on_gpu = torch.cuda.is_available() and jax.default_backend() != 'cpu'
    started = time.perf_counter()
    step()
    seconds = time.perf_counter() - started if name.startswith('torch.compile') else None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        step()
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else None
    return Contender(name, step, seconds, peak)
