"""The other side of `embed_batch.py`: a client that embeds a file with no queue in between.

    python direct_embed.py URL MODEL CONCURRENCY LINES.jsonl OUT.npy

As fast as a careful person would write it: asynchronous, 256 lines a call, base64 vectors, one
array written at the end, and the ids beside it. Says its lines per second.
"""

from __future__ import annotations

import asyncio
import sys
from base64 import b64decode
from pathlib import Path
from time import perf_counter

import aiohttp
import numpy as np
import uvloop
from pydantic_core import from_json, to_json

BATCH = 256


async def main(url: str, model: str, concurrency: int, source: Path, out: Path) -> None:
    began = perf_counter()
    texts = [from_json(line)["text"] for line in source.read_bytes().splitlines()]
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    arrays: list[np.ndarray] = [np.empty(0)] * len(batches)
    left = iter(enumerate(batches))
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one_after_the_other() -> None:
            for place, batch in left:
                body = to_json({"model": model, "input": batch, "encoding_format": "base64"})
                headers = {"content-type": "application/json"}
                async with session.post(f"{url}/v1/embeddings", data=body, headers=headers) as reply:
                    said = from_json(await reply.read())
                packed = b"".join(b64decode(row["embedding"]) for row in said["data"])
                arrays[place] = np.frombuffer(packed, "<f4").reshape(len(batch), -1)

        await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    np.save(out, np.concatenate(arrays))
    ids = b"".join(b'{"id":"%d"}\n' % number for number in range(1, len(texts) + 1))
    out.with_name(out.name + ".ids.jsonl").write_bytes(ids)
    print(len(texts) / (perf_counter() - began))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), Path(sys.argv[5])))
