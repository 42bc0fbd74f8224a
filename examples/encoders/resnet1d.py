"""The residual network of PaPaGei and Pulse-PPG, written anew with the names of their files' tensors.

Eighteen or twelve blocks of two convolutions, of which every second halves the length and every fourth
doubles the width (Hong et al. 2020; arXiv 2410.20542, 2502.01108); PaPaGei's heads are left out.
"""

import torch
from torch import nn
from torch.nn import functional as F


class SameConv(nn.Module):
    def __init__(self, inner, outer, kernel, stride=1, groups=1):
        super().__init__()
        self.conv = nn.Conv1d(inner, outer, kernel, stride, groups=groups)

    def forward(self, x):
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        missing = max(0, (-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1])
        return self.conv(F.pad(x, (missing // 2, missing - missing // 2)))


def shortcut(x, width, stride):
    """Return the input at another length and width, with zeros around its channels."""
    if stride > 1:
        x = F.max_pool1d(F.pad(x, (0, -x.shape[-1] % stride)), stride)
    more = width - x.shape[1]
    return F.pad(x, (0, 0, more // 2, more - more // 2))


class Block(nn.Module):
    def __init__(self, inner, outer, kernel, stride, is_first):
        super().__init__()
        self.stride, self.width, self.is_first = stride, outer, is_first
        self.bn1, self.bn2 = nn.BatchNorm1d(inner), nn.BatchNorm1d(outer)
        self.dropout = nn.Dropout(0.5)
        self.conv1, self.conv2 = SameConv(inner, outer, kernel, stride), SameConv(outer, outer, kernel)

    def forward(self, x):
        y = x if self.is_first else self.dropout(self.bn1(x).relu())
        y = self.dropout(self.bn2(self.conv1(y)).relu())
        return self.conv2(y) + shortcut(x, self.width, self.stride)


class ResNet1D(nn.Module):
    def __init__(self, width, kernel, blocks, pool, has_final_norm):
        super().__init__()
        self.pool, self.has_final_norm = pool, has_final_norm
        self.first_block_conv, self.first_block_bn = SameConv(1, width, kernel), nn.BatchNorm1d(width)
        self.basicblock_list = nn.ModuleList()
        inner = width
        for place in range(blocks):
            outer = inner * 2 if place and place % 4 == 0 else inner
            self.basicblock_list.append(Block(inner, outer, kernel, 1 + place % 2, place == 0))
            inner = outer
        if has_final_norm:
            self.final_bn = nn.BatchNorm1d(inner)

    def forward(self, x):  # (B, 1, T) -> (B, E)
        x = self.first_block_bn(self.first_block_conv(x)).relu()
        for block in self.basicblock_list:
            x = block(x)
        x = self.final_bn(x).relu() if self.has_final_norm else x
        return torch.amax(x, dim=-1) if self.pool == "max" else x.mean(dim=-1)


def layers(encoder):
    return [encoder.first_block_conv, encoder.first_block_bn, *encoder.basicblock_list]
