"""Write `assets/domains/math.jsonl` from the problems that training never sees. Seeded; run it again, get the same.

python tools/make_math_domain.py
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from math_problems import TEMPLATES, problems

OUT = Path(__file__).resolve().parent.parent / "assets" / "domains" / "math.jsonl"
PROBLEMS_A_ROW = 6
ROWS = {"calibration": 100, "heldout": 60}


def main() -> None:
    stream = problems(seed=2026, reserved=True)
    seen: set[str] = set()
    fresh = (p for p in stream if not (p.question in seen or seen.add(p.question)))  # type: ignore[func-returns-value]
    rows = []
    for split, count in ROWS.items():
        for number in range(count):
            text = "\n\n".join(p.text for p in itertools.islice(fresh, PROBLEMS_A_ROW))
            rows.append({"id": f"problems-{split}-{number:03d}", "split": split, "text": text})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    sizes = {split: sum(len(r["text"].encode()) for r in rows if r["split"] == split) for split in ROWS}
    print(f"{len(TEMPLATES)} templates, bytes: {sizes}")


if __name__ == "__main__":
    main()
