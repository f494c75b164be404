"""The joint step in the `official` formulation, formula by formula, on the authors' own weights (METHOD 1, 2).

A slow version that anyone can believe, to be run in float64: networks are functions of weights under the authors'
names, every pass is made on its own, penalties are double backwards, the updates of D and of the memory spelt out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

Weights = dict[str, torch.Tensor]
Arrays = dict[str, torch.Tensor]


def literal_step(given: Arrays, states: dict[str, Weights]) -> Arrays:
    """What benchmarks/official_step.py writes, from what it reads; states: of `id`, `gen` and `dis`."""
    x, mesh, mesh_novel = given["x"], given["mesh"], given["mesh_nv"]
    E, G, D = states["id"], states["gen"], states["dis"]
    with torch.no_grad():
        code, embedding = encoded(E, x, training=False)
        results = {"eval_part": code, "eval_emb": embedding, "structure": structure(G, mesh)}
        results["decoded"] = decoded(G, results["structure"], code)
        results |= {f"dis_{scale}": scores for scale, scores in enumerate(judged(D, x))}

        code, f = encoded(E, x, training=True)
        images = {"recon": decoded(G, structure(G, mesh), code), "nv": decoded(G, structure(G, mesh_novel), code)}
        code_novel, f_novel = encoded(E, images["nv"], training=True)
        images["cyc"] = decoded(G, structure(G, mesh), code_novel)
        results |= {f"fwd_x_{name}": image for name, image in images.items()}
        results |= {"fwd_feat": code, "fwd_f": f}
        for name, image in images.items():
            results[f"fwd_feat_{name}"], results[f"fwd_f_{name}"] = encoded(E, image, training=True)

    fakes = {"recon": images["recon"], "nv": images["nv"], "nv2recon": images["cyc"]}
    of_discriminator = {f"loss_dis_{name}": discriminator_loss(D, x, fake) for name, fake in fakes.items()}
    total = sum(of_discriminator.values())
    results |= {name: loss.detach() for name, loss in of_discriminator.items()} | {"loss_dis_total": total.detach()}
    D = after_adam(D, total)

    terms = {
        "loss_gen_recon_x": (images["recon"] - x).abs().mean(),
        "loss_gen_cycrecon_x": (images["cyc"] - x).abs().mean(),
        "loss_gen_recon_f": (results["fwd_feat_recon"] - code).abs().mean(),
        "loss_gen_nv2recon_f": (results["fwd_feat_cyc"] - code).abs().mean(),
    }
    total = 5 * sum(terms.values())
    with torch.no_grad():
        for name, fake in fakes.items():
            terms[f"loss_gen_adv_{name}"] = sum(2 * (scores - 1).square().mean() for scores in judged(D, fake))
            total = total + terms[f"loss_gen_adv_{name}"]
    f, f_novel = unit(f), unit(f_novel)
    terms["memory_loss_id"] = contrast(f, f_novel, unit(given["bank"]), given["labels"], given["index"])
    bank = unit(given["bank"])
    for feature, i in zip(f, given["index"], strict=True):
        bank[i] = unit(0.2 * bank[i] + 0.8 * feature)
    return results | terms | {"loss_gen_total": total + terms["memory_loss_id"], "bank_after": bank}


def contrast(
    f: torch.Tensor, f_novel: torch.Tensor, bank: torch.Tensor, labels: torch.Tensor, index: torch.Tensor
) -> torch.Tensor:
    """L_vi + L_vi' + L_vi'', mean over the batch, for a bank whose clusters hold equal rows: any is the positive."""
    total = torch.zeros((), dtype=f.dtype)
    for b, i in enumerate(index):
        v_i, negatives = bank[i], bank[labels != labels[i]]
        of_negatives = (negatives @ f_novel[b] / 0.04).exp().sum()
        for anchor in (f[b], f_novel[b], f_novel[b]):
            positive = (anchor @ v_i / 0.04).exp()
            total = total - (positive / (positive + of_negatives)).log()
    return total / len(f)


def discriminator_loss(weights: Weights, x: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    for parameter in weights.values():
        parameter.requires_grad_()
    x = x.clone().requires_grad_()
    total = torch.zeros((), dtype=x.dtype)
    for of_fake, of_real in zip(judged(weights, fake), judged(weights, x), strict=True):
        (gradient,) = torch.autograd.grad(of_real.sum(), x, create_graph=True)
        penalty = gradient.square().sum((1, 2, 3)).mean()
        total = total + of_fake.square().mean() + (of_real - 1).square().mean() + 0.01 * penalty
    return total


def after_adam(weights: Weights, loss: torch.Tensor) -> Weights:
    """Adam's first step at 1e-4, weight decay 5e-4: its means, their bias taken out, are g and g^2."""
    moved = {}
    for (name, old), gradient in zip(weights.items(), torch.autograd.grad(loss, list(weights.values())), strict=True):
        g = gradient + 5e-4 * old.detach()
        moved[name] = old.detach() - 1e-4 * g / (g.square().sqrt() + 1e-8)
    return moved


def encoded(w: Weights, image: torch.Tensor, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """E_id: appearance code (B, 8192), entry 4 c + p is channel c of cell p, and embedding before normalisation."""

    def bn(name: str, x: torch.Tensor) -> torch.Tensor:
        shape = (1, -1, *(1 for _ in x.shape[2:]))
        if training:
            normal = standardised(x, (0, *range(2, x.ndim)))
        else:
            mean, var = w[f"{name}.running_mean"].view(shape), w[f"{name}.running_var"].view(shape)
            normal = (x - mean) / (var + 1e-5).sqrt()
        return normal * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(shape)

    x = F.conv2d(image, w["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(bn("bn1", x).relu(), 3, stride=2, padding=1)
    for layer, depth, first_stride in ((1, 3, 1), (2, 4, 2), (3, 6, 2), (4, 3, 1)):
        for number in range(depth):
            block, stride = f"layer{layer}.{number}", 1 if number else first_stride
            out = bn(f"{block}.bn1", F.conv2d(x, w[f"{block}.conv1.weight"])).relu()
            out = bn(f"{block}.bn2", F.conv2d(out, w[f"{block}.conv2.weight"], stride=stride, padding=1)).relu()
            out = bn(f"{block}.bn3", F.conv2d(out, w[f"{block}.conv3.weight"]))
            if not number:
                x = bn(f"{block}.downsample.1", F.conv2d(x, w[f"{block}.downsample.0.weight"], stride=stride))
            x = (x + out).relu()
    rows = x.shape[2]
    cells = [x[:, :, math.floor(p * rows / 4) : math.ceil((p + 1) * rows / 4)].mean((2, 3)) for p in range(4)]
    embedding = bn("feat_bn", x.mean((2, 3)) @ w["feat.weight"].T + w["feat.bias"])
    return torch.stack(cells, dim=2).flatten(1), embedding


def structure(w: Weights, mesh: torch.Tensor) -> torch.Tensor:
    """E_str."""
    x = mesh
    for layer, stride in enumerate((2, 1, 1, 2)):
        x = lrelu(instance_norm(conv(w, f"enc_content.model.{layer}.conv", x, stride)))
    for block in range(4):
        first, second = (f"enc_content.model.4.model.{block}.model.{i}.conv" for i in range(2))
        x = x + instance_norm(conv(w, second, lrelu(instance_norm(conv(w, first, x)))))
    pyramid = "enc_content.model.5"
    branches = [instance_norm(conv(w, f"{pyramid}.conv1.conv", x))]
    for dilation in (3, 6, 9):
        reduced = lrelu(instance_norm(conv(w, f"{pyramid}.conv{2 * dilation}.0.conv", x)))
        branches.append(instance_norm(conv(w, f"{pyramid}.conv{2 * dilation}.1.conv", reduced, dilation=dilation)))
    return instance_norm(conv(w, f"{pyramid}.fuse.conv", torch.cat(branches, dim=1)))


def decoded(w: Weights, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """G of a structure map and an appearance code."""
    for k in range(4):
        part = code[:, 2048 * k : 2048 * (k + 1)]
        gain, offset = mlp(w, f"mlp_w{k + 1}", part), mlp(w, f"mlp_b{k + 1}", part)
        hidden = x
        for i in range(2):
            here = slice(128 * i, 128 * (i + 1))
            hidden = instance_norm(conv(w, f"dec.model.1.model.{k}.model.{i}.conv", hidden))
            hidden = hidden * gain[:, here, None, None] + offset[:, here, None, None]
            hidden = hidden if i else lrelu(hidden)
        x = x + hidden
    for layer in (3, 5):
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        x = conv(w, f"dec.model.{layer}.conv", x)
        x = (x - x.mean((1, 2, 3), keepdim=True)) / (x.std((1, 2, 3), keepdim=True) + 1e-5)
        gain, offset = w[f"dec.model.{layer}.norm.gamma"], w[f"dec.model.{layer}.norm.beta"]
        x = lrelu(x * gain[:, None, None] + offset[:, None, None])
    for layer in (6, 7):
        x = lrelu(conv(w, f"dec.model.{layer}.conv", x))
    return conv(w, "dec.model.8.conv", x)


def judged(w: Weights, image: torch.Tensor) -> list[torch.Tensor]:
    """D: a map of scores for the image, its half and its quarter."""
    maps = []
    for scale in range(3):
        if scale:
            image = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
        x = image
        for layer, stride in enumerate((1, 1, 2, 1, 2)):
            x = lrelu(conv(w, f"cnns.{scale}.{layer}.conv", x, stride))
        for block in range(5, 9):
            first, second = (f"cnns.{scale}.{block}.model.{i}.conv" for i in range(2))
            x = x + conv(w, second, lrelu(conv(w, first, x)))
        maps.append(conv(w, f"cnns.{scale}.9", x))
    return maps


def mlp(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    for layer in range(3):
        x = x @ w[f"{name}.model.{layer}.fc.weight"].T + w[f"{name}.model.{layer}.fc.bias"]
        x = lrelu(x) if layer < 2 else x
    return x


def conv(w: Weights, name: str, x: torch.Tensor, stride: int = 1, dilation: int = 1) -> torch.Tensor:
    """With reflect padding that keeps the size, and a bias."""
    padding = dilation * (w[f"{name}.weight"].shape[-1] // 2)
    padded = F.pad(x, [padding] * 4, mode="reflect")
    return F.conv2d(padded, w[f"{name}.weight"], w[f"{name}.bias"], stride, dilation=dilation)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def instance_norm(x: torch.Tensor) -> torch.Tensor:
    return standardised(x, (2, 3))


def standardised(x: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """(x - mean) / sqrt(biased variance + 1e-5), both over `dims`."""
    centred = x - x.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True) + 1e-5).sqrt()


def lrelu(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, 0.2 * x)
