#!/usr/bin/env python3
"""Losses and slopes of made-up rows, by torch's autograd in float64.

    python objectives.py ../../crates/upright-core/tests/it/data/goldens.json

Each formula is written as its paper has it, from summed log-probabilities and lengths, with no thought of overflow: the
rows stay where that is exact enough. A loss is a mean over rows, but SFT's, a mean over the tokens of all rows. slopes are
d loss / d (summed log-probability), of the chosen and the rejected response; SFT sees the chosen ones alone.
"""
import json, sys
import torch
from torch.nn.functional import logsigmoid

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

# Sums of the policy and of the reference over the chosen and the rejected response, and their lengths. Among them: equal
# responses, single tokens, log-probabilities near 0, a reference far away on either side, long and short ones.
ROWS = [
    (-12.5, -20.25, -13.0, -19.0, 7, 11),
    (-40.125, -9.0, -31.0, -20.5, 12, 3),
    (-5.0, -5.0, -5.0, -5.0, 2, 2),
    (-0.0625, -3.5, -0.75, -3.0, 1, 1),
    (-3.0, -0.09375, -2.5, -0.5, 1, 2),
    (-310.7, -255.3, -298.1, -270.9, 160, 133),
    (-80.1, -77.9, -120.6, -40.2, 59, 46),
    (-95.3, -210.4, -160.8, -115.7, 46, 59),
    (-2.2, -64.0, -2.3, -64.5, 9, 2),
    (-64.0, -2.2, -64.5, -2.3, 2, 9),
    (-0.3, -0.7, -0.31, -0.68, 5, 4),
    (-1024.0, -16.0, -1000.0, -15.5, 512, 8),
    (-33.3, -33.3, -30.3, -36.3, 30, 10),
]


def sft(policy, reference, tokens):  # equation 4, the mean over all tokens
    return -policy[:, 0].sum() / tokens[:, 0].sum()


def margin(policy, reference, beta):  # equation 2
    ratio = policy - reference
    return beta * ratio[:, 0] - beta * ratio[:, 1]


def dpo(policy, reference, tokens, beta, label_smoothing):  # equation 3; with smoothing the DPO authors' cDPO
    h = margin(policy, reference, beta)
    return (-(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)).mean()


def ipo(policy, reference, tokens, beta):  # Azar et al. 2023, equation 17, tau = beta
    return ((margin(policy, reference, 1.0) - 1 / (2 * beta)) ** 2).mean()


def rpo(policy, reference, tokens, beta, label_smoothing, alpha):  # Pang et al. 2024, version 3
    nll = -policy[:, 0] / tokens[:, 0]
    return dpo(policy, reference, tokens, beta, label_smoothing) + alpha * nll.mean()


def orpo(policy, reference, tokens, beta):  # Hong et al. 2024, equations 4, 6, 7
    p = torch.exp(policy / tokens)
    odds = p / (1 - p)
    return (-torch.log(p[:, 0]) - beta * logsigmoid(torch.log(odds[:, 0] / odds[:, 1]))).mean()


def simpo(policy, reference, tokens, beta, gamma, label_smoothing):  # Meng et al. 2024, equation 6
    h = beta / tokens[:, 0] * policy[:, 0] - beta / tokens[:, 1] * policy[:, 1] - gamma
    return (-(1 - label_smoothing) * logsigmoid(h) - label_smoothing * logsigmoid(-h)).mean()


CASES = [
    (sft, {}),
    (dpo, dict(beta=0.1, label_smoothing=0.0)),
    (dpo, dict(beta=0.25, label_smoothing=0.125)),
    (ipo, dict(beta=0.1)),
    (rpo, dict(beta=0.1, label_smoothing=0.0, alpha=1.0)),
    (rpo, dict(beta=0.3, label_smoothing=0.2, alpha=0.15)),
    (orpo, dict(beta=0.1)),
    (orpo, dict(beta=1.75)),
    (simpo, dict(beta=2.0, gamma=1.0, label_smoothing=0.0)),
    (simpo, dict(beta=10.0, gamma=3.0, label_smoothing=0.05)),
]


def main(path):
    table = torch.tensor(ROWS)
    reference, tokens = table[:, 2:4], table[:, 4:6]
    cases = []
    for loss, settings in CASES:
        policy = table[:, :2].clone().requires_grad_()
        value = loss(policy, reference, tokens, **settings)
        value.backward()
        cases.append(dict(loss=loss.__name__, settings=settings, value=value.item(), slopes=policy.grad.tolist()))
    rows = [dict(policy=row[:2], reference=row[2:4], tokens=row[4:]) for row in ROWS]
    with open(path, "w") as file:
        file.write('{"rows": [\n' + ",\n".join(json.dumps(row) for row in rows) + '\n], "cases": [\n')
        file.write(",\n".join(json.dumps(case) for case in cases) + "\n]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
