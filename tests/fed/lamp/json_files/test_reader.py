"""The scanner, against `json.loads` of the whole text, for every way of cutting a file into chunks."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fed.lamp.json_files.reader import read_records, read_whole
from fed.lamp.records import RecordError

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.sampled_from('a"\\/[]{},:é漢😀\n\u2028 ')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(st.text(max_size=4), values, max_size=4), min_size=1, max_size=6)
anywhere = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def scan(path, **chunk):
    return list(read_records(path, **chunk))


@anywhere
@given(data=records, chunk=st.integers(1, 40), ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_any_chunk_size_gives_the_same_records(tmp_path, data, chunk, ascii_only, indent):
    path = tmp_path / "users.json"
    path.write_text(json.dumps(data, ensure_ascii=ascii_only, indent=indent), "utf-8")
    assert scan(path, chunk_bytes=chunk) == list(enumerate(data, 1))


@anywhere
@given(data=records, chunk=st.integers(1, 40), cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_always_refused(tmp_path, data, chunk, cut):
    whole = json.dumps(data, ensure_ascii=False).encode("utf-8")
    path = tmp_path / "users.json"
    path.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(RecordError, match="users.json"):
        scan(path, chunk_bytes=chunk)


@anywhere
@given(data=records)
def test_json_lines_give_the_line_numbers(tmp_path, data):
    path = tmp_path / "users.jsonl"
    path.write_text("\n\n".join(json.dumps(one, ensure_ascii=False) for one in data), "utf-8", newline="\n")
    assert scan(path) == [(2 * n + 1, one) for n, one in enumerate(data)]


@pytest.mark.parametrize("chunk", [1, 2, 1000])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_byte_order_mark_is_skipped(tmp_path, name, chunk):
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + (b'[{"a": 1}]' if name == "a.json" else b'{"a": 1}\n'))
    assert scan(path, chunk_bytes=chunk) == [(1, {"a": 1})]


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b'[{"a": 1}, {"a" 2}]', r"record 2: line 1: not valid JSON \(Expecting ':' delimiter\); got '2"),
        (b'[{"a": 1},\n{"a": tru}]', r"record 2: line 2: not valid JSON \(Expecting value\)"),
        (b'[{"a": 1}\n{"a": 1}]', r"record 1: line 2: after a record must come ','"),
        (b'[{"a": 1},]', r"record 2: line 1: a record must be a JSON object; got '\]'"),
        (b'[{"a": 1}', r"record 1: line 1: after a record .* got 'the end of the file'"),
        (b'[{"a": "x', r"record 1: line 1: not valid JSON \(Unterminated string"),
        (b'[{"a": 1}] []', r"record 1: line 1: nothing may follow the array's closing"),
        (b'{"a": 1}', r"a.json: line 1: a .json file must be one array of records"),
        (b'[{"a": 1}, 3]', r"record 2: line 1: a record must be a JSON object; got '3"),
        (b"", r"must be one array of records .*; got 'the end of the file'"),
        (b"[ ]", r"the file must hold at least one record"),
        (
            b'[{"a": "\xff"}]',
            r"record 1: the file must be UTF-8, and the byte at offset 8 is not; got b'\\xff'",
        ),
        (b'[{"a": 1}, {"b": "\xc3"}]', r"record 2: the file must be UTF-8, and the byte at offset 18 is not"),
        (b'[{"a": ' + b"1" * 5000 + b"}]", r"record 1: .*not valid JSON"),
        (b'[{"a": ' + b"[" * 200_000 + b"]}]", r"record 1: .*not valid JSON"),
    ],
)
def test_broken_arrays_are_refused_with_their_place(tmp_path, text, where, chunk):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(RecordError, match=where) as caught:
        scan(path, chunk_bytes=chunk)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (b'{"a": 1}\n{"a": }\n', r"a.jsonl: record 2: column 7: not valid JSON \(Expecting value\)"),
        (b'{"a": 1}\n[1]\n', r"a.jsonl: record 2: a record must be a JSON object; got \[1\]"),
        (b'{"a": 1}\n{"\xff": 1}\n', r"a.jsonl: record 2: .*the byte at offset 11 is not"),
        (b"\n\n", r"a.jsonl: the file must hold at least one record"),
    ],
)
def test_broken_lines_are_refused_with_their_place(tmp_path, text, where):
    path = tmp_path / "a.jsonl"
    path.write_bytes(text)
    with pytest.raises(RecordError, match=where):
        scan(path)


def test_an_error_in_the_middle_is_found_without_reading_the_rest(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a": 1}, {"b" 2}, ' + b'{"c": 3}, ' * 100_000 + b"\xff]")
    with pytest.raises(RecordError, match="record 2: line 1: not valid JSON"):  # not: the byte \xff at the end
        scan(path, chunk_bytes=100)


def test_decoding_work_stays_linear_in_a_large_record(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": ["x" * 50] * 20_000}]))
    decoder = json.JSONDecoder()
    decoded = []

    class Counting:
        def raw_decode(self, text, at):
            decoded.append(len(text) - at)
            return decoder.raw_decode(text, at)

    monkeypatch.setattr("fed.lamp.json_files.array.json.JSONDecoder", Counting)
    assert len(scan(path, chunk_bytes=100)) == 1
    assert sum(decoded) < 4 * path.stat().st_size


def test_a_whole_file_is_read_and_its_errors_are_placed(tmp_path):
    path = tmp_path / "outputs.json"
    path.write_text('{"golds": []}')
    assert read_whole(path) == {"golds": []}
    path.write_text('{"golds":\n ]}')
    with pytest.raises(RecordError, match=r"outputs.json: line 2 column 2: not valid JSON"):
        read_whole(path)
