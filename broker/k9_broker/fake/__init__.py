"""A language model server that has no model: deterministic, fast, and adjustable while it runs.

It speaks OpenAI's and Ollama's wire formats on a real port, so that everything above a backend
(dialects, transports, queues, clients) can be tried and measured without a GPU, a key or a
network. The same request always gets the same bytes. Latency, tokens per second and faults are
one frozen `Behaviour`, read and changed over HTTP under `/fake/`:

- `GET /fake/behaviour`, `PATCH` to change fields, `PUT` to replace all of it;
- `GET /fake/stats` (`DELETE` clears them), `GET /fake/requests` for what arrived last.

Floors, each knowing only those below it: `server` runs `app` on a port; `app` routes, `play`
sends in time and with faults; `openai_wire` (with `openai_asks`) and `ollama_wire` write a
`script`, which says what is sent and when; `exchange` and `slots` do the sending and the
waiting; `faults` holds behaviour and counters; `answers`, `samples` and `vectors` say what is
answered.
"""
