"""A victim in the precision that its examples are made in; what they are worth is judged in float32."""

import torch
from torch import nn


class InPrecision(nn.Module):
    """A network whose passes are in bfloat16 where ``precision`` says so, and as they are otherwise."""

    def __init__(self, net: nn.Module, precision: str):
        super().__init__()
        self._net, self.precision = net, precision
        self.train(net.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            return self._net(x).float()
