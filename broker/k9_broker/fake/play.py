"""Plays a script to the caller: at the pace of the behaviour, and with its faults."""

from __future__ import annotations

from time import monotonic

from k9_broker.fake.exchange import Exchange, Gone
from k9_broker.fake.faults import Behaviour
from k9_broker.fake.script import Script


async def play(
    exchange: Exchange, script: Script, behaviour: Behaviour, *, load: float, faulted: bool
) -> None:
    """Send the whole script, or what a fault leaves of it. Raises `Gone` when the caller leaves.

    `load` is the seconds until the model is in memory; `faulted` whether the faults of the
    connection strike this request.
    """
    if faulted and behaviour.hang:
        await exchange.gone()
        raise Gone
    if faulted and behaviour.reset:
        exchange.reset()
        return
    if faulted and behaviour.die_after_head:
        await exchange.pause(load + _before(script, behaviour) / 1000)
        length = None if script.streamed else len(script.frames[0][1])
        await exchange.begin(200, script.content_type, script.headers, length)
        exchange.cut()
        return
    start = monotonic() + load + _before(script, behaviour) / 1000
    gap = 1 / behaviour.tokens_per_second if behaviour.tokens_per_second else 0.0
    cut = behaviour.cut_after_tokens if faulted else None
    broken = behaviour.error_after_tokens if faulted else None
    stalled = behaviour.stall_after_tokens if faulted else None
    if not script.streamed:
        if (wait := start + gap * max(0, script.tokens - 1) - monotonic()) > 0:
            await exchange.pause(wait)
        half = cut is not None or stalled is not None
        await _whole(exchange, script, half=half, broken=broken is not None)
        if stalled is not None:
            await _silence(exchange)
        elif half:
            exchange.cut()
        return
    limits = (limit for limit in (cut, broken, stalled) if limit is not None)
    end = min(limits, default=script.tokens + 1)
    due_now: list[bytes] = []
    begun = False
    for tokens, data in script.frames:
        if tokens > end:
            break
        # A frame that ends the stream leaves with the last token, not a token's time later.
        wait = start + gap * max(0, min(tokens, script.tokens) - 1) - monotonic()
        if wait > 0:
            if due_now:
                await exchange.write(b"".join(due_now))
                due_now.clear()
            await exchange.pause(wait)
        if not begun:
            await exchange.begin(200, script.content_type, script.headers)
            begun = True
        due_now.append(data)
    if not begun:
        await exchange.begin(200, script.content_type, script.headers)
    if end > script.tokens:
        await exchange.write(b"".join(due_now), more=False)
    elif end == cut:
        await exchange.write(b"".join(due_now))
        exchange.cut()
    elif end == stalled:
        await exchange.write(b"".join(due_now))
        await _silence(exchange)
    else:
        await exchange.write(b"".join([*due_now, script.error]), more=False)


def _before(script: Script, behaviour: Behaviour) -> float:
    """Milliseconds before the first token, or before the vectors."""
    first = behaviour.first_token_ms + behaviour.prompt_token_ms * script.prompt if script.tokens else 0.0
    return behaviour.latency_ms + first + behaviour.per_input_ms * script.inputs


async def _whole(exchange: Exchange, script: Script, *, half: bool, broken: bool) -> None:
    """Send a plain answer: all of it, half of it, or an error with status 200."""
    data = script.error if broken and not half else script.frames[0][1]
    await exchange.begin(200, script.content_type, script.headers, len(data))
    if half:
        await exchange.write(data[: len(data) // 2])
    else:
        await exchange.write(data, more=False)


async def _silence(exchange: Exchange) -> None:
    """Keep the connection and say nothing until the caller leaves. Raises `Gone` then."""
    await exchange.gone()
    raise Gone
