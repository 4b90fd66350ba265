"""Networks as people write them, as the text of their files."""

from typing import Any

# As tutorials have it: no arguments, and sizes for 28x28 grey pixels and 10 classes.
TUTORIAL = """\
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 4 * 4, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)
"""

# It says how likely each class is, as logarithms, and learns by nll_loss where it comes from.
LOG_PROBABILITIES = """\
import torch.nn as nn
import torch.nn.functional as F


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3)
        self.second = nn.Conv2d(16, 32, 3)
        self.drop = nn.Dropout(0.1)
        self.hidden = nn.Linear(800, 64)
        self.drop_hidden = nn.Dropout(0.25)
        self.last = nn.Linear(64, 10)

    def forward(self, images):
        maps = F.max_pool2d(F.relu(self.first(images)), 2)
        maps = self.drop(F.max_pool2d(F.relu(self.second(maps)), 2))
        hidden = self.drop_hidden(F.relu(self.hidden(maps.flatten(1))))
        return F.log_softmax(self.last(hidden), dim=1)
"""

# Small and quick: a backbone, a batch norm and a head, for any number of classes and channels.
SMALL = """\
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes, in_channels=1, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, width, 5, stride=4), nn.BatchNorm2d(width), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(3)
        self.drop = nn.Dropout(0.1)
        self.fc = nn.Linear(9 * width, num_classes)

    def forward(self, images):
        return self.fc(self.drop(self.pool(self.body(images)).flatten(1)))
"""

# It can make itself with weights that are not random.
TRAINED = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=3, width=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.features(images))

def trained(num_classes=3):
    net = Net(num_classes)
    with torch.no_grad():
        for i, parameter in enumerate(net.parameters()):
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter) / (1 + i))
    return net
"""

# How it takes its images.
GREY: dict[str, Any] = {"mode": "L", "resize": (28, 28), "crop": None, "mean": (0.5,), "std": (0.5,)}
