"""A check, before training, that samples of a packed row do not see each other."""

from __future__ import annotations

from typing import Any

import torch

from mmdata.errors import UserError
from training.model.attention import PackedAttention

ROWS, SAMPLES, TOKENS = 2, 4, 16  # rows, samples of a row, tokens of a sample
LEAK = 0.01  # of the hidden states' deviation; a smaller change is rounding


@torch.no_grad()
def check_samples_apart(llm: Any, attention: PackedAttention) -> None:
    """Change one sample of two packed rows, and see that the hidden states of the others stay.

    Tests on a CPU cannot run the kernels of a GPU, and a model may ignore position ids: layers with a recurrent state
    do.

    Raises UserError: the others change.
    """
    words, was_training = llm.get_input_embeddings(), llm.training
    device = words.weight.device
    ids_RL = torch.arange(ROWS * SAMPLES * TOKENS, device=device).view(ROWS, -1) % words.num_embeddings
    positions_RL = torch.arange(TOKENS, device=device).repeat(ROWS, SAMPLES)
    of_second = slice(TOKENS, 2 * TOKENS)
    changed_RL = ids_RL.clone()
    changed_RL[0, of_second] = ids_RL[1, of_second]
    llm.eval()
    before_RLD, after_RLD = (
        attention.hidden(llm, words(ids), positions_RL, ROWS * SAMPLES).float() for ids in (ids_RL, changed_RL)
    )
    llm.train(was_training)
    change_RL = (after_RLD - before_RLD).abs().amax(2)
    change_RL[0, of_second] = 0
    if not bool(change_RL.max() <= LEAK * before_RLD.std()):  # `not` so that it includes what is not a number
        raise UserError(
            f"samples that share a row see each other in {type(llm).__name__} with attention "
            f"{attention.kernel(llm, device)}. Remedy: pack = false in [joint] and [instruct], or another "
            "model.llm.attention."
        )
