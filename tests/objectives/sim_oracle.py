"""SIM's oracle: its parts restated in plain float64 from crops in numbers, and batches of such crops."""

import math

import torch

from densessl.data.batch import Batch
from densessl.geometry import ViewGeometry, affine

SOURCE = (100, 80)
# (top, left, height, width, flip) of each image, for each view.
CROPS = (
    [(3, 10, 60, 70, 0), (20, 0, 40, 33, 1), (0, 0, 80, 100, 1)],
    [(10, 25, 50, 61, 1), (5, 40, 70, 60, 1), (0, 0, 80, 100, 1)],
)


def cut_batch(sizes=((64, 64), (64, 64)), kept=6, patch=16, seed=0) -> Batch:
    """Noise cut at :data:`CROPS`; views of (height, width) pixels, of the first of which ``kept`` patches remain."""
    generator = torch.Generator().manual_seed(seed)
    views, geometry = [], []
    for (height, width), crops in zip(sizes, CROPS):
        views.append(torch.randn(len(crops), 3, height, width, generator=generator, dtype=torch.float64))
        items = []
        for top, left, h, w, flip in crops:
            maps = [affine.crop(left, top), affine.resize((w, h), (width, height))] + [affine.hflip(width)] * flip
            items.append((affine.compose(*maps), (width, height), SOURCE))
        geometry.append(ViewGeometry.stack(items))
    cells = math.prod(side // patch for side in sizes[0])
    keep = torch.rand(len(CROPS[0]), cells, generator=generator).argsort(1)[:, :kept].sort(1).values
    return Batch(views, geometry, [{"keep": keep}, {}], torch.zeros(len(keep), 2))


class Restated:
    """SIM's parts as sums and products of the parameters by name; nothing of the library runs."""

    def __init__(self, parameters, heads, target_momentum=None):
        self.parameters, self.heads = dict(parameters), heads
        if target_momentum is not None:
            for name in [name for name in self.parameters if name.startswith("target.")]:
                own, online = self.parameters[name], self.parameters[name.replace("target.", "online.", 1)]
                self.parameters[name] = target_momentum * own.detach() + (1 - target_momentum) * online.detach()

    def linear(self, name, x):
        return x @ self.parameters[f"{name}.weight"].T + self.parameters[f"{name}.bias"]

    def norm(self, name, x, tokens_normed):
        dims = (0, 1) if tokens_normed else (2,)
        mean = x.mean(dims, keepdim=True)
        variance = ((x - mean) ** 2).mean(dims, keepdim=True)
        x = (x - mean) / (variance + (1e-5 if tokens_normed else 1e-6)).sqrt()
        return x * self.parameters[f"{name}.weight"] + self.parameters[f"{name}.bias"]

    def blocks(self, name, x, tokens_normed):
        number = 0
        while f"{name}.{number}.norm1.weight" in self.parameters:
            for norm, part, scale in (("norm1", self.attention, "ls1"), ("norm2", self.mlp, "ls2")):
                block = f"{name}.{number}"
                change = part(block, self.norm(f"{block}.{norm}", x, tokens_normed))
                x = x + change * self.parameters.get(f"{block}.{scale}.gamma", 1.0)
            number += 1
        return x

    def attention(self, name, x):
        q, k, v = (torch.stack(part.chunk(self.heads, 2), 1) for part in self.linear(f"{name}.attn.qkv", x).chunk(3, 2))
        weights = torch.exp(q @ k.mT / q.shape[3] ** 0.5)
        values = weights / weights.sum(3, keepdim=True) @ v
        return self.linear(f"{name}.attn.proj", torch.cat(values.unbind(1), 2))

    def mlp(self, name, x):
        hidden = self.linear(f"{name}.mlp.fc1", x)
        return self.linear(f"{name}.mlp.fc2", hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)

    def branch(self, name, images, keep, positions, bn=True, patch=16):
        """Tokens after the projector; ``positions`` of the class token, if there is one, and of all cells."""
        weight = self.parameters[f"{name}.backbone.patch_embed.proj.weight"]
        rows = []
        for top in range(0, images.shape[2], patch):
            for left in range(0, images.shape[3], patch):
                rows.append(images[:, :, top : top + patch, left : left + patch].flatten(1) @ weight.flatten(1).T)
        x = torch.stack(rows, 1) + self.parameters[f"{name}.backbone.patch_embed.proj.bias"]
        leading = positions.shape[0] - x.shape[1]
        x = x + positions[leading:]
        if keep is not None:
            x = torch.stack([image[index] for image, index in zip(x, keep)])
        if leading:
            token = self.parameters[f"{name}.backbone.cls_token"] + positions[:1]
            x = torch.cat([token.expand(len(x), 1, -1), x], 1)
        x = self.blocks(f"{name}.backbone.blocks", x, tokens_normed=False)
        x = self.linear(f"{name}.projectors.sim_tokens.embed", x)
        return self.blocks(f"{name}.projectors.sim_tokens.blocks", x, tokens_normed=bn)

    def predictions(self, tokens, given, embedding, bn=True):
        """Of all cells whose ``embedding`` (N, P, 2D) this is, from tokens whose cells are at ``given`` (N, L, D)."""
        name = "objectives.sim.decoder"
        leading = tokens.shape[1] - given.shape[1]
        asked = self.parameters[f"{name}.mask_token"] + self.linear(f"{name}.position", embedding)
        x = torch.cat([tokens[:, :leading], tokens[:, leading:] + given, asked], 1)
        return self.linear(f"{name}.output", self.blocks(f"{name}.blocks", x, bn)[:, -asked.shape[1] :])


def waves(values, dim):
    angles = torch.as_tensor(values, dtype=torch.float64)[..., None] * torch.tensor(
        [10000 ** (-k / (dim // 2)) for k in range(dim // 2)], dtype=torch.float64
    )
    return torch.cat([angles.sin(), angles.cos()], -1)


def fixed_table(grid, dim):
    rows = [torch.cat([waves(y, dim // 2), waves(x, dim // 2)]) for y in range(grid[0]) for x in range(grid[1])]
    return torch.stack(rows)


def crop_embedding(first, second, grids, dim):
    """(P, 2D) of one image's crops, by way of source pixels."""
    (t1, l1, h1, w1, f1), (t2, l2, h2, w2, f2) = first, second
    (rows1, columns1), (rows2, columns2) = grids
    scales = [
        waves(10 * math.log(value), dim // 2) for value in (h2 / rows2 * rows1 / h1, w2 / columns2 * columns1 / w1)
    ]
    cells = []
    for r in range(rows2):
        for c in range(columns2):
            u = (c + 0.5) / columns2
            x, y = l2 + w2 * (1 - u if f2 else u), t2 + h2 * (r + 0.5) / rows2
            u, v = (x - l1) / w1, (y - t1) / h1
            x, y = columns1 * (1 - u if f1 else u) - 0.5, rows1 * v - 0.5
            cells.append(torch.cat([waves(y, dim // 2), waves(x, dim // 2), *scales]))
    return torch.stack(cells)


def plain_norm(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean(-1, keepdim=True) + 1e-5).sqrt()


def dense_loss(p, t, weight):
    p, t = p.flatten(0, -2), t.flatten(0, -2)
    matrix = torch.einsum("mi,mj->ij", t, t) / len(t)
    rows = ((p - t) ** 2).sum(1) + weight * torch.einsum("mi,ij,mj->m", p, matrix, p)
    return rows.mean() / p.shape[1]


def disturbed(model):
    """Every parameter moved, so that norms, biases and the target count."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model
