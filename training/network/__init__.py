"""Data filtering networks (Fang et al. 2023, arXiv:2309.17425): trained on trusted pairs, then checked."""
