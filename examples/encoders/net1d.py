"""The network of ECGFounder (arXiv 2410.04133), written anew with the names of its file's tensors.

Seven stages of bottleneck blocks with squeeze and excitation; its batch norms are in the file and not used,
as published, and there is no dropout.
"""

import torch
from resnet1d import SameConv, shortcut
from torch import nn
from torch.nn import functional as F

WIDTHS, DEPTHS = (64, 160, 160, 400, 400, 1024, 1024), (2, 2, 2, 3, 3, 4, 4)


class Block(nn.Module):
    def __init__(self, inner, outer, stride, is_first):
        super().__init__()
        self.stride, self.width, self.is_first = stride, outer, is_first
        self.conv1, self.conv3 = SameConv(inner, outer, 1), SameConv(outer, outer, 1)
        self.conv2 = SameConv(outer, outer, 16, stride, groups=outer // 16)
        self.se_fc1, self.se_fc2 = nn.Linear(outer, outer // 2), nn.Linear(outer // 2, outer)

    def forward(self, x):
        y = self.conv1(x if self.is_first else F.silu(x))
        y = self.conv3(F.silu(self.conv2(F.silu(y))))
        gate = torch.sigmoid(self.se_fc2(F.silu(self.se_fc1(y.mean(dim=-1)))))
        return y * gate.unsqueeze(-1) + shortcut(x, self.width, self.stride)


class Stage(nn.Module):
    def __init__(self, inner, outer, depth, is_first):
        super().__init__()
        self.block_list = nn.ModuleList()
        for place in range(depth):
            one = Block(outer if place else inner, outer, 1 if place else 2, is_first and not place)
            self.block_list.append(one)

    def forward(self, x):
        for block in self.block_list:
            x = block(x)
        return x


class Net1D(nn.Module):
    def __init__(self, channels, widths=WIDTHS, depths=DEPTHS):
        super().__init__()
        self.first_conv = SameConv(channels, 64, 16, 2)
        pairs = zip((64, *widths), widths, depths, strict=False)
        self.stage_list = nn.ModuleList(Stage(*pair, not place) for place, pair in enumerate(pairs))

    def forward(self, x):  # (B, C, T) -> (B, 1024)
        x = F.silu(self.first_conv(x))
        for stage in self.stage_list:
            x = stage(x)
        return x.mean(dim=-1)
