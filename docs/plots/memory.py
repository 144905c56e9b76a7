#!/usr/bin/env python3
"""Measures what registered memory costs and draws docs/plots/memory-*.svg.

    docs/plots/memory.py            measures over the direct link and in a guest; keeps the figures in memory.json
    docs/plots/memory.py direct     measures over the direct link only, and keeps what memory.json says of guests
    docs/plots/memory.py guest      the other way round
    docs/plots/memory.py redraw     draws what is in memory.json

Lazy and eager take turns, three each; of each figure the least median counts.

It takes what `make build` builds. Measure on a quiet machine.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILT = HERE.parent.parent / "target" / "release"
FIGURES = HERE / "memory.json"
LIVE = [1, 1000, 100000]
ROUNDS = 3
COMMAND = f"vip-memory --json --live {','.join(map(str, LIVE))}"
EAGER = "/sys/module/vianic/parameters/eager_deregistration"


def rows(output):
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def direct_round(eager):
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "nic.sock"
        card = subprocess.Popen([BUILT / "vianic-device", "--socket-path", socket], stderr=subprocess.DEVNULL)
        try:
            while not socket.exists():
                if card.poll() is not None:
                    sys.exit("the card has ended")
                time.sleep(0.01)
            environment = dict(os.environ, VIANIC_EAGER_DEREGISTRATION=str(int(eager)))
            command = [BUILT / COMMAND.split()[0], *COMMAND.split()[1:], "--nic", f"direct:{socket}"]
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        finally:
            card.terminate()
            card.wait()
    return rows(output)


def direct():
    rounds = {False: [], True: []}
    for _ in range(ROUNDS):
        for eager in (False, True):
            rounds[eager].append(direct_round(eager))
    return rounds


def guest():
    turn = f"for eager in 0 1; do echo $eager > {EAGER}; echo round $eager; {COMMAND} || exit 1; done"
    script = f"for i in {' '.join(map(str, range(ROUNDS)))}; do {turn}; done"
    command = [BUILT / "vianic", "run", "--memory", "2048", "--", "sh", "-c", script]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rounds = {False: [], True: []}
    for part in output.split("round ")[1:]:
        rounds[part.startswith("1")].append(rows(part))
    return rounds


def least(rounds):
    """Of each figure the least median: what the machine's other work has disturbed least."""
    best = []
    for measured in zip(*rounds):
        kinds = [key for key in measured[0] if key.endswith("_ns")]
        best.append({"live": measured[0]["live"], **{key: min(row[key]["median"] for row in measured) for key in kinds}})
    return best


def measure(places):
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for place in places:
        rounds = {"direct link": direct, "guest": guest}[place]()
        figures[place] = {"lazy": least(rounds[False]), "eager": least(rounds[True])}
    figures = {place: figures[place] for place in ("direct link", "guest") if place in figures}
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 320, 64, 40, 56
COLOURS = {"lazy": "#2a7f62", "eager": "#c1533b", "hit": "#2a7f62", "miss": "#c1533b"}


def text(x, y, what, anchor="middle", size=12):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">{what}</text>'


def bars(title, groups):
    """Groups of bars over a common scale, in microseconds: [(label, {name: nanoseconds})]."""
    top = max(value for _, group in groups for value in group.values()) / 1000 * 1.15
    plot = HEIGHT - TOP - BOTTOM
    place = lambda value: TOP + plot * (1 - value / top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text(WIDTH / 2, 22, title, size=14),
        text(14, TOP - 10, "µs", "start"),
    ]
    for tick in range(5):
        value = top * tick / 4
        parts.append(f'<path d="M{LEFT} {place(value):.1f}H{WIDTH - 12}" stroke="#ddd"/>')
        parts.append(text(LEFT - 6, place(value) + 4, f"{value:.3g}", "end"))
    step = (WIDTH - LEFT - 12) / len(groups)
    for number, (label, group) in enumerate(groups):
        width = step * 0.7 / len(group)
        for i, (name, value) in enumerate(group.items()):
            x, y = LEFT + step * (number + 0.15) + width * i, place(value / 1000)
            parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{TOP + plot - y:.1f}" fill="{COLOURS[name]}"/>')
            parts.append(text(x + width / 2, y - 4, f"{value / 1000:.3g}", size=10))
        parts.append(text(LEFT + step * (number + 0.5), HEIGHT - BOTTOM + 18, label))
    for i, name in enumerate(groups[0][1]):
        parts.append(f'<rect x="{LEFT + 90 * i}" y="{HEIGHT - 20}" width="12" height="12" fill="{COLOURS[name]}"/>')
        parts.append(text(LEFT + 90 * i + 18, HEIGHT - 10, name, "start"))
    return "\n".join(parts + ["</svg>", ""])


def draw(figures):
    for place, modes in figures.items():
        name = place.split()[0]
        labels = [f"{row['live']:,} region" + "s" * (row["live"] > 1) for row in modes["lazy"]]
        deregister = [{mode: modes[mode][i]["deregister_ns"] for mode in ("lazy", "eager")} for i in range(len(labels))]
        post = [{kind: row[f"post_{kind}_ns"] for kind in ("hit", "miss")} for row in modes["lazy"]]
        for what, title, groups in [
            ("deregister", f"VipDeregisterMem, {place}", deregister),
            ("post", f"From post to completion, 64 bytes, {place}", post),
        ]:
            (HERE / f"memory-{what}-{name}.svg").write_text(bars(title, list(zip(labels, groups))))


def table(figures):
    print("| | regions | register | deregister, lazy | eager | post, hit | miss |")
    print("|---|---|---|---|---|---|---|")
    for place, modes in figures.items():
        for lazy, eager in zip(modes["lazy"], modes["eager"]):
            us = [lazy["register_ns"], lazy["deregister_ns"], eager["deregister_ns"], lazy["post_hit_ns"], lazy["post_miss_ns"]]
            print(f"| {place} | {lazy['live']:,} | " + " | ".join(f"{value / 1000:.3g} µs" for value in us) + " |")


if __name__ == "__main__":
    places = {(): ["direct link", "guest"], ("direct",): ["direct link"], ("guest",): ["guest"], ("redraw",): []}
    if tuple(sys.argv[1:]) not in places:
        sys.exit(__doc__)
    measure(places[tuple(sys.argv[1:])])
    shown = json.loads(FIGURES.read_text())
    draw(shown)
    table(shown)
