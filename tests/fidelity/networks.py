"""Published networks that no package of PyPI builds, written out small."""

import itertools

import torch
from torch import nn


def dcgan_discriminator():
    """Return the discriminator of DCGAN (Radford et al. 2015) for 64 x 64 pixels."""
    layers = [nn.Conv2d(3, 32, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for width in (32, 64, 128):
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(256, 1, 4, bias=False), nn.Sigmoid())


def dcgan_generator():
    """Return the generator of DCGAN (Radford et al. 2015), of 64 x 64 pixels."""
    layers = [nn.ConvTranspose2d(100, 256, 4, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    for width in (256, 128, 64):
        layers += [
            nn.ConvTranspose2d(width, width // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU(),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh())


def shared_mlp(*widths):
    """Return 1 x 1 convolutions with BatchNorm and ReLU."""
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


def gather_points(points, index):
    """Return the points (B, C, N) at an index (B, S, K), as (B, C, S, K)."""
    batch, channels, _ = points.shape
    flat = index.reshape(batch, 1, -1).expand(-1, channels, -1)
    return points.gather(2, flat).reshape(batch, channels, index.shape[1], index.shape[2])


class SetAbstraction(nn.Module):
    """A set abstraction layer of PointNet++ with k nearest neighbours of every other point."""

    def __init__(self, channels, *widths):
        super().__init__()
        self.mlp = shared_mlp(channels + 3, *widths)

    def forward(self, places, features):
        centres = places[:, :, ::2]
        distances = (centres.unsqueeze(3) - places.unsqueeze(2)).square().sum(1)
        index = distances.topk(16, dim=2, largest=False).indices
        near = gather_points(places, index) - centres.unsqueeze(3)
        grouped = near if features is None else torch.cat([near, gather_points(features, index)], 1)
        return centres, self.mlp(grouped).amax(3)


class PointNet2(nn.Module):
    """PointNet++ (Qi et al. 2017), single scale, for classification."""

    def __init__(self):
        super().__init__()
        self.first = SetAbstraction(0, 32, 32, 64)
        self.second = SetAbstraction(64, 64, 64, 128)
        self.head = nn.Sequential(
            nn.Linear(128, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10)
        )  # fmt: skip

    def forward(self, places):
        _, features = self.second(*self.first(places, None))
        return self.head(features.amax(2))


class DGCNN(nn.Module):
    """Dynamic Graph CNN (Wang et al. 2018): edge convolutions over k nearest neighbours."""

    def __init__(self):
        super().__init__()
        widths = [3, 32, 32, 64]
        self.edges = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * a, b, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2))
            for a, b in itertools.pairwise(widths)
        )
        self.whole = nn.Sequential(nn.Conv1d(128, 128, 1, bias=False), nn.BatchNorm1d(128), nn.LeakyReLU(0.2))
        self.head = nn.Sequential(
            nn.Linear(256, 64, bias=False), nn.BatchNorm1d(64), nn.LeakyReLU(0.2), nn.Linear(64, 10)
        )

    def forward(self, x):
        found = []
        for edge in self.edges:
            inner = -2 * x.transpose(2, 1) @ x
            squares = x.square().sum(1, keepdim=True)
            index = (-squares - inner - squares.transpose(2, 1)).topk(8, dim=-1).indices
            near, own = gather_points(x, index), x.unsqueeze(3).expand(-1, -1, -1, 8)
            x = edge(torch.cat([near - own, own], 1)).amax(3)
            found.append(x)
        x = self.whole(torch.cat(found, 1))
        return self.head(torch.cat([x.amax(2), x.mean(2)], 1))


class DeepSpeech2(nn.Module):
    """DeepSpeech2 (Amodei et al. 2015): convolutions, then recurrent layers with BatchNorm over time and batch."""

    def __init__(self, cell="GRU"):
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 16, (11, 11), (2, 2), (5, 5)), nn.BatchNorm2d(16), nn.Hardtanh(0, 20),
            nn.Conv2d(16, 16, (11, 11), (2, 1), (5, 5)), nn.BatchNorm2d(16), nn.Hardtanh(0, 20),
        )  # fmt: skip
        self.norms = nn.ModuleList([nn.BatchNorm1d(16 * 10), nn.BatchNorm1d(64)])
        kind = getattr(nn, cell)
        self.rnns = nn.ModuleList([kind(160, 64, bidirectional=True), kind(64, 64, bidirectional=True)])
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 29)

    def sequence_wise(self, layer, x):
        steps, batch = x.shape[0], x.shape[1]
        return layer(x.view(steps * batch, -1)).view(steps, batch, -1)

    def forward(self, x):
        x = self.convs(x)
        x = x.view(x.shape[0], x.shape[1] * x.shape[2], x.shape[3]).permute(2, 0, 1).contiguous()
        for norm, rnn in zip(self.norms, self.rnns, strict=True):
            x = rnn(self.sequence_wise(norm, x))[0]
            x = x.view(x.shape[0], x.shape[1], 2, -1).sum(2)
        return self.sequence_wise(nn.Sequential(self.norm, self.head), x).transpose(0, 1)


class RecurrentHead(nn.Module):
    """Linear, ReLU, BatchNorm over time and batch, LSTM: item 1 of issue 21."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.rnn = nn.Linear(20, 32), nn.BatchNorm1d(32), nn.LSTM(32, 16)

    def forward(self, x):
        steps, batch, _ = x.shape
        x = self.linear(x).relu()
        return self.rnn(self.norm(x.view(steps * batch, -1)).view(steps, batch, -1))[0]


class FactorizedLayer(nn.Module):
    """A layer of TDNN-F: a bottleneck, an affine transform, ReLU, BatchNorm, and 0.66 of its input added."""

    def __init__(self, width, narrow):
        super().__init__()
        self.linear = nn.Conv1d(width, narrow, 2, bias=False, padding=1)
        self.affine = nn.Conv1d(narrow, width, 2)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        return self.norm(self.affine(self.linear(x)).relu()) + 0.66 * x


class TDNNF(nn.Module):
    """TDNN-F (Povey et al. 2018)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(40, 128, 5, padding=2), nn.ReLU(), nn.BatchNorm1d(128))
        self.layers = nn.Sequential(*[FactorizedLayer(128, 32) for _ in range(5)])
        self.head = nn.Conv1d(128, 50, 1)

    def forward(self, x):
        return self.head(self.layers(self.first(x))).log_softmax(1)


class DenseNet1d(nn.Module):
    """An embedding, convolutions over time and attention pooling: what text and event models look like."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(500, 32)
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv1d(32, 48, k, padding=k // 2), nn.BatchNorm1d(48), nn.ReLU()) for k in (3, 5, 7)
        )
        self.score = nn.Conv1d(144, 1, 1)
        self.head = nn.Linear(144, 5)

    def forward(self, tokens):
        x = self.embedding(tokens).transpose(1, 2)
        x = torch.cat([conv(x) for conv in self.convs], 1)
        return self.head((x * self.score(x).softmax(2)).sum(2))


class CRNN(nn.Module):
    """CRNN (Shi et al. 2015) for text lines."""

    def __init__(self):
        super().__init__()
        layers, before = [], 1
        for width, pool in ((16, 2), (32, 2), (64, (2, 1)), (64, (2, 1))):
            layers += [nn.Conv2d(before, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(pool)]
            before = width
        self.convs = nn.Sequential(*layers, nn.Conv2d(64, 64, (2, 1)), nn.BatchNorm2d(64), nn.ReLU())
        self.rnn, self.head = nn.LSTM(64, 32, bidirectional=True), nn.Linear(64, 37)

    def forward(self, x):
        x = self.convs(x).squeeze(2).permute(2, 0, 1)
        return self.head(self.rnn(x)[0])
