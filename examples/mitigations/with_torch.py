"""A small convolutional network in torch, trained plainly or with DP-SGD."""

from __future__ import annotations

import copy

import numpy as np
import torch
from data import Images
from defences import Defence, Learner

import divulge
from divulge.dp.torch import private


def learner(defence: Defence, members: Images, seed: int) -> Learner:
    """The network and its optimizer, ready to train."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    return TorchLearner(defence, members, seed)


class TorchLearner:
    """See `defences.Learner`."""

    def __init__(self, defence: Defence, members: Images, seed: int) -> None:
        side = members.x.shape[1] // 4
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Dropout(defence.dropout),
            torch.nn.Linear(32 * side * side, 128),
            torch.nn.ReLU(),
            torch.nn.Dropout(defence.dropout),
            torch.nn.Linear(128, 10),
        )
        self.optimizer = torch.optim.AdamW(self.net.parameters(), defence.rate, weight_decay=defence.decay)
        self.batch, self.private = defence.batch, None
        self.order = torch.Generator().manual_seed(seed)
        if defence.noise is not None:
            # No seed: who has it can draw the noise again and take it off. So these figures vary a little between runs.
            self.private = private(
                self.net,
                self.optimizer,
                torch.utils.data.TensorDataset(*_tensors(members.x, members.y)),
                clip=1.0,
                noise=defence.noise,
                batch_size=defence.batch,
                delta=defence.delta,
            )

    def epoch(self, x: np.ndarray, y: np.ndarray) -> None:
        if self.private is not None:
            model, optimizer, batches = self.private.model, self.private.optimizer, self.private.loader
        else:
            model, optimizer = self.net, self.optimizer
            images = torch.utils.data.TensorDataset(*_tensors(x, y))
            batches = torch.utils.data.DataLoader(images, self.batch, shuffle=True, generator=self.order)
        model.train()
        for images, labels in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()

    def loss(self, images: Images) -> float:
        self.net.eval()
        x, y = _tensors(images.x, images.y)
        with torch.no_grad():
            return float(torch.nn.functional.cross_entropy(self.net(x), y))

    def weights(self) -> object:
        return copy.deepcopy(self.net.state_dict())

    def restore(self, weights: object) -> None:
        self.net.load_state_dict(weights)

    def epsilon(self) -> float | None:
        return None if self.private is None else self.private.privacy().epsilon

    def evidence(self, members: Images, others: Images) -> divulge.Evidence:
        sides = [_tensors(images.x, images.y) for images in (members, others)]
        return divulge.collect(self.net, *sides, batch_size=1000, ids=(members.ids, others.ids))


def _tensors(x: np.ndarray, y: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))), torch.from_numpy(y)
