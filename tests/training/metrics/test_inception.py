"""InceptionV3 from a user's file: which network it is follows from its classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import Inception3
from torchvision.models.inception import InceptionA

from mmdata.errors import UserError
from training.metrics.inception import InceptionFeatures, PooledApart, load_inception


def test_only_the_pooled_branch_pools_otherwise() -> None:
    torch.manual_seed(0)
    block, maps = InceptionA(8, 4).eval(), torch.randn(2, 8, 5, 5)
    with torch.no_grad():
        plain = block(maps)
        average, maximum = PooledApart(block, False)(maps), PooledApart(block, True)(maps)
        ones = F.avg_pool2d(torch.ones(1, 1, 5, 5), 3, 1, 1)
        expected = block.branch_pool(F.avg_pool2d(maps, 3, 1, 1) / ones)  # the padding is not counted
    torch.testing.assert_close(average[:, :-4], plain[:, :-4])
    torch.testing.assert_close(average[:, -4:], expected)
    torch.testing.assert_close(average[:, -4:, 1:-1, 1:-1], plain[:, -4:, 1:-1, 1:-1])
    assert not torch.allclose(average[:, -4:, 0], plain[:, -4:, 0])
    assert not torch.allclose(maximum[:, -4:], average[:, -4:])


def test_pictures_are_scaled_to_what_the_network_reads() -> None:
    pictures = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    inputs = InceptionFeatures(torch.nn.Identity())(pictures)
    assert inputs.shape == (2, 3, 299, 299)
    assert torch.equal(inputs[:, 0, 0, 0], torch.tensor([-1.0, 1.0]))


def test_a_file_that_is_not_inceptions_is_a_user_error(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1008, 2048)}, tmp_path / "half.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("hello")
    for name in ("half.pth", "other.pth", "code.pth", "text.pth"):
        with pytest.raises(UserError, match=r"does not hold the weights of InceptionV3: .*Remedy: pt_inception"):
            load_inception(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_inception(tmp_path / "missing.pth")


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1000, 1008])
def test_the_network_is_that_of_its_weights(classes: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Inception3(num_classes=classes, aux_logits=classes == 1000, init_weights=False).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    extractor, classifier = load_inception(tmp_path / "weights.pth")
    pictures = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    with torch.no_grad():
        features, logits = extractor(pictures), classifier(pictures)
        plain = network(pictures.float() / 255 * 2 - 1)
        torch.testing.assert_close(logits, features @ network.fc.weight.T + (network.fc.bias if classes == 1000 else 0))
    assert features.shape == (2, 2048)
    assert torch.allclose(logits, plain, rtol=1e-3, atol=1e-4) == (classes == 1000), "1008 classes pool otherwise"
