"""What the text encoders of a checkpoint make of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.errors import InputError

LENGTH = 77
"""Tokens of a prompt, with padding."""
START, END = 49406, 49407
"""CLIP's tokens for the start and the end of a text; it pads with the end, OpenCLIP with 0."""
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"


@dataclass(frozen=True)
class Text:
    """An encoded prompt.

    Attributes:
        states: ``(1, 77, C)``.
        pooled: ``(1, P)``; None for Stable Diffusion 1.5.
    """

    states: Tensor
    pooled: Tensor | None = None

    def zeros(self) -> Text:
        """Zeros of the same shape."""
        return Text(torch.zeros_like(self.states), None if self.pooled is None else torch.zeros_like(self.pooled))


def prompt_ids(prompt: str, tokenizer: Path | None) -> list[int]:
    """CLIP's tokens of a prompt, without padding. The empty prompt needs no vocabulary.

    Args:
        tokenizer: folder with ``vocab.json`` and ``merges.txt`` of CLIP.

    Raises:
        InputError: the prompt is not empty and there is no such folder.
    """
    if not prompt:
        return [START, END]
    if tokenizer is None or not all((tokenizer / name).is_file() for name in (_VOCABULARY, _MERGES)):
        raise InputError(
            f"a prompt needs CLIP's vocabulary; name a folder with {_VOCABULARY} and {_MERGES} as tokenizer"
            " (--inversion-tokenizer), such as comfy/sd1_tokenizer in ComfyUI"
        )
    from transformers import CLIPTokenizer

    try:
        opened = CLIPTokenizer.from_pretrained(str(tokenizer), local_files_only=True)
        return list(opened(prompt, truncation=True, max_length=LENGTH).input_ids)
    except Exception:  # the tokenizers' errors have no common class
        raise InputError(
            f"{tokenizer.name} holds no vocabulary of CLIP; copy {_VOCABULARY} and {_MERGES} again"
        ) from None


@torch.no_grad()
def encode(encoders: Sequence[Any], ids: list[int]) -> Text:
    """Encode a prompt's tokens.

    Args:
        encoders: a ``CLIPTextModel`` (Stable Diffusion 1.5: its last states), or that and a
            ``CLIPTextModelWithProjection`` (SDXL: the states before the last layer of both, and a projection).
    """
    padding = END, 0
    states, pooled = [], None
    for encoder, fill in zip(encoders, padding, strict=False):
        padded = torch.tensor([ids + [fill] * (LENGTH - len(ids))], device=next(encoder.parameters()).device)
        answer = encoder(padded, output_hidden_states=True)
        states.append(answer.last_hidden_state if len(encoders) == 1 else answer.hidden_states[-2])
        pooled = getattr(answer, "text_embeds", None)
    return Text(torch.cat(states, -1).float(), None if pooled is None else pooled.float())
