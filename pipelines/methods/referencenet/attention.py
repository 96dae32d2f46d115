"""Attention processors for the ReferenceNets and the denoiser of "Face Anonymization Made Simple" (Kung et al., WACV
2025, section 3.2), which are stock diffusers UNets.

The ReferenceNets record the inputs of their self-attentions; the denoiser attends to the recorded tokens. A *state* is
the input of a self-attention after its norm, ``(B, N, C)``. Every layer of a block of the denoiser reads the state of
the first layer of the same block of the ReferenceNet. The checkpoint was trained this way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError

Key = tuple[str, int]
"""The name of a UNet block, such as ``down_blocks.1``, and the index of the transformer block inside a layer."""
States = dict[Key, Tensor]
"""Recorded states ``(B, N, C)``."""

_BLOCK_ORDER = ("down_blocks", "mid_block", "up_blocks")


@dataclass(frozen=True)
class SelfAttention:
    """One self-attention of a UNet.

    Attributes:
        name: name of its processor in ``UNet2DConditionModel.attn_processors``.
        key: key of the state that it reads.
        first: whether it is in the first layer of its block. Only these layers record their state.
    """

    name: str
    key: Key
    first: bool

    @property
    def module(self) -> str:
        """Name of the attention module in the UNet."""
        return self.name.removesuffix(".processor")


def self_attentions(unet: Any) -> list[SelfAttention]:
    """List the self-attentions of a diffusers UNet in the order of execution.

    ``attn_processors`` follows the order of the modules, which puts the middle block last.
    """

    def position(name: str) -> tuple[int, list[int]]:
        return _BLOCK_ORDER.index(name.split(".")[0]), [int(part) for part in name.split(".") if part.isdigit()]

    found = []
    for name in sorted((n for n in unet.attn_processors if n.endswith("attn1.processor")), key=position):
        block, rest = name.split(".attentions.")
        layer, _, depth = rest.split(".")[:3]
        found.append(SelfAttention(name, (block, int(depth)), layer == "0"))
    return found


class LastStateRecorded(Exception):
    """Stops the forward pass of a ReferenceNet after its last recorded state. The rest of its output is not used."""


def check_self_attention(encoder_hidden_states: Tensor | None, attention_mask: Tensor | None) -> None:
    """Refuse the arguments of diffusers' attention processors that the processors of this module do not support.

    Raises:
        InputError: ``encoder_hidden_states`` or ``attention_mask`` is not None.
    """
    if encoder_hidden_states is not None:
        raise InputError(
            "encoder_hidden_states is not supported in the self-attentions of referencenet; use a UNet whose config has"
            " only_cross_attention = false"
        )
    if attention_mask is not None:
        raise InputError(
            "attention_mask is not supported in the self-attentions of referencenet; call the UNet without one"
        )


class SelfAttentionProcessor(ABC):
    """A diffusers attention processor for self-attentions without a mask."""

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """What diffusers calls.

        Raises:
            InputError: ``encoder_hidden_states`` or ``attention_mask`` is given.
        """
        check_self_attention(encoder_hidden_states, attention_mask)
        return self.attend_to(attention, hidden_states)

    @abstractmethod
    def attend_to(self, attention: Any, hidden_states: Tensor) -> Tensor:
        """The output ``(B, N, C)`` for tokens ``(B, N, C)``."""


class WriteState(SelfAttentionProcessor):
    """Record the input of a self-attention, then compute the self-attention as usual.

    Args:
        states: mapping that receives the state.
        key: key of the state; None records nothing.
        last: whether this is the last state that is used. If so, the call raises ``LastStateRecorded``.
    """

    def __init__(self, states: States, key: Key | None, last: bool) -> None:
        self._states, self._key, self._last = states, key, last

    def attend_to(self, attention: Any, hidden_states: Tensor) -> Tensor:
        if self._key is not None:
            self._states[self._key] = hidden_states
        if self._last:
            raise LastStateRecorded
        query, key, value = (
            split_heads(p(hidden_states), attention) for p in (attention.to_q, attention.to_k, attention.to_v)
        )
        return attend(attention, query, key, value)


@dataclass
class ReferenceTokens:
    """Reference keys or values of one self-attention, each ``(faces, heads, N, head size)``.

    Attributes:
        source: one tensor per guidance row, each for one face or for the whole batch.
        driving: one tensor for the whole batch; all guidance rows share it.
    """

    source: tuple[Tensor, ...]
    driving: Tensor

    def append_to(self, own: Tensor) -> Tensor:
        """Concatenate ``[own, source, driving]`` along the tokens.

        Args:
            own: keys or values of the denoiser, ``(guidance rows * B, heads, N, head size)``.

        Returns:
            ``(guidance rows * B, heads, 3 N, head size)``, if all three have N tokens.
        """
        rows, heads, tokens, size = own.shape
        guidance, batch = len(self.source), rows // len(self.source)
        joined = own.new_empty(guidance, batch, heads, tokens + self.source[0].shape[2] + self.driving.shape[2], size)
        split = tokens + self.source[0].shape[2]
        joined[..., :tokens, :] = own.view(guidance, batch, heads, tokens, size)
        for row, source in enumerate(self.source):
            joined[row, :, :, tokens:split] = source
        joined[..., split:, :] = self.driving
        return joined.view(rows, heads, -1, size)


class ReadStates(SelfAttentionProcessor):
    """Self-attention with queries from the denoiser's own tokens and keys and values from [own, source, driving]
    (paper, section 3.2).

    The reference states are the same in all denoising steps, so their keys and values are computed once.
    """

    def __init__(self, keys: ReferenceTokens, values: ReferenceTokens) -> None:
        self._keys, self._values = keys, values

    def attend_to(self, attention: Any, hidden_states: Tensor) -> Tensor:
        query, key, value = (
            split_heads(p(hidden_states), attention) for p in (attention.to_q, attention.to_k, attention.to_v)
        )
        return attend(attention, query, self._keys.append_to(key), self._values.append_to(value))


class ReadStatesInTraining(SelfAttentionProcessor):
    """``ReadStates`` for training: the reference states change in every step and receive gradients.

    Args:
        references: source and driving state for each key. The caller fills it before each forward pass and must not
            change it until the backward pass is done, because gradient checkpointing reads it again.
    """

    def __init__(self, references: dict[Key, tuple[Tensor, Tensor]], key: Key) -> None:
        self._references, self._key = references, key

    def attend_to(self, attention: Any, hidden_states: Tensor) -> Tensor:
        tokens = torch.cat([hidden_states, *self._references[self._key]], 1)
        query = split_heads(attention.to_q(hidden_states), attention)
        key, value = (split_heads(p(tokens), attention) for p in (attention.to_k, attention.to_v))
        return attend(attention, query, key, value)


def write_states(unet: Any, states: States, stop: bool = True) -> None:
    """Set the processors of a UNet so that it records its states.

    Args:
        unet: a ``diffusers.UNet2DConditionModel``.
        states: mapping that receives the states.
        stop: whether the forward pass raises ``LastStateRecorded`` after the last state.
    """
    found = self_attentions(unet)
    last = next(layer for layer in reversed(found) if layer.first)
    processors = dict(unet.attn_processors)
    for layer in found:
        processors[layer.name] = WriteState(states, layer.key if layer.first else None, stop and layer is last)
    unet.set_attn_processor(processors)


@contextmanager
def reading(unet: Any, source: tuple[States, ...], driving: States) -> Iterator[None]:
    """Make a UNet read reference states inside the context.

    On exit the previous processors are restored and the computed keys and values are freed.

    Args:
        unet: a ``diffusers.UNet2DConditionModel``.
        source: states of the source image, one entry per guidance row; a state of one face is used for the whole
            batch.
        driving: states of the driving image, ``(B, N, C)``.
    """
    before = dict(unet.attn_processors)
    processors = dict(before)
    for layer in self_attentions(unet):
        attention = unet.get_submodule(layer.module)
        keys, values = (
            ReferenceTokens(
                tuple(split_heads(p(states[layer.key]), attention) for states in source),
                split_heads(p(driving[layer.key]), attention),
            )
            for p in (attention.to_k, attention.to_v)
        )
        processors[layer.name] = ReadStates(keys, values)
    unet.set_attn_processor(processors)
    try:
        yield
    finally:
        unet.set_attn_processor(before)


def read_in_training(unet: Any) -> dict[Key, tuple[Tensor, Tensor]]:
    """Make a UNet read reference states in training.

    Returns:
        An empty mapping from key to source and driving state; the caller fills it before each forward pass.
    """
    references: dict[Key, tuple[Tensor, Tensor]] = {}
    processors = dict(unet.attn_processors)
    for layer in self_attentions(unet):
        processors[layer.name] = ReadStatesInTraining(references, layer.key)
    unet.set_attn_processor(processors)
    return references


def split_heads(tokens: Tensor, attention: Any) -> Tensor:
    """Reshape ``(B, N, C)`` to ``(B, heads, N, C / heads)``."""
    return tokens.unflatten(-1, (attention.heads, -1)).transpose(1, 2)


def attend(attention: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute attention over split heads and the output projection; returns ``(B, N, C)``."""
    attended = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    return attention.to_out[1](attention.to_out[0](attended.transpose(1, 2).flatten(2)))
