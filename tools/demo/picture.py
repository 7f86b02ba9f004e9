#!/usr/bin/env python3
"""Draws the README's picture from the demo's own numbers (standard library only):

    upright demo --json > demo.json
    python3 tools/demo/picture.py demo.json assets/demo.svg

Each point is where a method ends, in the plane of both losses on training rows, with its standard error; the star is the
ideal point, both losses as small as when each is trained alone. Axes are logarithmic.
"""
import json, math, sys

story = json.load(open(sys.argv[1]))
W, H, L, R, T, B = 760, 430, 74, 24, 46, 60
SET = 1  # training rows
MARKS = {"dpo, then sft": ("#b4451f", "square"), "sft, then dpo": ("#b4451f", "diamond"), "mix": ("#6b7280", "circle"),
         "alright": ("#0f6fb4", "circle"), "maxright": ("#0b7a4b", "triangle")}
NAMES = {"dpo, then sft": "Sequential: DPO, then SFT", "sft, then dpo": "Sequential: SFT, then DPO", "mix": "Mix (costs twice)",
         "alright": "ALRIGHT", "maxright": "MAXRIGHT"}
ideal = (story["optima"][0][SET], story["optima"][1][SET])
points = [(m["method"], m["sft"][SET], m["dpo"][SET]) for m in story["methods"]]
start = (story["start"][0][SET], story["start"][1][SET])
xs = [ideal[0], start[0]] + [p[1]["mean"] for p in points]
ys = [ideal[1], start[1]] + [p[2]["mean"] for p in points]
pad = 1.35
x0, x1, y0, y1 = min(xs) / pad, max(xs) * pad, min(ys) / pad, max(ys) * pad
X = lambda v: L + (W - L - R) * math.log(v / x0) / math.log(x1 / x0)
Y = lambda v: H - B - (H - T - B) * math.log(v / y0) / math.log(y1 / y0)

def ticks(a, b):
    values = [m * 10**e for e in range(-4, 4) for m in (1, 2, 5)]
    return [v for v in values if a <= v <= b]

def shape(kind, x, y, color):
    s = 7
    path = {"square": f"M{x-s} {y-s}h{2*s}v{2*s}h{-2*s}z", "diamond": f"M{x} {y-s*1.3}L{x+s*1.3} {y}L{x} {y+s*1.3}L{x-s*1.3} {y}z",
            "triangle": f"M{x} {y-s*1.2}L{x+s*1.2} {y+s}L{x-s*1.2} {y+s}z"}.get(kind)
    return f'<path d="{path}" fill="{color}"/>' if path else f'<circle cx="{x}" cy="{y}" r="{s}" fill="{color}"/>'

out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {W} {H}" font-family="system-ui, sans-serif" font-size="13">',
       '<style>.i{fill:#1f2937}.m{fill:#4b5563}.g{stroke:#d1d5db;stroke-width:1}.bg{fill:#fff}'
       '@media(prefers-color-scheme:dark){.bg{fill:#0d1117}.i{fill:#e5e7eb}.m{fill:#9ca3af}.g{stroke:#30363d}}</style>',
       f'<rect class="bg" width="{W}" height="{H}" rx="8"/>',
       f'<text class="i" x="{L}" y="26" font-size="15" font-weight="600">Where each method ends after the same number of steps '
       f'({story["steps"]}; {len(story["seeds"])} seeds)</text>']
for v in ticks(x0, x1):
    out.append(f'<line class="g" x1="{X(v):.1f}" x2="{X(v):.1f}" y1="{T}" y2="{H-B}"/><text class="m" x="{X(v):.1f}" y="{H-B+18}" text-anchor="middle">{v:g}</text>')
for v in ticks(y0, y1):
    out.append(f'<line class="g" x1="{L}" x2="{W-R}" y1="{Y(v):.1f}" y2="{Y(v):.1f}"/><text class="m" x="{L-8}" y="{Y(v)+4:.1f}" text-anchor="end">{v:g}</text>')
out.append(f'<text class="i" x="{(L+W-R)/2}" y="{H-14}" text-anchor="middle">SFT loss (nats a token, log scale; smaller is better)</text>')
out.append(f'<text class="i" transform="translate(20 {(T+H-B)/2}) rotate(-90)" text-anchor="middle">DPO loss (nats, log scale)</text>')
PLACES = {"alright": ("end", -13, 4), "maxright": ("start", 13, 1), "mix": ("end", -13, 10), "sft, then dpo": ("end", 12, -14)}
def label(x, y, text, cls="i", weight=400, place=("start", 13, 4)):
    anchor, dx, dy = place
    out.append(f'<text class="{cls}" x="{x+dx:.1f}" y="{y+dy:.1f}" text-anchor="{anchor}" font-weight="{weight}">{text}</text>')
sx, sy = X(ideal[0]), Y(ideal[1])
star = " ".join(f"{sx + r*math.sin(k*math.pi/5):.1f},{sy - r*math.cos(k*math.pi/5):.1f}" for k, r in ((k, 11 if k % 2 == 0 else 4.6) for k in range(10)))
out.append(f'<polygon points="{star}" fill="#d99a00"/>'); label(sx, sy, "ideal: each trained alone")
bx, by = X(start[0]), Y(start[1])
out.append(f'<circle cx="{bx:.1f}" cy="{by:.1f}" r="5" fill="none" class="i" stroke="#6b7280" stroke-width="2"/>'); label(bx, by, "start", "m")
for name, sft, dpo in points:
    color, kind = MARKS[name]; x, y = X(sft["mean"]), Y(dpo["mean"])
    span = lambda s: (max(s["mean"] - s["error"], 1e-6), s["mean"] + s["error"])
    for (a, b), vertical in ((span(sft), False), (span(dpo), True)):
        if vertical: out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{Y(max(a,y0)):.1f}" y2="{Y(b):.1f}" stroke="{color}" stroke-width="1.5"/>')
        else: out.append(f'<line x1="{X(max(a,x0)):.1f}" x2="{X(b):.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{color}" stroke-width="1.5"/>')
    out.append(shape(kind, round(x, 1), round(y, 1), color)); label(x, y, NAMES[name], "i", 600 if "RIGHT" in NAMES[name] else 400, PLACES.get(name, ("start", 13, 4)))
out.append("</svg>\n")
open(sys.argv[2], "w").write("\n".join(out))
