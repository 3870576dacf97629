"""The part that needs torch: a sentence encoder as a module, what it answers, and its graph."""

from __future__ import annotations

import logging
import os
import warnings

# Nothing is looked up elsewhere and nothing is reported: the model is in the directory or it is not converted.
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TRANSFORMERS_VERBOSITY="error")

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from modelpier_converter.huggingface import Pooling, Source
from modelpier_converter.wordpiece import IDS, MASK, OPSET

OUTPUT = "output_0"
"""No module of any model has this name; a name that one has makes a graph that ONNX Runtime refuses."""


class TorchEncoder(torch.nn.Module):  # type: ignore[misc]  # torch is typed only where it is installed
    """Token ids and mask int64 [batch, longest] -> embeddings float [batch, size]."""

    def __init__(self, model: Any, pooling: Pooling, *, normalise: bool) -> None:
        super().__init__()
        self.model, self.pooling, self.normalise = model, pooling, normalise

    def forward(self, ids: Any, mask: Any) -> Any:
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(states.dtype)
            pooled = (states * weights).sum(1) / weights.sum(1)
        return functional.normalize(pooled, p=2.0, dim=1) if self.normalise else pooled


def load(source: Source) -> TorchEncoder:
    disable_progress_bar()
    model = AutoModel.from_pretrained(
        source.folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    encoder = TorchEncoder(model, source.pooling, normalise=source.normalise)
    encoder.eval()
    return encoder


def load_tokenizer(source: Source) -> Tokenizer:
    """As the graph's: special tokens that a text spells are text."""
    tokenizer = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    tokenizer.enable_truncation(source.max_length)
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id(source.padding), pad_token=source.padding)
    return tokenizer


def embed(encoder: TorchEncoder, tokenizer: Tokenizer, sentences: Sequence[str]) -> npt.NDArray[np.float32]:
    """What torch itself answers: float [sentences, size]."""
    rows = tokenizer.encode_batch(list(sentences))
    ids = torch.tensor([row.ids for row in rows])
    mask = torch.tensor([row.attention_mask for row in rows])
    with torch.inference_mode():
        answer: npt.NDArray[np.float32] = encoder(ids, mask).numpy()
    return answer


def export(encoder: TorchEncoder) -> ModelProto:
    """The graph of `encoder`, with any number of rows and tokens."""
    # Neither size is 0 or 1, which torch takes for constants; two tensors, because it would take one for one input.
    ids, mask = torch.ones((2, 8), dtype=torch.int64), torch.ones((2, 8), dtype=torch.int64)
    axes = {0: "batch", 1: "longest"}
    with warnings.catch_warnings(), torch.inference_mode():
        # Advice to torch's own authors, and to people who have torchvision's operators.
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            encoder,
            (ids, mask),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[IDS, MASK],
            output_names=[OUTPUT],
            dynamic_shapes={"ids": axes, "mask": axes},
        )
    model: ModelProto = program.model_proto
    return model
