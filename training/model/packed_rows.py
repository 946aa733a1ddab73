"""Packed rows inside the language model: media are put into them, taken out, or exchanged."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from training.data.batch_types import PlacedMedia, RowBatch
from training.data.text_codec import IGNORED


def text_only(batch: RowBatch, picture_tokens: int, sound_tokens: int) -> RowBatch:
    """The batch's rows without their media.

    The text moves together, position ids count it anew, and no sample's first token is learned.
    """
    segment_RL = batch.segment
    kept_RL = segment_RL > 0
    for media, width in ((batch.picture, picture_tokens), (batch.sound, sound_tokens)):
        if width and len(media.start):
            columns = media.start[:, None] + torch.arange(width, device=segment_RL.device)
            kept_RL = kept_RL.index_put((media.row[:, None], columns), torch.zeros_like(kept_RL[0, 0]))
    order_RL = torch.argsort((~kept_RL).int(), dim=1, stable=True)  # columns that are kept come first
    segment_RL = segment_RL.masked_fill(~kept_RL, 0).gather(1, order_RL)
    labels_RL = batch.labels.masked_fill(~kept_RL, IGNORED).gather(1, order_RL)
    starts_RL = segment_RL != F.pad(segment_RL, (1, 0), value=-1)[:, :-1]
    at_L = torch.arange(segment_RL.shape[1], device=segment_RL.device)
    first_RL = torch.where(starts_RL, at_L, 0).cummax(1).values
    none = batch.picture.row[:0]
    nothing = PlacedMedia(None, none, none, none)
    return replace(
        batch,
        input_ids=batch.input_ids.gather(1, order_RL),
        labels=labels_RL.masked_fill(starts_RL, IGNORED),
        segment=segment_RL,
        position_ids=at_L - first_RL,
        picture=nothing,
        sound=nothing,
    )


def with_other_pictures(batch: RowBatch) -> RowBatch | None:
    """The batch with each picture replaced by one of another sample; None if it has no pictures, or of one sample only.

    A sample's pictures stand next to each other. So all move by as many places as one sample has, at most.
    """
    pictures = batch.picture
    if pictures.data is None:
        return None
    sample_M = pictures.row * (int(batch.segment.max()) + 1) + pictures.segment
    places = int(torch.unique_consecutive(sample_M, return_counts=True)[1].max())
    if bool((sample_M.roll(places) == sample_M).any()):
        return None
    return replace(batch, picture=replace(pictures, data=pictures.data.roll(places, 0)))


def with_media(rows_RLD: Tensor, tokens_MKD: Tensor, media: PlacedMedia) -> Tensor:
    """Rows with media tokens written into their columns. A stand-in belongs to no column, and only adds a zero."""
    count, width = len(media.start), tokens_MKD.shape[1]
    if len(tokens_MKD) > count:
        rows_RLD = rows_RLD + 0 * tokens_MKD[count:].sum()
    if not count:
        return rows_RLD
    columns_MK = media.start[:, None] + torch.arange(width, device=media.start.device)
    return rows_RLD.index_put((media.row[:, None].expand(-1, width), columns_MK), tokens_MKD[:count].to(rows_RLD.dtype))


def media_by_row(tokens_MKD: Tensor, media: PlacedMedia, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Media tokens gathered by row.

    Returns:
        R,T,D; every row has as many slots as the fullest, of K tokens each, and free slots are zero. And int64 R,T
        each: the sample that each token belongs to, -1 in free slots, and the column before which it stands.
    """
    count, width, device = len(media.row), tokens_MKD.shape[1], media.row.device
    per_row = torch.zeros(rows, dtype=torch.long, device=device).index_add(0, media.row, torch.ones_like(media.row))
    slots = max(1, media.most_per_row)
    tokens_RSKD = tokens_MKD.new_zeros(rows, slots, *tokens_MKD.shape[1:])
    segments_RS = torch.full((rows, slots), -1, device=device)
    starts_RS = torch.zeros((rows, slots), dtype=torch.long, device=device)
    if count:
        order = torch.argsort(media.row, stable=True)
        row = media.row[order]
        first_of_row = torch.cumsum(per_row, 0) - per_row
        slot = torch.arange(count, device=device) - first_of_row[row]
        tokens_RSKD = tokens_RSKD.index_put((row, slot), tokens_MKD[:count][order])
        segments_RS[row, slot] = media.segment[order]
        starts_RS[row, slot] = media.start[order]
    if len(tokens_MKD) > count:  # a stand-in, which only adds a zero
        tokens_RSKD = tokens_RSKD + 0 * tokens_MKD[count:].sum()
    segments_RT, starts_RT = (places_RS.repeat_interleave(width, 1) for places_RS in (segments_RS, starts_RS))
    return tokens_RSKD.flatten(1, 2), segments_RT, starts_RT


def learned_positions(hidden_RLD: Tensor, labels_RL: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Hidden states N,D of the positions that predict a learned token, and these tokens N, in the order of the rows.

    Args: most: N, or 1 if it is 0. The label of positions over the true number is IGNORED. So nobody waits for the
        device to count them.
    """
    next_RL = F.pad(labels_RL[:, 1:], (0, 1), value=IGNORED)
    learned_first = torch.argsort((next_RL == IGNORED).flatten().int(), stable=True)[: max(1, most)]
    return hidden_RLD.flatten(0, 1).index_select(0, learned_first), next_RL.flatten().index_select(0, learned_first)
