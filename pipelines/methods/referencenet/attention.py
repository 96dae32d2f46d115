"""Attention processors that turn stock diffusers UNets into the ReferenceNets and the denoiser of
"Face Anonymization Made Simple" (Kung et al., WACV 2025, section 3.2): one records, one reads.

A *state* is the input of a self-attention after its norm, ``(B, N, C)``. Of each block only the first layer's state is
ever read, by every layer of the same block of the denoiser; the checkpoint was trained like this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Key = tuple[str, int]
"""A block, such as ``down_blocks.1``, and the depth of a transformer block inside its layers."""
States = dict[Key, Tensor]

_ORDER = ("down_blocks", "mid_block", "up_blocks")


@dataclass(frozen=True)
class Site:
    """One self-attention of a UNet.

    Attributes:
        name: of its processor, as in ``UNet2DConditionModel.attn_processors``.
        key: of the state that it reads.
        first: whether it belongs to the first layer of its block, whose state is recorded.
    """

    name: str
    key: Key
    first: bool

    @property
    def module(self) -> str:
        return self.name.removesuffix(".processor")


def sites(unet: Any) -> list[Site]:
    """All self-attentions of a diffusers UNet in the order of execution; module order puts the middle last."""

    def place(name: str) -> tuple[int, list[int]]:
        return _ORDER.index(name.split(".")[0]), [int(part) for part in name.split(".") if part.isdigit()]

    found = []
    for name in sorted((n for n in unet.attn_processors if n.endswith("attn1.processor")), key=place):
        block, rest = name.split(".attentions.")
        layer, _, depth = rest.split(".")[:3]
        found.append(Site(name, (block, int(depth)), layer == "0"))
    return found


class LastStateRecorded(Exception):
    """Leaves a ReferenceNet once nobody reads what it computes further."""


class WriteState:
    """Records its input and attends as usual.

    Args:
        states: where to record.
        key: under which; none records nothing.
        last: whether this is the last state that anybody reads.
    """

    def __init__(self, states: States, key: Key | None, last: bool) -> None:
        self._states, self._key, self._last = states, key, last

    def __call__(self, attention: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        if self._key is not None:
            self._states[self._key] = hidden_states
        if self._last:
            raise LastStateRecorded
        query, key, value = (
            split_heads(p(hidden_states), attention) for p in (attention.to_q, attention.to_k, attention.to_v)
        )
        return attend(attention, query, key, value)


@dataclass
class Streams:
    """Reference keys or values of one self-attention, each ``(rows, heads, N, head size)``.

    Attributes:
        source: one entry a guidance row, each of one face or of the whole batch.
        driving: of the batch; all guidance rows share it.
    """

    source: tuple[Tensor, ...]
    driving: Tensor

    def behind(self, own: Tensor) -> Tensor:
        """``[own, source, driving]`` along the tokens, the batch of each guidance row in turn."""
        rows, heads, tokens, size = own.shape
        guidance, batch = len(self.source), rows // len(self.source)
        joined = own.new_empty(guidance, batch, heads, tokens + self.source[0].shape[2] + self.driving.shape[2], size)
        split = tokens + self.source[0].shape[2]
        joined[..., :tokens, :] = own.view(guidance, batch, heads, tokens, size)
        for row, source in enumerate(self.source):
            joined[row, :, :, tokens:split] = source
        joined[..., split:, :] = self.driving
        return joined.view(rows, heads, -1, size)


class ReadStates:
    """Queries with the UNet's own tokens and attends to [own, source, driving] (paper, Eq. for self-attention
    injection).

    The references are the same in all denoising steps, so their keys and values are projected once.
    """

    def __init__(self, keys: Streams, values: Streams) -> None:
        self._keys, self._values = keys, values

    def __call__(self, attention: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        query, key, value = (
            split_heads(p(hidden_states), attention) for p in (attention.to_q, attention.to_k, attention.to_v)
        )
        return attend(attention, query, self._keys.behind(key), self._values.behind(value))


class ReadStatesOnce:
    """The same where every step has other references and gradients flow into them: training.

    Args:
        references: source and driving state of each key; its owner changes it before each forward pass and leaves it
            alone until the backward pass is done, since gradient checkpointing reads it again.
    """

    def __init__(self, references: dict[Key, tuple[Tensor, Tensor]], key: Key) -> None:
        self._references, self._key = references, key

    def __call__(self, attention: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        seen = torch.cat([hidden_states, *self._references[self._key]], 1)
        query = split_heads(attention.to_q(hidden_states), attention)
        key, value = (split_heads(p(seen), attention) for p in (attention.to_k, attention.to_v))
        return attend(attention, query, key, value)


def write_states(unet: Any, states: States, stop: bool = True) -> None:
    """Make a UNet record its states into ``states``; with ``stop`` it raises ``LastStateRecorded`` after the last
    one."""
    found = sites(unet)
    last = next(site for site in reversed(found) if site.first)
    processors = dict(unet.attn_processors)
    for site in found:
        processors[site.name] = WriteState(states, site.key if site.first else None, stop and site is last)
    unet.set_attn_processor(processors)


@contextmanager
def reading(unet: Any, source: tuple[States, ...], driving: States) -> Iterator[None]:
    """Let a UNet read reference states inside the context; afterwards it is as before and no cache is left.

    Args:
        source: states of the source, one entry a guidance row; entries of one face serve the whole batch.
        driving: states of the driving picture, ``(B, N, C)``.
    """
    before = dict(unet.attn_processors)
    processors = dict(before)
    for site in sites(unet):
        attention = unet.get_submodule(site.module)
        keys, values = (
            Streams(
                tuple(split_heads(p(rows[site.key]), attention) for rows in source),
                split_heads(p(driving[site.key]), attention),
            )
            for p in (attention.to_k, attention.to_v)
        )
        processors[site.name] = ReadStates(keys, values)
    unet.set_attn_processor(processors)
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def read_in_training(unet: Any) -> dict[Key, tuple[Tensor, Tensor]]:
    """Make a UNet read the references that are put into the returned mapping."""
    references: dict[Key, tuple[Tensor, Tensor]] = {}
    processors = dict(unet.attn_processors)
    for site in sites(unet):
        processors[site.name] = ReadStatesOnce(references, site.key)
    unet.set_attn_processor(processors)
    return references


def split_heads(tokens: Tensor, attention: Any) -> Tensor:
    """``(B, N, C)`` to ``(B, heads, N, C / heads)``."""
    return tokens.unflatten(-1, (attention.heads, -1)).transpose(1, 2)


def attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over split heads, and the output projection: ``(B, N, C)``."""
    shown = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return attention.to_out[1](attention.to_out[0](shown.transpose(1, 2).flatten(2)))
