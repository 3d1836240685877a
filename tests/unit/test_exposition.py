"""Prometheus text as servers write it, and as they should not."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k9_broker.dialects.exposition import samples, total

ENGINES = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/m"} 3.0
vllm:num_requests_running{engine="1",model_name="org/m"} 2.0
vllm:num_requests_running_total{engine="0"} 900
vllm:num_requests_waiting{engine="0"} 0.0

vllm:kv_cache_usage_perc{engine="0"} 0.125
"""


@pytest.mark.parametrize(
    ("line", "sample"),
    [
        (b"up 1", ("up", {}, 1.0)),
        (b"tgi_queue_size 3\r", ("tgi_queue_size", {}, 3.0)),
        (b"llamacpp:requests_processing 1", ("llamacpp:requests_processing", {}, 1.0)),
        (b'a{b="c"} 1.5e3 1395066363000', ("a", {"b": "c"}, 1500.0)),
        (b'a { b = "c" , d="e", } -2', ("a", {"b": "c", "d": "e"}, -2.0)),
        (b"a{} 1", ("a", {}, 1.0)),
        (b"  a{ } 1  ", ("a", {}, 1.0)),
        (
            rb'a{path="C:\\DIR\\x",quote="\"}\"",line="one\ntwo",odd="\t"} 4',
            ("a", {"path": "C:\\DIR\\x", "quote": '"}"', "line": "one\ntwo", "odd": "t"}, 4.0),
        ),
        (b'a_bucket{le="+Inf"} +Inf', ("a_bucket", {"le": "+Inf"}, math.inf)),
        (b'a_bucket{le="1"} 5 # {trace_id="x"} 0.6 1.5', ("a_bucket", {"le": "1"}, 5.0)),
        ('a{b="é\u2028ü"} 1'.encode(), ("a", {"b": "é\u2028ü"}, 1.0)),
    ],
)
def test_a_sample_is_read(line, sample):
    assert list(samples(line)) == [sample]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"# TYPE a gauge",
        b"# EOF",
        b"a",
        b"a one",
        b"9a 1",
        b'a{b="c} 1',
        b"a{b=c} 1",
        b'a{b="c"',
        b'a{="c"} 1',
        b'a{b="c" d="e"} 1',
        b"a 1 2 3",
        b"<html><body>404</body></html>",
        b'{"error":"not found"}',
        b"\xff\xfe\x00",
    ],
)
def test_a_bad_line_is_skipped_and_the_next_is_read(line):
    assert list(samples(line + b"\nup 1\n")) == [("up", {}, 1.0)]


def test_the_sum_is_over_all_label_sets():
    assert total(ENGINES, "vllm:num_requests_running") == 5.0


def test_zero_is_told_apart_from_unknown():
    assert total(ENGINES, "vllm:num_requests_waiting") == 0.0
    assert total(ENGINES, "vllm:num_requests_swapped") is None
    assert total(b"", "a") is None
    assert total(b'{"error":"not supported"}', "a") is None


def test_the_first_name_that_is_there_counts():
    assert total(ENGINES, "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc") == 0.125
    both = b"new 1\nold 2\n"
    assert total(both, "new", "old") == 1.0
    assert total(both, "old", "new") == 2.0


def test_a_longer_name_is_another_name():
    assert total(b"queue_size_total 9\n", "queue_size") is None


def test_what_is_no_number_is_not_there():
    assert total(b"a NaN\nb 2\n", "a", "b") == 2.0
    assert total(b" a 1\n", "a") == 1.0
    assert total(b'a{x="1"} NaN\na{x="2"} 1\n', "a") == 1.0


@given(st.binary(max_size=300))
def test_no_body_is_too_strange(body):
    for name, labels, value in samples(body):
        assert name
        assert isinstance(value, float)
        assert all(isinstance(label, str) for label in labels)
    total(body, "a")


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), st.text(max_size=20).filter(str.isprintable)
    ),
    st.floats(allow_nan=False),
)
def test_what_is_written_is_read_back(labels, value):
    written = ",".join(
        f'{name}="' + text.replace("\\", r"\\").replace('"', r"\"") + '"' for name, text in labels.items()
    )
    assert list(samples(f"m{{{written}}} {value}\n".encode())) == [("m", labels, value)]


def test_long_answers_are_read_quickly():
    body = b"".join(b'bucket{le="%d",model_name="org/model",engine="0"} %d.0\n' % (n, n) for n in range(2000))
    assert len(body) > 90_000
    began = time.process_time()
    assert sum(1 for _ in samples(body)) == 2000
    assert time.process_time() - began < 0.25


@pytest.mark.parametrize(
    "line",
    [
        b'a{b="' + b"\\" * 50_000,
        b"a{" + b"x" * 50_000,
        b'a{b="c"}' + b" " * 50_000,
        b"a" + b" " * 50_000,
        b"a 1" + b" " * 50_000 + b"x",
        b"a{" + b'b="c",' * 20_000 + b"!} 1",
    ],
    ids=range(6),
)
def test_no_line_is_read_slowly(line):
    began = time.process_time()
    assert not list(samples(line))
    assert time.process_time() - began < 0.25
