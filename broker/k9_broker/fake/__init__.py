"""A language model server that has no model: deterministic, fast, and adjustable while it runs.

It speaks the wire formats of OpenAI, Azure OpenAI, Anthropic, Ollama, vLLM, TGI, TEI and
llama.cpp on one real port, so that everything above a backend (dialects, transports, queues,
clients) can be tried and measured without a GPU, a key or a network. The same request always
gets the same bytes, but for Anthropic's cache, which remembers, and for what is left of a limit
of rate. The path tells the wire; where several servers share a path, the behaviour's `flavour`
does. Latency, tokens per second, keys, limits and faults are one frozen `Behaviour`, read and
changed over HTTP under `/fake/`:

- `GET /fake/behaviour`, `PATCH` to change fields, `PUT` to replace all of it;
- `GET /fake/stats` (`DELETE` clears them), `GET /fake/requests` for what arrived last.

Floors, each knowing only those below it: `server` runs `app` on a port; `app` leads a request
through the `gate` to its wire and `play` sends the answer in time and with faults; `wires` knows
all wires. A wire is a class: `wire` says what every one has, `openai_wire` writes what OpenAI
and its likes (`azure_wire`, `vllm_wire`, `tgi_chat`, `tei_wire`, `llamacpp_wire`) share, and
`anthropic_wire`, `ollama_wire` and `tgi_wire` stand alone. What a wire writes is a `script`: what
is sent and when. `exchange` and `slots` do the sending and the waiting, `allowance` holds the
limits of rate, `faults` the behaviour, `sightings` the counters; `answers`, `samples` and
`vectors` say what is answered.
"""
