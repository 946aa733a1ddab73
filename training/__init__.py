"""Three-stage multimodal training on a release: contrastive alignment, joint captioning, instruction tuning."""
